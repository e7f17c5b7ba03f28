//! Lines over a unix socket where every wait has an end and every line a limit.

use crate::error::{Error, Kind, Result};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    connect, recv, send, socket_with, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The longest line taken: replies of a monitor with many disks are some 100 KB.
const LINE_MAX_BYTES: usize = 4 << 20;

/// Between two tries to get into the full queue of a socket.
const QUEUE_POLL: Duration = Duration::from_millis(20);

/// One connection.
pub(super) struct LineSocket {
    fd: OwnedFd,
    path: PathBuf,
    pending: Vec<u8>,
}

impl LineSocket {
    /// Connects. Waits until `deadline` while the queue of clients is full.
    pub(super) fn connect(path: &Path, deadline: Instant) -> Result<Self> {
        let failed = |e: Errno| {
            Error::io(
                format!("cannot connect to {}", path.display()),
                io::Error::from(e),
            )
        };
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
        loop {
            match connect(&fd, &address) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if Instant::now() < deadline => sleep(QUEUE_POLL),
                Err(Errno::AGAIN) => return Err(busy(path)),
                // The socket is still there, but its QEMU is not.
                Err(Errno::CONNREFUSED) => {
                    return Err(Error::new(
                        Kind::NotFound,
                        format!("nobody listens on {}", path.display()),
                    ))
                }
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(LineSocket {
            fd,
            path: path.to_owned(),
            pending: Vec::new(),
        })
    }

    /// The path it is connected to.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Sends all of `bytes`.
    pub(super) fn send(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<()> {
        while !bytes.is_empty() {
            self.wait_for(PollFlags::OUT, deadline)?;
            match send(&self.fd, bytes, SendFlags::NOSIGNAL) {
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(e) => return Err(self.lost(e.into())),
            }
        }
        Ok(())
    }

    /// The next line without its end.
    pub(super) fn read_line(&mut self, deadline: Instant) -> Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.pending[searched..].iter().position(|b| *b == b'\n') {
                let rest = self.pending.split_off(searched + at + 1);
                let mut line = std::mem::replace(&mut self.pending, rest);
                line.pop();
                return Ok(line);
            }
            searched = self.pending.len();
            if searched > LINE_MAX_BYTES {
                return Err(Error::new(
                    Kind::Protocol,
                    format!("{} sent an endless line", self.path.display()),
                ));
            }
            self.fill(deadline)?;
        }
    }

    fn fill(&mut self, deadline: Instant) -> Result<()> {
        self.wait_for(PollFlags::IN, deadline)?;
        let mut chunk = [0u8; 16384];
        match recv(&self.fd, &mut chunk[..], RecvFlags::empty()) {
            Ok((_, 0)) => Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
            Ok((_, n)) => {
                self.pending.extend_from_slice(&chunk[..n.min(chunk.len())]);
                Ok(())
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            Err(e) => Err(self.lost(e.into())),
        }
    }

    fn wait_for(&self, what: PollFlags, deadline: Instant) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|e| self.lost(io::Error::other(e)))?;
            match poll(&mut [PollFd::new(&self.fd, what)], Some(&timeout)) {
                Ok(0) => {
                    return Err(Error::new(
                        Kind::Timeout,
                        format!("{} did not answer in time", self.path.display()),
                    ))
                }
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(self.lost(e.into())),
            }
        }
    }

    fn lost(&self, e: io::Error) -> Error {
        Error::io(format!("lost the connection to {}", self.path.display()), e)
    }
}

/// The error for a socket that serves somebody else all the time.
pub(super) fn busy(path: &Path) -> Error {
    Error::new(
        Kind::Busy,
        format!("{} is busy with another client", path.display()),
    )
    .advise("it serves one at a time: see who else has it open")
}
