//! The target's side of a sync: frees what the source has not, reports what it has, applies patches.

use super::apply::{self, Applier, Base};
use super::failure::{disconnected, Failure};
use super::grains::Kept;
use super::outbox::{self, post};
use super::progress::Progress;
use super::report::{self, Job, Listed};
use super::source::{mismatch, summary};
use super::table::{DigestTable, Recorder};
use super::verify::Touched;
use super::window::{Found, Report, Window};
use super::{DeltaMode, Meter, Params, SideStats, SourceReport, Summary, TargetReport};
use crate::bell::Bell;
use crate::digest::{Digest, GrainSet, GrainSum};
use crate::error::{Error, Kind, Result};
use crate::image::Image;
use crate::wire::{limits, Delta, Entry, Frame, Grains, Link, LinkReader, Patch, Received};
use crossbeam_channel::Sender;

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
        let (listed_tx, listed_rx) = crossbeam_channel::bounded(limits::SLICES_MAX);
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
                    failure.watch(|| {
                        report::work(params, applier, (window, progress), &jobs, frames, failure)
                    })
                });
            }
            drop(jobs_rx);
            let jobs = jobs_tx.clone();
            scope.spawn(move || {
                failure.watch(|| {
                    report::give_out(
                        params,
                        applier,
                        (window, progress),
                        &listed_rx,
                        &jobs,
                        failure,
                    )
                })
            });
            failure.watch(|| {
                done =
                    Some(self.receive(reader, (window, progress), &listed_tx, &jobs_tx, frames)?);
                Ok(())
            });
            drop((listed_tx, jobs_tx));
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
        listed: &Sender<Listed>,
        jobs: &Sender<Job>,
        frames: &Sender<Frame>,
    ) -> Result<(Digest, SourceReport)> {
        let (mut listed_to, mut unanswered) = (self.params.first, 0u64);
        let mut changed_to = self.params.first;
        let mode = self.params.delta;
        if mode.is_some() {
            // No data is listed: what is not changed is as it is.
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
                    if listed.try_send(Listed::Extents(extents)).is_err() {
                        self.failure.check()?;
                        return protocol("listed too much data ahead of the comparison");
                    }
                }
                Received::Frame(Frame::Grains(grains)) => {
                    if mode != Some(DeltaMode::Ranges) || grains.is_empty() {
                        return protocol("announced grains out of turn");
                    }
                    for announced in &grains {
                        if !self.is_due(announced, changed_to) {
                            return protocol("announced grains out of order");
                        }
                        changed_to = announced.segment + 1;
                    }
                    unanswered += grains.len() as u64;
                    if listed.try_send(Listed::Grains(grains)).is_err() {
                        self.failure.check()?;
                        return protocol("announced too many grains ahead of the comparison");
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
                            Some(report) => {
                                self.settle_same(&report)?;
                                progress.done(progress.settle(), report.index);
                            }
                            None => return protocol("answered more segments than were reported"),
                        }
                    }
                }
                Received::Frame(Frame::Patch(patch)) => match window.settle() {
                    Some(report) if report.index == patch.segment && !self.params.dry_run => {
                        unanswered = unanswered.saturating_sub(1);
                        let base = self.settle_patch(&patch, report.found)?;
                        let job = Job::Apply {
                            ticket: progress.settle(),
                            patch,
                            base,
                        };
                        jobs.send(job).map_err(disconnected)?;
                    }
                    _ => return protocol("sent a patch out of turn"),
                },
                Received::Frame(Frame::Delta(delta)) => {
                    let index = delta.patch.segment;
                    let room = changed_to..self.params.geometry.segments();
                    if !room.contains(&index) || mode != Some(DeltaMode::Image) {
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

    /// Whether these grains may be announced when all changes before segment `from` are.
    fn is_due(&self, announced: &Grains, from: u64) -> bool {
        let geometry = &self.params.geometry;
        let Grains { segment, set } = *announced;
        let len = geometry.segment(segment).len() as usize;
        (from..geometry.segments()).contains(&segment)
            && !set.is_empty()
            && set.is_within(GrainSet::all(len))
    }

    fn settle_same(&mut self, report: &Report) -> Result<()> {
        let range = self.params.geometry.segment(report.index);
        match &report.found {
            Found::Whole {
                entry: Entry::Digest(digest),
                ..
            } => {
                self.recorder.add(report.index, Some(*digest))?;
                self.meter.add_compared(range.len());
            }
            Found::Whole { .. } => {}
            Found::Grains { kept, .. } => {
                self.replace(report.index, kept, kept.sum)?;
            }
        }
        self.meter.set_position(range.end);
        Ok(())
    }

    /// Notes what a patch makes of a segment, and tells what it goes onto.
    fn settle_patch(&mut self, patch: &Patch, found: Found) -> Result<Base> {
        let index = patch.segment;
        let (digest, base) = match found {
            Found::Whole { entry, .. } => {
                self.recorder.add(index, patch.digest)?;
                (patch.digest, Base::of(entry))
            }
            Found::Grains { kept, .. } => {
                let digest = self.replace(index, &kept, GrainSum::of(patch.digest))?;
                (digest, Base::Grains(kept))
            }
        };
        self.settled(patch, digest);
        Ok(base)
    }

    /// The kept grains of segment `index` add `is` to its digest from now on. Tells what that is then.
    fn replace(&mut self, index: u64, kept: &Kept, is: GrainSum) -> Result<Option<Digest>> {
        let len = self.params.geometry.segment(index).len() as usize;
        self.meter.add_compared(kept.set.bytes(len) as u64);
        self.recorder
            .replace(index, kept.is_whole(len), (kept.sum, is))
    }

    fn settle_change(&mut self, delta: &Delta) -> Result<()> {
        let digest = self.recorder.shift(delta.patch.segment, delta.shift)?;
        self.settled(&delta.patch, digest);
        Ok(())
    }

    fn settled(&mut self, patch: &Patch, digest: Option<Digest>) {
        let geometry = &self.params.geometry;
        self.touched.patched(patch.segment, digest);
        self.meter.add_patch(patch, geometry);
        self.meter.set_position(geometry.segment(patch.segment).end);
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
