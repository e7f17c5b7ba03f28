//! What this node needs to know and to do so that a VM which has gone to another host can come back: where its volumes are,
//! and a configuration in the VM's place that a replica's may replace.

use crate::disks;
use crate::node::PveTree;
use crate::replica_config::{standing, Standing};
use crate::role_config::{is_retired, yielded};
use crate::target::{core_location, vmid};
use crate::volid::Volid;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::lvm;
use rblocksync::replica::Location;
use rblocksync::snapshot::file_bytes;
use uuid::Uuid;

/// What a volume of this node is, and the size of the guest's disk in it in bytes.
pub(crate) fn locate(tree: &PveTree, volume: &str) -> Result<(Location, u64)> {
    let volid = Volid::parse(volume)?;
    let storages = tree.storage_cfg()?;
    let entry = storages.usable(volid.storage(), &tree.local_node()?)?;
    let (_, location) = disks::locate(entry, &volid).map_err(|e| e.context(&volid))?;
    let location = core_location(&location)?;
    let size = match &location {
        Location::ThinLv { lv, .. } | Location::ThickLv { lv } => lvm::get(lv)?.size,
        Location::File { path, format, .. } => file_bytes(path, *format)?.0,
    };
    Ok((location, size))
}

/// Lets the configuration of a replica of `pair` take the place of that of a VM which was retired here.
pub(crate) fn yield_to(tree: &PveTree, vm: &str, pair: Uuid) -> Result<()> {
    let vm = vmid(vm)?;
    let lock = tree.hold_vm(vm)?;
    match tree.guest(vm)? {
        Some((at, "qemu-server")) if at == tree.local_node()? => {}
        // In a cluster it has gone with the VM.
        _ => return Ok(()),
    }
    let config = tree.vm_config(vm)?;
    if standing(&config, pair) == Standing::Standby {
        return Ok(());
    }
    if !is_retired(&config) {
        return Err(Error::new(
            Kind::Refused,
            format!("VM {vm} was not retired here, or somebody has unlocked it since"),
        )
        .advise(format!(
            "if it is not in use, lock it again: qm set {vm} --lock migrate"
        )));
    }
    tree.replace_config(&lock, vm, &yielded(&config, pair))
}
