//! The target's side of a sync: frees what the source has not, reports what it has, applies patches.

use super::apply::{self, Applier, Base};
use super::failure::{disconnected, Failure};
use super::outbox::{self, post};
use super::progress::Progress;
use super::source::{mismatch, summary};
use super::table::{DigestTable, Recorder};
use super::verify::Touched;
use super::window::{Report, Window};
use super::{Meter, Params, SideStats, SourceReport, Summary, TargetReport};
use crate::bell::Bell;
use crate::digest::{self, Digest};
use crate::error::{Error, Kind, Result};
use crate::fingerprint::Fingerprints;
use crate::image::Image;
use crate::wire::{
    limits, Delta, Entry, Extents, Frame, Link, LinkReader, Patch, Received, Unpacker,
};
use crossbeam_channel::{Receiver, Sender};

/// Receives into `image` over `link`. The parameters must be the ones the source was given.
/// When this returns `Ok`, the image is flushed and both sides' digests agreed. The segments' digests go into `table`
/// if there is one; a sync that fails leaves there how far it got.
pub fn run(
    image: &dyn Image,
    params: &Params,
    link: &mut Link,
    meter: &Meter,
    table: Option<&DigestTable>,
) -> Result<Summary> {
    meter.begin(params);
    let table = table.filter(|_| !params.dry_run);
    let recorder = Recorder::new(params, table)?;
    let ended = Bell::new()?;
    link.reader
        .set_frame_max((params.geometry.segment_bytes() + 4096).max(limits::CONTROL_FRAME_MAX));
    // While our workers wait to send, we do not read, and so cannot hear that the source is silent.
    link.writer.set_stall_max(link.reader.silence_max());
    let (bytes_in, bytes_out) = (link.reader.bytes(), link.writer.bytes());
    let failure = Failure::new(&[link]);
    let (frames_tx, frames_rx) = crossbeam_channel::bounded(outbox::queue(&params.geometry));
    let (reader, writer) = (&mut link.reader, &mut link.writer);
    let applier = Applier::new(image, params, meter);
    let mut outcome = None;
    std::thread::scope(|scope| {
        let failure = &failure;
        scope
            .spawn(move || failure.watch_writer(|| outbox::run(writer, &frames_rx, None, failure)));
        let mut session = Session::new(params, meter, &applier, recorder, failure);
        let done = session.transfer(&mut *reader, &frames_tx, &ended);
        if failure.is_set() {
            return;
        }
        // Flushing and verifying can take long; the link goes on pinging meanwhile.
        failure.watch(|| {
            let (digest, report) = done.ok_or_else(|| disconnected(()))?;
            outcome = Some(session.finish(digest, &report, reader, &frames_tx)?);
            Ok(())
        });
        drop(frames_tx);
    });
    // The thread that reads may have been waiting for others that ended.
    failure.hear_out(&mut link.reader);
    if let Some(error) = failure.take() {
        link.writer.report(&error);
        return Err(error);
    }
    let mut summary = outcome.ok_or_else(|| disconnected(()))?;
    summary.wire_out = link.reader.bytes() - bytes_in;
    summary.wire_in = link.writer.bytes() - bytes_out;
    Ok(summary)
}

/// Work for the target's threads.
enum Job {
    Scan {
        ticket: u64,
        index: u64,
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

struct Session<'a> {
    params: &'a Params,
    meter: &'a Meter,
    applier: &'a Applier<'a>,
    failure: &'a Failure,
    recorder: Recorder<'a>,
    touched: Touched,
}

impl<'a> Session<'a> {
    fn new(
        params: &'a Params,
        meter: &'a Meter,
        applier: &'a Applier<'a>,
        recorder: Recorder<'a>,
        failure: &'a Failure,
    ) -> Self {
        Session {
            params,
            meter,
            applier,
            failure,
            recorder,
            touched: Touched::new(params),
        }
    }

    /// Runs the transfer to the source's last frame; all patches are applied when this returns.
    fn transfer(
        &mut self,
        reader: &mut LinkReader,
        frames: &Sender<Frame>,
        ended: &Bell,
    ) -> Option<(Digest, SourceReport)> {
        let (jobs_tx, jobs_rx) = crossbeam_channel::bounded(outbox::queue(&self.params.geometry));
        let (slices_tx, slices_rx) = crossbeam_channel::bounded(limits::SLICES_MAX);
        let mut done = None;
        let (window, progress) = (Window::new(), Progress::new(self.params.first));
        let (image, table) = (self.applier.image(), self.recorder.table());
        std::thread::scope(|scope| {
            let (params, applier, failure) = (self.params, self.applier, self.failure);
            let (window, progress) = (&window, &progress);
            if let Some(table) = table {
                scope.spawn(move || failure.watch(|| progress.keep(image, table, ended)));
            }
            for _ in 0..apply::workers(self.params) {
                let jobs = jobs_rx.clone();
                scope.spawn(move || {
                    failure
                        .watch(|| work(params, applier, (window, progress), &jobs, frames, failure))
                });
            }
            drop(jobs_rx);
            let jobs = jobs_tx.clone();
            scope.spawn(move || {
                failure.watch(|| scan(applier, (window, progress), &slices_rx, &jobs, failure))
            });
            failure.watch(|| {
                done =
                    Some(self.receive(reader, (window, progress), &slices_tx, &jobs_tx, frames)?);
                Ok(())
            });
            drop((slices_tx, jobs_tx));
            ended.ring();
        });
        if let (Some(table), true) = (table, self.failure.is_set()) {
            // What got here need not be compared again. If this fails too, it will be.
            let _ = progress.checkpoint(image, table);
        }
        done
    }

    /// Handles the source's frames up to and including the last one.
    fn receive(
        &mut self,
        reader: &mut LinkReader,
        (window, progress): (&Window, &Progress),
        slices: &Sender<Extents>,
        jobs: &Sender<Job>,
        frames: &Sender<Frame>,
    ) -> Result<(Digest, SourceReport)> {
        let (mut listed_to, mut unanswered) = (self.params.first, 0u64);
        let mut changed_to = self.params.first;
        if self.params.delta {
            // Nothing is listed: what is not changed is as it is.
            listed_to = self.params.geometry.segments();
        }
        let protocol = |what: &str| Err(Error::new(Kind::Protocol, format!("the source {what}")));
        loop {
            match reader.receive()? {
                Received::Frame(Frame::Extents(extents)) => {
                    let room = listed_to..self.params.geometry.segments();
                    if extents.start != listed_to || !room.contains(&(extents.end.wrapping_sub(1)))
                    {
                        return protocol("listed its data out of order");
                    }
                    listed_to = extents.end;
                    unanswered += extents.runs.iter().map(|(_, take)| take).sum::<u64>();
                    if slices.try_send(extents).is_err() {
                        self.failure.check()?;
                        return protocol("listed too much data ahead of the comparison");
                    }
                }
                Received::Frame(Frame::Want(index)) => {
                    let Some((present, fingerprints)) = window.leaves(index) else {
                        return protocol("asked for fingerprints out of turn");
                    };
                    post(
                        frames,
                        Frame::Leaves {
                            segment: index,
                            present,
                            fingerprints,
                        },
                    )?;
                }
                Received::Frame(Frame::Same(count)) => {
                    if count == 0 {
                        return protocol("answered nothing");
                    }
                    unanswered = unanswered.saturating_sub(count.into());
                    for _ in 0..count {
                        match window.settle() {
                            Some((index, entry)) => {
                                self.settle_same(index, entry)?;
                                progress.done(progress.settle(), index);
                            }
                            None => return protocol("answered more segments than were reported"),
                        }
                    }
                }
                Received::Frame(Frame::Patch(patch)) => match window.settle() {
                    Some((index, entry)) if index == patch.segment && !self.params.dry_run => {
                        unanswered = unanswered.saturating_sub(1);
                        self.settle_patch(&patch)?;
                        let job = Job::Apply {
                            ticket: progress.settle(),
                            patch,
                            base: Base::of(entry),
                        };
                        jobs.send(job).map_err(disconnected)?;
                    }
                    _ => return protocol("sent a patch out of turn"),
                },
                Received::Frame(Frame::Delta(delta)) => {
                    let index = delta.patch.segment;
                    let room = changed_to..self.params.geometry.segments();
                    if !room.contains(&index) || !self.params.delta || self.params.dry_run {
                        return protocol("sent a change out of turn");
                    }
                    changed_to = index + 1;
                    self.settle_change(&delta)?;
                    let ticket = progress.settle();
                    jobs.send(Job::Change { ticket, delta })
                        .map_err(disconnected)?;
                }
                Received::Frame(Frame::Done(digest, stats)) => {
                    if listed_to != self.params.geometry.segments() || unanswered > 0 {
                        return protocol("ended before all segments were answered");
                    }
                    let report = serde_json::from_slice(&stats).map_err(|e| {
                        Error::new(Kind::Protocol, "the source sent malformed statistics")
                            .because(e)
                    })?;
                    return Ok((digest, report));
                }
                Received::Frame(other) => return Err(reader.unexpected(&other)),
                Received::End => return Err(reader.vanished()),
            }
        }
    }

    fn settle_same(&mut self, index: u64, entry: Entry) -> Result<()> {
        if let Entry::Digest(digest) = entry {
            self.recorder.add(index, Some(digest))?;
            self.meter
                .add_compared(self.params.geometry.segment(index).len());
        }
        self.meter
            .set_position(self.params.geometry.segment(index).end);
        Ok(())
    }

    fn settle_patch(&mut self, patch: &Patch) -> Result<()> {
        let range = self.params.geometry.segment(patch.segment);
        self.recorder.add(patch.segment, patch.digest)?;
        self.touched.patched(patch.segment, patch.digest);
        self.meter.add_patch(patch, &self.params.geometry);
        self.meter.set_position(range.end);
        Ok(())
    }

    fn settle_change(&mut self, delta: &Delta) -> Result<()> {
        let patch = &delta.patch;
        let digest = self.recorder.shift(patch.segment, delta.shift)?;
        self.touched.patched(patch.segment, digest);
        self.meter.add_patch(patch, &self.params.geometry);
        let end = self.params.geometry.segment(patch.segment).end;
        self.meter.set_position(end);
        Ok(())
    }

    /// Compares the digests, flushes, verifies and tells the source. That can take long: the source is
    /// watched meanwhile, so that we end when it does.
    fn finish(
        &mut self,
        theirs: Digest,
        report: &SourceReport,
        reader: &mut LinkReader,
        frames: &Sender<Frame>,
    ) -> Result<Summary> {
        let failure = self.failure;
        let done = Bell::new()?;
        let secured = std::thread::scope(|scope| {
            scope.spawn(|| failure.watch(|| reader.watch(&done)));
            let secured = self.secure(theirs);
            done.ring();
            secured
        });
        let (ours, stats) = secured?;
        failure.check()?;
        let own = TargetReport {
            side: stats,
            map: self.meter.map_report(),
        };
        self.meter.add_map(report.map.as_ref())?;
        let json = serde_json::to_vec(&own)
            .map_err(|e| Error::new(Kind::Protocol, "cannot encode statistics").because(e))?;
        post(frames, Frame::Finished(ours, json))?;
        Ok(summary(self.params, ours, report, stats))
    }

    /// Makes sure that the image has the source's digest, and is on the medium.
    fn secure(&mut self, theirs: Digest) -> Result<(Digest, SideStats)> {
        let params = self.params;
        let geometry = &params.geometry;
        let ours = self.recorder.digest(geometry.size())?;
        if !params.dry_run {
            if ours != theirs {
                return Err(mismatch(theirs, ours));
            }
            self.applier.image().flush()?;
            self.applier.image().check_unchanged()?;
            if let Some(table) = self.recorder.table() {
                table.set_cursor(geometry.segments())?;
            }
        }
        let mut stats = self.applier.stats();
        if params.verify && !params.dry_run {
            stats.verified = self
                .touched
                .verify(self.applier.image(), params, self.failure)?;
        }
        Ok((ours, stats))
    }
}

/// Walks the source's slices: frees what it has not, and hands the rest to the workers in order.
fn scan(
    applier: &Applier,
    (window, progress): (&Window, &Progress),
    slices: &Receiver<Extents>,
    jobs: &Sender<Job>,
    failure: &Failure,
) -> Result<()> {
    let clear = |first, end| {
        applier.clear_segments(first, end, failure, |index| {
            progress.clear(index);
            jobs.send(Job::Clear { index }).map_err(disconnected)
        })
    };
    for extents in slices {
        let mut at = extents.start;
        for (skip, take) in &extents.runs {
            let first = at + skip;
            clear(at, first)?;
            for index in first..first + take {
                let ticket = window.reserve(failure)?;
                jobs.send(Job::Scan { ticket, index })
                    .map_err(disconnected)?;
            }
            at = first + take;
        }
        clear(at, extents.end)?;
    }
    Ok(())
}

/// A worker: digests and patches, whatever comes next.
fn work(
    params: &Params,
    applier: &Applier,
    (window, progress): (&Window, &Progress),
    jobs: &Receiver<Job>,
    frames: &Sender<Frame>,
    failure: &Failure,
) -> Result<()> {
    let leaf = params.geometry.leaf_bytes() as usize;
    let mut unpacker = Unpacker::default();
    let fingerprints = Fingerprints::new(params.leaf_key);
    for job in jobs {
        failure.check()?;
        match job {
            Job::Scan { ticket, index } => {
                let data = applier.read(index)?;
                let present = digest::nonzero_leaves(data.bytes(), leaf);
                let found = digest::segment_with(params.hash, data.bytes(), leaf, &present);
                let entry = match found {
                    Some(digest) => Entry::Digest(digest),
                    None if data.read > 0 => Entry::Zero,
                    None => Entry::Absent,
                };
                // Made now, while the bytes are in the processor's cache: that costs next to nothing, and
                // reading them again when they are asked for would.
                let leaves = found.map(|_| {
                    let places = present
                        .iter()
                        .map(|i| params.geometry.leaves(i, 1, data.len));
                    (
                        present,
                        places
                            .map(|place| fingerprints.of(&data.bytes()[place]))
                            .collect(),
                    )
                });
                let report = Report {
                    index,
                    entry,
                    leaves,
                };
                window.report(ticket, report, frames)?;
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
