//! The digests of an image's segments, in a file: they tell where a sealed image is damaged, and from where on a sync
//! that was cut off goes on.
//!
//! A head of 4 KiB, then 32 bytes for each segment: its digest, or zeros for a segment of zeros. So a sparse image has
//! a sparse table, and a TiB of data one of 32 MiB.

use super::Geometry;
use crate::buf::is_zero;
use crate::digest::{Digest, GrainSum, HashKind, ImageDigest};
use crate::error::{Error, Kind, Result};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

const MAGIC: &[u8; 20] = b"rblocksync segment2\n";
const HEAD_BYTES: u64 = 4096;
const ENTRY_BYTES: u64 = 32;
/// Entries that are read at a time.
const BATCH: u64 = 2048;
/// Where the head keeps what changes.
const CURSOR_AT: u64 = 64;

/// An open table of the digests of one image's segments.
#[derive(Debug)]
pub struct DigestTable {
    file: File,
    path: PathBuf,
    hash: HashKind,
    geometry: Geometry,
    /// See [`DigestTable::sent_to`].
    sent_to: AtomicU64,
}

impl DigestTable {
    /// A table without entries at `path`, in the place of whatever was there. `point` names the point in time whose
    /// image it is about.
    pub fn create(path: &Path, hash: HashKind, geometry: Geometry, point: Uuid) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| Error::io(format!("cannot create {}", path.display()), e))?;
        Self::begin(file, path, hash, geometry, point)
    }

    /// The same without a name: it goes with this process.
    pub fn create_unnamed(
        dir: &Path,
        hash: HashKind,
        geometry: Geometry,
        point: Uuid,
    ) -> Result<Self> {
        let file = tempfile::tempfile_in(dir)
            .map_err(|e| Error::io(format!("cannot create a file in {}", dir.display()), e))?;
        Self::begin(file, dir, hash, geometry, point)
    }

    fn begin(
        file: File,
        path: &Path,
        hash: HashKind,
        geometry: Geometry,
        point: Uuid,
    ) -> Result<Self> {
        let table = DigestTable {
            file,
            path: path.to_owned(),
            hash,
            geometry,
            sent_to: AtomicU64::new(0),
        };
        let whole = table.file.set_len(entry_at(geometry.segments()));
        whole
            .and_then(|()| table.file.write_all_at(&head(hash, &geometry, point), 0))
            .map_err(|e| table.cannot("write", e))?;
        Ok(table)
    }

    /// The table at `path`; `None` if there is none, or not one of an image of this kind.
    pub fn open(path: &Path, hash: HashKind, geometry: Geometry) -> Result<Option<Self>> {
        let table = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => DigestTable {
                file,
                path: path.to_owned(),
                hash,
                geometry,
                sent_to: AtomicU64::new(0),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(format!("cannot open {}", path.display()), e)),
        };
        let found = table.read_head()?;
        let wanted = head(hash, &geometry, Uuid::nil());
        let is_one =
            found.is_some_and(|found| found[..CURSOR_AT as usize] == wanted[..CURSOR_AT as usize]);
        Ok(is_one.then_some(table))
    }

    /// The table at `path` if it is that of the image with this digest.
    pub fn open_of(
        path: &Path,
        hash: HashKind,
        geometry: Geometry,
        digest: Digest,
    ) -> Result<Option<Self>> {
        match Self::open(path, hash, geometry)? {
            Some(table) if table.image_digest()? == digest => Ok(Some(table)),
            _ => Ok(None),
        }
    }

    /// The table at `path` if it is about the image of `point` and this host was not restarted since, and how many
    /// segments from the first one on are in the image for sure. Else a new one, and 0.
    pub fn resume(
        path: &Path,
        hash: HashKind,
        geometry: Geometry,
        point: Uuid,
    ) -> Result<(Self, u64)> {
        if let Some(table) = Self::open(path, hash, geometry)? {
            let wanted = &head(hash, &geometry, point)[..];
            if let Some(found) = table.read_head()? {
                let end = CURSOR_AT as usize + 8;
                let cursor = &found[CURSOR_AT as usize..end];
                let cursor = u64::from_le_bytes(cursor.try_into().unwrap_or_default());
                if found[end..] == wanted[end..] && cursor <= geometry.segments() {
                    // Entries behind the cursor are of patches that may not have got there.
                    table.forget_from(cursor)?;
                    return Ok((table, cursor));
                }
            }
        }
        Ok((Self::create(path, hash, geometry, point)?, 0))
    }

    fn forget_from(&self, first: u64) -> Result<()> {
        let cut = self.file.set_len(entry_at(first));
        cut.and_then(|()| self.file.set_len(entry_at(self.geometry.segments())))
            .map_err(|e| self.cannot("write", e))
    }

    /// Makes the entries from segment `first` on those of `base`, a table of an image of the same cut.
    pub fn fill_from(&self, base: &DigestTable, first: u64) -> Result<()> {
        if (base.hash, base.geometry) != (self.hash, self.geometry) {
            return Err(Error::new(
                Kind::Usage,
                format!("{} is a table of another image", base.path.display()),
            ));
        }
        self.forget_from(first)?;
        let end = self.geometry.segments();
        let mut bytes = vec![0; (BATCH * ENTRY_BYTES) as usize];
        let mut at = first;
        while at < end {
            let count = (end - at).min(BATCH);
            let bytes = &mut bytes[..(count * ENTRY_BYTES) as usize];
            base.file
                .read_exact_at(bytes, entry_at(at))
                .map_err(|e| base.cannot("read", e))?;
            // A sparse image keeps a sparse table.
            if !is_zero(bytes) {
                self.file
                    .write_all_at(bytes, entry_at(at))
                    .map_err(|e| self.cannot("write", e))?;
            }
            at += count;
        }
        Ok(())
    }

    /// Adds `shift` to the digest of segment `index`, and tells what it is then.
    pub(super) fn shift(&self, index: u64, shift: GrainSum) -> Result<Option<Digest>> {
        let digest = GrainSum::of(self.get(index)?).plus(shift).digest();
        self.put(index, &digest.unwrap_or(Digest([0; 32])))?;
        Ok(digest)
    }

    /// Segments before this one may have been changed on the other side, by a sync with this table that came to no good
    /// end: what they were before cannot be asked for any more. Known as long as the table is open.
    pub(super) fn sent_to(&self) -> u64 {
        self.sent_to.load(Ordering::Relaxed)
    }

    /// Notes that a change of segment `index` is about to be sent.
    pub(super) fn sends(&self, index: u64) {
        self.sent_to.fetch_max(index + 1, Ordering::Relaxed);
    }

    /// Notes that all that was sent is on the other side for sure: this is the table of what is there.
    pub(super) fn has_arrived(&self) {
        self.sent_to.store(0, Ordering::Relaxed);
    }

    fn read_head(&self) -> Result<Option<[u8; HEAD_BYTES as usize]>> {
        let mut head = [0; HEAD_BYTES as usize];
        match self.file.read_exact_at(&mut head, 0) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(self.cannot("read", e)),
        }
        let len = self
            .file
            .metadata()
            .map_err(|e| self.cannot("stat", e))?
            .len();
        Ok((len == entry_at(self.geometry.segments())).then_some(head))
    }

    /// Notes the digest of segment `index`.
    pub fn put(&self, index: u64, digest: &Digest) -> Result<()> {
        self.file
            .write_all_at(&digest.0, entry_at(index))
            .map_err(|e| self.cannot("write", e))
    }

    /// Notes durably that the first `segments` segments are on the medium as they stand here.
    pub(super) fn set_cursor(&self, segments: u64) -> Result<()> {
        self.file
            .sync_data()
            .and_then(|()| self.file.write_all_at(&segments.to_le_bytes(), CURSOR_AT))
            .and_then(|()| self.file.sync_data())
            .map_err(|e| self.cannot("write", e))
    }

    /// The digest of segment `index`; `None` for one of zeros.
    pub fn get(&self, index: u64) -> Result<Option<Digest>> {
        let mut found = None;
        self.each(index, index + 1, |_, digest| found = digest)?;
        Ok(found)
    }

    /// Calls `each` with the digests of the segments `first..end` in order, `None` for one of zeros.
    pub fn each(
        &self,
        first: u64,
        end: u64,
        mut each: impl FnMut(u64, Option<Digest>),
    ) -> Result<()> {
        let mut bytes = vec![0; (BATCH * ENTRY_BYTES) as usize];
        let mut at = first;
        while at < end {
            let count = (end - at).min(BATCH);
            let bytes = &mut bytes[..(count * ENTRY_BYTES) as usize];
            self.file
                .read_exact_at(bytes, entry_at(at))
                .map_err(|e| self.cannot("read", e))?;
            for (i, entry) in bytes.chunks_exact(ENTRY_BYTES as usize).enumerate() {
                let digest = Digest(entry.try_into().unwrap_or_default());
                each(at + i as u64, (digest.0 != [0; 32]).then_some(digest));
            }
            at += count;
        }
        Ok(())
    }

    /// The image's digest, as it follows from the segments'.
    pub fn image_digest(&self) -> Result<Digest> {
        let geometry = &self.geometry;
        let mut digest =
            ImageDigest::new(self.hash, geometry.leaf_bytes(), geometry.segment_bytes());
        self.each(0, geometry.segments(), |index, found| {
            digest.add(index, found)
        })?;
        Ok(digest.finish(geometry.size()))
    }

    fn cannot(&self, doing: &str, e: std::io::Error) -> Error {
        Error::io(format!("cannot {doing} {}", self.path.display()), e)
    }
}

fn entry_at(index: u64) -> u64 {
    HEAD_BYTES + index.saturating_mul(ENTRY_BYTES)
}

/// Up to the cursor what image it is, behind it which point in time, and since which start of this host.
fn head(hash: HashKind, geometry: &Geometry, point: Uuid) -> [u8; HEAD_BYTES as usize] {
    let mut head = [0; HEAD_BYTES as usize];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        head[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(MAGIC);
    put(&geometry.leaf_bytes().to_le_bytes());
    put(&geometry.segment_bytes().to_le_bytes());
    put(&geometry.size().to_le_bytes());
    put(&[match hash {
        HashKind::Blake3 => 0,
        HashKind::Sha256 => 1,
    }]);
    at = CURSOR_AT as usize + 8;
    let mut put = |bytes: &[u8]| {
        head[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(point.as_bytes());
    put(boot_id().as_bytes());
    head
}

/// What is different after each start of this host (random(4)); nil if that cannot be told.
fn boot_id() -> Uuid {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_default()
}

/// The digest of an image while its segments are settled, kept in a table as well if there is one.
pub(super) struct Recorder<'a> {
    digest: ImageDigest,
    table: Option<&'a DigestTable>,
    /// The table has all there is, and is only corrected.
    delta: bool,
}

impl<'a> Recorder<'a> {
    /// Of a sync with these parameters. The segments that it leaves out are taken from the table.
    pub fn new(params: &super::Params, table: Option<&'a DigestTable>) -> Result<Self> {
        params.check()?;
        let mut digest = params.image_digest();
        let delta = params.delta.is_some();
        match (params.first, table) {
            (first, Some(_)) if delta && first <= params.geometry.segments() => {}
            (0, _) if !delta => {}
            (first, Some(table)) if !delta && first <= params.geometry.segments() => {
                table.each(0, first, |index, found| digest.add(index, found))?;
            }
            _ => {
                return Err(Error::new(
                    Kind::Protocol,
                    "a sync cannot go on without a table of what is there",
                ))
            }
        }
        Ok(Recorder {
            digest,
            table,
            delta,
        })
    }

    /// Adds segment `index`; indices must ascend.
    pub fn add(&mut self, index: u64, digest: Option<Digest>) -> Result<()> {
        self.digest.add(index, digest);
        match (self.table, &digest) {
            (Some(table), Some(digest)) => table.put(index, digest),
            _ => Ok(()),
        }
    }

    /// The digest of segment `index` grows by `shift`. Tells what it is then.
    pub fn shift(&mut self, index: u64, shift: GrainSum) -> Result<Option<Digest>> {
        match self.table {
            Some(table) if self.delta => table.shift(index, shift),
            _ => Err(Error::new(
                Kind::Protocol,
                "a change came of an image that was not known before",
            )),
        }
    }

    /// Some grains of segment `index` add `is` to its digest, where they added `was`. If these are all its grains
    /// (`whole`), that is the digest, whatever it was. Tells what it is then.
    pub fn replace(
        &mut self,
        index: u64,
        whole: bool,
        (was, is): (GrainSum, GrainSum),
    ) -> Result<Option<Digest>> {
        match self.table {
            Some(table) if self.delta && whole => {
                table.put(index, &Digest(is.0))?;
                Ok(is.digest())
            }
            _ => self.shift(index, is.minus(was)),
        }
    }

    /// The digest of the whole image of `size` bytes.
    pub fn digest(&self, size: u64) -> Result<Digest> {
        match self.table {
            Some(table) if self.delta => table.image_digest(),
            _ => Ok(self.digest.clone().finish(size)),
        }
    }

    /// Where the segments' digests go.
    pub fn table(&self) -> Option<&'a DigestTable> {
        self.table
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
