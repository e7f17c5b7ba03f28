//! Logical volumes as disks of domains. Other than Proxmox VE, libvirt activates none when it starts a domain, and we leave
//! what we make inactive.

use rblocksync::error::Result;
use rblocksync::lvm::{self, LvId};
use rblocksync::replica::{Generation, Location};

/// Makes the device nodes of the volumes that a generation's disks lie in now, so that a domain can be started on them.
///
/// # Errors
/// LVM cannot activate one.
pub(crate) fn activate(generation: &Generation) -> Result<()> {
    let volumes: Vec<LvId> = generation
        .disks
        .iter()
        .filter_map(|disk| match &disk.location {
            Location::ThinLv { lv, .. } | Location::ThickLv { lv } => Some(lv.clone()),
            Location::File { .. } => None,
        })
        .collect();
    lvm::activate_all(&volumes)
}
