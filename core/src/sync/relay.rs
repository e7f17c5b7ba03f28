//! Two remote ends joined by a third host: frames of a sync are passed on, and watched for progress.

use super::failure::{disconnected, Failure};
use super::outbox::{self, post};
use super::source::summary;
use super::{Meter, Params, SourceReport, Summary, TargetReport};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::wire::{limits, Entry, Frame, Link, LinkReader, Received};
use crossbeam_channel::Sender;
use std::collections::VecDeque;

/// Most runs of data that a source may have listed and not answered: what a target takes ahead, what it is
/// at, and what is on the way.
const LISTED_MAX: usize = (limits::SLICES_MAX + 4) * limits::RUNS_MAX;

/// Passes a sync's frames between the agent that is the source and the one that is the target.
pub fn relay(
    source: &mut Link,
    target: &mut Link,
    params: &Params,
    meter: &Meter,
) -> Result<Summary> {
    meter.begin(params);
    source.reader.set_frame_max(limits::FRAME_MAX);
    target.reader.set_frame_max(limits::CONTROL_FRAME_MAX);
    source.writer.set_stall_max(source.reader.silence_max());
    let (out, back) = (source.reader.bytes(), target.reader.bytes());
    let failure = Failure::new(&[source, target]);
    let (to_target, at_target) = crossbeam_channel::bounded(outbox::queue(&params.geometry));
    let (to_source, at_source) = crossbeam_channel::bounded(outbox::queue(&params.geometry));
    let (mut done, mut finished) = (None, None);
    std::thread::scope(|scope| {
        let failure = &failure;
        let (source_reader, source_writer) = (&mut source.reader, &mut source.writer);
        let (target_reader, target_writer) = (&mut target.reader, &mut target.writer);
        let (done, finished) = (&mut done, &mut finished);
        scope.spawn(move || {
            failure.watch_writer(|| outbox::run(target_writer, &at_target, None, failure))
        });
        scope.spawn(move || {
            failure.watch_writer(|| outbox::run(source_writer, &at_source, None, failure))
        });
        scope.spawn(move || {
            failure.watch(|| {
                *done = Some(pass_on(source_reader, &to_target, params, meter)?);
                Ok(())
            });
        });
        failure.watch(|| {
            *finished = Some(pass_back(target_reader, &to_source, params, meter)?);
            Ok(())
        });
        drop(to_source);
    });
    if let Some(error) = failure.take() {
        source.writer.report(&error);
        target.writer.report(&error);
        return Err(error);
    }
    let (Some((digest, report)), Some(stats)) = (done, finished) else {
        return Err(disconnected(()));
    };
    meter.add_map(report.map.as_ref())?;
    meter.add_map(stats.map.as_ref())?;
    let mut summary = summary(params, digest, &report, stats.side);
    summary.wire_out = source.reader.bytes() - out;
    summary.wire_in = target.reader.bytes() - back;
    Ok(summary)
}

fn parse<T: serde::de::DeserializeOwned>(json: &[u8], who: &str) -> Result<T> {
    serde_json::from_slice(json).map_err(|e| {
        Error::new(
            Kind::Protocol,
            format!("the {who} sent malformed statistics"),
        )
        .because(e)
    })
}

/// Source to target, up to the last frame.
fn pass_on(
    reader: &mut LinkReader,
    queue: &Sender<Frame>,
    params: &Params,
    meter: &Meter,
) -> Result<(Digest, SourceReport)> {
    let mut listed = VecDeque::new();
    loop {
        let frame = match reader.receive()? {
            Received::Frame(frame) => frame,
            Received::End => return Err(reader.vanished()),
        };
        match &frame {
            Frame::Patch(patch) => {
                meter.add_patch(patch, &params.geometry);
                answered(&mut listed, 1);
                meter.set_position(params.geometry.segment(patch.segment).end);
            }
            Frame::Same(count) => {
                if let Some(last) = answered(&mut listed, (*count).into()) {
                    meter.set_position(params.geometry.segment(last).end);
                }
            }
            Frame::Extents(extents) => {
                if listed.len() + extents.runs.len() > LISTED_MAX {
                    return Err(Error::new(
                        Kind::Protocol,
                        "the source listed too much data ahead of the comparison",
                    ));
                }
                let mut at = extents.start;
                for (skip, take) in &extents.runs {
                    let first = at + skip;
                    at = first + take;
                    listed.push_back((first, at));
                }
            }
            Frame::Want(_) => {}
            Frame::Done(digest, stats) => {
                let end = (*digest, parse(stats, "source")?);
                post(queue, frame)?;
                meter.set_position(params.geometry.size());
                return Ok(end);
            }
            other => return Err(reader.unexpected(other)),
        }
        post(queue, frame)?;
    }
}

/// Takes the next `count` segments off the listed runs `(first, end)`; returns the last one of them.
fn answered(listed: &mut VecDeque<(u64, u64)>, mut count: u64) -> Option<u64> {
    let mut last = None;
    while count > 0 {
        let (first, end) = listed.front_mut()?;
        let taken = count.min(*end - *first);
        *first += taken;
        count -= taken;
        last = first.checked_sub(1);
        if first == end {
            listed.pop_front();
        }
    }
    last
}

/// Target to source, up to the last frame.
fn pass_back(
    reader: &mut LinkReader,
    queue: &Sender<Frame>,
    params: &Params,
    meter: &Meter,
) -> Result<TargetReport> {
    loop {
        let frame = match reader.receive()? {
            Received::Frame(frame) => frame,
            Received::End => return Err(reader.vanished()),
        };
        match &frame {
            Frame::Segments(entries) => {
                let held = entries.iter().filter(|e| matches!(e, Entry::Digest(_)));
                let segment = u64::from(params.geometry.segment_bytes());
                meter.add_compared(held.count() as u64 * segment);
                post(queue, frame)?;
            }
            Frame::Leaves { .. } => post(queue, frame)?,
            Frame::Finished(_, stats) => {
                let stats = parse(stats, "target")?;
                post(queue, frame)?;
                return Ok(stats);
            }
            other => return Err(reader.unexpected(other)),
        }
    }
}
