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
mod tests {
    use super::*;

    #[test]
    fn digests_are_made_by_the_standard_functions() {
        let hash = |kind, bytes: &[u8]| {
            let mut hasher = Hasher::new(kind);
            hasher.update(bytes);
            hasher.finish()
        };
        assert_eq!(
            hash(HashKind::Sha256, b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            hash(HashKind::Blake3, b"abc").to_string(),
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
        );
    }

    #[test]
    fn where_the_data_lies_matters_and_zeros_cost_nothing() {
        let mut a = vec![0u8; 16 * 4096];
        let mut b = a.clone();
        assert_eq!(segment(HashKind::Blake3, &a, 4096), None);
        a[4096] = 1;
        b[8192] = 1;
        let (a, b) = (
            segment(HashKind::Blake3, &a, 4096),
            segment(HashKind::Blake3, &b, 4096),
        );
        assert!(a.is_some() && a != b, "moved leaf must change the digest");
    }

    #[test]
    fn a_digest_follows_a_change_of_one_grain() {
        let leaf = 4096;
        for kind in [HashKind::Blake3, HashKind::Sha256] {
            let mut bytes: Vec<u8> = (0..10 * GRAIN_BYTES + 700)
                .map(|i| (i / 997) as u8)
                .collect();
            bytes[GRAIN_BYTES + leaf..GRAIN_BYTES + 2 * leaf].fill(0);
            let sum = |bytes: &[u8], first_leaf| {
                piece(kind, bytes, leaf, &nonzero_leaves(bytes, leaf), first_leaf)
            };
            // The third grain, zeros, and the last one, which is not whole.
            for (at, end) in [(2, 3), (4, 6), (10, 11)] {
                let range = at * GRAIN_BYTES..(end * GRAIN_BYTES).min(bytes.len());
                let first_leaf = range.start / leaf;
                let before = GrainSum::of(segment(kind, &bytes, leaf));
                let old = sum(&bytes[range.clone()], first_leaf);
                bytes[range.clone()].fill(at as u8 & 2);
                let new = sum(&bytes[range], first_leaf);
                assert_ne!(old, new);
                let after = before.plus(new.minus(old));
                assert_eq!(after.digest(), segment(kind, &bytes, leaf));
            }
            bytes.rotate_left(GRAIN_BYTES);
            let moved = segment(kind, &bytes, leaf);
            bytes.rotate_right(GRAIN_BYTES);
            assert_ne!(
                moved,
                segment(kind, &bytes, leaf),
                "grains that change places"
            );
        }
        let one = GrainSum([255; 32]);
        assert_eq!(one.plus(one).minus(one), one, "the lanes overflow");
        assert_eq!(one.minus(one).digest(), None);
    }

    #[test]
    fn image_digest_covers_index_and_size() {
        let one = Some(Digest([1; 32]));
        let of = |index, size| {
            let mut d = ImageDigest::new(HashKind::Sha256, 4096, 1 << 20);
            d.add(0, None);
            d.add(index, one);
            d.finish(size)
        };
        assert_eq!(of(3, 10), of(3, 10));
        assert_ne!(of(3, 10), of(4, 10));
        assert_ne!(of(3, 10), of(3, 11));
    }

    #[test]
    fn runs_join_neighbours() {
        let mut set = LeafSet::default();
        [0, 1, 2, 7, 8, 255].into_iter().for_each(|i| set.insert(i));
        assert_eq!(set.runs(), [(0, 3), (7, 2), (255, 1)]);
        assert_eq!(set.len(), 6);
    }
}
