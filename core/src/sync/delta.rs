//! The source's side where it is known what changed: it compares the image with what it was before, here, and sends
//! the leaves that differ. The target reads nothing.
//!
//! Proof needs no reading either. A segment's digest is a sum over grains, so the source, which sees the changed grains
//! as they were and as they are, knows by what it shifts. Both sides add that to what their tables have, and the image
//! digests that follow from the tables must agree in the end.

use super::coordinator::next_event;
use super::failure::{disconnected, Failure};
use super::order::InOrder;
use super::outbox::{self, post};
use super::pack::{Level, Packer};
use super::segment::{self, SegmentData};
use super::source::{mismatch, summary};
use super::table::{DigestTable, Recorder};
use super::{Meter, Params, SourceReport, Summary, TargetReport};
use crate::buf::BufPool;
use crate::digest::{self, Digest, GrainSum, LeafSet, GRAIN_BYTES};
use crate::error::{Error, Kind, Result};
use crate::image::Image;
use crate::range::RangeSet;
use crate::wire::{limits, Delta, Frame, Link, LinkReader, Patch, Received};
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;

/// Segments that may be in work or wait for their turn.
const HELD_MAX: usize = 32;

/// What an image was before, and where it may differ from that.
pub struct Since<'a> {
    /// The image as it was.
    pub image: &'a dyn Image,
    /// Everything outside of these ranges is as it was.
    pub changed: &'a RangeSet,
}

enum Event {
    Compared { ticket: u64, compared: Compared },
    Finished(Digest, Box<TargetReport>),
}

/// What became of a segment.
struct Compared {
    index: u64,
    read: u64,
    delta: Option<Delta>,
}

/// Sends over `link` what `image` has become `since`. The target's image must be the earlier one, and the tables of both
/// sides those of it; they become those of the new one. Only images with leaves of 4 KiB can be sent so.
pub fn run(
    image: &dyn Image,
    since: &Since,
    params: &Params,
    link: &mut Link,
    meter: &Meter,
    table: &DigestTable,
) -> Result<Summary> {
    check(params)?;
    meter.begin(params);
    let recorder = Recorder::new(params, Some(table))?;
    link.reader.set_frame_max(limits::CONTROL_FRAME_MAX);
    let (bytes_in, bytes_out) = (link.reader.bytes(), link.writer.bytes());
    let failure = Failure::new(&[link]);
    let level = Level::new(params);
    let pool = params.geometry.buffers();
    let (frames_tx, frames_rx) = crossbeam_channel::bounded(outbox::queue(&params.geometry));
    // Room for all that can come: nobody waits for the one that decides.
    let (events_tx, events_rx) = crossbeam_channel::bounded(HELD_MAX + 1);
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
        scope.spawn(move || failure.watch(|| read_end(reader, &events)));
        for _ in 0..super::apply::workers(params) {
            let (jobs, events, pool) = (jobs_rx.clone(), events_tx.clone(), Arc::clone(&pool));
            scope.spawn(move || {
                failure.watch(|| {
                    let mut worker = Worker {
                        image,
                        since,
                        params,
                        pool,
                        packer: Packer::new(level),
                    };
                    worker.work(&jobs, &events, failure)
                })
            });
        }
        drop((events_tx, jobs_rx));
        let mut sender = Sending {
            params,
            meter,
            recorder,
            frames: frames_tx,
            report: SourceReport::default(),
        };
        failure.watch(|| {
            sender.send_all(since, &jobs_tx, &events_rx, failure)?;
            drop(jobs_tx);
            image.check_unchanged()?;
            since.image.check_unchanged()?;
            outcome = Some(sender.finish(&events_rx, failure)?);
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

fn check(params: &Params) -> Result<()> {
    let aligned = GRAIN_BYTES.is_multiple_of(params.geometry.leaf_bytes() as usize);
    if params.delta && !params.dry_run && aligned {
        return Ok(());
    }
    Err(Error::new(
        Kind::Usage,
        "what changed can only be sent for good, and in leaves that divide 64 KiB",
    ))
}

/// Waits for the target's last frame.
fn read_end(reader: &mut LinkReader, events: &Sender<Event>) -> Result<()> {
    match reader.receive()? {
        Received::Frame(Frame::Finished(digest, stats)) => {
            let stats = serde_json::from_slice(&stats).map_err(|e| {
                Error::new(Kind::Protocol, "the target sent malformed statistics").because(e)
            })?;
            let event = Event::Finished(digest, Box::new(stats));
            events.send(event).map_err(disconnected)
        }
        Received::Frame(other) => Err(reader.unexpected(&other)),
        Received::End => Err(reader.vanished()),
    }
}

/// The thread that decides: gives out segments, and sends what came of them in order.
struct Sending<'a> {
    params: &'a Params,
    meter: &'a Meter,
    recorder: Recorder<'a>,
    frames: Sender<Frame>,
    report: SourceReport,
}

impl Sending<'_> {
    fn send_all(
        &mut self,
        since: &Since,
        jobs: &Sender<(u64, u64)>,
        events: &Receiver<Event>,
        failure: &Failure,
    ) -> Result<()> {
        let mut order = InOrder::new();
        let mut next = changed_from(since, self.params, self.params.first);
        loop {
            while let Some(index) = next.filter(|_| order.len() < HELD_MAX) {
                let job = (order.issue(), index);
                jobs.send(job).map_err(disconnected)?;
                next = changed_from(since, self.params, index + 1);
            }
            if order.len() == 0 {
                return Ok(());
            }
            match next_event(events, failure)? {
                Event::Compared { ticket, compared } => order.fill(ticket, compared),
                Event::Finished(..) => {
                    return Err(Error::new(
                        Kind::Protocol,
                        "the target ended before the last segment",
                    ))
                }
            };
            while let Some(compared) = order.take() {
                self.send(compared)?;
            }
        }
    }

    fn send(&mut self, compared: Compared) -> Result<()> {
        let geometry = &self.params.geometry;
        let range = geometry.segment(compared.index);
        self.report.side.read += compared.read;
        self.report.compared += compared.read / 2;
        self.meter.add_compared(compared.read / 2);
        self.meter.set_position(range.end);
        let Some(delta) = compared.delta else {
            return Ok(());
        };
        let len = range.len() as usize;
        let changed = segment::leaf_bytes(&delta.patch.changed, geometry, len);
        let zeroed = segment::leaf_bytes(&delta.patch.zeroed, geometry, len);
        self.recorder.shift(compared.index, delta.shift)?;
        self.report.changed += changed;
        self.report.zeroed += zeroed;
        self.meter.add_changed(changed);
        self.meter.add_zeroed(zeroed);
        self.meter
            .mark(|map| map.mark_patched(range, changed, zeroed));
        self.meter.add_sent(delta.patch.data.packed_len() as u64);
        post(&self.frames, Frame::Delta(delta))
    }

    fn finish(mut self, events: &Receiver<Event>, failure: &Failure) -> Result<Summary> {
        let digest = self.recorder.digest(self.params.geometry.size())?;
        self.report.map = self.meter.map_report();
        let stats = serde_json::to_vec(&self.report)
            .map_err(|e| Error::new(Kind::Protocol, "cannot encode statistics").because(e))?;
        post(&self.frames, Frame::Done(digest, stats))?;
        match next_event(events, failure)? {
            Event::Finished(theirs, _) if theirs != digest => Err(mismatch(digest, theirs)),
            Event::Finished(_, target) => {
                self.meter.add_map(target.map.as_ref())?;
                Ok(summary(self.params, digest, &self.report, target.side))
            }
            Event::Compared { .. } => Err(disconnected(())),
        }
    }
}

/// The first segment from `first` on that may have changed.
fn changed_from(since: &Since, params: &Params, first: u64) -> Option<u64> {
    let geometry = &params.geometry;
    let start = geometry.segment(first).start;
    let range = since.changed.next_from(start)?;
    (range.start < geometry.size()).then(|| geometry.segment_of(range.start))
}

struct Worker<'a> {
    image: &'a dyn Image,
    since: &'a Since<'a>,
    params: &'a Params,
    pool: Arc<BufPool>,
    packer: Packer<'a>,
}

impl Worker<'_> {
    fn work(
        &mut self,
        jobs: &Receiver<(u64, u64)>,
        events: &Sender<Event>,
        failure: &Failure,
    ) -> Result<()> {
        for (ticket, index) in jobs {
            failure.check()?;
            let compared = self.compare(index)?;
            events
                .send(Event::Compared { ticket, compared })
                .map_err(disconnected)?;
        }
        Ok(())
    }

    /// Reads the changed grains of a segment, as they are and as they were.
    fn compare(&mut self, index: u64) -> Result<Compared> {
        let geometry = &self.params.geometry;
        let range = geometry.segment(index);
        let leaf = geometry.leaf_bytes() as usize;
        let mut new = SegmentData::unfilled(&self.pool, range.len() as usize);
        let mut old = SegmentData::unfilled(&self.pool, range.len() as usize);
        let (mut changed, mut zeroed) = (LeafSet::default(), LeafSet::default());
        let mut shift = GrainSum::default();
        let mut read = 0;
        // Two ranges may be in one grain.
        let parts: RangeSet = self
            .since
            .changed
            .within(range)
            .map(|part| part.align_out(GRAIN_BYTES as u64).intersection(&range))
            .collect();
        for part in parts.iter() {
            let place = (part.start - range.start) as usize..(part.end - range.start) as usize;
            let first = place.start / leaf;
            let mut piece = |data: &mut SegmentData, image: &dyn Image| {
                image.read_at(&mut data.buf[place.clone()], part.start)?;
                read += part.len();
                let bytes = &data.buf[place.clone()];
                let present = digest::nonzero_leaves(bytes, leaf);
                let sum = digest::piece(self.params.hash, bytes, leaf, &present, first);
                Ok::<_, Error>((present, sum))
            };
            let (is, sum) = piece(&mut new, self.image)?;
            let (was, old_sum) = piece(&mut old, self.since.image)?;
            if sum == old_sum {
                continue;
            }
            shift = shift.plus(sum.minus(old_sum));
            for i in 0..place.len().div_ceil(leaf) {
                let at = geometry.leaves(first + i, 1, new.len);
                match (is.contains(i), was.contains(i)) {
                    (false, false) => {}
                    (false, true) => zeroed.insert(first + i),
                    (true, true) if new.buf[at.clone()] == old.buf[at] => {}
                    (true, _) => changed.insert(first + i),
                }
            }
        }
        let mut delta = None;
        if !changed.is_empty() || !zeroed.is_empty() {
            let leaves = segment::leaf_slices(&changed, geometry, &new);
            let data = self.packer.pack(&leaves)?;
            let patch = Patch {
                segment: index,
                digest: None,
                changed,
                zeroed,
                data,
            };
            let mut made = Delta { shift, patch };
            made.patch.digest = Some(made.proof(self.params.hash, &leaves));
            delta = Some(made);
        }
        Ok(Compared { index, read, delta })
    }
}
