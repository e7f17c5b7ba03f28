//! Comparing a segment with what the target has in it, and making the patch where it differs.

use super::coordinator::Event;
use super::failure::{disconnected, Failure};
use super::grains;
use super::pack::{Level, Packer};
use super::segment::{self, SegmentData};
use super::Params;
use crate::buf::BufPool;
use crate::digest::{self, Digest, LeafSet};
use crate::error::Result;
use crate::fingerprint::Fingerprints;
use crate::image::Image;
use crate::wire::{Entry, Patch, Payload};
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;

/// A segment and what the target has in it.
pub(super) struct Job {
    pub ticket: u64,
    pub index: u64,
    pub task: Task,
}

pub(super) enum Task {
    Compare(Entry),
    Patch {
        data: SegmentData,
        digest: Digest,
        present: LeafSet,
        fingerprints: Vec<u64>,
    },
}

/// Outcome of a job.
pub(super) struct Compared {
    pub ticket: u64,
    pub index: u64,
    pub read: u64,
    pub verdict: Verdict,
}

pub(super) enum Verdict {
    Same(Option<Digest>),
    /// Differs; the target's fingerprints are needed.
    Differs(SegmentData, Digest),
    Patch(Patch),
}

/// A worker: reads and compares segments, makes patches.
pub(super) fn work(
    image: &dyn Image,
    params: &Params,
    jobs: &Receiver<Job>,
    events: &Sender<Event>,
    pool: &Arc<BufPool>,
    level: &Level,
    failure: &Failure,
) -> Result<()> {
    let mut patcher = Patcher::new(params, level);
    for job in jobs {
        failure.check()?;
        let (read, verdict) = match job.task {
            Task::Compare(entry) => {
                let data = segment::read(image, &params.geometry, job.index, pool)?;
                (data.read, patcher.compare(job.index, data, entry)?)
            }
            Task::Patch {
                data,
                digest,
                present,
                fingerprints,
            } => {
                let theirs = (&present, fingerprints.as_slice());
                let patch = patcher.diff(job.index, &data, digest, theirs)?;
                (0, Verdict::Patch(patch))
            }
        };
        let done = Compared {
            ticket: job.ticket,
            index: job.index,
            read,
            verdict,
        };
        events.send(Event::Compared(done)).map_err(disconnected)?;
    }
    Ok(())
}

/// What a worker makes patches with.
pub(super) struct Patcher<'a> {
    params: &'a Params,
    fingerprints: Fingerprints,
    packer: Packer<'a>,
}

impl<'a> Patcher<'a> {
    pub fn new(params: &'a Params, level: &'a Level) -> Self {
        Patcher {
            params,
            fingerprints: Fingerprints::new(params.leaf_key),
            packer: Packer::new(level),
        }
    }

    /// The patch that makes a segment `data`, whatever is in it now.
    pub fn whole(
        &mut self,
        index: u64,
        data: &SegmentData,
        digest: Option<Digest>,
    ) -> Result<Patch> {
        let mut patch = match digest {
            Some(digest) => self.diff(index, data, digest, (&LeafSet::default(), &[]))?,
            None => Patch {
                segment: index,
                digest: None,
                changed: LeafSet::default(),
                zeroed: LeafSet::default(),
                data: Payload::Stored(Vec::new()),
            },
        };
        let leaf = self.params.geometry.leaf_bytes() as usize;
        for i in 0..data.len.div_ceil(leaf) {
            if !patch.changed.contains(i) {
                patch.zeroed.insert(i);
            }
        }
        Ok(patch)
    }

    fn compare(&mut self, index: u64, data: SegmentData, entry: Entry) -> Result<Verdict> {
        let params = self.params;
        let leaf = params.geometry.leaf_bytes() as usize;
        let digest = digest::segment(params.hash, data.bytes(), leaf);
        Ok(match (digest, entry) {
            (Some(ours), Entry::Digest(theirs)) if ours == theirs => Verdict::Same(digest),
            (Some(ours), Entry::Digest(_)) => Verdict::Differs(data, ours),
            (None, Entry::Absent | Entry::Zero) => Verdict::Same(None),
            (None, Entry::Digest(_)) => Verdict::Patch(self.whole(index, &data, None)?),
            (Some(ours), Entry::Absent | Entry::Zero) => {
                let nothing = (&LeafSet::default(), [].as_slice());
                Verdict::Patch(self.diff(index, &data, ours, nothing)?)
            }
        })
    }

    /// The patch that turns what the target has (`present` leaves with these `fingerprints`) into `data`.
    fn diff(
        &mut self,
        index: u64,
        data: &SegmentData,
        digest: Digest,
        theirs: (&LeafSet, &[u64]),
    ) -> Result<Patch> {
        let nonzero =
            digest::nonzero_leaves(data.bytes(), self.params.geometry.leaf_bytes() as usize);
        let unlike = self.unlike(data, &nonzero, theirs);
        self.patch(index, data, Some(digest), unlike)
    }

    /// Which leaves change and which become zeros, where `data` has these `nonzero` ones and the target has others.
    pub fn unlike(
        &self,
        data: &SegmentData,
        nonzero: &LeafSet,
        (present, fingerprints): (&LeafSet, &[u64]),
    ) -> (LeafSet, LeafSet) {
        let geometry = &self.params.geometry;
        let leaves = data.len.div_ceil(geometry.leaf_bytes() as usize);
        let mut theirs = fingerprints.iter();
        grains::changes(leaves, present, nonzero, |i| {
            let old = theirs.next();
            let place = geometry.leaves(i, 1, data.len);
            nonzero.contains(i) && old != Some(&self.fingerprints.of(&data.buf[place]))
        })
    }

    /// The patch by which these leaves of a segment become those of `data`, or zeros.
    pub fn patch(
        &mut self,
        index: u64,
        data: &SegmentData,
        digest: Option<Digest>,
        (changed, zeroed): (LeafSet, LeafSet),
    ) -> Result<Patch> {
        let places = segment::leaf_slices(&changed, &self.params.geometry, data);
        Ok(Patch {
            segment: index,
            digest,
            changed,
            zeroed,
            data: self.packer.pack(&places)?,
        })
    }
}
