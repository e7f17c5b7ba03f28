//! A VM of this node as the source of a replication: its configuration, its disks and how to hold it still.

use crate::disks::{self, Choice, Disk, Location, Resolved, SkipReason};
use crate::guest::describe;
use crate::node::PveTree;
use crate::rbd;
use crate::vm_config::VmConfig;
use crate::volid::Vmid;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::image::ImageFormat;
use rblocksync::job::{Needed, SourceDisk, SourceVm};
use rblocksync::lvm::{Listing, LvId};
use rblocksync::replica::DiskSpec;
use rblocksync::snapshot::{
    device_bytes, file_bytes, measure_lv, DiskSource, VmRuntime, WatchdogLauncher,
};
use std::os::unix::fs::MetadataExt;

/// The front end's program, and its agent's.
pub const PROGRAM: &str = "pvesync";

/// Resolves a VM of this node, without the disks in `exclude`.
pub fn resolve(tree: &PveTree, vmid: Vmid, exclude: &[String]) -> Result<SourceVm> {
    resolve_with(tree, vmid, &Choice::without(exclude))
}

/// Resolves a VM of this node with the disks that are wanted.
pub fn resolve_with(tree: &PveTree, vmid: Vmid, choice: &Choice) -> Result<SourceVm> {
    let found = tree.find_vm(vmid)?;
    let config = tree.vm_config(vmid)?;
    let storages = tree.storage_cfg()?;
    let resolved = disks::resolve_with(vmid, &config, &storages, &found.node, choice)?;
    for disk in &resolved.disks {
        if let Some(entry) = storages.get(disk.volid.storage()) {
            entry
                .check_present()
                .map_err(|e| e.context(format!("disk {}", disk.key)))?;
        }
    }
    if choice.include_unused && !choice.passes_over && tree.is_running(vmid)? {
        check_unused(&resolved)?;
    }
    let listing = Listing::default();
    let disks = resolved.disks.iter();
    let disks = disks
        .map(|disk| source_disk(&listing, disk))
        .collect::<Result<_>>()?;
    let (excluded, notes) = left_out(&resolved);
    Ok(SourceVm {
        program: PROGRAM,
        id: vmid.to_string(),
        name: config.name().unwrap_or("no name").to_owned(),
        host: found.node,
        identity: smbios_uuid(&config),
        config: config.to_string(),
        described: Some(Box::new(describe(&config))),
        config_now: {
            let tree = tree.clone();
            Box::new(move || tree.vm_config(vmid).map(|config| config.to_string()))
        },
        disks,
        excluded,
        notes,
    })
}

/// Programs that a node needs, whichever part it has.
pub const NEEDED: [Needed; 4] = [Needed::SSH, Needed::SSHD, Needed::LVS, Needed::THIN_DUMP];

/// The disks of a VM of this node, by its id.
pub fn disks_of(tree: &PveTree, vm: &str) -> Result<Vec<DiskSource>> {
    let vmid = vm.parse()?;
    let resolved = resolve_with(tree, vmid, &Choice::everything())?;
    Ok(resolved.disks.into_iter().map(|d| d.source).collect())
}

/// What is not attached QEMU does not have open, so only the storage itself can keep what it holds at an instant.
fn check_unused(resolved: &Resolved) -> Result<()> {
    let kept = |disk: &&Disk| matches!(disk.location, Location::LvmThin { .. });
    let mut unused = resolved.disks.iter().filter(|d| d.key.is_unused());
    match unused.find(|disk| !kept(disk)) {
        None => Ok(()),
        Some(disk) => Err(Error::new(
            Kind::Refused,
            format!(
                "disk {} ({}) is not attached to the running VM, so its QEMU cannot keep what is in it",
                disk.key, disk.volid
            ),
        )
        .advise(format!(
            "stop the VM, or go without it: --exclude {}",
            disk.key
        ))),
    }
}

/// How to hold the VM still, by whether it runs now.
pub fn runtime(tree: &PveTree, vmid: Vmid) -> Result<VmRuntime> {
    let config = tree.vm_config(vmid)?;
    let running = tree.is_running(vmid)?;
    let tree = tree.clone();
    let agent = has_agent(&config).then(|| tree.qga_socket(vmid));
    let before = left_alone(&tree, vmid)?;
    Ok(VmRuntime {
        qmp: running.then(|| tree.qmp_socket(vmid)),
        manager: None,
        agent: agent.filter(|_| running),
        stopped: Box::new(move || {
            // Disks that are read in place can also be changed without the VM: a rollback, a snapshot that is merged.
            match left_alone(&tree, vmid)? == before {
                true => tree.is_running(vmid).map(|running| !running),
                false => Err(Error::new(
                    Kind::Busy,
                    format!("the configuration of VM {vmid} was changed while its disks were being read"),
                )
                .advise("run again")),
            }
        }),
        state: None,
        launcher: WatchdogLauncher::this_executable(),
    })
}

/// What changes with every change that Proxmox makes to a VM: the text of its configuration, and when that was written.
fn left_alone(tree: &PveTree, vmid: Vmid) -> Result<(String, (i64, i64))> {
    let path = tree.vm_config_path(vmid)?;
    let failed = |e| Error::io(format!("cannot stat {}", path.display()), e);
    let meta = std::fs::metadata(&path).map_err(failed)?;
    let text = tree.vm_config(vmid)?.to_string();
    Ok((text, (meta.mtime(), meta.mtime_nsec())))
}

/// Disks that are not replicated, with the reason, and what else there is to say.
fn left_out(resolved: &Resolved) -> (Vec<(String, String)>, Vec<String>) {
    let mut excluded = Vec::new();
    let mut notes = Vec::new();
    for skipped in &resolved.skipped {
        match skipped.reason {
            SkipReason::Empty => {}
            SkipReason::Cd | SkipReason::CloudInit => {
                notes.push(format!("{}: {}", skipped.key, skipped.reason));
            }
            SkipReason::Excluded
            | SkipReason::ReplicateOff
            | SkipReason::NoBackup
            | SkipReason::LeftOut
            | SkipReason::Unused => {
                excluded.push((skipped.key.clone(), skipped.reason.to_string()));
            }
        }
    }
    notes.extend(resolved.notes.iter().cloned());
    (excluded, notes)
}

fn source_disk(listing: &Listing, disk: &Disk) -> Result<SourceDisk> {
    let context = |e: Error| e.context(format!("disk {}", disk.key));
    let (source, size, used, format) = match &disk.location {
        Location::LvmThin { vg, lv, .. } => {
            let lv = listing
                .get(&LvId::new(vg.as_str(), lv.as_str()).map_err(context)?)
                .map_err(context)?;
            let found = measure_lv(listing, &lv, ImageFormat::Raw).map_err(context)?;
            (
                DiskSource::Lv(lv.id),
                found.size,
                found.used,
                ImageFormat::Raw,
            )
        }
        Location::Lvm { vg, lv, format } => {
            let lv = listing
                .get(&LvId::new(vg.as_str(), lv.as_str()).map_err(context)?)
                .map_err(context)?;
            let found = measure_lv(listing, &lv, *format).map_err(context)?;
            // By its path: QEMU's bitmaps are for disks that have no snapshots of their own.
            (
                DiskSource::Path(lv.id.path()),
                found.size,
                found.used,
                *format,
            )
        }
        Location::File { .. } | Location::Subvolume { .. } => {
            let (path, format) = (disk.location.path(), disk.location.format());
            let (size, used) = file_bytes(&path, format).map_err(context)?;
            (DiskSource::Path(path), size, used, format)
        }
        Location::Zvol { .. } => {
            let path = disk.location.path();
            let size = device_bytes(&path).map_err(|e| {
                context(e).advise("is the pool imported? its volumes need volmode full or dev")
            })?;
            (DiskSource::Path(path), size, size, ImageFormat::Raw)
        }
        Location::Rbd { name } => {
            let path = rbd::mapped_device(name).map_err(context)?;
            let size = device_bytes(&path).map_err(context)?;
            (DiskSource::Path(path), size, size, ImageFormat::Raw)
        }
    };
    let spec = DiskSpec {
        key: disk.key.to_string(),
        volume: disk.volid.to_string(),
        size,
        used,
        format,
    };
    Ok(SourceDisk { spec, source })
}

pub(crate) fn has_agent(config: &VmConfig) -> bool {
    let Some(value) = config.get("agent") else {
        return false;
    };
    value.split(',').any(|part| {
        matches!(
            part.strip_prefix("enabled=").unwrap_or(part),
            "1" | "on" | "yes" | "true"
        )
    })
}

pub(crate) fn smbios_uuid(config: &VmConfig) -> Option<String> {
    let value = config.get("smbios1")?;
    let uuid = value.split(',').find_map(|part| part.strip_prefix("uuid="));
    uuid.map(str::to_ascii_lowercase)
}

/// The same of a configuration's text; `None` also of one that cannot be read.
pub fn identity_of(config: &str) -> Option<String> {
    smbios_uuid(&VmConfig::parse(config).ok()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn agent_and_identity_are_read_from_the_configuration() {
        let config = |text: &str| VmConfig::parse(text).unwrap();
        assert!(has_agent(&config("agent: 1\n")));
        assert!(has_agent(&config(
            "agent: enabled=1,fstrim_cloned_disks=1\n"
        )));
        assert!(!has_agent(&config("agent: 0\n")));
        assert!(!has_agent(&config("agent: 0,type=isa\n")));
        assert!(!has_agent(&config("cores: 1\n")));
        let uuid = "smbios1: base64=1,uuid=0E4D7B0C-1111-4222-8333-444455556666\n";
        assert_eq!(
            smbios_uuid(&config(uuid)).as_deref(),
            Some("0e4d7b0c-1111-4222-8333-444455556666")
        );
    }
}
