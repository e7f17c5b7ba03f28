//! The source's thread that decides: it gives reported segments to the workers and answers the target
//! in segment order.

use super::answers::{Answers, SAME_BATCH};
use super::compare::{Compared, Job, Task, Verdict};
use super::failure::{disconnected, Failure};
use super::order::InOrder;
use super::segment::SegmentData;
use super::{Params, Summary, TargetReport};
use crate::digest::{Digest, LeafSet};
use crate::error::{Error, Kind, Result};
use crate::image::Image;
use crate::wire::{limits, Entry, Extents, Frame, Patch};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Bytes of segments that may be held while they are compared or wait for the target's fingerprints: what
/// is read in a round trip should fit, which is 3 GB/s at 20 ms. Held segments are the most of a source's memory.
const HELD_BYTES_MAX: u64 = 64 << 20;
/// Of them in segments that the target has nothing in: each will be a patch of all its bytes, and those are not
/// recycled.
const NEW_BYTES_MAX: u64 = 32 << 20;
/// Segments that may be held, however small they are.
const HELD_MAX: usize = 64;
/// Events that an honest target and our own workers can have outstanding: its window of segments and
/// fingerprints, one outcome for each, and its last frame.
pub(super) const EVENTS_MAX: usize = 2 * (limits::WINDOW + HELD_MAX) + 1;

/// How often one who waits looks whether another thread has failed. Fuzzing ends most sessions that way.
const LOOK_EVERY: Duration = Duration::from_millis(if cfg!(feature = "fuzzing") { 2 } else { 100 });

/// What the coordinator waits for.
pub(super) enum Event {
    Segments(Vec<Entry>),
    Leaves {
        segment: u64,
        present: LeafSet,
        fingerprints: Vec<u64>,
    },
    Finished(Digest, TargetReport),
    Compared(Compared),
}

/// Gives out work and answers the target in segment order.
pub(super) struct Coordinator<'a> {
    params: &'a Params,
    answers: Answers<'a>,
    jobs: Sender<Job>,
    listed: VecDeque<(u64, u64)>,
    /// All segments before this one were listed.
    listed_to: u64,
    todo: VecDeque<(u64, Entry)>,
    order: InOrder<(u64, Settled)>,
    waiting: HashMap<u64, (u64, SegmentData, Digest)>,
    /// Of the segments that are held, in order: whether the target has nothing in it.
    held: VecDeque<bool>,
    held_max: usize,
    new: usize,
    new_max: usize,
}

enum Settled {
    Same(Option<Digest>),
    Patch(Patch),
}

impl<'a> Coordinator<'a> {
    pub(super) fn new(params: &'a Params, answers: Answers<'a>, jobs: Sender<Job>) -> Self {
        let geometry = &params.geometry;
        let segment = u64::from(geometry.segment_bytes());
        let fit = |bytes| ((bytes / segment) as usize).clamp(2, HELD_MAX);
        Coordinator {
            params,
            answers,
            jobs,
            listed: VecDeque::new(),
            listed_to: params.first,
            todo: VecDeque::new(),
            order: InOrder::new(),
            waiting: HashMap::new(),
            held: VecDeque::new(),
            held_max: fit(HELD_BYTES_MAX),
            new: 0,
            new_max: fit(NEW_BYTES_MAX),
        }
    }

    pub(super) fn run(
        mut self,
        image: &dyn Image,
        events: Receiver<Event>,
        slices: Receiver<Extents>,
        failure: &Failure,
    ) -> Result<Summary> {
        while self.unsettled(&slices) {
            let event = next_event(&events, failure)?;
            self.handle(event, &slices)?;
            // In this order: an answer makes room, and nothing else may come to wake us for using it.
            self.answer()?;
            self.give_out()?;
        }
        if self.listed_to < self.params.geometry.segments() {
            // The lister ended early; its error is the one to report.
            return Err(disconnected(()));
        }
        image.check_unchanged()?;
        let digest = self.answers.finish()?;
        match next_event(&events, failure)? {
            Event::Finished(theirs, target) => self.answers.outcome(digest, (theirs, target)),
            _ => Err(Error::new(
                Kind::Protocol,
                "the target went on after the last segment",
            )),
        }
    }

    /// Whether segments are left for which the target has no answer yet.
    fn unsettled(&mut self, slices: &Receiver<Extents>) -> bool {
        if !self.todo.is_empty() || self.order.len() > 0 || !self.listed.is_empty() {
            return true;
        }
        // Waits for the lister, which is always ahead of the target's reports or at the end.
        self.next_slice(slices)
    }

    /// Takes slices until one holds data; false at the end of the image.
    fn next_slice(&mut self, slices: &Receiver<Extents>) -> bool {
        while self.listed.is_empty() {
            let Ok(extents) = slices.recv() else {
                return false;
            };
            self.listed_to = extents.end;
            let mut at = extents.start;
            for (skip, take) in &extents.runs {
                let first = at + skip;
                at = first + take;
                self.listed.push_back((first, at));
            }
        }
        true
    }

    fn handle(&mut self, event: Event, slices: &Receiver<Extents>) -> Result<()> {
        let protocol = |what: &str| Err(Error::new(Kind::Protocol, format!("the target {what}")));
        match event {
            Event::Segments(entries) => {
                if entries.is_empty() {
                    return protocol("reported nothing");
                }
                for entry in entries {
                    if !self.next_slice(slices) {
                        return protocol("reported segments that were not listed");
                    }
                    if let Some((first, end)) = self.listed.front_mut() {
                        self.todo.push_back((*first, entry));
                        *first += 1;
                        if *first == *end {
                            self.listed.pop_front();
                        }
                    }
                }
                if self.todo.len() + self.order.len() > limits::WINDOW + SAME_BATCH as usize {
                    return protocol("reported more segments ahead than the window allows");
                }
            }
            Event::Leaves {
                segment,
                present,
                fingerprints,
            } => {
                let Some((ticket, data, digest)) = self.waiting.remove(&segment) else {
                    return protocol("sent fingerprints that were not asked for");
                };
                let task = Task::Patch {
                    data,
                    digest,
                    present,
                    fingerprints,
                };
                self.jobs
                    .send(Job {
                        ticket,
                        index: segment,
                        task,
                    })
                    .map_err(disconnected)?;
            }
            Event::Compared(done) => self.compared(done)?,
            Event::Finished(..) => return protocol("ended before the last segment"),
        }
        Ok(())
    }

    fn compared(&mut self, done: Compared) -> Result<()> {
        self.answers.add_read(done.read);
        let settled = match done.verdict {
            Verdict::Same(digest) => Settled::Same(digest),
            Verdict::Patch(patch) => Settled::Patch(patch),
            Verdict::Differs(data, digest) => {
                self.waiting.insert(done.index, (done.ticket, data, digest));
                return self.answers.post(Frame::Want(done.index));
            }
        };
        match self.order.fill(done.ticket, (done.index, settled)) {
            true => Ok(()),
            false => Err(Error::new(Kind::Protocol, "a segment was settled twice")),
        }
    }

    /// Gives reported segments to the workers, as long as their buffers fit the budget.
    fn give_out(&mut self) -> Result<()> {
        while self.held.len() < self.held_max && self.new < self.new_max {
            let Some((index, entry)) = self.todo.pop_front() else {
                break;
            };
            let is_new = !matches!(entry, Entry::Digest(_));
            self.held.push_back(is_new);
            if is_new {
                self.new += 1;
            } else {
                let bytes = self.params.geometry.segment(index).len();
                self.answers.add_compared(bytes);
            }
            let ticket = self.order.issue();
            let task = Task::Compare(entry);
            self.jobs
                .send(Job {
                    ticket,
                    index,
                    task,
                })
                .map_err(disconnected)?;
        }
        Ok(())
    }

    /// Answers the target for all settled segments at the head of the line.
    fn answer(&mut self) -> Result<()> {
        while let Some((index, settled)) = self.order.take() {
            if self.held.pop_front() == Some(true) {
                self.new -= 1;
            }
            match settled {
                Settled::Same(digest) => {
                    self.answers.recorder.add(index, digest)?;
                    self.answers.same(index)?;
                }
                Settled::Patch(patch) => {
                    self.answers.recorder.add(index, patch.digest)?;
                    self.answers.patch(patch)?;
                }
            }
        }
        // A few equal segments may wait for company, but not when there is nothing else to wait for.
        match self.order.len() {
            0 => self.answers.flush(),
            _ => Ok(()),
        }
    }
}

/// Waits for an event. Idle workers keep the channel open, so a failure elsewhere must be looked for.
pub(super) fn next_event<T>(events: &Receiver<T>, failure: &Failure) -> Result<T> {
    loop {
        match events.recv_timeout(LOOK_EVERY) {
            Ok(event) => return Ok(event),
            Err(RecvTimeoutError::Timeout) => failure.check()?,
            Err(gone) => return Err(disconnected(gone)),
        }
    }
}
