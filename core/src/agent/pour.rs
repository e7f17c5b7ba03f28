//! A byte stream to a unix socket of this host, for a driver elsewhere: what comes in goes to the socket, and back.

use super::lanes::LANE_READY;
use crate::bell::Bell;
use crate::error::{Error, Result};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};
use rustix::io::{read, write, Errno};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// One piece that is passed on.
const PIECE_BYTES: usize = 256 << 10;

/// Connects `input` and `output` to the socket `path`, until both directions have ended. Says first that it is connected.
pub fn pour(path: &Path, input: BorrowedFd, output: BorrowedFd) -> Result<()> {
    let failed = |e: std::io::Error| Error::io(format!("cannot reach {}", path.display()), e);
    let stream = UnixStream::connect(path).map_err(failed)?;
    write(output, &[LANE_READY]).map_err(|e| failed(e.into()))?;
    let over = Bell::new()?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // An end of file is passed on; after an error the other direction ends as well.
            let how = match pass_on(input, stream.as_fd(), &over) {
                Ok(()) => Shutdown::Write,
                Err(_) => Shutdown::Both,
            };
            let _ = stream.shutdown(how);
        });
        let passed = pass_on(stream.as_fd(), output, &over);
        // Whoever listens there has ended, so nothing is to be sent either.
        over.ring();
        passed.map_err(failed)
    })
}

/// Passes on all that comes from `from` until it ends, or the bell is rung.
pub(crate) fn pass_on(from: BorrowedFd, to: BorrowedFd, over: &Bell) -> std::io::Result<()> {
    for fd in [from, to] {
        fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
    }
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        if !ready(from, PollFlags::IN, over)? {
            return Ok(());
        }
        let mut rest = match read(from, &mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => &piece[..count],
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(e) => return Err(e.into()),
        };
        while !rest.is_empty() {
            if !ready(to, PollFlags::OUT, over)? {
                return Ok(());
            }
            match write(to, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Waits until something can be done with `fd`; false: the bell was rung.
fn ready(fd: BorrowedFd, what: PollFlags, over: &Bell) -> std::io::Result<bool> {
    loop {
        let mut fds = [
            PollFd::new(over, PollFlags::IN),
            PollFd::from_borrowed_fd(fd, what),
        ];
        match poll(&mut fds, None) {
            Ok(_) if !fds[0].revents().is_empty() => return Ok(false),
            Ok(_) if !fds[1].revents().is_empty() => return Ok(true),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn bytes_go_both_ways_and_an_end_is_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let (mut far, near) = UnixStream::pair().unwrap();
        let input = near.try_clone().unwrap();
        let poured = std::thread::spawn(move || pour(&path, input.as_fd(), near.as_fd()));
        let (mut there, _) = listener.accept().unwrap();
        let mut ready = [0];
        far.read_exact(&mut ready).unwrap();
        assert_eq!(ready, [LANE_READY]);
        let sent = vec![7; 3 * PIECE_BYTES + 5];
        let copy = sent.clone();
        let writing = std::thread::spawn(move || {
            far.write_all(&copy).unwrap();
            far.shutdown(Shutdown::Write).unwrap();
            far
        });
        let mut got = Vec::new();
        there.read_to_end(&mut got).unwrap();
        assert!(got == sent);
        let mut far = writing.join().unwrap();
        there.write_all(b"all of it").unwrap();
        drop(there);
        poured.join().unwrap().unwrap();
        let mut answer = String::new();
        far.set_nonblocking(false).unwrap();
        far.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "all of it");
    }

    #[test]
    fn nobody_there_is_an_error() {
        let (far, near) = UnixStream::pair().unwrap();
        let error = pour(Path::new("/nowhere/socket"), near.as_fd(), near.as_fd()).unwrap_err();
        assert!(error.message().contains("/nowhere/socket"), "{error}");
        drop(far);
    }
}
