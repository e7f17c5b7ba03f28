//! Digests: of a segment, and of a whole image.
//!
//! Zeros are part of the structure, not of the hashed bytes: a segment's digest covers the leaves that
//! are not zero and the bitmap of which these are. So a hole and a run of written zeros have the same
//! digest, and hashing costs what the data costs, however large and sparse the image is.
//!
//! It is a sum over grains of 64 KiB: who knows what a grain was and what it is, knows the new digest without reading
//! the rest.

use crate::buf::is_zero;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fmt;
use std::ops::Range;

/// Which hash function makes the digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashKind {
    /// BLAKE3, 256 bits: several times as fast as SHA-256 on one core.
    #[default]
    Blake3,
    /// SHA-256, for those who need a NIST function.
    Sha256,
}

/// A 256-bit digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl std::str::FromStr for Digest {
    type Err = &'static str;

    /// Reads 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const BAD: &str = "a digest is 64 hexadecimal digits";
        if text.len() != 64 || !text.is_ascii() {
            return Err(BAD);
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| BAD)?;
        }
        Ok(Digest(bytes))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Which of a segment's leaves (at most 256) have a property: leaf `i` is bit `i % 8` of byte `i / 8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeafSet(pub [u8; 32]);

impl LeafSet {
    /// Most leaves a segment may have.
    pub const MAX: usize = 256;

    /// Adds leaf `i`.
    pub fn insert(&mut self, i: usize) {
        self.0[i / 8] |= 1 << (i % 8);
    }

    /// Whether leaf `i` is in the set.
    pub fn contains(&self, i: usize) -> bool {
        self.0[i / 8] >> (i % 8) & 1 == 1
    }

    /// The first `count` leaves.
    pub fn first(count: usize) -> Self {
        let mut set = LeafSet::default();
        (0..count.min(Self::MAX)).for_each(|i| set.insert(i));
        set
    }

    /// Whether all of its leaves are in `other` as well.
    pub fn is_within(&self, other: &LeafSet) -> bool {
        self.0.iter().zip(other.0).all(|(a, b)| a & !b == 0)
    }

    /// Number of leaves in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|b| b.count_ones() as usize).sum()
    }

    /// True if it has none.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 32]
    }

    /// The leaves in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..Self::MAX).filter(|i| self.contains(*i))
    }

    /// Runs of neighbouring leaves as `(first, count)`, ascending.
    pub fn runs(&self) -> Vec<(usize, usize)> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for i in self.iter() {
            match runs.last_mut() {
                Some((first, count)) if *first + *count == i => *count += 1,
                _ => runs.push((i, 1)),
            }
        }
        runs
    }
}

/// A running hash of either kind.
#[derive(Clone)]
enum Hasher {
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
}

impl Hasher {
    fn new(kind: HashKind) -> Self {
        match kind {
            HashKind::Blake3 => Hasher::Blake3(Box::new(blake3::Hasher::new())),
            HashKind::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Blake3(h) => {
                h.update(bytes);
            }
            Hasher::Sha256(h) => h.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        Digest(match self {
            Hasher::Blake3(h) => *h.finalize().as_bytes(),
            Hasher::Sha256(h) => h.finalize().into(),
        })
    }
}

/// Which leaves of a segment are not all zero.
pub fn nonzero_leaves(segment: &[u8], leaf_bytes: usize) -> LeafSet {
    let mut set = LeafSet::default();
    for (i, leaf) in segment.chunks(leaf_bytes).enumerate() {
        if !is_zero(leaf) {
            set.insert(i);
        }
    }
    set
}

/// Bytes of a grain: what a segment's digest is added up from. The smallest chunk of a thin pool, and the granularity
/// of QEMU's dirty bitmaps unless told otherwise.
pub const GRAIN_BYTES: usize = 64 << 10;

/// Digest of a segment: the sum of its grains' digests. `None` for a segment of zeros, which needs no hash.
pub fn segment(kind: HashKind, bytes: &[u8], leaf_bytes: usize) -> Option<Digest> {
    segment_with(kind, bytes, leaf_bytes, &nonzero_leaves(bytes, leaf_bytes))
}

/// The same where it is known already which leaves are not zero.
pub fn segment_with(
    kind: HashKind,
    bytes: &[u8],
    leaf_bytes: usize,
    present: &LeafSet,
) -> Option<Digest> {
    piece(kind, bytes, leaf_bytes, present, 0).digest()
}

/// What a piece of a segment, which begins with the grain that leaf `first_leaf` begins, adds to the segment's digest.
/// `present` has the nonzero leaves, counted from the piece's start. A piece consists of whole grains, or ends where
/// the segment ends.
pub fn piece(
    kind: HashKind,
    bytes: &[u8],
    leaf_bytes: usize,
    present: &LeafSet,
    first_leaf: usize,
) -> GrainSum {
    let leaves = bytes.len().div_ceil(leaf_bytes);
    let per_grain = (GRAIN_BYTES / leaf_bytes).max(1);
    let mut sum = GrainSum::default();
    for first in (0..leaves).step_by(per_grain) {
        let end = (first + per_grain).min(leaves);
        let mut hasher = None;
        let mut held = LeafSet::default();
        let mut at = first;
        while at < end {
            let from = at;
            while at < end && present.contains(at) {
                held.insert(first_leaf + at);
                at += 1;
            }
            if at > from {
                let to = (at * leaf_bytes).min(bytes.len());
                hasher
                    .get_or_insert_with(|| Hasher::new(kind))
                    .update(&bytes[from * leaf_bytes..to]);
            } else {
                at += 1;
            }
        }
        if let Some(mut hasher) = hasher {
            // Behind the data, which so stays aligned to the hash function's own blocks. It also tells which grain
            // of the segment it is.
            hasher.update(&held.0);
            sum = sum.plus(GrainSum(hasher.finish().0));
        }
    }
    sum
}

/// Digests of grains, added up: four numbers of 64 bits, each modulo 2^64. A sum can be corrected for a grain that has
/// changed, without the others.
///
/// Two different segments with one sum are harder to find than such hashes: with the 16 summands that a segment has at
/// the most, by Wagner's generalized birthday algorithm, about 2^51 steps and as much memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GrainSum(pub [u8; 32]);

impl GrainSum {
    /// Of a segment with this digest.
    pub fn of(digest: Option<Digest>) -> GrainSum {
        digest.map_or_else(GrainSum::default, |digest| GrainSum(digest.0))
    }

    /// The digest of a segment with this sum.
    pub fn digest(self) -> Option<Digest> {
        (self != GrainSum::default()).then_some(Digest(self.0))
    }

    /// Both added up.
    pub fn plus(self, other: GrainSum) -> GrainSum {
        self.with(other, u64::wrapping_add)
    }

    /// `other` taken away.
    pub fn minus(self, other: GrainSum) -> GrainSum {
        self.with(other, u64::wrapping_sub)
    }

    fn with(self, other: GrainSum, op: impl Fn(u64, u64) -> u64) -> GrainSum {
        let mut sum = [0; 32];
        for (i, lane) in sum.chunks_exact_mut(8).enumerate() {
            let of = |from: &GrainSum| {
                from.0[8 * i..8 * i + 8]
                    .iter()
                    .rev()
                    .fold(0, |n, byte| n << 8 | u64::from(*byte))
            };
            lane.copy_from_slice(&op(of(&self), of(&other)).to_le_bytes());
        }
        GrainSum(sum)
    }
}

/// Which of a segment's grains (at most 16) are meant: grain `i` is bit `i`. Only where a grain is 64 KiB, so in images
/// with leaves that divide that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GrainSet(pub u16);

impl GrainSet {
    /// Most grains a segment may have.
    const MAX: usize = u16::BITS as usize;

    /// All grains of a segment of `segment_len` bytes.
    pub fn all(segment_len: usize) -> Self {
        let mut set = GrainSet::default();
        set.insert_bytes(0..segment_len);
        set
    }

    /// Adds the grains that these bytes of the segment are in.
    pub fn insert_bytes(&mut self, bytes: Range<usize>) {
        let end = bytes.end.div_ceil(GRAIN_BYTES).min(Self::MAX);
        (bytes.start / GRAIN_BYTES..end).for_each(|i| self.0 |= 1 << i);
    }

    /// True if it has none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of its grains are in `other` as well.
    pub fn is_within(self, other: GrainSet) -> bool {
        self.0 & !other.0 == 0
    }

    /// Where in a segment of `segment_len` bytes they are, neighbours as one, ascending.
    pub fn places(self, segment_len: usize) -> Vec<Range<usize>> {
        let mut places: Vec<Range<usize>> = Vec::new();
        for i in (0..Self::MAX).filter(|i| self.0 >> i & 1 == 1) {
            let end = ((i + 1) * GRAIN_BYTES).min(segment_len);
            let start = (i * GRAIN_BYTES).min(end);
            match places.last_mut() {
                _ if start == end => {}
                Some(last) if last.end == start => last.end = end,
                _ => places.push(start..end),
            }
        }
        places
    }

    /// Their bytes in a segment of `segment_len` bytes.
    pub fn bytes(self, segment_len: usize) -> usize {
        self.places(segment_len).iter().map(Range::len).sum()
    }

    /// Their leaves in a segment of `segment_len` bytes.
    pub fn leaves(self, leaf_bytes: usize, segment_len: usize) -> LeafSet {
        let mut set = LeafSet::default();
        for place in self.places(segment_len) {
            let end = place.end.div_ceil(leaf_bytes).min(LeafSet::MAX);
            (place.start / leaf_bytes..end).for_each(|i| set.insert(i));
        }
        set
    }
}

/// The digest of `pieces` in order, whatever they are.
pub fn of_pieces(kind: HashKind, pieces: &[&[u8]]) -> Digest {
    let mut hasher = Hasher::new(kind);
    pieces.iter().for_each(|piece| hasher.update(piece));
    hasher.finish()
}

/// Digest of an image, fed with its nonzero segments in ascending order.
#[derive(Clone)]
pub struct ImageDigest {
    hasher: Hasher,
}

impl ImageDigest {
    /// For an image cut into leaves and segments of these sizes.
    pub fn new(kind: HashKind, leaf_bytes: u32, segment_bytes: u32) -> Self {
        let mut hasher = Hasher::new(kind);
        hasher.update(b"rblocksync image v2\n");
        hasher.update(&leaf_bytes.to_le_bytes());
        hasher.update(&segment_bytes.to_le_bytes());
        ImageDigest { hasher }
    }

    /// Adds segment `index`; `None`, a segment of zeros, changes nothing.
    pub fn add(&mut self, index: u64, digest: Option<Digest>) {
        if let Some(digest) = digest {
            self.hasher.update(&index.to_le_bytes());
            self.hasher.update(&digest.0);
        }
    }

    /// The digest of an image of `size` bytes.
    pub fn finish(mut self, size: u64) -> Digest {
        self.hasher.update(b"size");
        self.hasher.update(&size.to_le_bytes());
        self.hasher.finish()
    }
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
