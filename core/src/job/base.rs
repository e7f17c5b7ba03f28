//! What is known of a disk since the generation that was sent last: the snapshot it was sent from, and the digests of
//! its segments. With both, only what changed needs to be read.
//!
//! A list of changes is trusted only with proof that it covers all from just that generation to now: the snapshot's
//! marks bind it to the pair and the generation, it is read-only, the manifest says that it was of this volume and
//! size, the table's digest is the manifest's, and the pool itself compares the two volumes. Anything else is a reason
//! to compare everything, and is said.

use super::sync::LEAF_BYTES;
use super::vm::SourceDisk;
use crate::digest::{Digest, HashKind};
use crate::error::{Error, Result};
use crate::lvm::{self, Lv, OwnerTag};
use crate::range::RangeSet;
use crate::replica::{Generation, Layout};
use crate::snapshot::{self, DiskSource, SnapshotDisk, SnapshotKind};
use crate::sync::{DigestTable, Geometry};
use crate::thin;
use uuid::Uuid;

/// A disk as it was sent last.
pub(super) struct Base {
    /// The snapshot that was sent.
    pub lv: Lv,
    /// The digests of its segments.
    pub table: DigestTable,
    /// The image digest that follows from them.
    pub digest: Digest,
}

/// What changed since a base.
pub(super) struct Changes {
    pub base: Base,
    /// All that may have.
    pub ranges: RangeSet,
}

/// Where to look for a base.
pub(super) struct Search<'a> {
    pub layout: &'a Layout,
    pub vm: &'a str,
    pub target: Uuid,
    pub newest: &'a Generation,
    pub hash: HashKind,
}

impl Search<'_> {
    /// The base of `disk`, or why there is none.
    pub fn base_of(&self, disk: &SourceDisk) -> std::result::Result<Base, String> {
        self.find(disk).unwrap_or_else(|e| Err(e.message()))
    }

    fn find(&self, disk: &SourceDisk) -> Result<std::result::Result<Base, String>> {
        let none = |why: &str| Ok(Err(why.to_owned()));
        let DiskSource::Lv(origin) = &disk.source else {
            return none("what changed is only known of thin volumes");
        };
        let mut disks = self.newest.disks.iter();
        let Some(index) = disks.position(|d| d.source == disk.spec.volume) else {
            return none("the last generation does not have it");
        };
        let sent = &self.newest.disks[index];
        if sent.size != disk.spec.size {
            return none("its size has changed");
        }
        if (sent.hash, sent.leaf_bytes) != (self.hash, LEAF_BYTES) {
            return none("the last generation has another kind of digest");
        }
        let owner = OwnerTag::new(self.newest.pair);
        let number = self.newest.number;
        let Some(lv) = snapshot::base_of(origin, &owner, number)? else {
            return none("the snapshot that was sent last is gone");
        };
        let path = self.layout.sent_table(self.vm, self.target, number, index);
        let geometry = Geometry::new(sent.size, LEAF_BYTES)?;
        match DigestTable::open_of(&path, sent.hash, geometry, sent.digest)? {
            Some(table) => Ok(Ok(Base {
                lv,
                table,
                digest: sent.digest,
            })),
            None => none("the digests of what was sent last are gone"),
        }
    }
}

impl Base {
    /// What is different in `now`, a volume or a snapshot of it.
    pub fn until(self, now: &Lv) -> Result<Changes> {
        let ranges = thin::changed(&self.lv, now)?;
        Ok(Changes { base: self, ranges })
    }

    /// What is different in `now`, ready to be read; or why that cannot be told.
    pub fn until_snapshot(self, now: &SnapshotDisk) -> std::result::Result<Changes, String> {
        let SnapshotKind::Thin(id) = &now.kind else {
            return Err("what changed is only known of thin volumes".into());
        };
        let found = lvm::get(id).and_then(|now| self.until(&now));
        found
            .and_then(|changes| lvm::activate(&changes.base.lv.id).map(|()| changes))
            .map_err(|e: Error| e.message())
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        // It goes soon, and does no harm until then.
        let _ = lvm::deactivate(&self.base.lv.id);
    }
}
