//! How an image is cut: into leaves, the unit of change, and segments, the unit of comparison. Pure.

use crate::buf::BufPool;
use crate::digest::LeafSet;
use crate::error::{Error, Kind, Result};
use crate::range::ByteRange;
use crate::wire::limits::LEAF_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Smallest leaf in bytes, and the unit of `--block-size`.
pub const LEAF_UNIT: u32 = 4096;
/// Size a segment aims at, in bytes.
const SEGMENT_BYTES: u32 = 1 << 20;

/// Cut of an image of `size` bytes. The last leaf and segment may be shorter than the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct Geometry {
    size: u64,
    leaf_bytes: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    size: u64,
    leaf_bytes: u32,
}

impl TryFrom<Unchecked> for Geometry {
    type Error = Error;
    fn try_from(g: Unchecked) -> Result<Self> {
        Geometry::new(g.size, g.leaf_bytes)
    }
}

impl From<Geometry> for Unchecked {
    fn from(g: Geometry) -> Self {
        Unchecked {
            size: g.size,
            leaf_bytes: g.leaf_bytes,
        }
    }
}

impl Geometry {
    /// Leaves of `leaf_bytes`, a multiple of 4 KiB and at most 16 MiB.
    pub fn new(size: u64, leaf_bytes: u32) -> Result<Self> {
        if leaf_bytes == 0 || !leaf_bytes.is_multiple_of(LEAF_UNIT) || leaf_bytes > LEAF_BYTES_MAX {
            return Err(Error::new(
                Kind::Usage,
                format!("a leaf of {leaf_bytes} bytes is not a multiple of 4 KiB up to 16 MiB"),
            ));
        }
        if size > i64::MAX as u64 {
            return Err(Error::new(
                Kind::Usage,
                format!("an image of {size} bytes is too large"),
            ));
        }
        Ok(Geometry { size, leaf_bytes })
    }

    /// Size of the image in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a leaf.
    pub fn leaf_bytes(&self) -> u32 {
        self.leaf_bytes
    }

    /// Bytes of a segment: as many leaves as go into 1 MiB, at least one, at most 256.
    pub fn segment_bytes(&self) -> u32 {
        let leaves = (SEGMENT_BYTES / self.leaf_bytes).clamp(1, LeafSet::MAX as u32);
        leaves * self.leaf_bytes
    }

    /// Buffers for whole segments.
    pub(super) fn buffers(&self) -> Arc<BufPool> {
        BufPool::new(self.segment(0).len() as usize)
    }

    /// Number of segments.
    pub fn segments(&self) -> u64 {
        self.size.div_ceil(self.segment_bytes().into())
    }

    /// Bytes that segment `index` covers; empty past the end.
    pub fn segment(&self, index: u64) -> ByteRange {
        let len = u64::from(self.segment_bytes());
        let start = index.saturating_mul(len).min(self.size);
        ByteRange::new(start, start.saturating_add(len).min(self.size))
    }

    /// Bytes that the segments `first..end` cover.
    pub fn span(&self, first: u64, end: u64) -> ByteRange {
        let len = u64::from(self.segment_bytes());
        let at = |index: u64| index.saturating_mul(len).min(self.size);
        ByteRange::new(at(first), at(end))
    }

    /// The segment that holds byte `offset`.
    pub fn segment_of(&self, offset: u64) -> u64 {
        offset / u64::from(self.segment_bytes())
    }

    /// Bytes, within a segment of `segment_len` bytes, of `count` leaves from `first` on.
    pub fn leaves(&self, first: usize, count: usize, segment_len: usize) -> std::ops::Range<usize> {
        let leaf = self.leaf_bytes as usize;
        (first * leaf).min(segment_len)..((first + count) * leaf).min(segment_len)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn segments_tile_the_image(size in 0u64..1 << 30, units in 1u32..=4096) {
            let g = Geometry::new(size, units * LEAF_UNIT).unwrap();
            prop_assert!(g.segment_bytes().is_multiple_of(g.leaf_bytes()));
            prop_assert!(g.segment_bytes() / g.leaf_bytes() <= 256);
            prop_assert_eq!(g.span(0, g.segments()), ByteRange::new(0, size));
            if let Some(last) = g.segments().checked_sub(1) {
                prop_assert!(!g.segment(last).is_empty());
                prop_assert_eq!(g.segment_of(size - 1), last);
            }
            prop_assert!(g.segment(g.segments()).is_empty());
        }
    }

    #[test]
    fn bad_leaves_are_refused() {
        for leaf in [0, 1, 4095, 4097, LEAF_BYTES_MAX + LEAF_UNIT] {
            assert!(Geometry::new(1, leaf).is_err(), "{leaf}");
        }
        assert!(serde_json::from_str::<Geometry>(r#"{"size":1,"leaf_bytes":7}"#).is_err());
        assert!(Geometry::new(u64::MAX, LEAF_UNIT).is_err());
    }
}
