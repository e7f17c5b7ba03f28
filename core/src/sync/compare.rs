//! Comparing a segment with what the target has in it, and making the patch where it differs.

use super::coordinator::Event;
use super::failure::{disconnected, Failure};
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
        (present, fingerprints): (&LeafSet, &[u64]),
    ) -> Result<Patch> {
        let geometry = &self.params.geometry;
        let (mut changed, mut zeroed) = (LeafSet::default(), LeafSet::default());
        let mut theirs = fingerprints.iter();
        let leaf_bytes = geometry.leaf_bytes() as usize;
        let nonzero = digest::nonzero_leaves(data.bytes(), leaf_bytes);
        for (i, leaf) in data.bytes().chunks(leaf_bytes).enumerate() {
            let old = match present.contains(i) {
                true => theirs.next(),
                false => None,
            };
            match (nonzero.contains(i), old) {
                (false, None) => {}
                (false, Some(_)) => zeroed.insert(i),
                (true, Some(old)) if self.fingerprints.of(leaf) == *old => {}
                (true, _) => changed.insert(i),
            }
        }
        let places = segment::leaf_slices(&changed, geometry, data);
        Ok(Patch {
            segment: index,
            digest: Some(digest),
            changed,
            zeroed,
            data: self.packer.pack(&places)?,
        })
    }
}
