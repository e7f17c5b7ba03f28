//! The two directions of a byte stream over file descriptors: never blocked for longer than it takes
//! to notice that work was stopped, or that the peer has fallen silent.

use super::limits;
use crate::bell::Bell;
use crate::error::{Error, Result};
use crate::stop::Stop;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// How often a waiting end looks at its stop flag. Fuzzing ends many sessions a second.
const TICK: Duration = Duration::from_millis(if cfg!(feature = "fuzzing") { 5 } else { 100 });

/// The reading direction.
pub struct StreamReader {
    fd: OwnedFd,
    stop: Stop,
    silence_max: Duration,
    /// When all reading must be over, if there is such a moment.
    deadline: Option<Instant>,
}

/// The writing direction.
pub struct StreamWriter {
    fd: OwnedFd,
    stop: Stop,
    stall_max: Option<Duration>,
}

impl StreamReader {
    /// Reads from `fd` (made non-blocking) until `stop` is set or nothing comes for too long.
    pub fn new(fd: OwnedFd, stop: Stop) -> Result<Self> {
        set_nonblocking(&fd)?;
        widen(&fd);
        Ok(StreamReader {
            fd,
            stop,
            silence_max: Duration::from_secs(limits::SILENCE_S_MAX),
            deadline: None,
        })
    }

    /// Sets how long nothing may come before the peer counts as gone.
    pub(super) fn set_silence_max(&mut self, limit: Duration) {
        self.silence_max = limit;
    }

    /// Sets the moment from which on nothing more is waited for.
    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    pub(super) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|at| Instant::now() >= at)
    }

    pub(super) fn silence_max(&self) -> Duration {
        self.silence_max
    }

    /// Waits for a tick at most until there is something to read, or the end, or `bell` is rung.
    pub(super) fn wait_or(&self, bell: &Bell) -> io::Result<Ready> {
        let (fd, bell) = (self.fd.as_fd(), bell.as_fd());
        let mut fds = [fd, bell].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        poll_for_a_tick(&mut fds, &self.stop)?;
        Ok(match fds.map(|fd| !fd.revents().is_empty()) {
            [_, true] => Ready::Rung,
            [true, false] => Ready::Input,
            [false, false] => Ready::Nothing,
        })
    }

    /// An error if nothing came since `heard` for too long.
    pub(super) fn check_silence(&self, heard: Instant) -> io::Result<()> {
        match heard.elapsed() > self.silence_max {
            false => Ok(()),
            true => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("nothing heard for {:?}", self.silence_max),
            )),
        }
    }
}

impl StreamWriter {
    /// Writes to `fd` (made non-blocking) until `stop` is set.
    pub fn new(fd: OwnedFd, stop: Stop) -> Result<Self> {
        set_nonblocking(&fd)?;
        widen(&fd);
        Ok(StreamWriter {
            fd,
            stop,
            stall_max: None,
        })
    }

    /// Sets how long the peer may take nothing before it counts as gone, if there is a limit.
    pub(super) fn set_stall_max(&mut self, limit: Option<Duration>) {
        self.stall_max = limit;
    }

    pub(super) fn stall_max(&self) -> Option<Duration> {
        self.stall_max
    }
}

impl Read for StreamReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        loop {
            match rustix::io::read(&self.fd, &mut *buf) {
                Err(Errno::AGAIN) => {}
                Err(Errno::INTR) => continue,
                done => return done.map_err(io::Error::from),
            }
            if self.is_late() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if !wait(&self.fd, PollFlags::IN, &self.stop)? {
                self.check_silence(began)?;
            }
        }
    }
}

impl Write for StreamWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let began = Instant::now();
        loop {
            match rustix::io::write(&self.fd, buf) {
                Err(Errno::AGAIN) => {
                    let ready = wait(&self.fd, PollFlags::OUT, &self.stop)?;
                    match self.stall_max {
                        Some(limit) if !ready && began.elapsed() > limit => {
                            return Err(io::Error::new(
                                io::ErrorKind::TimedOut,
                                format!("nothing taken for {limit:?}"),
                            ))
                        }
                        _ => {}
                    }
                }
                Err(Errno::INTR) => {}
                done => return done.map_err(io::Error::from),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until `fd` is ready (true) or a tick has passed (false); an error once `stop` is set.
/// What ended a wait.
pub(super) enum Ready {
    Input,
    Rung,
    Nothing,
}

fn wait(fd: &OwnedFd, flags: PollFlags, stop: &Stop) -> io::Result<bool> {
    poll_for_a_tick(&mut [PollFd::new(fd, flags)], stop)
}

fn poll_for_a_tick(fds: &mut [PollFd], stop: &Stop) -> io::Result<bool> {
    if stop.is_stopped() {
        // Not of kind `Interrupted`, on which `write_all` and `read_to_end` would try again for ever.
        return Err(io::Error::other(StoppedError));
    }
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: TICK.subsec_nanos().into(),
    };
    match poll(fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn set_nonblocking(fd: impl AsFd) -> Result<()> {
    let set = || {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)
    };
    set().map_err(|e| Error::io("cannot make a stream non-blocking", e.into()))
}

/// Bytes a pipe may hold: of the usual 64 KiB, two processes spend much of their time waking each other.
const PIPE_BYTES: usize = 1 << 20;

fn widen(fd: impl AsFd) {
    // Sockets have no such size, and the kernel may refuse it (pipe(7), `pipe-max-size`).
    let _ = rustix::pipe::fcntl_setpipe_size(fd, PIPE_BYTES);
}

/// The stop flag was set while waiting.
#[derive(Debug)]
struct StoppedError;

impl std::fmt::Display for StoppedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for StoppedError {}
