//! The one thread of a side that writes to the link: frames from a bounded queue, held to the rate
//! limit.

use super::failure::{disconnected, Failure};
use super::geometry::Geometry;
use super::pack::{Level, Pilot};
use super::Params;
use crate::error::Result;
use crate::wire::{Delta, Frame, LinkWriter};
use crossbeam_channel::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// Bytes of patches that may wait between two threads.
const WAITING_BYTES_MAX: u32 = 8 << 20;

/// Frames that may wait between two threads. Patches are up to a segment each, so this bounds memory.
pub(super) fn queue(geometry: &Geometry) -> usize {
    (WAITING_BYTES_MAX / geometry.segment_bytes()).clamp(1, 8) as usize
}

/// Writes frames until all senders are gone, then flushes.
pub(super) fn run(
    writer: &mut LinkWriter,
    frames: &Receiver<Frame>,
    mut pace: Option<Pace>,
    failure: &Failure,
) -> Result<()> {
    loop {
        let frame = match frames.try_recv() {
            Ok(frame) => frame,
            Err(TryRecvError::Disconnected) => return writer.flush(),
            Err(TryRecvError::Empty) => {
                writer.flush()?;
                match frames.recv() {
                    Ok(frame) => frame,
                    Err(_) => return Ok(()),
                }
            }
        };
        match (&mut pace, &frame) {
            (Some(pace), Frame::Patch(patch) | Frame::Delta(Delta { patch, .. })) => {
                let began = Instant::now();
                writer.send(&frame)?;
                if let Some(limiter) = &mut pace.limiter {
                    writer.flush()?;
                    let paid_at = limiter.charge(patch.data.packed_len() as u64);
                    pay(paid_at, failure)?;
                }
                pace.pilot.sent(
                    pace.leaf_bytes * patch.changed.len() as u64,
                    began.elapsed(),
                );
            }
            _ => writer.send(&frame)?,
        }
    }
}

/// What a source minds while it sends patches.
pub(super) struct Pace<'a> {
    limiter: Option<Limiter>,
    pilot: Pilot<'a>,
    leaf_bytes: u64,
}

impl<'a> Pace<'a> {
    pub(super) fn new(params: &Params, level: &'a Level) -> Self {
        Pace {
            limiter: params.bytes_per_s_max.map(Limiter::new),
            pilot: Pilot::new(level),
            leaf_bytes: params.geometry.leaf_bytes().into(),
        }
    }
}

/// Sends a frame to the outbox.
pub(super) fn post(queue: &crossbeam_channel::Sender<Frame>, frame: Frame) -> Result<()> {
    queue.send(frame).map_err(disconnected)
}

/// Holds the average rate since the last idle moment at or below a limit.
pub(super) struct Limiter {
    bytes_per_s: f64,
    free_at: Instant,
}

impl Limiter {
    pub(super) fn new(bytes_per_s: u64) -> Self {
        Limiter {
            bytes_per_s: bytes_per_s.max(1) as f64,
            free_at: Instant::now(),
        }
    }

    /// Notes that `bytes` were sent, and tells when they are paid for.
    pub(super) fn charge(&mut self, bytes: u64) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s);
        self.free_at = self.free_at.max(Instant::now()) + cost;
        self.free_at
    }
}

/// Waits until what was charged is paid for.
pub(super) fn pay(paid_at: Instant, failure: &Failure) -> Result<()> {
    loop {
        let left = paid_at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
        failure.check()?;
    }
}
