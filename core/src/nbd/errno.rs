//! Errors that a server answers a request with: numbers of its own, which are those of Linux (`doc/proto.md`,
//! "Error values").

use crate::error::{Error, Kind};
use std::io;

const EPERM: u32 = 1;
const EIO: u32 = 5;
const ENOMEM: u32 = 12;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const EOVERFLOW: u32 = 75;
const ENOTSUP: u32 = 95;
const ESHUTDOWN: u32 = 108;

/// A request that the server answered with an error. The connection is as good as before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Not 0.
    pub(super) errno: u32,
    /// The server's own words, or nothing.
    pub(super) text: String,
    /// The byte of the export where it happened, if the server says so.
    pub(super) offset: Option<u64>,
}

impl Refusal {
    /// As an error; `what` is what could not be done, and to what.
    pub(super) fn error(&self, what: &str) -> Error {
        let (kind, advice) = match self.errno {
            EPERM => (
                Kind::Permission,
                "the export may be read-only: see how the NBD server was started",
            ),
            ENOSPC => (
                Kind::Space,
                "make room where the NBD server keeps the image",
            ),
            EIO => (
                Kind::Io,
                "the storage behind the NBD server failed: see the log of its host",
            ),
            ESHUTDOWN => (Kind::Io, "the NBD server is being shut down"),
            _ => (Kind::Io, "see the NBD server's log"),
        };
        let mut cause = match self.errno {
            EPERM | EIO | ENOMEM | EINVAL | ENOSPC | EOVERFLOW | ENOTSUP | ESHUTDOWN => {
                io::Error::from_raw_os_error(self.errno as i32).to_string()
            }
            other => format!("error {other}, which NBD does not know"),
        };
        if let Some(offset) = self.offset {
            cause.push_str(&format!(" at byte {offset}"));
        }
        if !self.text.is_empty() {
            cause.push_str(&format!(", \"{}\"", self.text));
        }
        Error::new(kind, format!("{what}: the NBD server says: {cause}")).advise(advice)
    }
}
