//! The writing half of a link. A thread of its own sends a ping whenever nothing else was sent for a
//! while, so that a peer can tell a busy end from a dead one.

use super::frame::Frame;
use super::lanes::Lanes;
use super::limits;
use super::stream::StreamWriter;
use super::stripe::Outlet;
use crate::error::{Error, Kind, Result};
use crate::runbook::Runbook;
use crate::stop::Stop;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Bytes collected before they are written without being asked.
const PENDING_MAX: usize = 256 << 10;

/// Frames to the peer. They are collected until [`LinkWriter::flush`] or until enough lie ready.
pub struct LinkWriter {
    shared: Arc<Mutex<Writing>>,
    stop: Stop,
}

struct Writing {
    stream: Outlet,
    lanes: Arc<Lanes>,
    pending: Vec<u8>,
    peer: String,
    stop: Stop,
    bytes: u64,
    /// A write failed half-way: nothing sensible can follow it.
    broken: bool,
    flushed_at: Instant,
}

/// An error as it travels.
#[derive(Serialize, Deserialize)]
pub struct ErrorReport {
    kind: Kind,
    message: String,
    advice: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runbook: Option<Runbook>,
}

impl ErrorReport {
    /// The report of `error`.
    pub fn of(error: &Error) -> Self {
        ErrorReport {
            kind: error.kind(),
            message: error.message(),
            advice: error.advice().map(str::to_owned),
            runbook: error.runbook(),
        }
    }

    /// The error again, on the other side.
    pub fn into_error(self) -> Error {
        let mut error = Error::new(self.kind, self.message);
        if let Some(advice) = self.advice {
            error = error.advise(advice);
        }
        match self.runbook {
            Some(runbook) => error.see(runbook),
            None => error,
        }
    }
}

impl LinkWriter {
    pub(super) fn new(
        stream: StreamWriter,
        lanes: Arc<Lanes>,
        peer: &str,
        stop: Stop,
    ) -> Result<Self> {
        let shared = Arc::new(Mutex::new(Writing {
            stream: Outlet::new(stream),
            lanes,
            pending: Vec::new(),
            peer: peer.to_owned(),
            stop: stop.clone(),
            bytes: 0,
            broken: false,
            flushed_at: Instant::now(),
        }));
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("keepalive".into())
            .spawn(move || keep_alive(&weak))
            .map_err(|e| Error::io("cannot start a thread", e))?;
        Ok(LinkWriter { shared, stop })
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame; it may stay unsent until [`LinkWriter::flush`].
    pub fn send(&mut self, frame: &Frame) -> Result<()> {
        let mut writing = self.writing();
        frame.encode(&mut writing.pending);
        match writing.pending.len() >= PENDING_MAX {
            true => writing.flush(),
            false => Ok(()),
        }
    }

    /// Sets how long the peer may take nothing before it counts as gone. Only for a peer that always
    /// reads, whatever its disks do: without a limit a write waits as long as the peer shows that it lives.
    pub fn set_stall_max(&mut self, limit: Duration) {
        self.writing().stream.set_stall_max(limit);
    }

    /// Sends what was collected.
    pub fn flush(&mut self) -> Result<()> {
        self.writing().flush()
    }

    /// Tells the peer why this side ends. Failing to tell is not an error of its own.
    pub fn report(&mut self, error: &Error) {
        if self.writing().broken {
            return;
        }
        if let Ok(json) = serde_json::to_vec(&ErrorReport::of(error)) {
            let sent = self.send(&Frame::Error(json)).and_then(|()| self.flush());
            drop(sent);
        }
    }

    /// Set it to make a waiting write end.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Bytes handed over so far.
    pub fn bytes(&self) -> u64 {
        let writing = self.writing();
        writing.bytes + writing.pending.len() as u64
    }
}

impl Writing {
    /// Writes what was collected, and then goes over to more lanes if they are due.
    fn flush(&mut self) -> Result<()> {
        self.write_out()?;
        let Some((count, lanes)) = self.lanes.take_due() else {
            return Ok(());
        };
        Frame::Lanes(count).encode(&mut self.pending);
        self.write_out()?;
        let streams = lanes
            .into_iter()
            .map(|fd| StreamWriter::new(fd, self.stop.clone()))
            .collect::<Result<_>>()?;
        self.stream.widen(streams);
        Ok(())
    }

    fn write_out(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.broken {
            // Part of a frame may have gone out: what followed it would be taken for its rest.
            self.pending.clear();
            return Err(Error::new(Kind::Remote, format!("lost {}", self.peer)));
        }
        let result = self.stream.write_all(&self.pending);
        self.bytes += self.pending.len() as u64;
        self.lanes.moved(self.pending.len() as u64);
        self.pending.clear();
        // A burst of large patches must not keep its memory for ever.
        self.pending.shrink_to(PENDING_MAX * 2);
        self.flushed_at = Instant::now();
        self.broken |= result.is_err();
        result.map_err(|e| match self.stop.is_stopped() {
            true => self.stop.error(),
            false => Error::new(Kind::Remote, format!("lost {}", self.peer)).because(e),
        })
    }
}

/// Pings until the link is gone. A writer that is busy needs no ping, and one that failed gets none.
fn keep_alive(writing: &Weak<Mutex<Writing>>) {
    while let Some(shared) = writing.upgrade() {
        if let Ok(mut writing) = shared.try_lock() {
            let quiet = writing.flushed_at.elapsed() >= Duration::from_secs(limits::PING_EVERY_S);
            if quiet && !writing.broken && !writing.stop.is_stopped() {
                Frame::Ping.encode(&mut writing.pending);
                let sent = writing.flush();
                drop(sent);
            }
        }
        drop(shared);
        std::thread::sleep(Duration::from_millis(500));
    }
}
