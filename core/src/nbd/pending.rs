//! The requests that a server has not answered yet, and the thread that reads the answers.

use super::export::Export;
use super::limits::PATIENCE;
use super::proto;
use super::reply::{Answer, Header, Request};
use super::socket::{timed_out, Patient, Wait};
use super::take::violation;
use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes read ahead: headers of replies, extents.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// One connection, as its threads share it.
pub(super) struct Connection {
    pub(super) socket: UnixStream,
    timeout: Duration,
    state: Mutex<State>,
}

struct State {
    /// By cookie: the oldest first.
    waiting: BTreeMap<u64, Waiting>,
    next_cookie: u64,
    /// When bytes last went either way, or something was asked for after a pause.
    moved: Instant,
    /// Why nothing works any more.
    end: Option<End>,
}

struct Waiting {
    since: Instant,
    /// It may take long without a sign of life.
    slow: bool,
    /// None while the reader takes in a part of it.
    answer: Option<Answer>,
    done: SyncSender<Answer>,
}

/// An error that many callers are told.
#[derive(Clone)]
struct End {
    kind: Kind,
    message: String,
    advice: Option<String>,
}

impl From<&Error> for End {
    fn from(e: &Error) -> Self {
        End {
            kind: e.kind(),
            message: e.message(),
            advice: e.advice().map(str::to_owned),
        }
    }
}

impl End {
    fn error(&self) -> Error {
        let error = Error::new(self.kind, self.message.clone());
        match &self.advice {
            Some(advice) => error.advise(advice.clone()),
            None => error,
        }
    }
}

impl Connection {
    pub(super) fn new(socket: UnixStream, timeout: Duration) -> Self {
        Connection {
            socket,
            timeout,
            state: Mutex::new(State {
                waiting: BTreeMap::new(),
                next_cookie: 1,
                moved: Instant::now(),
                end: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request that is about to be sent. Gives its cookie, and where its answer will come.
    pub(super) fn expect(
        &self,
        request: Request,
        answer: Answer,
    ) -> Result<(u64, Receiver<Answer>)> {
        let mut state = self.state();
        if let Some(end) = &state.end {
            return Err(end.error());
        }
        let now = Instant::now();
        if state.waiting.is_empty() {
            state.moved = now;
        }
        let cookie = state.next_cookie;
        state.next_cookie += 1;
        let (done, receiver) = sync_channel(1);
        let waiting = Waiting {
            since: now,
            slow: request.command == proto::CMD_FLUSH,
            answer: Some(answer),
            done,
        };
        state.waiting.insert(cookie, waiting);
        Ok((cookie, receiver))
    }

    /// Ends the connection with `error`, unless it has ended already. Everybody who waits is woken.
    pub(super) fn fail(&self, error: &Error) {
        let mut state = self.state();
        state.end.get_or_insert_with(|| error.into());
        state.waiting.clear();
        // What this may fail with is that the server has done it.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Why the connection has ended, if it has.
    pub(super) fn check(&self) -> Result<()> {
        match &self.state().end {
            Some(end) => Err(end.error()),
            None => Ok(()),
        }
    }

    /// Why there was no answer.
    pub(super) fn why_ended(&self) -> Error {
        let ended = self.check().err();
        ended.unwrap_or_else(|| Error::new(Kind::Io, "the connection to the NBD server has ended"))
    }

    /// Reads answers and hands them over, until the connection ends.
    pub(super) fn receive(&self, export: &Export) {
        let _end = EndOnDrop(self);
        let patient = Patient {
            socket: &self.socket,
            wait: self,
        };
        let mut input = BufReader::with_capacity(READ_AHEAD_BYTES, patient);
        loop {
            if let Err(e) = self.receive_one(export, &mut input) {
                return self.fail(&e);
            }
        }
    }

    fn receive_one(&self, export: &Export, input: &mut impl io::Read) -> Result<()> {
        let header = Header::read(input, export.structured)?;
        let cookie = header.cookie;
        let known = self
            .state()
            .waiting
            .get_mut(&cookie)
            .map(|w| w.answer.take());
        let Some(Some(mut answer)) = known else {
            return Err(violation(format!(
                "it answered request {cookie}, which nobody made"
            )));
        };
        let whole = answer.take(header, input)?;
        let mut state = self.state();
        match (whole, state.waiting.get_mut(&cookie)) {
            (false, Some(waiting)) => waiting.answer = Some(answer),
            (true, Some(_)) => {
                if let Some(waiting) = state.waiting.remove(&cookie) {
                    // Whoever asked may have gone.
                    let _ = waiting.done.try_send(answer);
                }
            }
            // Somebody else has ended the connection.
            (_, None) => {}
        }
        Ok(())
    }
}

/// Wakes those who wait even if the thread that would answer them ends unforeseen.
struct EndOnDrop<'a>(&'a Connection);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        let what = "the thread that reads from the NBD server has ended";
        self.0.fail(&Error::new(Kind::Io, what));
    }
}

impl Wait for &Connection {
    fn left(&self) -> io::Result<Duration> {
        let state = self.state();
        let Some(oldest) = state.waiting.values().next() else {
            // A request may come at any time, and must not wait much longer than it should.
            return Ok(self.timeout / 4);
        };
        let slow = state.waiting.values().any(|w| w.slow);
        let quiet = self.timeout * if slow { PATIENCE } else { 1 };
        let total = self.timeout * PATIENCE;
        let now = Instant::now();
        for (since, allowed) in [(state.moved, quiet), (oldest.since, total)] {
            if now.saturating_duration_since(since) >= allowed {
                return Err(timed_out(allowed));
            }
        }
        let end = (state.moved + quiet).min(oldest.since + total);
        Ok(end
            .saturating_duration_since(now)
            .max(Duration::from_millis(1)))
    }

    fn moved(&self) {
        self.state().moved = Instant::now();
    }
}
