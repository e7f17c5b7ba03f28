//! What is known of a disk since the generation that was sent last: what tells how it has changed, and the digests of
//! its segments. With both, only what changed needs to be read.
//!
//! A list of changes is trusted only with proof that it covers all from just that generation to now. The manifest says
//! that the generation was of this volume and size, and the table's digest is the manifest's. Of a thin volume there is
//! the snapshot that was sent: its marks bind it to the pair and the generation, it is read-only, and the pool itself
//! compares the two volumes. Of a disk that QEMU has open there is a bitmap: it began in the instant of that generation
//! or one before, its name binds it to the pair and that, and QEMU says that it has recorded ever since and is not
//! inconsistent, as it is after QEMU was killed. One that is not in an image file ends with QEMU's process. Anything
//! else is a reason to compare everything, and is said.

use super::sync::LEAF_BYTES;
use super::vm::SourceDisk;
use crate::digest::{Digest, HashKind};
use crate::error::{Error, Result};
use crate::image::{Container, NbdImage, NbdOptions};
use crate::lvm::{self, Lv, OwnerTag};
use crate::qemu::{self, BitmapRecord, Export, Qcow2Disk, ReadOptions};
use crate::range::RangeSet;
use crate::replica::{read_json, Generation, Layout};
use crate::snapshot::{self, DiskSource, PointInTime, SnapshotDisk, SnapshotKind, VmRuntime};
use crate::sync::{DigestTable, Geometry};
use crate::thin;
use std::path::Path;
use uuid::Uuid;

/// A disk as it was sent last.
pub(super) struct Base {
    /// What tells how it has changed.
    pub earlier: Earlier,
    /// The digests of its segments.
    pub table: DigestTable,
    /// The image digest that follows from them.
    pub digest: Digest,
}

/// What tells how a disk has changed since it was sent.
pub(super) enum Earlier {
    /// The snapshot that was sent.
    Snapshot(Box<Lv>),
    /// A bitmap in which QEMU has noted since what the guest writes.
    Bitmap(BitmapRecord),
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
        let number = self.newest.number;
        let earlier = match &disk.source {
            DiskSource::Lv(origin) => {
                let owner = OwnerTag::new(self.newest.pair);
                match snapshot::base_of(origin, &owner, number)? {
                    Some(lv) => Earlier::Snapshot(Box::new(lv)),
                    None => return none("the snapshot that was sent last is gone"),
                }
            }
            DiskSource::Path(_) => {
                let path = self.layout.sent_bitmap(self.vm, self.target, number, index);
                match read_json(&path)? {
                    Some(bitmap) => Earlier::Bitmap(bitmap),
                    None => return none("QEMU did not note what changed since"),
                }
            }
        };
        let path = self.layout.sent_table(self.vm, self.target, number, index);
        let geometry = Geometry::new(sent.size, LEAF_BYTES)?;
        match DigestTable::open_of(&path, sent.hash, geometry, sent.digest)? {
            Some(table) => Ok(Ok(Base {
                earlier,
                table,
                digest: sent.digest,
            })),
            None => none("the digests of what was sent last are gone"),
        }
    }
}

impl Base {
    /// The bitmap that QEMU is to be asked for.
    pub fn bitmap(&self) -> Option<&BitmapRecord> {
        match &self.earlier {
            Earlier::Bitmap(bitmap) => Some(bitmap),
            Earlier::Snapshot(_) => None,
        }
    }

    /// How many bytes at the most are different now, without a point in time.
    pub fn count(&self, disk: &SourceDisk, vm: &VmRuntime) -> std::result::Result<u64, String> {
        let said = |e: Error| e.message();
        match (&self.earlier, &disk.source) {
            (Earlier::Snapshot(lv), DiskSource::Lv(id)) => {
                let now = lvm::get(id).map_err(said)?;
                Ok(thin::changed(lv, &now).map_err(said)?.total())
            }
            (Earlier::Bitmap(bitmap), DiskSource::Path(path)) => match (&vm.manager, &vm.qmp) {
                (Some(manager), _) => manager
                    .dirty_bytes(path, disk.spec.format, &bitmap.name)
                    .map_err(said)?,
                (None, Some(monitor)) => {
                    qemu::dirty_bytes(monitor, path, disk.spec.format, &bitmap.name)
                        .map_err(said)?
                }
                (None, None) => Err("the VM is off, so its bitmaps are not looked at".into()),
            },
            _ => Err("the disk is of another kind than it was".into()),
        }
    }

    /// What is different in `now`, a disk at a point in time, ready to be read; or why that cannot be told.
    pub fn until(
        self,
        now: &SnapshotDisk,
        point: &PointInTime,
    ) -> std::result::Result<Changes, String> {
        let ranges = match (&self.earlier, &now.kind) {
            (Earlier::Snapshot(lv), SnapshotKind::Thin(id)) => {
                let found = lvm::get(id).and_then(|now| thin::changed(lv, &now));
                found.and_then(|ranges| lvm::activate(&lv.id).map(|()| ranges))
            }
            (Earlier::Bitmap(bitmap), kind) => match (point.changed_since(now), kind) {
                (Some(Ok(export)), _) => dirty(&export),
                (Some(Err(why)), _) => return Err(why),
                // The VM is off.
                (None, SnapshotKind::Clone | SnapshotKind::Direct) if bitmap.persistent => {
                    dirty_in_file(&now.path, &bitmap.name)
                }
                (None, _) => return Err("QEMU, which knew what changed, has ended".into()),
            },
            _ => return Err("the disk is of another kind than it was".into()),
        };
        match ranges {
            Ok(ranges) => Ok(Changes { base: self, ranges }),
            Err(e) => Err(e.message()),
        }
    }
}

/// What QEMU's bitmap behind `export` marks.
fn dirty(export: &Export) -> Result<RangeSet> {
    let options = NbdOptions {
        name: format!("QEMU's export {}", export.name),
        bitmap: export.changed.clone(),
        writable: false,
    };
    NbdImage::connect(&export.socket, &export.name, options)?.dirty()
}

/// What a bitmap in the qcow2 image `path`, which nobody has open, marks. Fails if it is not there, or inconsistent.
fn dirty_in_file(path: &Path, name: &str) -> Result<RangeSet> {
    let options = ReadOptions {
        bitmap: Some(name.to_owned()),
        ..ReadOptions::default()
    };
    let (disk, _, _) = Qcow2Disk::source(path, &options)?;
    let dirty = disk.dirty();
    disk.close().and(dirty)
}

impl Changes {
    /// The snapshot that was sent last, if there is one.
    pub fn snapshot(&self) -> Option<&Lv> {
        match &self.base.earlier {
            Earlier::Snapshot(lv) => Some(lv),
            Earlier::Bitmap(_) => None,
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        if let Some(lv) = self.snapshot() {
            // It goes soon, and does no harm until then.
            let _ = lvm::deactivate(&lv.id);
        }
    }
}
