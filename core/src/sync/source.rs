//! The source's side of a sync: lists its data, compares what the target reports, sends what differs.

use super::failure::{disconnected, Failure};
use super::order::InOrder;
use super::outbox::{self, post};
use super::segment::{self, SegmentData};
use super::{Meter, Params, SideStats, SourceReport, Summary};
use crate::digest::{self, Digest, ImageDigest, LeafSet};
use crate::error::{Error, Kind, Result};
use crate::image::Image;
use crate::wire::{limits, Entry, Extents, Frame, Link, LinkReader, Patch, Received};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Bytes of segments that may be held while they are compared or wait for the target's leaf digests.
const HELD_BYTES_MAX: u64 = 24 << 20;
/// Extents frames that may be sent ahead of the segments being compared.
const SLICES_AHEAD: usize = 4;
/// Segments that one extents frame covers at the most.
const SLICE_SEGMENTS: u64 = 1 << 20;
/// Equal segments that are reported together.
const SAME_BATCH: u32 = 32;

/// Sends `image` over `link`. The parameters must be the ones the target was given.
pub fn run(image: &dyn Image, params: &Params, link: &mut Link, meter: &Meter) -> Result<Summary> {
    meter.set_total(params.geometry.size());
    link.reader.set_frame_max(limits::CONTROL_FRAME_MAX);
    let (bytes_in, bytes_out) = (link.reader.bytes(), link.writer.bytes());
    let failure = Failure::new(&[link]);
    let (frames_tx, frames_rx) = crossbeam_channel::bounded(outbox::QUEUE);
    let (events_tx, events_rx) = crossbeam_channel::unbounded();
    let (jobs_tx, jobs_rx) = crossbeam_channel::unbounded();
    let (slices_tx, slices_rx) = crossbeam_channel::bounded(SLICES_AHEAD);
    let (reader, writer) = (&mut link.reader, &mut link.writer);
    let mut outcome = None;
    std::thread::scope(|scope| {
        let failure = &failure;
        scope.spawn(move || {
            failure
                .watch_writer(|| outbox::run(writer, &frames_rx, params.bytes_per_s_max, failure))
        });
        let frames = frames_tx.clone();
        scope.spawn(move || failure.watch(|| list(image, params, &frames, &slices_tx)));
        let events = events_tx.clone();
        scope.spawn(move || failure.watch(|| read_frames(reader, &events)));
        for _ in 0..super::apply::workers() {
            let (jobs, events) = (jobs_rx.clone(), events_tx.clone());
            scope.spawn(move || failure.watch(|| work(image, params, &jobs, &events, failure)));
        }
        drop((events_tx, jobs_rx));
        let coordinator = Coordinator::new(params, meter, frames_tx, jobs_tx);
        failure.watch(|| {
            outcome = Some(coordinator.run(image, events_rx, slices_rx, failure)?);
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

/// What the coordinator waits for.
enum Event {
    Segments(Vec<Entry>),
    Leaves {
        segment: u64,
        present: LeafSet,
        digests: Vec<Digest>,
    },
    Finished(Digest, SideStats),
    Compared(Compared),
}

/// A segment and what the target has in it.
struct Job {
    ticket: u64,
    index: u64,
    task: Task,
}

enum Task {
    Compare(Entry),
    Patch {
        data: SegmentData,
        digest: Digest,
        present: LeafSet,
        digests: Vec<Digest>,
    },
}

/// Outcome of a job.
struct Compared {
    ticket: u64,
    index: u64,
    read: u64,
    verdict: Verdict,
}

enum Verdict {
    Same(Option<Digest>),
    /// Differs; the target's leaf digests are needed.
    Differs(SegmentData, Digest),
    Patch(Patch),
}

/// Lists the image's data, slice by slice, to the target and to the coordinator.
fn list(
    image: &dyn Image,
    params: &Params,
    frames: &Sender<Frame>,
    slices: &Sender<Extents>,
) -> Result<()> {
    let geometry = &params.geometry;
    let end = geometry.segments();
    let mut start = 0;
    while start < end {
        let to = (start + SLICE_SEGMENTS).min(end);
        let (found, reached) = segment::data_runs(image, geometry, start, to, limits::RUNS_MAX)?;
        let mut at = start;
        let mut runs = Vec::with_capacity(found.len());
        for (first, count) in found {
            runs.push((first - at, count));
            at = first + count;
        }
        let extents = Extents {
            start,
            end: reached,
            runs,
        };
        slices.send(extents.clone()).map_err(disconnected)?;
        post(frames, Frame::Extents(extents))?;
        start = reached;
    }
    Ok(())
}

/// Turns the target's frames into events, until the last one.
fn read_frames(reader: &mut LinkReader, events: &Sender<Event>) -> Result<()> {
    loop {
        let event = match reader.receive()? {
            Received::Frame(Frame::Segments(entries)) => Event::Segments(entries),
            Received::Frame(Frame::Leaves {
                segment,
                present,
                digests,
            }) => Event::Leaves {
                segment,
                present,
                digests,
            },
            Received::Frame(Frame::Finished(digest, stats)) => {
                let stats = serde_json::from_slice(&stats).map_err(|e| {
                    Error::new(Kind::Protocol, "the target sent malformed statistics").because(e)
                })?;
                return events
                    .send(Event::Finished(digest, stats))
                    .map_err(disconnected);
            }
            Received::Frame(other) => return Err(reader.unexpected(&other)),
            Received::End => return Err(reader.vanished()),
        };
        events.send(event).map_err(disconnected)?;
    }
}

/// A worker: reads and compares segments, makes patches.
fn work(
    image: &dyn Image,
    params: &Params,
    jobs: &Receiver<Job>,
    events: &Sender<Event>,
    failure: &Failure,
) -> Result<()> {
    for job in jobs {
        failure.check()?;
        let (read, verdict) = match job.task {
            Task::Compare(entry) => {
                let data = segment::read(image, &params.geometry, job.index)?;
                (data.read, compare(params, job.index, data, entry))
            }
            Task::Patch {
                data,
                digest,
                present,
                digests,
            } => (
                0,
                Verdict::Patch(diff(params, job.index, &data, digest, &present, &digests)),
            ),
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

fn compare(params: &Params, index: u64, data: SegmentData, entry: Entry) -> Verdict {
    let leaf = params.geometry.leaf_bytes() as usize;
    let digest = digest::segment(params.hash, data.bytes(), leaf);
    match (digest, entry) {
        (Some(ours), Entry::Digest(theirs)) if ours == theirs => Verdict::Same(digest),
        (Some(ours), Entry::Digest(_)) => Verdict::Differs(data, ours),
        (None, Entry::Absent | Entry::Zero) => Verdict::Same(None),
        (None, Entry::Digest(_)) => {
            let mut zeroed = LeafSet::default();
            (0..data.len.div_ceil(leaf)).for_each(|i| zeroed.insert(i));
            Verdict::Patch(Patch {
                segment: index,
                digest: None,
                changed: LeafSet::default(),
                zeroed,
                data: Vec::new(),
            })
        }
        (Some(ours), Entry::Absent | Entry::Zero) => {
            Verdict::Patch(diff(params, index, &data, ours, &LeafSet::default(), &[]))
        }
    }
}

/// The patch that turns what the target has (`present` leaves with these `digests`) into `data`.
fn diff(
    params: &Params,
    index: u64,
    data: &SegmentData,
    digest: Digest,
    present: &LeafSet,
    digests: &[Digest],
) -> Patch {
    let geometry = &params.geometry;
    let (mut changed, mut zeroed) = (LeafSet::default(), LeafSet::default());
    let mut bytes = Vec::new();
    let mut theirs = digests.iter();
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
            (true, Some(old)) if digest::leaf(params.hash, leaf) == *old => {}
            (true, _) => {
                changed.insert(i);
                bytes.extend_from_slice(leaf);
            }
        }
    }
    Patch {
        segment: index,
        digest: Some(digest),
        changed,
        zeroed,
        data: bytes,
    }
}

/// Gives out work and answers the target in segment order.
struct Coordinator<'a> {
    params: &'a Params,
    meter: &'a Meter,
    frames: Sender<Frame>,
    jobs: Sender<Job>,
    listed: VecDeque<(u64, u64)>,
    /// All segments before this one were listed.
    listed_to: u64,
    todo: VecDeque<(u64, Entry)>,
    order: InOrder<(u64, Settled)>,
    waiting: HashMap<u64, (u64, SegmentData, Digest)>,
    held: usize,
    held_max: usize,
    same: u32,
    digest: ImageDigest,
    report: SourceReport,
}

enum Settled {
    Same(Option<Digest>),
    Patch(Patch),
}

impl<'a> Coordinator<'a> {
    fn new(params: &'a Params, meter: &'a Meter, frames: Sender<Frame>, jobs: Sender<Job>) -> Self {
        let geometry = &params.geometry;
        let segment = u64::from(geometry.segment_bytes());
        Coordinator {
            params,
            meter,
            frames,
            jobs,
            listed: VecDeque::new(),
            listed_to: 0,
            todo: VecDeque::new(),
            order: InOrder::new(),
            waiting: HashMap::new(),
            held: 0,
            held_max: ((HELD_BYTES_MAX / segment) as usize).clamp(2, limits::WANTS_MAX),
            same: 0,
            digest: ImageDigest::new(params.hash, geometry.leaf_bytes(), geometry.segment_bytes()),
            report: SourceReport::default(),
        }
    }

    fn run(
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
        self.flush_same()?;
        image.check_unchanged()?;
        let digest = self.digest.finish(self.params.geometry.size());
        let stats = serde_json::to_vec(&self.report)
            .map_err(|e| Error::new(Kind::Protocol, "cannot encode statistics").because(e))?;
        post(&self.frames, Frame::Done(digest, stats))?;
        match next_event(&events, failure)? {
            Event::Finished(theirs, target) => {
                if theirs != digest && !self.params.dry_run {
                    return Err(mismatch(digest, theirs));
                }
                Ok(summary(self.params, digest, &self.report, target))
            }
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
                digests,
            } => {
                let Some((ticket, data, digest)) = self.waiting.remove(&segment) else {
                    return protocol("sent leaf digests that were not asked for");
                };
                let task = Task::Patch {
                    data,
                    digest,
                    present,
                    digests,
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
        self.report.side.read += done.read;
        let settled = match done.verdict {
            Verdict::Same(digest) => Settled::Same(digest),
            Verdict::Patch(patch) => Settled::Patch(patch),
            Verdict::Differs(data, digest) => {
                self.waiting.insert(done.index, (done.ticket, data, digest));
                return post(&self.frames, Frame::Want(done.index));
            }
        };
        match self.order.fill(done.ticket, (done.index, settled)) {
            true => Ok(()),
            false => Err(Error::new(Kind::Protocol, "a segment was settled twice")),
        }
    }

    /// Gives reported segments to the workers, as long as their buffers fit the budget.
    fn give_out(&mut self) -> Result<()> {
        while self.held < self.held_max {
            let Some((index, entry)) = self.todo.pop_front() else {
                break;
            };
            if matches!(entry, Entry::Digest(_)) {
                let bytes = self.params.geometry.segment(index).len();
                self.report.compared += bytes;
                self.meter.add_compared(bytes);
            }
            let ticket = self.order.issue();
            self.held += 1;
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
            self.held -= 1;
            match settled {
                Settled::Same(digest) => {
                    self.digest.add(index, digest);
                    self.same += 1;
                }
                Settled::Patch(patch) => self.answer_patch(index, patch)?,
            }
            self.meter
                .set_position(self.params.geometry.segment(index).end);
        }
        // A few equal segments may wait for company, but not when there is nothing else to wait for.
        if self.same >= SAME_BATCH || self.order.len() == 0 {
            self.flush_same()?;
        }
        Ok(())
    }

    fn answer_patch(&mut self, index: u64, patch: Patch) -> Result<()> {
        let geometry = &self.params.geometry;
        let len = geometry.segment(index).len() as usize;
        let changed = patch.data.len() as u64;
        let zeroed = segment::leaf_bytes(&patch.zeroed, geometry, len);
        self.digest.add(index, patch.digest);
        self.report.changed += changed;
        self.report.zeroed += zeroed;
        self.meter.add_changed(changed);
        self.meter.add_zeroed(zeroed);
        if self.params.dry_run {
            self.same += 1;
            return Ok(());
        }
        self.flush_same()?;
        post(&self.frames, Frame::Patch(patch))?;
        self.meter.add_sent(changed);
        Ok(())
    }

    fn flush_same(&mut self) -> Result<()> {
        match std::mem::take(&mut self.same) {
            0 => Ok(()),
            count => post(&self.frames, Frame::Same(count)),
        }
    }
}

/// Waits for an event. Idle workers keep the channel open, so a failure elsewhere must be looked for.
fn next_event(events: &Receiver<Event>, failure: &Failure) -> Result<Event> {
    loop {
        match events.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => return Ok(event),
            Err(RecvTimeoutError::Timeout) => failure.check()?,
            Err(gone) => return Err(disconnected(gone)),
        }
    }
}

/// Both image digests in an error.
pub(super) fn mismatch(source: Digest, target: Digest) -> Error {
    Error::new(
        Kind::Digest,
        format!("after the sync the source's digest is {source}, but the target's is {target}"),
    )
    .advise("something wrote to one of them during the sync, or a disk is failing; do not use this copy")
}

/// The outcome as both sides know it.
pub(super) fn summary(
    params: &Params,
    digest: Digest,
    report: &SourceReport,
    target: SideStats,
) -> Summary {
    Summary {
        digest,
        size: params.geometry.size(),
        compared: report.compared,
        changed: report.changed,
        zeroed: report.zeroed + target.zeroed,
        source: report.side,
        target,
        wire_out: 0,
        wire_in: 0,
    }
}
