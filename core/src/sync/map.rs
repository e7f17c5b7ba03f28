//! Where on the image what happened: a bounded number of cells, and how many bytes of each were what.
//!
//! Each side marks what only it knows: the source which segments were equal or patched, the target
//! what it freed outside of the source's data. Both report it in their last frames, so whoever drives a
//! sync has the whole map, be it one of the two or a relay, in a dry run as well. Pure.

use super::geometry::Geometry;
use crate::error::{Error, Kind, Result};
use crate::range::ByteRange;
use serde::{Deserialize, Serialize};
use std::ops::{AddAssign, Range};

/// Most cells of a map: what a picture of 128 by 128 shows. It bounds the memory (384 KiB) and the
/// report (below 2 MiB, half of what a frame may hold) whatever the image's size.
pub const CELLS_MAX: u64 = 1 << 14;

/// What a part of the image was, in bytes. Their sum is the part's length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// In segments where the source has no data, and nothing had to be freed on the target.
    pub hole: u64,
    /// Equal on both sides.
    pub unchanged: u64,
    /// In leaves that were sent.
    pub changed: u64,
    /// In leaves that became zeros, or freed where the source has no data.
    pub zeroed: u64,
}

impl Extent {
    /// All of it.
    pub fn len(&self) -> u64 {
        self.hole + self.unchanged + self.changed + self.zeroed
    }

    /// Whether it is of no length.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl AddAssign for Extent {
    fn add_assign(&mut self, other: Extent) {
        self.hole += other.hole;
        self.unchanged += other.unchanged;
        self.changed += other.changed;
        self.zeroed += other.zeroed;
    }
}

/// What can be marked. All the rest is holes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Marks {
    unchanged: u64,
    changed: u64,
    zeroed: u64,
}

impl Marks {
    /// The sum, unless it is more than there can be.
    fn sum(&self) -> Option<u64> {
        self.unchanged
            .checked_add(self.changed)?
            .checked_add(self.zeroed)
    }

    fn with(&self, other: &Marks) -> Option<Marks> {
        Some(Marks {
            unchanged: self.unchanged.checked_add(other.unchanged)?,
            changed: self.changed.checked_add(other.changed)?,
            zeroed: self.zeroed.checked_add(other.zeroed)?,
        })
    }
}

/// What one side marked, as it travels in its last frame: runs of equal cells, as
/// `[cells, unchanged, changed, zeroed]`. Unmarked cells at the end are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MapReport(Vec<[u64; 4]>);

/// What every part of an image was during a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMap {
    size: u64,
    cell_bytes: u64,
    cells: Vec<Marks>,
}

impl BlockMap {
    /// All holes. A cell is a whole number of segments, so that none belongs to two.
    pub fn new(geometry: &Geometry) -> Self {
        let segments = geometry.segments();
        let in_cell = segments.div_ceil(CELLS_MAX).max(1);
        BlockMap {
            size: geometry.size(),
            cell_bytes: in_cell * u64::from(geometry.segment_bytes()),
            cells: vec![Marks::default(); segments.div_ceil(in_cell) as usize],
        }
    }

    /// Size of the image in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a cell; the last one may be shorter.
    pub fn cell_bytes(&self) -> u64 {
        self.cell_bytes
    }

    /// Number of cells.
    pub fn cells(&self) -> usize {
        self.cells.len()
    }

    /// Bytes of the image that cells cover.
    pub fn range(&self, cells: Range<usize>) -> ByteRange {
        let at = |cell: usize| (cell as u64).saturating_mul(self.cell_bytes).min(self.size);
        ByteRange::new(at(cells.start), at(cells.end))
    }

    /// What cells were, in sum.
    pub fn extent(&self, cells: Range<usize>) -> Extent {
        let mut sum = Extent::default();
        for cell in cells {
            let marks = self.cells[cell];
            let len = self.range(cell..cell + 1).len();
            sum += Extent {
                hole: len.saturating_sub(marks.sum().unwrap_or(u64::MAX)),
                unchanged: marks.unchanged,
                changed: marks.changed,
                zeroed: marks.zeroed,
            };
        }
        sum
    }

    /// What the image was, in sum.
    pub fn total(&self) -> Extent {
        self.extent(0..self.cells())
    }

    /// Notes that a range was compared and found equal.
    pub fn mark_unchanged(&mut self, range: ByteRange) {
        self.each(range, |marks, len| marks.unchanged += len);
    }

    /// Notes that a range of which the source has nothing was freed on the target.
    pub fn mark_freed(&mut self, range: ByteRange) {
        self.each(range, |marks, len| marks.zeroed += len);
    }

    /// Notes that of a segment so many bytes were sent, and so many became zeros.
    pub fn mark_patched(&mut self, segment: ByteRange, changed: u64, zeroed: u64) {
        let index = (segment.start / self.cell_bytes) as usize;
        if let Some(marks) = self.cells.get_mut(index) {
            marks.changed += changed;
            marks.zeroed += zeroed;
            marks.unchanged += segment.len().saturating_sub(changed + zeroed);
        }
    }

    /// Calls `mark` with each cell that a range touches, and how many of its bytes the range has.
    fn each(&mut self, range: ByteRange, mark: impl Fn(&mut Marks, u64)) {
        let mut at = range.start;
        let end = range.end.min(self.size);
        while at < end {
            let index = at / self.cell_bytes;
            let to = end.min((index + 1).saturating_mul(self.cell_bytes));
            mark(&mut self.cells[index as usize], to - at);
            at = to;
        }
    }

    /// What was marked so far.
    pub(super) fn report(&self) -> MapReport {
        let mut runs: Vec<[u64; 4]> = Vec::new();
        for m in &self.cells {
            match runs.last_mut() {
                Some([count, rest @ ..]) if *rest == [m.unchanged, m.changed, m.zeroed] => {
                    *count += 1;
                }
                _ => runs.push([1, m.unchanged, m.changed, m.zeroed]),
            }
        }
        runs.pop_if(|run| run[1..] == [0, 0, 0]);
        MapReport(runs)
    }

    /// Adds what the other side marked. It must fit: each byte is one thing only.
    pub(super) fn add(&mut self, report: &MapReport) -> Result<()> {
        let wrong = || Error::new(Kind::Protocol, "the peer sent a map that does not fit");
        let mut cell = 0;
        for &[count, unchanged, changed, zeroed] in &report.0 {
            let marks = Marks {
                unchanged,
                changed,
                zeroed,
            };
            let left = self.cells() - cell;
            let count = usize::try_from(count)
                .ok()
                .filter(|n| *n <= left)
                .ok_or_else(wrong)?;
            for index in cell..cell + count {
                let sum = self.cells[index].with(&marks).ok_or_else(wrong)?;
                let len = self.range(index..index + 1).len();
                self.cells[index] = match sum.sum() {
                    Some(bytes) if bytes <= len => sum,
                    _ => return Err(wrong()),
                };
            }
            cell += count;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
