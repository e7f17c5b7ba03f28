//! The source's side of a sync: lists its data, compares what the target reports, sends what differs.

use super::answers::Answers;
use super::compare::work;
use super::coordinator::{Coordinator, Event, EVENTS_MAX};
use super::failure::{disconnected, Failure};
use super::outbox::{self, post};
use super::pack::Level;
use super::segment;
use super::table::{DigestTable, Recorder};
use super::{Meter, Params, SideStats, SourceReport, Summary, TargetReport};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::image::Image;
use crate::wire::{limits, Extents, Frame, Link, LinkReader, Received};
use crossbeam_channel::{Sender, TrySendError};
use std::sync::Arc;

/// Extents frames that may be sent ahead of the segments being compared.
const SLICES_AHEAD: usize = 4;
/// Segments that one extents frame covers at the most, if it names any that hold data.
const SLICE_SEGMENTS: u64 = 1 << 20;

/// Sends `image` over `link`. The parameters must be the ones the target was given. The segments' digests go into
/// `table` if there is one.
pub fn run(
    image: &dyn Image,
    params: &Params,
    link: &mut Link,
    meter: &Meter,
    table: Option<&DigestTable>,
) -> Result<Summary> {
    meter.begin(params);
    let recorder = Recorder::new(params, table)?;
    link.reader.set_frame_max(limits::CONTROL_FRAME_MAX);
    let (bytes_in, bytes_out) = (link.reader.bytes(), link.writer.bytes());
    let failure = Failure::new(&[link]);
    let level = Level::new(params);
    let pool = params.geometry.buffers();
    let (frames_tx, frames_rx) = crossbeam_channel::bounded(outbox::queue(&params.geometry));
    let (events_tx, events_rx) = crossbeam_channel::bounded(EVENTS_MAX);
    let (jobs_tx, jobs_rx) = crossbeam_channel::unbounded();
    let (slices_tx, slices_rx) = crossbeam_channel::bounded(SLICES_AHEAD);
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
        let frames = frames_tx.clone();
        scope.spawn(move || failure.watch(|| list(image, params, &frames, &slices_tx, failure)));
        let events = events_tx.clone();
        scope.spawn(move || failure.watch(|| read_frames(reader, &events)));
        for _ in 0..super::apply::workers(params) {
            let (jobs, events, pool) = (jobs_rx.clone(), events_tx.clone(), Arc::clone(&pool));
            scope.spawn(move || {
                failure.watch(|| work(image, params, &jobs, &events, &pool, level, failure))
            });
        }
        drop((events_tx, jobs_rx));
        let answers = Answers::new(params, meter, recorder, frames_tx);
        let coordinator = Coordinator::new(params, answers, jobs_tx);
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

/// Lists the image's data, slice by slice, to the target and to the coordinator. Each slice but the last
/// holds data: the target answers such a slice, which is what keeps us from running ahead of it.
fn list(
    image: &dyn Image,
    params: &Params,
    frames: &Sender<Frame>,
    slices: &Sender<Extents>,
    failure: &Failure,
) -> Result<()> {
    let geometry = &params.geometry;
    let end = geometry.segments();
    let (mut start, mut searched) = (params.first, params.first);
    while searched < end {
        failure.check()?;
        let to = (searched + SLICE_SEGMENTS).min(end);
        let (found, reached) = segment::data_runs(image, geometry, searched, to, limits::RUNS_MAX)?;
        searched = reached;
        if found.is_empty() && searched < end {
            continue;
        }
        let mut at = start;
        let mut runs = Vec::with_capacity(found.len());
        for (first, count) in found {
            runs.push((first - at, count));
            at = first + count;
        }
        let extents = Extents {
            start,
            end: searched,
            runs,
        };
        // In this order: what a target reports before it was asked is not answered before it is asked either.
        post(frames, Frame::Extents(extents.clone()))?;
        slices.send(extents).map_err(disconnected)?;
        start = searched;
    }
    Ok(())
}

/// Turns the target's frames into events, until the last one. It never waits for the coordinator, who
/// may be waiting for the target to read: there is room for all that the window allows.
fn read_frames(reader: &mut LinkReader, events: &Sender<Event>) -> Result<()> {
    loop {
        let event = match reader.receive()? {
            Received::Frame(Frame::Segments(entries)) => Event::Segments(entries),
            Received::Frame(Frame::Leaves {
                segment,
                present,
                fingerprints,
            }) => Event::Leaves {
                segment,
                present,
                fingerprints,
            },
            Received::Frame(Frame::Finished(digest, stats)) => {
                return hand_over(events, Event::Finished(digest, target_report(&stats)?));
            }
            Received::Frame(other) => return Err(reader.unexpected(&other)),
            Received::End => return Err(reader.vanished()),
        };
        hand_over(events, event)?;
    }
}

/// What a target's last frame says.
pub(super) fn target_report(json: &[u8]) -> Result<TargetReport> {
    serde_json::from_slice(json)
        .map_err(|e| Error::new(Kind::Protocol, "the target sent malformed statistics").because(e))
}

/// There is room for all that an honest target sends unanswered.
pub(super) fn hand_over<T>(events: &Sender<T>, event: T) -> Result<()> {
    events.try_send(event).map_err(|e| match e {
        TrySendError::Full(_) => {
            Error::new(Kind::Protocol, "the target sent more than it was asked for")
        }
        TrySendError::Disconnected(event) => disconnected(event),
    })
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
        // The other end's numbers: they may be anything.
        zeroed: report.zeroed.saturating_add(target.zeroed),
        source: report.side,
        target,
        wire_out: 0,
        wire_in: 0,
    }
}
