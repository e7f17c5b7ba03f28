//! What runs that were killed left behind.

use super::disk::{resolve, Disk};
use super::{reflink, thin, DiskSource};
use crate::error::{Error, Kind, Result};
use crate::lvm::{self, LvId, OwnerTag};
use std::collections::{BTreeMap, BTreeSet};

/// What [`sweep`] did.
#[derive(Debug, Default)]
pub struct Swept {
    /// The snapshots and clones it removed.
    pub removed: Vec<String>,
    /// Why it could not remove others.
    pub problems: Vec<Error>,
}

/// Removes the snapshots and clones that earlier runs of `owner` took of these disks.
///
/// It cannot tell a dead run from a live one: the caller must hold the lock of the VM, which every run
/// takes first. A disk that does not exist is passed over.
pub fn sweep(owner: &OwnerTag, disks: &[DiskSource]) -> Result<Swept> {
    let mut swept = Swept::default();
    let mut groups = BTreeMap::<String, BTreeSet<LvId>>::new();
    for disk in disks {
        match resolve(disk) {
            Ok(Disk::Lv(lv)) => {
                let group = groups.entry(lv.id.vg().to_owned()).or_default();
                group.insert(lv.id);
            }
            Ok(Disk::File(path)) => {
                for clone in reflink::find(&path, owner)? {
                    let removed = reflink::remove(&clone, owner);
                    swept.note(clone.display().to_string(), removed);
                }
            }
            Ok(Disk::Device(_)) => {}
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    for (vg, origins) in groups {
        for lv in lvm::list(&vg)? {
            let ours = |origin| thin::is_ours(&lv, origin, owner);
            if origins.iter().any(ours) {
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
