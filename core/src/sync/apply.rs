//! Applying patches on the target: the new segment is built in memory and must have the digest the
//! source promised before a byte of it is written.

use super::failure::Failure;
use super::grains::{self, GrainData, Kept};
use super::segment::{self, SegmentData};
use super::{Meter, Params, SideStats};
use crate::buf::BufPool;
use crate::digest::{self, GrainSet, LeafSet};
use crate::error::{Error, Kind, Result};
use crate::image::Image;
use crate::range::ByteRange;
use crate::wire::{Delta, Entry, Patch, Unpacker};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Bytes of segments that the threads of one side work on at a time.
const WORKED_BYTES_MAX: u32 = 24 << 20;

/// Threads for disk work on one side. Direct I/O wants several requests in flight even where there
/// are few cores; more than eight bring nothing. Large segments get fewer, for the memory they take.
pub(super) fn workers(params: &Params) -> usize {
    let fit = (WORKED_BYTES_MAX / params.geometry.segment_bytes()).max(2) as usize;
    let wanted = params.threads.map_or_else(
        || {
            let cores = std::thread::available_parallelism().map_or(2, usize::from);
            (2 * cores).clamp(4, 8)
        },
        usize::from,
    );
    wanted.clamp(1, fit)
}

/// Most bytes freed in one call.
const CLEAR_BYTES_MAX: u64 = 256 << 20;

/// What a patch goes onto.
pub(super) enum Base {
    /// The segment reads as zeros.
    Zeros,
    /// It must be read.
    OnDisk,
    /// These grains of it were read; the others are not looked at, and the patch's digest does not cover them.
    Grains(Kept),
}

impl Base {
    /// Of a segment that was reported as `entry`.
    pub(super) fn of(entry: Entry) -> Base {
        match entry {
            Entry::Absent | Entry::Zero => Base::Zeros,
            Entry::Digest(_) => Base::OnDisk,
        }
    }
}

/// The target image, what it was asked for, and counts of what was done to it.
pub(super) struct Applier<'a> {
    image: &'a dyn Image,
    params: &'a Params,
    pool: Arc<BufPool>,
    meter: &'a Meter,
    read: AtomicU64,
    written: AtomicU64,
    zeroed: AtomicU64,
}

impl<'a> Applier<'a> {
    pub(super) fn new(image: &'a dyn Image, params: &'a Params, meter: &'a Meter) -> Self {
        Applier {
            image,
            params,
            pool: params.geometry.buffers(),
            meter,
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            zeroed: AtomicU64::new(0),
        }
    }

    pub(super) fn image(&self) -> &'a dyn Image {
        self.image
    }

    /// What was done so far. Zeroed counts what was freed outside of the source's data.
    pub(super) fn stats(&self) -> SideStats {
        SideStats {
            read: self.read.load(Ordering::Relaxed),
            written: self.written.load(Ordering::Relaxed),
            zeroed: self.zeroed.load(Ordering::Relaxed),
            verified: 0,
        }
    }

    /// Reads a segment and counts it.
    pub(super) fn read(&self, index: u64) -> Result<SegmentData> {
        let data = segment::read(self.image, &self.params.geometry, index, &self.pool)?;
        self.read.fetch_add(data.read, Ordering::Relaxed);
        Ok(data)
    }

    /// Reads some grains of a segment and counts them.
    pub(super) fn read_grains(&self, index: u64, set: GrainSet) -> Result<GrainData> {
        let grains = grains::read(self.image, self.params, (index, set), &self.pool)?;
        self.read.fetch_add(grains.data.read, Ordering::Relaxed);
        Ok(grains)
    }

    /// Makes a range, of which the source has nothing, read as zeros.
    pub(super) fn clear(&self, range: ByteRange) -> Result<()> {
        if !self.params.dry_run {
            self.image.zero(range)?;
        }
        self.zeroed.fetch_add(range.len(), Ordering::Relaxed);
        self.meter.mark(|map| map.mark_freed(range));
        Ok(())
    }

    /// Makes the segments `first..end`, of which the source has nothing, read as zeros. Where only reading tells
    /// whether they do already, `each` is called for every one of them instead.
    pub(super) fn clear_segments(
        &self,
        first: u64,
        end: u64,
        failure: &Failure,
        each: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        if !self.image.tells_holes() {
            return (first..end).try_for_each(each);
        }
        let span = self.params.geometry.span(first, end);
        let mut at = span.start;
        while at < span.end {
            failure.check()?;
            let Some(extent) = self.image.next_data(at)? else {
                break;
            };
            // In pieces, so that a signal or a lost peer is noticed in between.
            let piece = ByteRange::new(extent.start, extent.start.saturating_add(CLEAR_BYTES_MAX));
            let part = extent
                .align_out(super::geometry::LEAF_UNIT.into())
                .intersection(&piece.align_out(super::geometry::LEAF_UNIT.into()))
                .intersection(&ByteRange::new(at, span.end));
            if part.is_empty() {
                break;
            }
            self.clear(part)?;
            at = part.end;
        }
        Ok(())
    }

    /// Makes a segment, of which the source has nothing, read as zeros, where it does not do so already.
    pub(super) fn clear_segment(&self, index: u64) -> Result<()> {
        let data = self.read(index)?;
        let start = self.params.geometry.segment(index).start;
        let leaf = super::geometry::LEAF_UNIT as usize;
        for piece in data.bytes().chunks(leaf * LeafSet::MAX).enumerate() {
            let (i, bytes) = piece;
            let base = start + (i * leaf * LeafSet::MAX) as u64;
            for (first, count) in digest::nonzero_leaves(bytes, leaf).runs() {
                let end = ((first + count) * leaf).min(bytes.len()) as u64;
                self.clear(ByteRange::new(base + (first * leaf) as u64, base + end))?;
            }
        }
        Ok(())
    }

    /// Checks a patch, builds the segment, proves it and writes what changed.
    pub(super) fn apply(&self, patch: &Patch, base: Base, unpacker: &mut Unpacker) -> Result<()> {
        let geometry = &self.params.geometry;
        let range = geometry.segment(patch.segment);
        let len = range.len() as usize;
        let leaf_bytes = geometry.leaf_bytes() as usize;
        let leaves = LeafSet::first(len.div_ceil(leaf_bytes));
        match &base {
            Base::Grains(kept) => self.check(patch, &kept.set.leaves(leaf_bytes, len))?,
            // Without a digest there is nothing to prove the rest by: all of it must go.
            _ if patch.digest.is_none() && patch.zeroed != leaves => return Err(malformed()),
            _ => self.check(patch, &leaves)?,
        }
        let changed = segment::leaf_bytes(&patch.changed, geometry, len) as usize;
        let data = match &base {
            _ if changed == len => {
                let mut data = SegmentData::unfilled(&self.pool, len);
                unpacker.unpack_into(&patch.data, &mut data.buf[..len])?;
                data
            }
            Base::Grains(kept) => {
                let data = kept.restore(self.params, len, &self.pool);
                self.patched(patch, data, changed, unpacker)?
            }
            Base::OnDisk if patch.digest.is_some() => {
                self.patched(patch, self.read(patch.segment)?, changed, unpacker)?
            }
            Base::OnDisk | Base::Zeros => {
                let zeros = SegmentData::zeros(&self.pool, len);
                self.patched(patch, zeros, changed, unpacker)?
            }
        };
        let digest = match &base {
            Base::Grains(kept) => grains::look(self.params, &data, kept.set).1.digest(),
            _ => digest::segment(self.params.hash, data.bytes(), leaf_bytes),
        };
        if digest != patch.digest {
            return Err(wrong_digest(range, self.image));
        }
        self.write(patch.segment, &data, &patch.changed, &patch.zeroed)
    }

    /// Checks a change, proves it and writes it. The rest of the segment is not looked at.
    pub(super) fn change(&self, delta: &Delta, unpacker: &mut Unpacker) -> Result<()> {
        let (geometry, patch) = (&self.params.geometry, &delta.patch);
        let range = geometry.segment(patch.segment);
        let len = range.len() as usize;
        let leaves = LeafSet::first(len.div_ceil(geometry.leaf_bytes() as usize));
        self.check(patch, &leaves)?;
        if patch.digest.is_none() {
            return Err(malformed());
        }
        let changed = segment::leaf_bytes(&patch.changed, geometry, len) as usize;
        let data = SegmentData::unfilled(&self.pool, len);
        let data = self.patched(patch, data, changed, unpacker)?;
        let leaves = segment::leaf_slices(&patch.changed, geometry, &data);
        if Some(delta.proof(self.params.hash, &leaves)) != patch.digest {
            return Err(wrong_digest(range, self.image));
        }
        self.write(patch.segment, &data, &patch.changed, &patch.zeroed)
    }

    /// Writes the `changed` leaves of segment `index` from `data`, and frees the `zeroed` ones.
    pub(super) fn write(
        &self,
        index: u64,
        data: &SegmentData,
        changed: &LeafSet,
        zeroed: &LeafSet,
    ) -> Result<()> {
        let geometry = &self.params.geometry;
        let range = geometry.segment(index);
        for (first, count) in changed.runs() {
            let place = geometry.leaves(first, count, data.len);
            let offset = range.start + place.start as u64;
            self.written
                .fetch_add(place.len() as u64, Ordering::Relaxed);
            self.image.write_at(&data.buf[place], offset)?;
        }
        for (first, count) in zeroed.runs() {
            let place = geometry.leaves(first, count, data.len);
            self.image.zero(ByteRange::new(
                range.start + place.start as u64,
                range.start + place.end as u64,
            ))?;
        }
        self.image.start_writeback(range);
        Ok(())
    }

    /// What the patch, which changes `changed` bytes, makes of `data`.
    fn patched(
        &self,
        patch: &Patch,
        mut data: SegmentData,
        changed: usize,
        unpacker: &mut Unpacker,
    ) -> Result<SegmentData> {
        let geometry = &self.params.geometry;
        for (first, count) in patch.zeroed.runs() {
            data.buf[geometry.leaves(first, count, data.len)].fill(0);
        }
        let bytes = unpacker.unpack(&patch.data, changed)?;
        segment::put_leaves(&mut data, &patch.changed, geometry, bytes);
        Ok(data)
    }

    /// The patch names only leaves that it may, and none twice.
    fn check(&self, patch: &Patch, leaves: &LeafSet) -> Result<()> {
        let Patch {
            changed, zeroed, ..
        } = patch;
        let fits = changed.is_within(leaves)
            && zeroed.is_within(leaves)
            && !changed.iter().any(|i| zeroed.contains(i));
        match fits {
            true => Ok(()),
            false => Err(malformed()),
        }
    }
}

fn malformed() -> Error {
    Error::new(Kind::Protocol, "the source sent a malformed patch")
}

fn wrong_digest(range: ByteRange, image: &dyn Image) -> Error {
    Error::new(
        Kind::Digest,
        format!(
            "bytes {range} arrived for {} with a wrong digest",
            image.name()
        ),
    )
    .advise("nothing of them was written; run again")
}
