//! The first failure of a side's threads, and the flag that makes the others end.

use crate::error::{Error, Kind, Result};
use crate::stop::Stop;
use crate::wire::Link;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Time that frames already queued, and the report of the failure, have to reach the peer.
const GRACE: Duration = Duration::from_secs(3);

/// Shared by the threads of one side: the first error that any of them met wins, because the later
/// ones are mostly its consequences.
pub(super) struct Failure {
    first: Mutex<Option<Error>>,
    readers: Vec<Stop>,
    writers: Vec<Stop>,
}

impl Failure {
    /// A failure stops the reading halves of `links` at once, and the writing ones a little later.
    pub(super) fn new(links: &[&Link]) -> Self {
        Failure {
            first: Mutex::new(None),
            readers: links.iter().map(|l| l.reader.stop().clone()).collect(),
            writers: links.iter().map(|l| l.writer.stop().clone()).collect(),
        }
    }

    /// Whether threads are to end.
    pub(super) fn is_set(&self) -> bool {
        self.readers.iter().any(Stop::is_stopped)
    }

    /// An error once threads are to end.
    pub(super) fn check(&self) -> Result<()> {
        self.readers.iter().try_for_each(Stop::check)
    }

    /// Keeps `error` if it is the first, and stops the side's threads.
    pub(super) fn set(&self, error: Error) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(error);
        }
        drop(first);
        self.readers.iter().for_each(Stop::stop);
        self.writers.iter().for_each(|w| w.stop_within(GRACE));
    }

    /// Runs a thread's body; an error in it becomes the side's failure.
    pub(super) fn watch(&self, body: impl FnOnce() -> Result<()>) {
        if let Err(e) = body() {
            self.set(e);
        }
    }

    /// The failure, if there was one.
    pub(super) fn take(&self) -> Option<Error> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The error of a thread whose partner has gone. Never the first one of a side, so never shown
/// unless something is wrong with the engine itself.
pub(super) fn disconnected<E>(_: E) -> Error {
    Error::new(Kind::Cancelled, "another part of this sync ended early")
}
