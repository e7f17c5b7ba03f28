//! Numbers and texts off a server's stream, and the errors that reading it ends in.

use super::limits::STRING_BYTES_MAX;
use crate::error::{Error, Kind, Result};
use std::io::{self, Read};

/// Reads fields from what a server sends.
pub(super) struct Take<'a, R>(pub(super) &'a mut R);

impl<R: Read> Take<'_, R> {
    /// Fills all of `bytes`.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.0.read_exact(bytes).map_err(lost)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        self.fill(&mut array)?;
        Ok(array)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A text of `len` bytes that may be shown to people.
    pub(super) fn text(&mut self, len: usize) -> Result<String> {
        if len > STRING_BYTES_MAX {
            return Err(violation(format!(
                "it sent a text of {len} bytes, where {STRING_BYTES_MAX} are allowed"
            )));
        }
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes)
            .chars()
            .filter(|c| !c.is_control())
            .collect())
    }
}

/// The error for something that the protocol does not allow.
pub(super) fn violation(what: impl Into<String>) -> Error {
    Error::new(Kind::Protocol, what)
        .advise("that is a fault of the NBD server: see its log and its version")
}

/// The error for a connection on which nothing can be read or written any more.
pub(super) fn lost(e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::TimedOut => Error::new(Kind::Timeout, e.to_string())
            .advise("see whether the NBD server still runs, and what its storage does"),
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => {
            Error::new(Kind::Io, "the NBD server closed the connection")
                .advise("see the server's log: it may have ended, or have refused this client")
        }
        _ => Error::io("lost the connection to the NBD server", e),
    }
}
