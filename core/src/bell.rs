//! Tells a thread that waits for input that it need not wait any longer, at once.

use crate::error::{Error, Result};
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Rung once; its descriptor is readable from then on.
pub struct Bell {
    rung: AtomicBool,
    fd: OwnedFd,
}

impl Bell {
    /// A bell that has not been rung.
    pub fn new() -> Result<Bell> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = eventfd(0, flags).map_err(|e| Error::io("cannot make an eventfd", e.into()))?;
        let rung = AtomicBool::new(false);
        Ok(Bell { rung, fd })
    }

    /// Rings it. Safe to repeat.
    pub fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        // Fails only when the counter is about to overflow, and then it is not zero.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// Waits for it to be rung, up to `limit`; true if it was.
    pub fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while !self.is_rung() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(time) = Timespec::try_from(left) else {
                break;
            };
            if left.is_zero() {
                break;
            }
            // Interrupted or not, what counts is looked at above.
            let _ = poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&time));
        }
        self.is_rung()
    }

    /// Whether it has been rung.
    pub fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_is_woken() {
        let bell = Bell::new().unwrap();
        assert!(!bell.wait(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| bell.wait(Duration::from_secs(60)));
            bell.ring();
            assert!(waiting.join().unwrap());
        });
        assert!(bell.wait(Duration::ZERO));
    }
}
