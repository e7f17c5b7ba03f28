//! Tells a thread that waits for input that it need not wait any longer, at once.

use crate::error::{Error, Result};
use rustix::event::{eventfd, EventfdFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

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
