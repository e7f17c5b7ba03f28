//! A unix socket on which no wait is endless.

use crate::error::{Error, Kind, Result};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    connect as connect_fd, recv, send, socket_with, AddressFamily, RecvFlags, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType,
};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two tries to get into the full queue of a socket.
const QUEUE_POLL: Duration = Duration::from_millis(20);

/// Connects without blocking; waits until `deadline` while the queue of clients is full.
pub(super) fn connect(path: &Path, deadline: Instant) -> Result<UnixStream> {
    let name = path.display();
    let failed = |e: Errno| Error::io(format!("cannot connect to {name}"), io::Error::from(e));
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    loop {
        match connect_fd(&fd, &address) {
            Ok(()) => return Ok(UnixStream::from(fd)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(QUEUE_POLL),
            Err(Errno::AGAIN) => {
                return Err(Error::new(
                    Kind::Busy,
                    format!("the NBD server at {name} takes no more clients"),
                )
                .advise("see who else is connected to it"))
            }
            Err(Errno::CONNREFUSED) => {
                return Err(
                    Error::new(Kind::NotFound, format!("nobody listens on {name}"))
                        .advise("start the NBD server again"),
                )
            }
            Err(e) => return Err(failed(e)),
        }
    }
}

/// How long somebody waits for a socket.
pub(super) trait Wait {
    /// At most so long before it is asked again; an error when it has been long enough.
    fn left(&self) -> io::Result<Duration>;

    /// Bytes went one way or the other.
    fn moved(&self) {}
}

/// A fixed end for all that is waited for.
pub(super) struct Until {
    pub(super) deadline: Instant,
    /// What it was made from, for the message.
    pub(super) timeout: Duration,
}

impl Wait for Until {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(timed_out(self.timeout)),
            false => Ok(left),
        }
    }
}

/// The error of a wait that was long enough.
pub(super) fn timed_out(after: Duration) -> io::Error {
    let text = format!(
        "the NBD server did not answer for {} s",
        after.as_secs_f32()
    );
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// A socket, which must not block, and how long to wait for it.
pub(super) struct Patient<'a, W> {
    pub(super) socket: &'a UnixStream,
    pub(super) wait: W,
}

impl<W: Wait> Patient<'_, W> {
    /// Does `step` as soon as it can be done.
    fn retry(
        &self,
        what: PollFlags,
        mut step: impl FnMut() -> std::result::Result<usize, Errno>,
    ) -> io::Result<usize> {
        loop {
            match step() {
                Ok(n) => {
                    self.wait.moved();
                    return Ok(n);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let left = self.wait.left()?;
                    let left = Timespec::try_from(left).map_err(io::Error::other)?;
                    match poll(&mut [PollFd::new(self.socket, what)], Some(&left)) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(e) => return Err(e.into()),
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl<W: Wait> Read for Patient<'_, W> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.retry(PollFlags::IN, || {
            recv(self.socket, &mut *buf, RecvFlags::DONTWAIT).map(|(n, _)| n)
        })
    }
}

impl<W: Wait> Write for Patient<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        self.retry(PollFlags::OUT, || send(self.socket, buf, flags))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
