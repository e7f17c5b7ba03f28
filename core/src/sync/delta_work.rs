//! Comparing the changed grains of a segment with what they were, and making the change.

use super::compare::Patcher;
use super::delta::Since;
use super::grains;
use super::pack::Level;
use super::segment;
use super::Params;
use crate::buf::BufPool;
use crate::digest::{GrainSet, GrainSum, LeafSet};
use crate::error::{Error, Kind, Result};
use crate::image::Image;
use crate::wire::{Delta, Held};
use std::sync::Arc;

/// A segment, its changed grains, and what the target has in them if it was asked.
pub(super) struct Job {
    pub ticket: u64,
    pub index: u64,
    pub set: GrainSet,
    pub held: Option<Held>,
}

/// What became of a segment.
pub(super) struct Compared {
    pub index: u64,
    pub set: GrainSet,
    /// Bytes read here.
    pub read: u64,
    /// What its grains add to its digest: before, and now.
    pub sums: (GrainSum, GrainSum),
    pub change: Change,
}

/// What the target is to do.
pub(super) enum Change {
    None,
    /// It knows what it holds.
    Patch(crate::wire::Patch),
    /// It has read nothing.
    Delta(Delta),
}

/// A worker.
pub(super) struct Worker<'a> {
    image: &'a dyn Image,
    since: &'a Since<'a>,
    params: &'a Params,
    pool: Arc<BufPool>,
    patcher: Patcher<'a>,
}

impl<'a> Worker<'a> {
    pub fn new(
        image: &'a dyn Image,
        since: &'a Since<'a>,
        params: &'a Params,
        pool: Arc<BufPool>,
        level: &'a Level,
    ) -> Self {
        Worker {
            image,
            since,
            params,
            pool,
            patcher: Patcher::new(params, level),
        }
    }

    /// Reads the changed grains of a segment and compares them with what they were.
    pub fn compare(&mut self, job: Job) -> Result<Compared> {
        let (index, set) = (job.index, job.set);
        let new = grains::read(self.image, self.params, (index, set), &self.pool)?;
        let mut compared = Compared {
            index,
            set,
            read: new.data.read,
            sums: (new.sum, new.sum),
            change: Change::None,
        };
        match (job.held, self.since.image) {
            (Some(held), _) => {
                compared.sums.0 = held.sum;
                if held.sum != new.sum {
                    let theirs = (&held.present, held.fingerprints.as_slice());
                    let unlike = self.patcher.unlike(&new.data, &new.present, theirs);
                    let patch = self
                        .patcher
                        .patch(index, &new.data, new.sum.digest(), unlike)?;
                    compared.change = Change::Patch(patch);
                }
            }
            (None, Some(image)) => {
                let old = grains::read(image, self.params, (index, set), &self.pool)?;
                compared.read += old.data.read;
                compared.sums.0 = old.sum;
                if old.sum != new.sum {
                    compared.change = Change::Delta(self.delta(index, &old, &new)?);
                }
            }
            (None, None) => {
                return Err(Error::new(
                    Kind::Usage,
                    "there is nothing to compare a segment with",
                ))
            }
        }
        Ok(compared)
    }

    fn delta(
        &mut self,
        index: u64,
        old: &grains::GrainData,
        new: &grains::GrainData,
    ) -> Result<Delta> {
        let geometry = &self.params.geometry;
        let (was, is) = (&old.data, &new.data);
        let unlike: (LeafSet, LeafSet) =
            grains::changes(LeafSet::MAX, &old.present, &new.present, |i| {
                let place = geometry.leaves(i, 1, is.len);
                was.buf[place.clone()] != is.buf[place]
            });
        let patch = self.patcher.patch(index, is, None, unlike)?;
        let shift = new.sum.minus(old.sum);
        let mut made = Delta { shift, patch };
        let leaves = segment::leaf_slices(&made.patch.changed, geometry, is);
        made.patch.digest = Some(made.proof(self.params.hash, &leaves));
        Ok(made)
    }
}
