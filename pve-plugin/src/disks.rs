//! Decides for every disk of a VM: replicated, left out for a reason, or in the way.
//!
//! Nothing is left out silently. A disk that is no data (a CD, a generated cloud-init drive) or that
//! somebody chose to leave out is listed as skipped; any other that cannot be replicated is an error, and
//! the error names all of them at once.

mod hidden;

use crate::drive::{DiskKey, Drive, DriveTarget};
use crate::replica_config;
use crate::storage_cfg::{unsupported, Storage, StorageCfg, StorageEntry};
use crate::vm_config::VmConfig;
use crate::volid::{Format, Role, Vmid, Volid, Volume};
use hidden::hidden_disks;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::image::ImageFormat;
use std::fmt;
use std::path::PathBuf;

/// Where a volume is on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A thin LV.
    LvmThin {
        /// The volume group.
        vg: String,
        /// The LV.
        lv: String,
        /// The thin pool it belongs to.
        pool: String,
    },
    /// A file.
    File {
        /// Absolute path.
        path: PathBuf,
        /// How its bytes are arranged.
        format: ImageFormat,
    },
}

impl Location {
    /// The device node or file.
    pub fn path(&self) -> PathBuf {
        match self {
            Location::LvmThin { vg, lv, .. } => PathBuf::from(format!("/dev/{vg}/{lv}")),
            Location::File { path, .. } => path.clone(),
        }
    }
}

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

/// Decides for every disk of the VM's current configuration. `exclude` holds configuration keys.
pub fn resolve(
    vmid: Vmid,
    config: &VmConfig,
    storages: &StorageCfg,
    node: &str,
    exclude: &[String],
) -> Result<Resolved> {
    check_state(vmid, config)?;
    let exclude = check_excludes(vmid, config, exclude)?;
    let excluded = |key: &str| exclude.iter().any(|e| e == key);
    let mut resolved = Resolved {
        vmid,
        disks: Vec::new(),
        skipped: Vec::new(),
        notes: notes(config),
    };
    let mut problems: Vec<(String, String, String)> = Vec::new();
    for drive in config.drives() {
        let key = drive.key.to_string();
        if let Some(reason) = skip_reason(drive, excluded(&key)) {
            resolved.skipped.push(Skipped {
                key,
                value: drive.value(),
                reason,
            });
            continue;
        }
        match replicate(vmid, drive, storages, node) {
            Ok(disk) => match resolved.disks.iter().find(|d| d.volid == disk.volid) {
                Some(twin) => problems.push((
                    key,
                    drive.target.to_string(),
                    format!("is also attached as {}", twin.key),
                )),
                None => resolved.disks.push(disk),
            },
            Err(e) => problems.push((key, drive.target.to_string(), e.to_string())),
        }
    }
    for (key, value, why) in hidden_disks(config) {
        if excluded(key) {
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
    if config.is_template() {
        return Err(
            Error::new(Kind::Refused, format!("VM {vmid} is a template"))
                .advise("templates never change: move one with qm clone or vzdump"),
        );
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

fn skip_reason(drive: &Drive, excluded: bool) -> Option<SkipReason> {
    if excluded {
        return Some(SkipReason::Excluded);
    }
    if drive.key.is_unused() {
        return Some(SkipReason::Unused);
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
    (!drive.flag("replicate", true)).then_some(SkipReason::ReplicateOff)
}

fn replicate(vmid: Vmid, drive: &Drive, storages: &StorageCfg, node: &str) -> Result<Disk> {
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
    let entry = storages.usable(volid.storage(), node)?;
    if entry.shared {
        return refuse(&format!(
            "storage {} is shared, the other hosts have it already",
            entry.id
        ));
    }
    let (volume, location) = locate(entry, volid)?;
    if volume.owner != vmid {
        return refuse(&format!("belongs to VM {}", volume.owner));
    }
    match volume.role {
        Role::Disk => {}
        Role::Base => return refuse("is the base image of a template"),
        Role::VmState | Role::CloudInit => return refuse("is not a disk by its name"),
    }
    Ok(Disk {
        key: drive.key,
        volid: volid.clone(),
        location,
        size: drive.size(),
        drive: drive.clone(),
    })
}

/// Finds out where a VM volume is on a host that has the storage, and what its name says about it.
/// Volumes this version cannot read or write are errors.
pub fn locate(entry: &StorageEntry, volid: &Volid) -> Result<(Volume, Location)> {
    match &entry.storage {
        Storage::LvmThin { vgname, thinpool } => {
            let volume = Volume::on_lvm_thin(volid)?;
            let location = Location::LvmThin {
                vg: vgname.clone(),
                lv: volume.name.clone(),
                pool: thinpool.clone(),
            };
            Ok((volume, location))
        }
        Storage::Dir {
            path,
            images,
            volume_chains,
            ..
        } => {
            let volume = Volume::on_dir(volid)?;
            let refuse = |why: String| Err(Error::new(Kind::Refused, why));
            let format = match volume.format {
                // Only qcow2 has a place for the name of what is behind it.
                Format::Raw if volume.base.is_some() => {
                    return refuse("is a linked clone, and cannot be one in format raw".into())
                }
                Format::Raw => ImageFormat::Raw,
                Format::Qcow2 if *volume_chains => {
                    return refuse(format!(
                        "may be a chain of files, as storage {} has snapshot-as-volume-chain",
                        entry.id
                    ))
                }
                Format::Qcow2 => ImageFormat::Qcow2,
                Format::Vmdk | Format::Subvol => {
                    return refuse(format!(
                        "is in format {}, which this version cannot handle; it can raw and qcow2",
                        volume.format.extension()
                    ))
                }
            };
            let path = path
                .join(images)
                .join(volume.owner.to_string())
                .join(&volume.name);
            Ok((volume, Location::File { path, format }))
        }
        Storage::Other(kind) => Err(unsupported(&entry.id, kind)),
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

fn notes(config: &VmConfig) -> Vec<String> {
    let mut notes: Vec<String> = config
        .warnings()
        .iter()
        .map(|w| format!("configuration line {}: {}", w.line, w.text))
        .collect();
    if let Some(pending) = config.pending() {
        let changes: Vec<String> = pending
            .entries()
            .map(|(key, value)| match key {
                "delete" => format!("removal of {value}"),
                _ => key.to_owned(),
            })
            .collect();
        if !changes.is_empty() {
            notes.push(format!(
                "changes that wait for the VM's next start are not part of the replica: {}",
                changes.join(", ")
            ));
        }
    }
    let snapshots: Vec<&str> = config.snapshots().map(|(name, _)| name).collect();
    if !snapshots.is_empty() {
        notes.push(format!(
            "the VM's own snapshots stay behind: {}",
            snapshots.join(", ")
        ));
    }
    let with_memory: Vec<&str> = config
        .snapshots()
        .filter(|(_, section)| section.get("vmstate").is_some())
        .map(|(name, _)| name)
        .collect();
    if !with_memory.is_empty() {
        notes.push(format!(
            "saved memory of snapshots stays behind: {}",
            with_memory.join(", ")
        ));
    }
    notes
}
