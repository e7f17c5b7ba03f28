//! Reading a segment: only its data from the image, its holes as zeros.

use super::failure::Failure;
use super::geometry::Geometry;
use crate::buf::{BufPool, PoolBuf};
use crate::digest::LeafSet;
use crate::error::Result;
use crate::image::Image;
use crate::range::ByteRange;
use crate::wire::limits;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a segment, and how many of them were read from the image.
pub(super) struct SegmentData {
    /// Holds a whole segment; only `len` bytes belong to it.
    pub buf: PoolBuf,
    /// Bytes of the segment: shorter for the image's last one.
    pub len: usize,
    /// Bytes that came from the image.
    pub read: u64,
}

impl SegmentData {
    /// A segment of `len` bytes which are all to be written.
    pub fn unfilled(pool: &Arc<BufPool>, len: usize) -> Self {
        let buf = pool.take();
        SegmentData { buf, len, read: 0 }
    }

    /// A segment of `len` zeros.
    pub fn zeros(pool: &Arc<BufPool>, len: usize) -> Self {
        let mut data = SegmentData::unfilled(pool, len);
        data.buf[..len].fill(0);
        data
    }

    /// The segment's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buf[..self.len]
    }
}

/// Reads segment `index`. Extents are widened to leaves of 4 KiB, as direct I/O wants it.
pub(super) fn read(
    image: &dyn Image,
    geometry: &Geometry,
    index: u64,
    pool: &Arc<BufPool>,
) -> Result<SegmentData> {
    let range = geometry.segment(index);
    let mut data = SegmentData::unfilled(pool, range.len() as usize);
    let place = |at: u64| (at - range.start) as usize;
    let mut at = range.start;
    while at < range.end {
        let Some(extent) = image.next_data(at)? else {
            break;
        };
        let part = extent
            .align_out(super::geometry::LEAF_UNIT.into())
            .intersection(&ByteRange::new(at, range.end));
        if part.is_empty() {
            break;
        }
        data.buf[place(at)..place(part.start)].fill(0);
        image.read_at(
            &mut data.buf[place(part.start)..place(part.end)],
            part.start,
        )?;
        data.read += part.len();
        at = part.end;
    }
    data.buf[place(at)..place(range.end)].fill(0);
    Ok(data)
}

/// The segments of `first..end` that hold data, as runs `(first, count)`; at most `max` of them.
/// Also returns where the search stopped: `end`, or earlier when there were too many runs.
pub(super) fn data_runs(
    image: &dyn Image,
    geometry: &Geometry,
    first: u64,
    end: u64,
    max: usize,
) -> Result<(Vec<(u64, u64)>, u64)> {
    let span = geometry.span(first, end);
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut at = span.start;
    while at < span.end {
        let Some(extent) = image.next_data(at)? else {
            break;
        };
        let part = extent.intersection(&span);
        if part.is_empty() {
            break;
        }
        let (from, to) = (
            geometry.segment_of(part.start),
            geometry.segment_of(part.end - 1) + 1,
        );
        let full = runs.len() == max;
        match runs.last_mut() {
            Some((start, count)) if from <= *start + *count => {
                *count = (*count).max(to - *start);
            }
            _ if full => return Ok((runs, from)),
            _ => runs.push((from, to - from)),
        }
        at = geometry.segment(to - 1).end;
    }
    Ok((runs, end))
}

/// A stretch of neighbouring segments.
pub(super) enum Stretch {
    /// They hold data.
    Data(Range<u64>),
    /// They read as zeros. May be empty.
    Hole(Range<u64>),
}

/// Calls `each` for these segments of the image, ascending, stretch by stretch.
pub(super) fn walk(
    image: &dyn Image,
    geometry: &Geometry,
    segments: Range<u64>,
    failure: &Failure,
    mut each: impl FnMut(Stretch) -> Result<()>,
) -> Result<()> {
    let Range { start: mut at, end } = segments;
    while at < end {
        failure.check()?;
        let (runs, reached) = data_runs(image, geometry, at, end, limits::RUNS_MAX)?;
        for (first, count) in runs {
            each(Stretch::Hole(at..first))?;
            at = first + count;
            each(Stretch::Data(first..at))?;
        }
        each(Stretch::Hole(at..reached))?;
        at = reached;
    }
    Ok(())
}

/// Bytes that a set of leaves covers in a segment of `segment_len` bytes.
pub(super) fn leaf_bytes(set: &LeafSet, geometry: &Geometry, segment_len: usize) -> u64 {
    set.runs()
        .iter()
        .map(|&(first, count)| geometry.leaves(first, count, segment_len).len() as u64)
        .sum()
}

/// The bytes of a set of leaves, in order, run by run.
pub(super) fn leaf_slices<'d>(
    set: &LeafSet,
    geometry: &Geometry,
    data: &'d SegmentData,
) -> Vec<&'d [u8]> {
    set.runs()
        .iter()
        .map(|&(first, count)| &data.bytes()[geometry.leaves(first, count, data.len)])
        .collect()
}

/// Puts the bytes of a set of leaves, in order, where they belong; there must be as many as the set covers.
pub(super) fn put_leaves(
    data: &mut SegmentData,
    set: &LeafSet,
    geometry: &Geometry,
    mut bytes: &[u8],
) {
    for (first, count) in set.runs() {
        let place = geometry.leaves(first, count, data.len);
        let (head, rest) = bytes.split_at(place.len());
        data.buf[place].copy_from_slice(head);
        bytes = rest;
    }
}
