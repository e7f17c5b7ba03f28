//! A flag that tells threads to stop: for the whole process (a signal came) or one piece of work.

use crate::error::{Error, Kind, Result};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Shared stop flag. A [`child`](Stop::child) stops with its parent, but not the other way round.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Default)]
struct Inner {
    stopped: AtomicBool,
    signal: AtomicI32,
    /// How many have put signals off.
    calm: AtomicUsize,
    deadline: OnceLock<Instant>,
    parent: Option<Stop>,
}

impl Stop {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag for a part of the work, which also counts as set when this one is.
    pub fn child(&self) -> Stop {
        Stop(Arc::new(Inner {
            parent: Some(self.clone()),
            ..Inner::default()
        }))
    }

    /// Sets the flag.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Release);
    }

    /// Lets the flag become set `grace` from now, unless it was already told so.
    pub fn stop_within(&self, grace: Duration) {
        self.0.deadline.get_or_init(|| Instant::now() + grace);
    }

    /// Sets the flag because signal number `signal` came.
    pub fn stop_by_signal(&self, signal: i32) {
        self.0.signal.store(signal, Ordering::Release);
        self.stop();
    }

    /// Until what this gives is dropped, signals are only noted, and set no flag: for steps that are worse half done than
    /// done. What else sets a flag does.
    #[must_use]
    pub fn put_off(&self) -> PutOff {
        let mut top = self.clone();
        while let Some(parent) = top.0.parent.clone() {
            top = parent;
        }
        top.0.calm.fetch_add(1, Ordering::AcqRel);
        PutOff(top)
    }

    /// Whether the flag, or one above it, is set.
    pub fn is_stopped(&self) -> bool {
        let is_put_off = || {
            self.0.signal.load(Ordering::Acquire) != 0 && self.0.calm.load(Ordering::Acquire) > 0
        };
        (self.0.stopped.load(Ordering::Acquire) && !is_put_off())
            || self
                .0
                .deadline
                .get()
                .is_some_and(|at| *at <= Instant::now())
            || self.0.parent.as_ref().is_some_and(Stop::is_stopped)
    }

    /// The signal that set the flag or one above it, if it was a signal.
    pub fn signal(&self) -> Option<i32> {
        match self.0.signal.load(Ordering::Acquire) {
            0 => self.0.parent.as_ref().and_then(Stop::signal),
            n => Some(n),
        }
    }

    /// An error of kind [`Kind::Cancelled`] if the flag is set.
    pub fn check(&self) -> Result<()> {
        match self.is_stopped() {
            false => Ok(()),
            true => Err(self.error()),
        }
    }

    /// The error that says why work ended early.
    pub fn error(&self) -> Error {
        match self.signal() {
            Some(n) => Error::new(Kind::Cancelled, format!("stopped by signal {n}")),
            None => Error::new(Kind::Cancelled, "stopped"),
        }
    }
}

/// Signals are put off while there is one.
pub struct PutOff(Stop);

impl Drop for PutOff {
    fn drop(&mut self) {
        self.0 .0.calm.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Makes SIGINT, SIGTERM and SIGHUP set the returned flag instead of ending the process.
/// A second signal of the same kind ends it at once.
pub fn on_signals() -> Result<Stop> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stop = Stop::new();
    let cannot = |e| Error::io("cannot install signal handlers", e);
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(cannot)?;
    let flag = stop.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if flag.signal().is_some() {
                    std::process::exit(128 + signal);
                }
                flag.stop_by_signal(signal);
            }
        })
        .map_err(cannot)?;
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_stops_with_its_parent_only() {
        let parent = Stop::new();
        let (a, b) = (parent.child(), parent.child());
        a.stop();
        assert!(a.is_stopped() && !b.is_stopped() && !parent.is_stopped());
        parent.stop_by_signal(15);
        assert!(b.is_stopped());
        assert_eq!(b.signal(), Some(15));
    }

    #[test]
    fn a_signal_that_is_put_off_stops_afterwards() {
        let all = Stop::new();
        let part = all.child();
        let calm = part.put_off();
        all.stop_by_signal(2);
        assert!(!all.is_stopped() && !part.is_stopped());
        assert_eq!(part.signal(), Some(2));
        // What else goes wrong counts.
        let failed = all.child();
        failed.stop();
        assert!(failed.is_stopped());
        drop(calm);
        assert!(all.is_stopped() && part.is_stopped());
    }
}
