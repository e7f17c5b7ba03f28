//! What thick volumes need of their group, so that the steps can be tested where no volumes can be made.

use super::super::listing::Listing;
use super::BASE;
use crate::error::Result;
use crate::lvm::{self, LvId, OwnerTag, Tag};
use std::path::PathBuf;

/// A volume as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its size in bytes.
    pub size: u64,
    /// It has a device node.
    pub active: bool,
    /// Somebody has it open.
    pub open: bool,
    /// Its tags.
    pub tags: Vec<String>,
}

impl Found {
    /// It carries this tag.
    pub fn has(&self, tag: &Tag) -> bool {
        self.tags.iter().any(|t| t == tag.as_str())
    }
}

/// A group of volumes. What removes or renames one refuses others' volumes, and such that are open.
pub trait Group {
    /// The volume of this name, if there is one.
    fn find(&self, id: &LvId) -> Result<Option<Found>>;
    /// The volume of this name, if there is one; it must be the owner's.
    fn owned(&self, id: &LvId, owner: &OwnerTag) -> Result<Option<Found>>;
    /// Has the next question asked anew.
    fn look_again(&self);
    /// Makes a volume of at least so many bytes, with whatever was on the disk before in it.
    fn create(&self, id: &LvId, size: u64, tags: &[Tag]) -> Result<()>;
    /// Grows a volume to at least so many bytes.
    fn extend(&self, id: &LvId, size: u64, owner: &OwnerTag) -> Result<()>;
    /// Gives a volume another name.
    fn rename(&self, from: &LvId, to: &LvId, owner: &OwnerTag) -> Result<()>;
    /// Removes a volume. One that is gone is fine.
    fn remove(&self, id: &LvId, owner: &OwnerTag) -> Result<()>;
    /// Gives a volume this mark of what it was made from, instead of any other.
    fn rebase(&self, id: &LvId, base: &Tag, owner: &OwnerTag) -> Result<()>;
    /// Makes a volume readable and writable under the path that results.
    fn activate(&self, id: &LvId) -> Result<PathBuf>;
    /// Makes a volume inactive, if it can be. An active one does no harm.
    fn rest(&self, id: &LvId);
}

fn found(lv: lvm::Lv) -> Found {
    Found {
        size: lv.size,
        active: lv.active,
        open: lv.open,
        tags: lv.tags,
    }
}

impl Group for Listing {
    fn find(&self, id: &LvId) -> Result<Option<Found>> {
        Ok(Listing::find(self, id)?.map(found))
    }

    fn owned(&self, id: &LvId, owner: &OwnerTag) -> Result<Option<Found>> {
        Ok(Listing::owned(self, id, owner)?.map(found))
    }

    fn look_again(&self) {
        self.forget();
    }

    fn create(&self, id: &LvId, size: u64, tags: &[Tag]) -> Result<()> {
        let made = lvm::create_thick(id, size, tags);
        self.forget();
        made
    }

    fn extend(&self, id: &LvId, size: u64, owner: &OwnerTag) -> Result<()> {
        let done = lvm::extend(id, size, owner);
        self.forget();
        done.map(drop)
    }

    fn rename(&self, from: &LvId, to: &LvId, owner: &OwnerTag) -> Result<()> {
        lvm::rename_listed(self, from, to.name(), owner).map(drop)
    }

    fn remove(&self, id: &LvId, owner: &OwnerTag) -> Result<()> {
        lvm::remove_listed(self, std::slice::from_ref(id), owner)
    }

    fn rebase(&self, id: &LvId, base: &Tag, owner: &OwnerTag) -> Result<()> {
        let done = lvm::retag(id, BASE, base, owner);
        self.forget();
        done
    }

    fn activate(&self, id: &LvId) -> Result<PathBuf> {
        lvm::activate(id)?;
        self.forget();
        Ok(id.path())
    }

    fn rest(&self, id: &LvId) {
        // Nobody depends on it.
        let _ = lvm::deactivate(id);
        self.forget();
    }
}
