//! The first failure of a side's threads, and the flag that makes the others end.

use crate::error::{Error, Kind, Result};
use crate::stop::Stop;
use crate::wire::{Link, LinkReader, Received};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Time that frames already queued, and the report of the failure, have to reach the peer.
const GRACE: Duration = Duration::from_secs(3);

/// Shared by the threads of one side: the first error that any of them met wins, because the later
/// ones are mostly its consequences.
pub(super) struct Failure {
    causes: Mutex<Causes>,
    readers: Vec<Stop>,
    writers: Vec<Stop>,
}

impl Failure {
    /// A failure stops the reading halves of `links` at once, and the writing ones a little later.
    pub(super) fn new(links: &[&Link]) -> Self {
        Failure {
            causes: Mutex::default(),
            readers: links.iter().map(|l| l.reader.stop().clone()).collect(),
            writers: links.iter().map(|l| l.writer.stop().clone()).collect(),
        }
    }

    /// Of threads that have no link; `stop` ends them.
    pub(super) fn of(stop: Stop) -> Self {
        Failure {
            causes: Mutex::default(),
            readers: vec![stop],
            writers: Vec::new(),
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
        let consequence = error.kind() == Kind::Cancelled;
        let mut causes = self.causes();
        let place = match consequence {
            true => &mut causes.consequence,
            false => &mut causes.first,
        };
        place.get_or_insert(error);
        drop(causes);
        match consequence {
            true => self.readers.iter().for_each(|r| r.stop_within(GRACE)),
            false => self.readers.iter().for_each(Stop::stop),
        }
        self.writers.iter().for_each(|w| w.stop_within(GRACE));
    }

    /// Runs the body of a thread that writes to a link. A peer that fails closes the link after it has
    /// said why, so a write that fails is only taken for the cause if the reader learns of no other.
    pub(super) fn watch_writer(&self, body: impl FnOnce() -> Result<()>) {
        if let Err(e) = body() {
            self.causes().lost.get_or_insert(e);
            self.readers.iter().for_each(|r| r.stop_within(GRACE));
        }
    }

    /// If all that is known is that the link could not be written: reads what the peer had still said, in case it says
    /// why.
    pub(super) fn hear_out(&self, reader: &mut LinkReader) {
        let is_lost = {
            let causes = self.causes();
            causes.first.is_none() && causes.lost.is_some()
        };
        if !is_lost {
            return;
        }
        loop {
            match reader.receive() {
                Ok(Received::Frame(_)) => {}
                Ok(Received::End) => return,
                // That the link cannot be read either says no more than is known.
                Err(e) if e.kind() == Kind::Remote => return,
                Err(e) => return self.set(e),
            }
        }
    }

    fn causes(&self) -> MutexGuard<'_, Causes> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a thread's body; an error in it becomes the side's failure.
    pub(super) fn watch(&self, body: impl FnOnce() -> Result<()>) {
        if let Err(e) = body() {
            self.set(e);
        }
    }

    /// The failure, if there was one.
    pub(super) fn take(&self) -> Option<Error> {
        let Causes {
            first,
            lost,
            consequence,
        } = std::mem::take(&mut *self.causes());
        first.or(lost).or(consequence)
    }
}

/// Errors by how likely they are the cause of the others.
#[derive(Default)]
struct Causes {
    first: Option<Error>,
    /// The link could not be written.
    lost: Option<Error>,
    /// Work ended because other work did, or because it was stopped.
    consequence: Option<Error>,
}

/// The error of a thread whose partner has gone. Never the first one of a side, so never shown
/// unless something is wrong with the engine itself.
pub(super) fn disconnected<E>(_: E) -> Error {
    Error::new(Kind::Cancelled, "another part of this sync ended early")
}
