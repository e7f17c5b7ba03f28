//! The target's workers: they read what the source lists and report what is there, and apply what it answers.

use super::apply::{Applier, Base};
use super::failure::{disconnected, Failure};
use super::grains::Kept;
use super::progress::Progress;
use super::segment::SegmentData;
use super::window::{Found, Report, Window};
use super::Params;
use crate::digest::{self, GrainSet, LeafSet};
use crate::error::Result;
use crate::fingerprint::Fingerprints;
use crate::wire::{Delta, Entry, Extents, Frame, Grains, Patch, Unpacker};
use crossbeam_channel::{Receiver, Sender};

/// What the source wants to be told of.
pub(super) enum Listed {
    /// Segments. All others in the stretch are to be zeros.
    Extents(Extents),
    /// Grains. All others are as they are.
    Grains(Vec<Grains>),
}

/// Work for the target's threads.
pub(super) enum Job {
    Scan {
        ticket: u64,
        index: u64,
    },
    Look {
        ticket: u64,
        index: u64,
        set: GrainSet,
    },
    Clear {
        index: u64,
    },
    Apply {
        ticket: u64,
        patch: Patch,
        base: Base,
    },
    Change {
        ticket: u64,
        delta: Delta,
    },
}

/// Walks what the source has listed: frees what it has not, and hands the rest to the workers in order.
pub(super) fn give_out(
    params: &Params,
    applier: &Applier,
    (window, progress): (&Window, &Progress),
    listed: &Receiver<Listed>,
    jobs: &Sender<Job>,
    failure: &Failure,
) -> Result<()> {
    let clear = |first, end| {
        applier.clear_segments(first, end, failure, |index| {
            progress.clear(index);
            jobs.send(Job::Clear { index }).map_err(disconnected)
        })
    };
    for listed in listed {
        match listed {
            Listed::Extents(extents) => {
                let mut at = extents.start;
                for (skip, take) in &extents.runs {
                    let first = at + skip;
                    clear(at, first)?;
                    for index in first..first + take {
                        let ticket = window.reserve(0, failure)?;
                        jobs.send(Job::Scan { ticket, index })
                            .map_err(disconnected)?;
                    }
                    at = first + take;
                }
                clear(at, extents.end)?;
            }
            Listed::Grains(grains) => {
                for Grains { segment, set } in grains {
                    let len = params.geometry.segment(segment).len() as usize;
                    let job = Job::Look {
                        ticket: window.reserve(set.bytes(len) as u64, failure)?,
                        index: segment,
                        set,
                    };
                    jobs.send(job).map_err(disconnected)?;
                }
            }
        }
    }
    Ok(())
}

/// A worker: digests and patches, whatever comes next.
pub(super) fn work(
    params: &Params,
    applier: &Applier,
    (window, progress): (&Window, &Progress),
    jobs: &Receiver<Job>,
    frames: &Sender<Frame>,
    failure: &Failure,
) -> Result<()> {
    let mut unpacker = Unpacker::default();
    let fingerprints = Fingerprints::new(params.leaf_key);
    for job in jobs {
        failure.check()?;
        match job {
            Job::Scan { ticket, index } => {
                let data = applier.read(index)?;
                let found = whole(params, &data, &fingerprints);
                window.report(ticket, Report { index, found }, frames)?;
            }
            Job::Look { ticket, index, set } => {
                let grains = applier.read_grains(index, set)?;
                let found = Found::Grains {
                    fingerprints: of_leaves(params, &grains.data, &grains.present, &fingerprints),
                    kept: Kept::of(&grains, set, params),
                };
                window.report(ticket, Report { index, found }, frames)?;
            }
            Job::Clear { index } => {
                applier.clear_segment(index)?;
                progress.cleared(index);
            }
            Job::Apply {
                ticket,
                patch,
                base,
            } => {
                applier.apply(&patch, base, &mut unpacker)?;
                progress.done(ticket, patch.segment);
            }
            Job::Change { ticket, delta } => {
                applier.change(&delta, &mut unpacker)?;
                progress.done(ticket, delta.patch.segment);
            }
        }
    }
    Ok(())
}

/// What a whole segment holds.
fn whole(params: &Params, data: &SegmentData, fingerprints: &Fingerprints) -> Found {
    let leaf = params.geometry.leaf_bytes() as usize;
    let present = digest::nonzero_leaves(data.bytes(), leaf);
    let found = digest::segment_with(params.hash, data.bytes(), leaf, &present);
    let entry = match found {
        Some(digest) => Entry::Digest(digest),
        None if data.read > 0 => Entry::Zero,
        None => Entry::Absent,
    };
    // Made now, while the bytes are in the processor's cache: that costs next to nothing, and
    // reading them again when they are asked for would.
    let leaves = found.map(|_| (present, of_leaves(params, data, &present, fingerprints)));
    Found::Whole { entry, leaves }
}

/// The fingerprints of these leaves.
fn of_leaves(
    params: &Params,
    data: &SegmentData,
    leaves: &LeafSet,
    fingerprints: &Fingerprints,
) -> Vec<u64> {
    let places = leaves
        .iter()
        .map(|i| params.geometry.leaves(i, 1, data.len));
    places
        .map(|place| fingerprints.of(&data.buf[place]))
        .collect()
}
