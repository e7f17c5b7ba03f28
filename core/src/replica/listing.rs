//! What LVM knows of the volumes in play, asked once a group: each question costs LVM a scan of all disks.
//!
//! For looking only. What changes or removes a volume asks again, or has LVM itself check.

use crate::error::{Error, Kind, Result};
use crate::lvm::{self, Lv, LvId, OwnerTag};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The volumes of the groups that were asked for so far.
#[derive(Default)]
pub(super) struct Listing {
    groups: RefCell<BTreeMap<String, Vec<Lv>>>,
}

impl Listing {
    /// Forgets everything, after something was changed.
    pub fn forget(&self) {
        self.groups.borrow_mut().clear();
    }

    /// The volume of this name, if there was one when its group was first asked for.
    pub fn find(&self, id: &LvId) -> Result<Option<Lv>> {
        let mut groups = self.groups.borrow_mut();
        if !groups.contains_key(id.vg()) {
            groups.insert(id.vg().to_owned(), lvm::list(id.vg())?);
        }
        let lvs = groups.get(id.vg()).map(Vec::as_slice).unwrap_or_default();
        Ok(lvs.iter().find(|lv| lv.id == *id).cloned())
    }

    /// The volume of this name, if there is one; it must be the owner's.
    pub fn owned(&self, id: &LvId, owner: &OwnerTag) -> Result<Option<Lv>> {
        match self.find(id)? {
            Some(found) if !found.is_owned_by(owner) => Err(Error::new(
                Kind::Refused,
                format!("volume {id} exists and was not made for this replica"),
            )
            .advise("remove or rename it, or choose another storage or VM id on the target")),
            other => Ok(other),
        }
    }
}
