//! The source's side where it is known what changed: only that is looked at, and only leaves that differ are sent.
//!
//! If the source still has the image as it was, it compares here, and the target reads nothing. If all it knows is where
//! something may have changed, it says where, the target tells what it has there, and is answered segment by segment.
//!
//! Proof needs no more reading either. A segment's digest is a sum over grains, so who sees the changed grains as they
//! were and as they are knows by what it shifts. Both sides add that to what their tables have, and the image digests
//! that follow from the tables must agree in the end.

use super::answers::Answers;
use super::coordinator::{next_event, EVENTS_MAX};
use super::delta_work::{Change, Compared, Job, Worker};
use super::failure::{disconnected, Failure};
use super::order::InOrder;
use super::outbox;
use super::pack::Level;
use super::source::{hand_over, target_report};
use super::table::{DigestTable, Recorder};
use super::{DeltaMode, Meter, Params, Summary, TargetReport};
use crate::digest::{Digest, GrainSet};
use crate::error::{Error, Kind, Result};
use crate::image::Image;
use crate::range::RangeSet;
use crate::wire::{limits, Frame, Grains, Held, Link, LinkReader, Received};
use crossbeam_channel::{Receiver, Sender};
use std::collections::VecDeque;
use std::sync::Arc;

/// Segments that may be in work or wait for their turn.
const HELD_MAX: usize = 32;
/// Segments that may be announced and not answered: so many that the target always has something to read, and fewer
/// than it takes before it takes no more.
const ANNOUNCED_MAX: usize = 4 * limits::ENTRIES_MAX;
const _: () = assert!(ANNOUNCED_MAX < limits::SLICES_MAX * limits::ENTRIES_MAX);

/// Since when and where an image may have changed.
pub struct Since<'a> {
    /// The image as it was, if it is still there ([`DeltaMode::Image`]). Without it ([`DeltaMode::Ranges`]) the target is
    /// asked what it was: its image must be just that, but for what a sync over the same table has sent to it already.
    pub image: Option<&'a dyn Image>,
    /// Everything outside of these ranges is as it was.
    pub changed: &'a RangeSet,
}

enum Event {
    Held(Held),
    Compared { ticket: u64, compared: Compared },
    Finished(Digest, Box<TargetReport>),
}

/// Sends over `link` what `image` has become `since`. The target's image must be the earlier one, and the tables of both
/// sides those of it; they become those of the new one. Only images with leaves that divide 64 KiB can be sent so.
///
/// Over another link it can go on with the same `table`, which then must not have been closed meanwhile: it knows how far
/// this side had got. With [`DeltaMode::Ranges`] all of a segment is looked at where something was sent before, because
/// the target cannot tell any more what it was.
pub fn run(
    image: &dyn Image,
    since: &Since,
    params: &Params,
    link: &mut Link,
    meter: &Meter,
    table: &DigestTable,
) -> Result<Summary> {
    check(since, params)?;
    meter.begin(params);
    let recorder = Recorder::new(params, Some(table))?;
    link.reader.set_frame_max(limits::CONTROL_FRAME_MAX);
    let (bytes_in, bytes_out) = (link.reader.bytes(), link.writer.bytes());
    let failure = Failure::new(&[link]);
    let level = Level::new(params);
    let pool = params.geometry.buffers();
    let (frames_tx, frames_rx) = crossbeam_channel::bounded(outbox::queue(&params.geometry));
    // Room for all that can come: nobody waits for the one that decides.
    let (events_tx, events_rx) = crossbeam_channel::bounded(EVENTS_MAX);
    let (jobs_tx, jobs_rx) = crossbeam_channel::bounded(HELD_MAX);
    let (reader, writer) = (&mut link.reader, &mut link.writer);
    let mut outcome = None;
    std::thread::scope(|scope| {
        let (failure, level) = (&failure, &level);
        scope.spawn(move || {
            failure.watch_writer(|| {
                let pace = outbox::Pace::new(params, level);
                outbox::run(writer, &frames_rx, Some(pace), failure)
            })
        });
        let events = events_tx.clone();
        scope.spawn(move || failure.watch(|| read_frames(reader, &events)));
        for _ in 0..super::apply::workers(params) {
            let (jobs, events, pool) = (jobs_rx.clone(), events_tx.clone(), Arc::clone(&pool));
            scope.spawn(move || {
                let worker = Worker::new(image, since, params, pool, level);
                failure.watch(|| work(worker, &jobs, &events, failure))
            });
        }
        drop((events_tx, jobs_rx));
        let answers = Answers::new(params, meter, recorder, frames_tx);
        let sender = Sending::new(since, params, answers, table);
        failure.watch(|| {
            outcome = Some(sender.run(image, jobs_tx, events_rx, failure)?);
            Ok(())
        });
    });
    if let Some(error) = failure.take() {
        link.writer.report(&error);
        return Err(error);
    }
    let mut summary = outcome.ok_or_else(|| disconnected(()))?;
    summary.wire_in = link.reader.bytes() - bytes_in;
    summary.wire_out = link.writer.bytes() - bytes_out;
    Ok(summary)
}

fn check(since: &Since, params: &Params) -> Result<()> {
    let wanted = match since.image {
        Some(_) => DeltaMode::Image,
        None => DeltaMode::Ranges,
    };
    match params.delta == Some(wanted) {
        true => params.check(),
        false => Err(Error::new(
            Kind::Usage,
            "both sides must be told what is known of the earlier image",
        )),
    }
}

/// Turns the target's frames into events, up to its last one. Never waits for the one that decides.
fn read_frames(reader: &mut LinkReader, events: &Sender<Event>) -> Result<()> {
    loop {
        match reader.receive()? {
            Received::Frame(Frame::Held(held)) => hand_over(events, Event::Held(held))?,
            Received::Frame(Frame::Finished(digest, stats)) => {
                let report = Box::new(target_report(&stats)?);
                return hand_over(events, Event::Finished(digest, report));
            }
            Received::Frame(other) => return Err(reader.unexpected(&other)),
            Received::End => return Err(reader.vanished()),
        }
    }
}

fn work(
    mut worker: Worker,
    jobs: &Receiver<Job>,
    events: &Sender<Event>,
    failure: &Failure,
) -> Result<()> {
    for job in jobs {
        failure.check()?;
        let ticket = job.ticket;
        let compared = worker.compare(job)?;
        events
            .send(Event::Compared { ticket, compared })
            .map_err(disconnected)?;
    }
    Ok(())
}

/// The thread that decides: announces segments or gives them out at once, and answers for them in order.
struct Sending<'a> {
    since: &'a Since<'a>,
    params: &'a Params,
    answers: Answers<'a>,
    table: &'a DigestTable,
    /// What the changed segments from this one on have is still to be seen to.
    next: u64,
    /// Changed segments before this one are looked at as a whole.
    whole_to: u64,
    /// Announced, and not told of by the target yet.
    announced: VecDeque<(u64, GrainSet)>,
    /// To be compared.
    todo: VecDeque<(u64, GrainSet, Held)>,
    order: InOrder<Compared>,
}

impl<'a> Sending<'a> {
    fn new(
        since: &'a Since<'a>,
        params: &'a Params,
        answers: Answers<'a>,
        table: &'a DigestTable,
    ) -> Self {
        Sending {
            since,
            params,
            answers,
            table,
            next: params.first,
            whole_to: match since.image {
                Some(_) => 0,
                None => table.sent_to(),
            },
            announced: VecDeque::new(),
            todo: VecDeque::new(),
            order: InOrder::new(),
        }
    }

    fn run(
        mut self,
        image: &dyn Image,
        jobs: Sender<Job>,
        // Goes with us: a worker must not wait for room that nobody makes any more.
        events: Receiver<Event>,
        failure: &Failure,
    ) -> Result<Summary> {
        loop {
            self.announce()?;
            self.give_out(&jobs)?;
            if self.order.len() == 0 {
                // Nothing is sure to come before the target knows of all that is equal.
                self.answers.flush()?;
                if self.announced.is_empty() {
                    break;
                }
            }
            self.handle(next_event(&events, failure)?)?;
            while let Some(compared) = self.order.take() {
                self.answer(compared)?;
            }
        }
        drop(jobs);
        image.check_unchanged()?;
        if let Some(earlier) = self.since.image {
            earlier.check_unchanged()?;
        }
        let digest = self.answers.finish()?;
        match next_event(&events, failure)? {
            Event::Finished(theirs, target) => {
                let summary = self.answers.outcome(digest, (theirs, *target))?;
                self.table.has_arrived();
                Ok(summary)
            }
            Event::Held(_) => unannounced(),
            Event::Compared { .. } => Err(disconnected(())),
        }
    }

    /// Announces changed segments to a target that is asked what it has, a frame at a time, as far ahead as may be.
    fn announce(&mut self) -> Result<()> {
        if self.since.image.is_some() {
            return Ok(());
        }
        let open = |s: &Self| s.announced.len() + s.todo.len() + s.order.len();
        while open(self) + limits::ENTRIES_MAX <= ANNOUNCED_MAX {
            let mut frame = Vec::new();
            while frame.len() < limits::ENTRIES_MAX {
                let Some((segment, set)) = self.next_changed() else {
                    break;
                };
                frame.push(Grains { segment, set });
            }
            if frame.is_empty() {
                break;
            }
            let entries = frame.iter().map(|g| (g.segment, g.set));
            self.announced.extend(entries);
            self.answers.post(Frame::Grains(frame))?;
        }
        Ok(())
    }

    /// The next segment that may have changed, and which of its grains.
    fn next_changed(&mut self) -> Option<(u64, GrainSet)> {
        let geometry = &self.params.geometry;
        let from = geometry.segment(self.next).start;
        let found = self.since.changed.next_from(from)?.start;
        if found >= geometry.size() {
            return None;
        }
        let index = geometry.segment_of(found);
        let range = geometry.segment(index);
        let mut set = GrainSet::default();
        for part in self.since.changed.within(range) {
            let place = part.start - range.start..part.end - range.start;
            set.insert_bytes(place.start as usize..place.end as usize);
        }
        if index < self.whole_to {
            set = GrainSet::all(range.len() as usize);
        }
        self.next = index + 1;
        Some((index, set))
    }

    fn give_out(&mut self, jobs: &Sender<Job>) -> Result<()> {
        while self.order.len() < HELD_MAX {
            let next = match self.since.image {
                Some(_) => self.next_changed().map(|(index, set)| (index, set, None)),
                None => {
                    let reported = self.todo.pop_front();
                    reported.map(|(index, set, held)| (index, set, Some(held)))
                }
            };
            let Some((index, set, held)) = next else {
                break;
            };
            let ticket = self.order.issue();
            let job = Job {
                ticket,
                index,
                set,
                held,
            };
            jobs.send(job).map_err(disconnected)?;
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<()> {
        let protocol = |what| Err(Error::new(Kind::Protocol, what));
        match event {
            Event::Held(held) => {
                let Some((index, set)) = self.announced.pop_front() else {
                    return unannounced();
                };
                let geometry = &self.params.geometry;
                let len = geometry.segment(index).len() as usize;
                let leaves = set.leaves(geometry.leaf_bytes() as usize, len);
                if held.segment != index || !held.present.is_within(&leaves) {
                    return unannounced();
                }
                self.todo.push_back((index, set, held));
                if self.todo.len() + self.order.len() > limits::WINDOW {
                    return protocol("the target told of more segments than the window allows");
                }
            }
            Event::Compared { ticket, compared } => {
                if !self.order.fill(ticket, compared) {
                    return protocol("a segment was settled twice");
                }
            }
            Event::Finished(..) => return protocol("the target ended before the last segment"),
        }
        Ok(())
    }

    fn answer(&mut self, compared: Compared) -> Result<()> {
        let Compared {
            index, set, sums, ..
        } = compared;
        let len = self.params.geometry.segment(index).len() as usize;
        let whole = set == GrainSet::all(len);
        self.answers.add_read(compared.read);
        self.answers.add_compared(set.bytes(len) as u64);
        match compared.change {
            Change::None if self.since.image.is_some() => {
                self.answers.equal(index);
                Ok(())
            }
            Change::None => {
                self.answers.recorder.replace(index, whole, sums)?;
                self.answers.same(index)
            }
            Change::Patch(patch) => {
                self.answers.recorder.replace(index, whole, sums)?;
                self.table.sends(index);
                self.answers.patch(patch)
            }
            Change::Delta(delta) => {
                self.answers.recorder.shift(index, delta.shift)?;
                self.answers.delta(delta)
            }
        }
    }
}

fn unannounced<T>() -> Result<T> {
    Err(Error::new(
        Kind::Protocol,
        "the target told of what it was not asked for",
    ))
}
