//! Byte ranges and sorted sets of them: the arithmetic of extents. Pure, no I/O.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A half-open range of bytes `start..end` of an image. Never empty inside a [`RangeSet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset just past the last byte.
    pub end: u64,
}

impl ByteRange {
    /// `start..end`; an `end` before `start` gives an empty range at `start`.
    pub fn new(start: u64, end: u64) -> Self {
        ByteRange {
            start,
            end: end.max(start),
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// True if it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The bytes in both, which may be none.
    pub fn intersection(&self, other: &ByteRange) -> ByteRange {
        let start = self.start.max(other.start);
        ByteRange::new(start, self.end.min(other.end))
    }

    /// Grown outwards to multiples of `grain` bytes (`grain` > 0); saturates at `u64::MAX`.
    pub fn align_out(&self, grain: u64) -> ByteRange {
        let start = self.start - self.start % grain;
        let end = match self.end % grain {
            0 => self.end,
            r => self.end.saturating_add(grain - r),
        };
        ByteRange::new(start, end)
    }

    /// Shrunk inwards to multiples of `grain` bytes (`grain` > 0); may become empty.
    pub fn align_in(&self, grain: u64) -> ByteRange {
        let start = self.start.div_ceil(grain).saturating_mul(grain);
        ByteRange::new(start, self.end - self.end % grain)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// A set of bytes as sorted, disjoint, non-touching ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<ByteRange>,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range, merging what it touches. Appending in ascending order costs O(1).
    pub fn insert(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        match self.ranges.last_mut() {
            Some(last) if range.start >= last.start => {
                if range.start <= last.end {
                    last.end = last.end.max(range.end);
                } else {
                    self.ranges.push(range);
                }
            }
            None => self.ranges.push(range),
            Some(_) => self.insert_before_last(range),
        }
    }

    fn insert_before_last(&mut self, range: ByteRange) {
        let from = self.ranges.partition_point(|r| r.end < range.start);
        let to = self.ranges.partition_point(|r| r.start <= range.end);
        let mut merged = range;
        if from < to {
            merged.start = merged.start.min(self.ranges[from].start);
            merged.end = merged.end.max(self.ranges[to - 1].end);
        }
        self.ranges.splice(from..to, [merged]);
    }

    /// Number of bytes in the set.
    pub fn total(&self) -> u64 {
        self.ranges.iter().map(ByteRange::len).sum()
    }

    /// True if it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &ByteRange> {
        self.ranges.iter()
    }

    /// The parts of the set that lie in `window`, ascending.
    pub fn within(&self, window: ByteRange) -> impl Iterator<Item = ByteRange> + '_ {
        let from = self.ranges.partition_point(|r| r.end <= window.start);
        self.ranges[from..]
            .iter()
            .take_while(move |r| r.start < window.end)
            .map(move |r| r.intersection(&window))
            .filter(|r| !r.is_empty())
    }

    /// The parts of `window` that are not in the set, ascending.
    pub fn gaps_within(&self, window: ByteRange) -> Vec<ByteRange> {
        let mut gaps = Vec::new();
        let mut at = window.start;
        for r in self.within(window) {
            if r.start > at {
                gaps.push(ByteRange::new(at, r.start));
            }
            at = r.end;
        }
        if at < window.end {
            gaps.push(ByteRange::new(at, window.end));
        }
        gaps
    }

    /// The first range that ends after `offset`, cut so that it starts no earlier than `offset`.
    pub fn next_from(&self, offset: u64) -> Option<ByteRange> {
        let i = self.ranges.partition_point(|r| r.end <= offset);
        self.ranges
            .get(i)
            .map(|r| ByteRange::new(r.start.max(offset), r.end))
    }
}

impl FromIterator<ByteRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = ByteRange>>(ranges: I) -> Self {
        let mut set = RangeSet::new();
        for r in ranges {
            set.insert(r);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(ranges: &[(u8, u8)]) -> [bool; 300] {
        let mut bits = [false; 300];
        for &(start, len) in ranges {
            for b in &mut bits[start as usize..start as usize + len as usize % 40] {
                *b = true;
            }
        }
        bits
    }

    fn set(ranges: &[(u8, u8)]) -> RangeSet {
        ranges
            .iter()
            .map(|&(s, l)| ByteRange::new(s as u64, s as u64 + l as u64 % 40))
            .collect()
    }

    proptest! {
        #[test]
        fn a_set_is_the_union_of_what_went_in(ranges: Vec<(u8, u8)>, w in (0u64..300, 0u64..300)) {
            let (set, bits) = (set(&ranges), bits(&ranges));
            for pair in set.ranges.windows(2) {
                prop_assert!(pair[0].end < pair[1].start, "touching ranges must be merged");
            }
            prop_assert_eq!(set.total(), bits.iter().filter(|b| **b).count() as u64);
            let window = ByteRange::new(w.0.min(w.1), w.0.max(w.1));
            let mut seen = [None; 300];
            for r in set.within(window) {
                (r.start..r.end).for_each(|i| seen[i as usize] = Some(true));
            }
            for r in set.gaps_within(window) {
                (r.start..r.end).for_each(|i| seen[i as usize] = Some(false));
            }
            for i in 0..300u64 {
                let inside = (window.start..window.end).contains(&i);
                prop_assert_eq!(seen[i as usize], inside.then_some(bits[i as usize]));
            }
            let next = set.next_from(w.0).map(|r| r.start);
            prop_assert_eq!(next, (w.0..300).find(|&i| bits[i as usize]));
        }

        #[test]
        fn alignment_contains_and_is_contained(s in 0u64..10_000, l in 0u64..10_000, grain in 1u64..999) {
            let r = ByteRange::new(s, s + l);
            let (out, inn) = (r.align_out(grain), r.align_in(grain));
            prop_assert!(out.start <= r.start && out.end >= r.end);
            prop_assert!(inn.is_empty() || (inn.start >= r.start && inn.end <= r.end));
            prop_assert!(out.start % grain == 0 && out.end % grain == 0);
            prop_assert!(out.len() < r.len() + 2 * grain);
        }
    }
}
