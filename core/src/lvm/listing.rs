//! What LVM knows of the volumes in play, asked once a group: each question costs LVM a scan of all disks, and its lock.
//!
//! For looking, and for saying which volume is meant: what changes or removes one names it by LVM's id and our mark, and
//! LVM checks both under its own lock. Whoever has changed something tells the listing, or has it forget everything.

use super::find::{by_path, list, no_such};
use super::id::{LvId, OwnerTag, Tag};
use super::kernel;
use super::report::Lv;
use crate::error::{Error, Kind, Result};
use crate::runbook::Runbook;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

/// The volumes of the groups that were asked for so far.
#[derive(Debug, Default)]
pub struct Listing {
    groups: RefCell<BTreeMap<String, Vec<Lv>>>,
}

impl Listing {
    /// Forgets everything, after something was changed.
    pub fn forget(&self) {
        self.groups.borrow_mut().clear();
    }

    /// All volumes of a group, as they were when it was first asked for. Fails with [`Kind::NotFound`] if there is no
    /// such group.
    pub fn group(&self, vg: &str) -> Result<Vec<Lv>> {
        self.look(vg, <[Lv]>::to_vec)
    }

    /// The volume of this name, if there was one when its group was first asked for.
    pub fn find(&self, id: &LvId) -> Result<Option<Lv>> {
        self.look(id.vg(), |lvs| lvs.iter().find(|lv| lv.id == *id).cloned())
    }

    /// Like [`Listing::find`], but a missing volume is an error of [`Kind::NotFound`].
    pub fn get(&self, id: &LvId) -> Result<Lv> {
        self.find(id)?.ok_or_else(|| no_such(id))
    }

    /// The volume behind a path, as [`super::find_by_path`] tells.
    pub fn find_by_path(&self, path: &Path) -> Result<Option<Lv>> {
        by_path(path, |id| self.find(id))
    }

    /// The volume of this name, if there is one; it must be the owner's.
    pub fn owned(&self, id: &LvId, owner: &OwnerTag) -> Result<Option<Lv>> {
        match self.find(id)? {
            Some(found) if !found.is_owned_by(owner) => Err(Error::new(
                Kind::Refused,
                format!("volume {id} exists and was not made for this replica"),
            )
            .advise("remove or rename it, or choose another storage or VM id on the target")
            .see(Runbook::WrongVmid)),
            other => Ok(other),
        }
    }

    /// Notes a read-only snapshot of `origin` that was just made with these tags, and is active. What only LVM would know
    /// of it is not asked for.
    pub fn snapshot_made(&self, origin: &LvId, id: &LvId, tags: &[Tag]) -> Result<()> {
        let (uuid, thin_id) = kernel::thin_volume(id)?;
        let origin = self.get(origin)?;
        if self.find(id)?.is_some() {
            return Ok(());
        }
        let made = Lv {
            id: id.clone(),
            uuid,
            active: true,
            open: false,
            read_only: true,
            skip_activation: true,
            thin_id: Some(thin_id),
            tags: tags.iter().map(|tag| tag.as_str().to_owned()).collect(),
            origin: Some(origin.id.clone()),
            ..origin
        };
        if let Some(lvs) = self.groups.borrow_mut().get_mut(id.vg()) {
            lvs.push(made);
        }
        Ok(())
    }

    /// Notes that these volumes are active.
    pub fn activated(&self, ids: &[LvId]) {
        for lv in self.groups.borrow_mut().values_mut().flatten() {
            lv.active |= ids.contains(&lv.id);
        }
    }

    /// Notes that these volumes are gone.
    pub(super) fn removed(&self, gone: &[Lv]) {
        for lvs in self.groups.borrow_mut().values_mut() {
            lvs.retain(|lv| gone.iter().all(|gone| gone.uuid != lv.uuid));
        }
    }

    /// Notes that a volume has another name.
    pub(super) fn renamed(&self, from: &LvId, to: &LvId) {
        for lv in self.groups.borrow_mut().values_mut().flatten() {
            if lv.id == *from {
                lv.id = to.clone();
            }
            if lv.origin.as_ref() == Some(from) {
                lv.origin = Some(to.clone());
            }
        }
    }

    fn look<T>(&self, vg: &str, at: impl FnOnce(&[Lv]) -> T) -> Result<T> {
        let mut groups = self.groups.borrow_mut();
        if !groups.contains_key(vg) {
            groups.insert(vg.to_owned(), list(vg)?);
        }
        Ok(at(groups.get(vg).map(Vec::as_slice).unwrap_or_default()))
    }

    /// What was seen, for tests that have no LVM.
    #[cfg(test)]
    pub(crate) fn of(vg: &str, lvs: Vec<Lv>) -> Listing {
        Listing {
            groups: RefCell::new([(vg.to_owned(), lvs)].into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::report;
    use super::*;

    #[test]
    fn what_was_changed_is_told() {
        let recorded = report::parse(include_bytes!("testdata/lvs.json")).unwrap();
        let listing = Listing::of("pve", recorded);
        let id = |name: &str| LvId::new("pve", name).unwrap();
        let (disk, snapshot) = (id("vm-101-disk-0"), id("snap_vm-101-disk-0_rbsx"));
        let uuid = listing.get(&disk).unwrap().uuid;

        listing.renamed(&disk, &id("other"));
        assert_eq!(listing.find(&disk).unwrap(), None);
        assert_eq!(listing.get(&id("other")).unwrap().uuid, uuid);
        assert_eq!(
            listing.get(&snapshot).unwrap().origin,
            Some(id("other")),
            "it is the origin of its snapshot by whatever name"
        );

        let gone = listing.get(&snapshot).unwrap();
        // Another volume of that name, which was made meanwhile, is not meant.
        let mut namesake = gone.clone();
        namesake.uuid = "other".into();
        listing.removed(&[namesake]);
        assert!(listing.find(&snapshot).unwrap().is_some());
        listing.removed(&[gone]);
        assert_eq!(listing.get(&snapshot).unwrap_err().kind(), Kind::NotFound);
    }
}
