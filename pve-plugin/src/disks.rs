//! Decides for every disk of a VM: replicated, left out for a reason, or in the way.
//!
//! Nothing is left out silently. A disk that is no data (a CD, a generated cloud-init drive) or that
//! somebody chose to leave out is listed as skipped; any other that cannot be replicated is an error, and
//! the error names all of them at once.

mod choice;
mod hidden;
mod locate;
mod notes;

pub use choice::Choice;
pub use locate::{locate, Location};

use crate::drive::{DiskKey, Drive, DriveTarget};
use crate::replica_config;
use crate::storage_cfg::StorageCfg;
use crate::vm_config::VmConfig;
use crate::volid::{Role, Vmid, Volid};
use hidden::hidden_disks;
use notes::notes;
use rblocksync::error::{Error, Kind, Result};
use std::fmt;

/// A disk that is replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Where it hangs in the VM.
    pub key: DiskKey,
    /// The volume's id.
    pub volid: Volid,
    /// The volume's place on this host.
    pub location: Location,
    /// Size in bytes by the configuration, if given; the volume has the truth.
    pub size: Option<u64>,
    /// The configuration line.
    pub drive: Drive,
}

/// Why a line of the configuration is not replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SkipReason {
    /// A CD drive without a medium.
    Empty,
    /// A CD image or the host's CD drive.
    Cd,
    /// Proxmox generates it on the target from the configuration.
    CloudInit,
    /// Left out with `--exclude`.
    Excluded,
    /// The disk's own option `replicate=0`.
    ReplicateOff,
    /// The disk's own option `backup=0`, with `--skip-no-backup`.
    NoBackup,
    /// Left out by the sync, which the target knows no more about.
    LeftOut,
    /// Not attached to the VM.
    Unused,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SkipReason::Empty => "empty CD drive",
            SkipReason::Cd => "CD, ejected on the replica",
            SkipReason::CloudInit => "generated anew by Proxmox on the target",
            SkipReason::Excluded => "excluded by --exclude",
            SkipReason::ReplicateOff => "excluded by its option replicate=0",
            SkipReason::NoBackup => "excluded by --skip-no-backup, as it has backup=0",
            SkipReason::LeftOut => "left out of the sync",
            SkipReason::Unused => "not attached to the VM",
        })
    }
}

/// A line that is not replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The configuration key. Nearly always a disk key; also `args` or a key of a newer Proxmox.
    pub key: String,
    /// The line's value.
    pub value: String,
    /// Why.
    pub reason: SkipReason,
}

/// What [`resolve`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The VM.
    pub vmid: Vmid,
    /// What is replicated, in file order. Never empty.
    pub disks: Vec<Disk>,
    /// What is not, in file order.
    pub skipped: Vec<Skipped>,
    /// Other things the operator should know: pending changes, snapshots that stay behind.
    pub notes: Vec<String>,
}

/// Decides for every disk of the VM's current configuration, as usual. `exclude` holds configuration keys.
pub fn resolve(
    vmid: Vmid,
    config: &VmConfig,
    storages: &StorageCfg,
    node: &str,
    exclude: &[String],
) -> Result<Resolved> {
    let choice = Choice::without(exclude);
    resolve_with(vmid, config, storages, node, &choice)
}

/// Decides for every disk of the VM's current configuration, by what the user wants of it.
pub fn resolve_with(
    vmid: Vmid,
    config: &VmConfig,
    storages: &StorageCfg,
    node: &str,
    choice: &Choice,
) -> Result<Resolved> {
    check_state(vmid, config)?;
    let exclude = check_excludes(vmid, config, &choice.exclude)?;
    let excluded = |key: &str| exclude.iter().any(|e| e == key);
    let place = Place {
        vmid,
        is_template: config.is_template(),
        storages,
        node,
        choice,
    };
    let mut resolved = Resolved {
        vmid,
        disks: Vec::new(),
        skipped: Vec::new(),
        notes: notes(config),
    };
    let mut problems: Vec<(String, String, String)> = Vec::new();
    for drive in config.drives() {
        let key = drive.key.to_string();
        if let Some(reason) = skip_reason(drive, excluded(&key), choice) {
            resolved.skipped.push(Skipped {
                key,
                value: drive.value(),
                reason,
            });
            continue;
        }
        match place.replicate(drive) {
            Ok((disk, note)) => match resolved.disks.iter().find(|d| d.volid == disk.volid) {
                Some(_) if choice.passes_over => resolved.skipped.push(Skipped {
                    key,
                    value: drive.value(),
                    reason: SkipReason::LeftOut,
                }),
                Some(twin) => problems.push((
                    key,
                    drive.target.to_string(),
                    format!("is also attached as {}", twin.key),
                )),
                None => {
                    resolved.disks.push(disk);
                    resolved.notes.extend(note);
                }
            },
            Err(_) if choice.passes_over => resolved.skipped.push(Skipped {
                key,
                value: drive.value(),
                reason: SkipReason::LeftOut,
            }),
            Err(e) => problems.push((key, drive.target.to_string(), e.to_string())),
        }
    }
    for (key, value, why) in hidden_disks(config) {
        if excluded(key) || choice.passes_over {
            resolved.skipped.push(Skipped {
                key: key.to_owned(),
                value: value.to_owned(),
                reason: SkipReason::Excluded,
            });
        } else {
            let shown = value.escape_debug().to_string();
            problems.push((key.to_owned(), shown, why.to_owned()));
        }
    }
    if !problems.is_empty() {
        return Err(in_the_way(vmid, &problems));
    }
    if resolved.disks.is_empty() {
        return Err(Error::new(
            Kind::Refused,
            format!("VM {vmid} has no disk to replicate"),
        ));
    }
    Ok(resolved)
}

/// Refuses VMs that are no VMs of their own right now.
fn check_state(vmid: Vmid, config: &VmConfig) -> Result<()> {
    if let (Some(pair), true) = (replica_config::pair_of(config), config.lock().is_some()) {
        return Err(Error::new(
            Kind::Refused,
            format!("VM {vmid} is itself a replica (pair {pair})"),
        )
        .advise("replicate the VM it is a replica of, or take the replica over first"));
    }
    if let Some(lock) = config.lock() {
        let advice = match lock {
            "suspended" => "resume or stop the VM: its memory is saved and would not fit its disks",
            _ => "wait for the running task; if none is left, clear the lock with qm unlock",
        };
        return Err(Error::new(
            Kind::Busy,
            format!("VM {vmid} is locked ({})", lock.escape_debug()),
        )
        .advise(advice));
    }
    Ok(())
}

/// Checks that every excluded key is there and can be excluded; returns them in their usual spelling.
fn check_excludes(vmid: Vmid, config: &VmConfig, exclude: &[String]) -> Result<Vec<String>> {
    let drives = config.drives().iter().map(|d| d.key.to_string());
    let hidden = hidden_disks(config).map(|(key, _, _)| key.to_owned());
    let known: Vec<String> = drives.chain(hidden).collect();
    let usual = |key: &String| DiskKey::parse(key).map_or(key.clone(), |k| k.to_string());
    let exclude: Vec<String> = exclude.iter().map(usual).collect();
    match exclude.iter().find(|key| !known.contains(key)) {
        None => Ok(exclude),
        Some(key) => Err(Error::new(
            Kind::Usage,
            format!(
                "--exclude {}: VM {vmid} has no such disk",
                key.escape_debug()
            ),
        )
        .advise(format!("its disks are {}", known.join(", ")))),
    }
}

fn skip_reason(drive: &Drive, excluded: bool, choice: &Choice) -> Option<SkipReason> {
    if excluded {
        return Some(SkipReason::Excluded);
    }
    if drive.key.is_unused() {
        return (!choice.include_unused).then_some(SkipReason::Unused);
    }
    match &drive.target {
        DriveTarget::None => return Some(SkipReason::Empty),
        DriveTarget::HostCdrom => return Some(SkipReason::Cd),
        DriveTarget::CloudInit(_) => return Some(SkipReason::CloudInit),
        DriveTarget::Path(_) if drive.is_cdrom() => return Some(SkipReason::Cd),
        DriveTarget::Volume(volid) if drive.is_cdrom() && volid.is_iso() => {
            return Some(SkipReason::Cd)
        }
        DriveTarget::Path(_) | DriveTarget::Volume(_) => {}
    }
    if !drive.flag("replicate", true) {
        return Some(SkipReason::ReplicateOff);
    }
    (choice.skip_no_backup && !drive.flag("backup", true)).then_some(SkipReason::NoBackup)
}

/// What decides besides the line of a disk.
struct Place<'a> {
    vmid: Vmid,
    is_template: bool,
    storages: &'a StorageCfg,
    node: &'a str,
    choice: &'a Choice,
}

impl Place<'_> {
    /// The disk and what should be known of it, or why it cannot be replicated.
    fn replicate(&self, drive: &Drive) -> Result<(Disk, Option<String>)> {
        let refuse = |why: &str| Err(Error::new(Kind::Refused, why));
        let DriveTarget::Volume(volid) = &drive.target else {
            return refuse("is a path of this host, not a volume of a storage");
        };
        if drive.is_cdrom() {
            return refuse("is a volume in a CD drive, and no CD image");
        }
        if volid.is_iso() {
            return refuse("is a CD image attached as a disk");
        }
        if drive.flag("shared", false) {
            return refuse("is marked shared=1, so another host may write to it");
        }
        let entry = self.storages.usable(volid.storage(), self.node)?;
        let (volume, location) = locate(entry, volid)?;
        if entry.shared && !self.choice.include_shared {
            return refuse(&format!(
                "storage {} is shared, the other hosts have it already; for a target that does not, say \
                 --include-shared",
                entry.id
            ));
        }
        if volume.owner != self.vmid {
            return refuse(&format!("belongs to VM {}", volume.owner));
        }
        match volume.role {
            Role::Disk => {}
            Role::Base if self.is_template => {}
            Role::Base => return refuse("is the base image of a template"),
            Role::VmState => return refuse("is saved memory, not a disk"),
            Role::CloudInit => return refuse("is not a disk by its name"),
        }
        let note = volume.base.map(|base| {
            format!(
                "{} is a linked clone of {base}: the replica gets all of its content, also what is in there",
                drive.key
            )
        });
        let disk = Disk {
            key: drive.key,
            volid: volid.clone(),
            location,
            size: drive.size(),
            drive: drive.clone(),
        };
        Ok((disk, note))
    }
}

fn in_the_way(vmid: Vmid, problems: &[(String, String, String)]) -> Error {
    let mut what = format!("VM {vmid} has disks that cannot be replicated:");
    for (key, value, why) in problems {
        what.push_str(&format!("\n  {key} ({value}): {why}"));
    }
    let excludes: Vec<String> = problems
        .iter()
        .map(|(key, ..)| format!("--exclude {key}"))
        .collect();
    Error::new(Kind::Refused, what).advise(format!("to go without, say so: {}", excludes.join(" ")))
}
