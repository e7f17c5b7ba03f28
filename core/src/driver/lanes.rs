//! When a link gets more streams, and how many.
//!
//! An SSH channel has at most 2 MiB on the way: OpenSSH's window is fixed. What it can carry is that over
//! the round trip, 40 MiB/s at 50 ms. The kernel's limits for one TCP connection are not much wider, and one ssh process
//! encrypts on one processor. So each further stream is a connection of its own.

use crate::agent::LANE_READY;
use crate::error::{Error, Kind, Result};
use crate::remote::{AgentHandle, AgentPipe, AgentSpec, Remote};
use crate::stop::Stop;
use crate::wire::{limits, Lanes};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use std::ffi::OsString;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many streams a link to another host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Streams {
    /// One, and more once the latency of the way holds it up.
    #[default]
    Auto,
    /// As many as this.
    Fixed(u8),
}

impl Streams {
    /// Most streams that may be asked for.
    pub const MAX: u8 = limits::LANES_MAX + 1;
}

/// Bytes that one SSH channel can have on the way: CHAN_SES_WINDOW_DEFAULT in OpenSSH's channels.h.
const WINDOW_BYTES: f64 = 2.0 * 1024.0 * 1024.0;
/// What the streams together are to be able to carry, in bytes a second.
const AIM_BYTES_PER_S: f64 = 300e6;
/// Most streams that are opened without being asked for.
const AUTO_MAX: u8 = 8;
/// How often the traffic is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often in a row the window must have been what limited it.
const LOOKS: u32 = 3;
/// Connections that are made at once; sshd turns some away from 10 on (`MaxStartups`).
const CONNECTING_MAX: usize = 4;
/// How long a lane may take to reach the agent once its connection stands.
const JOIN_TIME: Duration = Duration::from_secs(30);

/// The streams of one link.
pub(super) struct Road {
    streams: Streams,
    end: End,
    lanes: Arc<Lanes>,
    stop: Stop,
    opened: Opened,
}

/// The agent that lanes are to reach.
struct End {
    spec: AgentSpec,
    token: String,
}

#[derive(Default)]
struct Opened {
    done: bool,
    /// The further connections; they last as long as the link.
    connections: Vec<(AgentHandle, Remote)>,
    lacks: Option<Error>,
}

impl Road {
    pub(super) fn new(
        streams: Streams,
        spec: AgentSpec,
        token: String,
        lanes: Arc<Lanes>,
        stop: Stop,
    ) -> Self {
        Road {
            streams,
            end: End { spec, token },
            lanes,
            stop,
            opened: Opened::default(),
        }
    }

    pub(super) fn lacks(&mut self) -> Option<Error> {
        self.opened.lacks.take()
    }

    /// Opens the further streams while `work` runs, when they are due.
    pub(super) fn widen_during<T>(&mut self, session: &Remote, work: impl FnOnce() -> T) -> T {
        if self.opened.done || self.streams == Streams::Fixed(1) {
            return work();
        }
        let (done, ended) = channel();
        // Set when there is nothing left to open streams for.
        let stop = self.stop.child();
        std::thread::scope(|scope| {
            scope.spawn(|| self.attend(session, ended, &stop));
            let result = work();
            stop.stop();
            drop(done);
            result
        })
    }

    fn attend(&mut self, session: &Remote, ended: Receiver<()>, stop: &Stop) {
        let due = match self.streams {
            Streams::Fixed(count) => Some(count),
            Streams::Auto => wait_until_due(&self.lanes, &ended),
        };
        if let Some(count) = due {
            self.opened.done = true;
            self.open(session, count.saturating_sub(1), stop);
        }
    }

    /// Opens `count` lanes and announces those that came to be.
    fn open(&mut self, session: &Remote, count: u8, stop: &Stop) {
        let next = Mutex::new(1..=count);
        let came = Mutex::new(Vec::new());
        let failed = Mutex::new(None);
        let end = &self.end;
        std::thread::scope(|scope| {
            for _ in 0..CONNECTING_MAX.min(count.into()) {
                scope.spawn(|| loop {
                    let number = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(number) = number.filter(|_| !stop.is_stopped()) else {
                        return;
                    };
                    match end.open(session, number, stop) {
                        Ok(lane) => came
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push((number, lane)),
                        Err(e) => {
                            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            failed.get_or_insert(e);
                        }
                    }
                });
            }
        });
        let mut came = came.into_inner().unwrap_or_else(PoisonError::into_inner);
        came.sort_by_key(|(number, _)| *number);
        let mut usable = 0;
        for (number, lane) in came {
            // They are announced by their count, so after a gap they are of no use.
            if number == usable + 1 {
                self.lanes.add(number, lane.input, lane.output);
                self.opened.connections.push((lane.handle, lane.session));
                usable = number;
            }
        }
        self.lanes.announce(usable);
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = failed.filter(|_| !stop.is_stopped()) {
            let what = format!("only {} of {} streams", usable + 1, count + 1);
            self.opened.lacks = Some(why.context(what));
        }
    }
}

impl End {
    fn open(&self, session: &Remote, number: u8, stop: &Stop) -> Result<Lane> {
        let mut spec = self.spec.clone();
        let words = ["agent", "--join", &self.token, &number.to_string()];
        spec.args = words.map(OsString::from).to_vec();
        let (other, pipe) = session.start_beside(&spec)?;
        let AgentPipe {
            stdin,
            stdout,
            handle,
        } = pipe;
        match read_byte(&stdout, stop) {
            Some(LANE_READY) => Ok(Lane {
                input: stdout,
                output: stdin,
                handle,
                session: other,
            }),
            _ => Err(Error::new(
                Kind::Remote,
                format!("a stream did not reach the agent on {}", session.host()),
            )
            .because(handle.stderr())),
        }
    }
}

struct Lane {
    input: OwnedFd,
    output: OwnedFd,
    handle: AgentHandle,
    session: Remote,
}

/// The first byte that comes, unless that takes too long.
pub(super) fn read_byte(fd: &OwnedFd, stop: &Stop) -> Option<u8> {
    let tick = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    let deadline = Instant::now() + JOIN_TIME;
    while Instant::now() < deadline && !stop.is_stopped() {
        if let Ok(1..) = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&tick)) {
            let mut byte = [0];
            return match rustix::io::read(fd, &mut byte) {
                Ok(1) => Some(byte[0]),
                _ => None,
            };
        }
    }
    None
}

/// Waits until the window is what limits the link, and tells how many streams it should have.
fn wait_until_due(lanes: &Lanes, ended: &Receiver<()>) -> Option<u8> {
    let (mut bytes, mut at, mut held_up) = (lanes.bytes(), Instant::now(), 0);
    loop {
        match ended.recv_timeout(LOOK_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return None,
        }
        let (bytes_now, now) = (lanes.bytes(), Instant::now());
        let rate = (bytes_now - bytes) as f64 / (now - at).as_secs_f64();
        (bytes, at) = (bytes_now, now);
        let due = lanes.round_trip().and_then(|time| streams_due(rate, time));
        held_up = due.map_or(0, |_| held_up + 1);
        if held_up == LOOKS {
            return due;
        }
    }
}

/// The streams that a link with this round trip should have, if `rate` bytes a second keep one busy.
fn streams_due(rate: f64, round_trip: Duration) -> Option<u8> {
    let time = round_trip.as_secs_f64();
    // Half of the window: that much at least is on the way all the time.
    if rate * time < WINDOW_BYTES / 2.0 {
        return None;
    }
    let count = (AIM_BYTES_PER_S * time / WINDOW_BYTES).ceil();
    Some((count as u8).clamp(2, AUTO_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_due_where_the_window_limits() {
        let due = |mib_per_s: f64, ms: u64| {
            streams_due(mib_per_s * 1048576.0, Duration::from_micros(ms * 1000))
        };
        assert_eq!(due(800.0, 0), None, "on this host");
        assert_eq!(due(800.0, 1), None, "in the same room");
        assert_eq!(
            due(10.0, 50),
            None,
            "the way is slow, not the window narrow"
        );
        assert_eq!(due(38.0, 50), Some(8));
        assert_eq!(due(95.0, 20), Some(3));
        assert_eq!(due(3.0, 600), Some(8));
    }
}
