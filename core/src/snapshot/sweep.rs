//! What runs that were killed left behind.

use super::disk::{resolve, Disk};
use super::{reflink, thin, DiskSource};
use crate::error::{Error, Kind, Result};
use crate::lvm::{self, Listing, LvId, OwnerTag};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What [`sweep`] did.
#[derive(Debug, Default)]
pub struct Swept {
    /// The snapshots and clones it removed.
    pub removed: Vec<String>,
    /// Why it could not remove others.
    pub problems: Vec<Error>,
}

/// A snapshot or a clone that a run took and did not remove.
enum Leftover<'o> {
    Thin(LvId, &'o OwnerTag),
    Clone(PathBuf, &'o OwnerTag),
}

impl Leftover<'_> {
    fn name(&self) -> String {
        match self {
            Leftover::Thin(id, _) => id.to_string(),
            Leftover::Clone(path, _) => path.display().to_string(),
        }
    }

    fn remove(&self, listing: &Listing) -> Result<()> {
        match self {
            Leftover::Thin(id, owner) => {
                lvm::remove_listed(listing, std::slice::from_ref(id), owner)
            }
            Leftover::Clone(path, owner) => reflink::remove(path, owner),
        }
    }
}

/// Removes the snapshots and clones that earlier runs of these owners took: clones of these disks, and
/// snapshots in their volume groups, also of disks that the VM does not have any more.
///
/// It cannot tell a dead run from a live one: the caller must hold the lock of the VM, which every run
/// takes first. A disk that does not exist is passed over.
pub fn sweep(owners: &[OwnerTag], disks: &[DiskSource]) -> Result<Swept> {
    sweep_in(&Listing::default(), owners, disks)
}

/// The same where `listing`, which is told, knows the volumes.
pub fn sweep_in(listing: &Listing, owners: &[OwnerTag], disks: &[DiskSource]) -> Result<Swept> {
    let mut swept = Swept::default();
    for leftover in find(listing, owners, disks)? {
        swept.note(leftover.name(), leftover.remove(listing));
    }
    Ok(swept)
}

/// The names of what [`sweep`] would remove.
pub fn leftovers(owners: &[OwnerTag], disks: &[DiskSource]) -> Result<Vec<String>> {
    let found = find(&Listing::default(), owners, disks)?;
    Ok(found.iter().map(Leftover::name).collect())
}

fn find<'o>(
    listing: &Listing,
    owners: &'o [OwnerTag],
    disks: &[DiskSource],
) -> Result<Vec<Leftover<'o>>> {
    let mut found = Vec::new();
    let mut groups = BTreeSet::new();
    for disk in disks {
        match resolve(listing, disk) {
            Ok(Disk::Lv(lv)) => {
                groups.insert(lv.id.vg().to_owned());
            }
            Ok(Disk::File(path)) => {
                for owner in owners {
                    let clones = reflink::find(&path, owner)?;
                    found.extend(clones.into_iter().map(|c| Leftover::Clone(c, owner)));
                }
            }
            Ok(Disk::Device(_)) => {}
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    for vg in groups {
        for lv in listing.group(&vg)? {
            if let Some(owner) = owners.iter().find(|owner| thin::is_ours(&lv, owner)) {
                found.push(Leftover::Thin(lv.id, owner));
            }
        }
    }
    Ok(found)
}

impl Swept {
    fn note(&mut self, name: String, removed: Result<()>) {
        match removed {
            Ok(()) => self.removed.push(name),
            Err(e) => self.problems.push(e),
        }
    }
}
