//! What runs that were killed left behind.

use super::disk::{resolve, Disk};
use super::{reflink, thin, DiskSource};
use crate::error::{Error, Kind, Result};
use crate::lvm::{self, OwnerTag};
use std::collections::BTreeSet;

/// What [`sweep`] did.
#[derive(Debug, Default)]
pub struct Swept {
    /// The snapshots and clones it removed.
    pub removed: Vec<String>,
    /// Why it could not remove others.
    pub problems: Vec<Error>,
}

/// Removes the snapshots and clones that earlier runs of these owners took: clones of these disks, and
/// snapshots in their volume groups, also of disks that the VM does not have any more.
///
/// It cannot tell a dead run from a live one: the caller must hold the lock of the VM, which every run
/// takes first. A disk that does not exist is passed over.
pub fn sweep(owners: &[OwnerTag], disks: &[DiskSource]) -> Result<Swept> {
    let mut swept = Swept::default();
    let mut groups = BTreeSet::new();
    for disk in disks {
        match resolve(disk) {
            Ok(Disk::Lv(lv)) => {
                groups.insert(lv.id.vg().to_owned());
            }
            Ok(Disk::File(path)) => {
                for owner in owners {
                    for clone in reflink::find(&path, owner)? {
                        let removed = reflink::remove(&clone, owner);
                        swept.note(clone.display().to_string(), removed);
                    }
                }
            }
            Ok(Disk::Device(_)) => {}
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    for vg in groups {
        for lv in lvm::list(&vg)? {
            if let Some(owner) = owners.iter().find(|owner| thin::is_ours(&lv, owner)) {
                swept.note(lv.id.to_string(), thin::remove(&lv.id, owner));
            }
        }
    }
    Ok(swept)
}

impl Swept {
    fn note(&mut self, name: String, removed: Result<()>) {
        match removed {
            Ok(()) => self.removed.push(name),
            Err(e) => self.problems.push(e),
        }
    }
}
