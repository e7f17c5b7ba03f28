//! Reading no more of a segment than some of its grains.

use super::segment::{self, SegmentData};
use super::Params;
use crate::buf::BufPool;
use crate::digest::{self, GrainSet, GrainSum, LeafSet};
use crate::error::Result;
use crate::image::Image;
use crate::wire::Held;
use std::sync::Arc;

/// Some grains of a segment.
pub(super) struct GrainData {
    /// Only where these grains are there is something to be found.
    pub data: SegmentData,
    /// Their leaves that are not zero.
    pub present: LeafSet,
    /// What they add to the segment's digest.
    pub sum: GrainSum,
}

/// Reads the grains `set` of segment `index`.
pub(super) fn read(
    image: &dyn Image,
    params: &Params,
    (index, set): (u64, GrainSet),
    pool: &Arc<BufPool>,
) -> Result<GrainData> {
    let range = params.geometry.segment(index);
    let mut data = SegmentData::unfilled(pool, range.len() as usize);
    for place in set.places(data.len) {
        data.read += place.len() as u64;
        image.read_at(
            &mut data.buf[place.clone()],
            range.start + place.start as u64,
        )?;
    }
    let (present, sum) = look(params, &data, set);
    Ok(GrainData { data, present, sum })
}

/// Which leaves of some grains are not zero, and what these grains add to the segment's digest.
pub(super) fn look(params: &Params, data: &SegmentData, set: GrainSet) -> (LeafSet, GrainSum) {
    let leaf = params.geometry.leaf_bytes() as usize;
    let (mut present, mut sum) = (LeafSet::default(), GrainSum::default());
    for place in set.places(data.len) {
        let (bytes, first) = (&data.buf[place.clone()], place.start / leaf);
        let nonzero = digest::nonzero_leaves(bytes, leaf);
        sum = sum.plus(digest::piece(params.hash, bytes, leaf, &nonzero, first));
        nonzero.iter().for_each(|i| present.insert(first + i));
    }
    (present, sum)
}

/// Which of `leaves` leaves change and which become zeros, where the nonzero ones were `was` and are `is`. `differs` is
/// called for each leaf in `was`, ascending, to tell whether it is another one now; of those that become zeros it need not.
pub(super) fn changes(
    leaves: usize,
    was: &LeafSet,
    is: &LeafSet,
    mut differs: impl FnMut(usize) -> bool,
) -> (LeafSet, LeafSet) {
    let (mut changed, mut zeroed) = (LeafSet::default(), LeafSet::default());
    for i in 0..leaves {
        let differs = was.contains(i) && differs(i);
        match (is.contains(i), was.contains(i)) {
            (false, false) => {}
            (false, true) => zeroed.insert(i),
            (true, true) if !differs => {}
            (true, _) => changed.insert(i),
        }
    }
    (changed, zeroed)
}

/// What the target found in some grains of a segment. It is kept until the source has said what becomes of them.
pub(super) struct Kept {
    pub set: GrainSet,
    pub sum: GrainSum,
    present: LeafSet,
    /// The bytes of the leaves that are not zero.
    leaves: Vec<u8>,
}

impl Kept {
    /// Of what was read.
    pub fn of(grains: &GrainData, set: GrainSet, params: &Params) -> Kept {
        let leaves = segment::leaf_slices(&grains.present, &params.geometry, &grains.data);
        Kept {
            set,
            sum: grains.sum,
            present: grains.present,
            leaves: leaves.concat(),
        }
    }

    /// The same grains as they were read, in a segment of `len` bytes.
    pub fn restore(&self, params: &Params, len: usize, pool: &Arc<BufPool>) -> SegmentData {
        let mut data = SegmentData::unfilled(pool, len);
        for place in self.set.places(len) {
            data.buf[place].fill(0);
        }
        segment::put_leaves(&mut data, &self.present, &params.geometry, &self.leaves);
        data
    }

    /// What the source is told of them, with the fingerprints of the leaves that are not zero.
    pub fn told(&self, segment: u64, fingerprints: Vec<u64>) -> Held {
        Held {
            segment,
            sum: self.sum,
            present: self.present,
            fingerprints,
        }
    }

    /// Whether these are all grains of a segment of `len` bytes.
    pub fn is_whole(&self, len: usize) -> bool {
        self.set == GrainSet::all(len)
    }
}
