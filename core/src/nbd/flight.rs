//! Requests of one call: several on the way at once, and none left behind when the call returns.

use super::client::{locked, Client};
use super::errno::Refusal;
use super::limits::IN_FLIGHT_MAX;
use super::reply::{Answer, Done, Request};
use super::socket::Patient;
use super::take::lost;
use crate::error::{Error, Result};
use crate::range::ByteRange;
use std::collections::VecDeque;
use std::io::Write;
use std::sync::mpsc::Receiver;

/// A request on its way.
pub(super) struct Ticket {
    range: ByteRange,
    answer: Receiver<Answer>,
}

/// Why a request was not done: the server's error, or the connection's.
pub(super) enum Failure {
    Refused(ByteRange, Refusal),
    Ended(Error),
}

impl Client {
    /// Sends requests for `range` in pieces of at most `step` bytes, several ahead of the answers, and hands each
    /// piece's answer to `got`. Returns after all are answered: what failed is not under way any more.
    pub(super) fn pieces(
        &self,
        what: &str,
        range: ByteRange,
        step: u64,
        send: impl Fn(ByteRange) -> Result<Ticket>,
        mut got: impl FnMut(ByteRange, Done),
    ) -> Result<()> {
        let mut tickets: VecDeque<Ticket> = VecDeque::new();
        let mut at = range.start;
        let mut failure = None;
        loop {
            while failure.is_none() && at < range.end && tickets.len() < IN_FLIGHT_MAX {
                let piece = ByteRange::new(at, range.end.min(at.saturating_add(step)));
                match send(piece) {
                    Ok(ticket) => tickets.push_back(ticket),
                    Err(e) => failure = Some(Failure::Ended(e)),
                }
                at = piece.end;
            }
            let Some(ticket) = tickets.pop_front() else {
                break;
            };
            let piece = ticket.range;
            match self.wait(ticket) {
                Ok(done) => got(piece, done),
                Err(e) => {
                    failure.get_or_insert(e);
                }
            }
        }
        match failure {
            Some(failure) => Err(self.failed(what, failure)),
            None => Ok(()),
        }
    }

    /// Sends one request, and the bytes of a write after it.
    pub(super) fn send(&self, request: Request, bytes: &[u8], answer: Answer) -> Result<Ticket> {
        let sending = locked(&self.sending);
        let (cookie, answer) = self.connection.expect(request, answer)?;
        let mut patient = Patient {
            socket: &self.connection.socket,
            wait: &*self.connection,
        };
        let sent = patient
            .write_all(&request.encode(cookie))
            .and_then(|()| patient.write_all(bytes));
        drop(sending);
        if let Err(e) = sent {
            // Half a request may be out.
            self.connection.fail(&lost(e));
            return Err(self.connection.why_ended());
        }
        let range = request.range;
        Ok(Ticket { range, answer })
    }

    /// Sends a request that gives nothing but success.
    pub(super) fn order(&self, request: Request, bytes: &[u8]) -> Result<Ticket> {
        self.send(request, bytes, Answer::to(request, self.export.structured))
    }

    /// Waits until it is answered.
    pub(super) fn wait(&self, ticket: Ticket) -> std::result::Result<Done, Failure> {
        match ticket.answer.recv() {
            Ok(answer) => answer
                .finish()
                .map_err(|refusal| Failure::Refused(ticket.range, refusal)),
            Err(_) => Err(Failure::Ended(self.connection.why_ended())),
        }
    }

    pub(super) fn cannot(&self, what: &str, range: ByteRange, e: Error) -> Error {
        e.context(self.tried(what, range))
    }

    fn tried(&self, what: &str, range: ByteRange) -> String {
        let (len, start) = (range.len(), range.start);
        format!("cannot {what} {len} bytes at byte {start} of {}", self.name)
    }

    pub(super) fn failed(&self, what: &str, failure: Failure) -> Error {
        match failure {
            Failure::Refused(range, refusal) => refusal.error(&self.tried(what, range)),
            Failure::Ended(e) => e.context(format!("cannot {what} {}", self.name)),
        }
    }
}
