//! Holding, asking and ending an ssh master through its control socket.
//!
//! The openssh crate opens sessions over that socket, but offers neither of the two things on which
//! cleaning up rests. The messages are those of OpenSSH's PROTOCOL.mux, version 4: a length, a type and a
//! request id, all 32-bit big endian.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

const VERSION: u32 = 4;
const HELLO: u32 = 0x0000_0001;
const ALIVE_CHECK: u32 = 0x1000_0004;
const ALIVE: u32 = 0x8000_0005;
const TERMINATE: u32 = 0x1000_0005;

/// The replies used here have at most 16 bytes; anything much longer is no control socket.
const MAX_REPLY: u32 = 1 << 10;

/// An open connection to a master.
///
/// While it is open the master does not count as idle, so `ControlPersist` cannot end it under us; once
/// it is closed, also by the kernel because this process was killed, the master ends after that time. Its
/// end of file means that the master is gone.
#[derive(Debug)]
pub(super) struct Hold {
    stream: UnixStream,
    pid: u32,
}

impl Hold {
    /// Connects and asks the master for its process id.
    pub(super) fn open(socket: &Path, limit: Duration) -> io::Result<Hold> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let mut hold = Hold { stream, pid: 0 };
        hold.send(HELLO, VERSION)?;
        let (kind, body) = hold.receive()?;
        if kind != HELLO || body.first() != Some(&VERSION) {
            return Err(odd_reply());
        }
        hold.send(ALIVE_CHECK, 0)?;
        match hold.receive()? {
            (ALIVE, body) if body.len() == 2 => hold.pid = body[1],
            _ => return Err(odd_reply()),
        }
        Ok(hold)
    }

    /// The master's process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the master is gone, waiting for that up to `wait`.
    pub(super) fn gone_within(&self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let mut rest = [0; 64];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Zero would mean "for ever".
            let left = left.max(Duration::from_millis(1));
            if self.stream.set_read_timeout(Some(left)).is_err() {
                return true;
            }
            match (&self.stream).read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
            if Instant::now() >= deadline {
                return false;
            }
        }
    }

    /// Tells the master to drop everything and exit. Its answer may be lost in its own exit.
    pub(super) fn terminate(&self) {
        let _ = self.send(TERMINATE, 1);
    }

    fn send(&self, kind: u32, value: u32) -> io::Result<()> {
        let mut packet = Vec::with_capacity(12);
        for word in [8, kind, value] {
            packet.extend_from_slice(&u32::to_be_bytes(word));
        }
        (&self.stream).write_all(&packet)
    }

    fn receive(&self) -> io::Result<(u32, Vec<u32>)> {
        let len = self.word()?;
        if len == 0 || len % 4 != 0 || len > MAX_REPLY {
            return Err(odd_reply());
        }
        let kind = self.word()?;
        let body = (1..len / 4)
            .map(|_| self.word())
            .collect::<io::Result<_>>()?;
        Ok((kind, body))
    }

    fn word(&self) -> io::Result<u32> {
        let mut word = [0; 4];
        (&self.stream).read_exact(&mut word)?;
        Ok(u32::from_be_bytes(word))
    }
}

fn odd_reply() -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        "the ssh master gave an unexpected reply",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    fn master(reply: Vec<u8>) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (mut conn, _) = listener.accept().unwrap();
            conn.write_all(&reply).unwrap();
            // Until the other side has closed.
            let _ = conn.read_to_end(&mut Vec::new());
        });
        (dir, path)
    }

    #[test]
    fn learns_the_pid() {
        let words = [8, HELLO, VERSION, 12, ALIVE, 0, 4711];
        let reply = words.iter().flat_map(|w| u32::to_be_bytes(*w)).collect();
        let (_dir, path) = master(reply);
        let hold = Hold::open(&path, Duration::from_secs(10)).unwrap();
        assert_eq!(hold.pid(), 4711);
        assert!(!hold.gone_within(Duration::from_millis(20)));
    }

    #[test]
    fn refuses_what_is_no_master() {
        for words in [
            vec![8, HELLO, 5],
            vec![0xffff_ffff],
            vec![9, HELLO, 4],
            vec![0],
            vec![8, HELLO, VERSION, 8, ALIVE, 0],
        ] {
            let reply = words.iter().flat_map(|w| u32::to_be_bytes(*w)).collect();
            let (_dir, path) = master(reply);
            let e = Hold::open(&path, Duration::from_secs(10)).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidData, "{words:?}");
        }
    }

    #[test]
    fn a_mute_master_does_not_hang_us() {
        let (_dir, path) = master(Vec::new());
        assert!(Hold::open(&path, Duration::from_millis(50)).is_err());
    }
}
