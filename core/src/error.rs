//! The one error type of the suite: what failed, on what, why, and what to do about it.
//!
//! An error crosses process and host borders (an agent reports its own to the driver), so besides the
//! text it carries a [`Kind`] from which callers decide, and from which the exit code follows.

use crate::runbook::Runbook;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What class of failure an [`Error`] is. Sent over the wire by name; append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The request itself is wrong: bad option, bad path, SRC equal to DST.
    Usage,
    /// The request is well formed but would do harm, so nothing was touched.
    Refused,
    /// Somebody else is using the thing: a lock is held, a device is open.
    Busy,
    /// A file, volume, VM, host or storage does not exist.
    NotFound,
    /// The operating system or the other host said no.
    Permission,
    /// No room: disk, thin pool data or metadata.
    Space,
    /// Reading or writing failed.
    Io,
    /// The other host, its SSH server, or the agent on it failed or vanished.
    Remote,
    /// The peer sent something the protocol does not allow, or speaks another version.
    Protocol,
    /// Content is not what its digest says.
    Digest,
    /// An external command failed.
    Tool,
    /// Something did not answer in time.
    Timeout,
    /// Stopped by a signal or because the other side of the work failed.
    Cancelled,
}

/// What failed, why, and what to do. Built with [`Error::new`], then [`because`](Error::because),
/// [`advise`](Error::advise) and [`see`](Error::see).
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    advice: Option<String>,
    runbook: Option<Runbook>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Shorthand used all over the suite.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// `what` names the action and the object: "cannot open /dev/pve/x for writing".
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Error {
            kind,
            what: what.into(),
            advice: None,
            runbook: None,
            source: None,
        }
    }

    /// An I/O error with what was being done; the kind follows from the system's error code.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Error::new(kind_of_io(&source), what).because(source)
    }

    /// Keeps the underlying cause.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says what the reader can do about it: one line, no full stop needed.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Names the page that tells what to do, unless one is named already. It is one that truly applies: people read it in a bad
    /// hour.
    pub fn see(mut self, runbook: Runbook) -> Self {
        self.runbook = self.runbook.or(Some(runbook));
        self
    }

    /// Puts a prefix before the text, keeping kind, cause, advice and runbook.
    pub fn context(mut self, prefix: impl fmt::Display) -> Self {
        self.what = format!("{prefix}: {}", self.what);
        self
    }

    /// Puts more after the text, cause and all, keeping kind, advice and runbook.
    pub fn followed_by(self, more: impl fmt::Display) -> Self {
        Error {
            kind: self.kind,
            what: format!("{}; {more}", self.message()),
            advice: self.advice,
            runbook: self.runbook,
            source: None,
        }
    }

    /// What class of failure this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The advice, if there is any.
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// The page that tells what to do, if there is one.
    pub fn runbook(&self) -> Option<Runbook> {
        self.runbook
    }

    /// What to do, for people: the advice and the runbook.
    pub fn remedy(&self) -> Option<String> {
        match (&self.advice, self.runbook) {
            (Some(advice), Some(runbook)) => Some(format!("{advice}; runbook: {runbook}")),
            (Some(advice), None) => Some(advice.clone()),
            (None, Some(runbook)) => Some(format!("runbook: {runbook}")),
            (None, None) => None,
        }
    }

    /// The text without the advice: "what: cause: cause of the cause".
    pub fn message(&self) -> String {
        let mut text = self.what.clone();
        let mut next = self
            .source
            .as_ref()
            .map(|s| s.as_ref() as &dyn std::error::Error);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())?;
        match self.remedy() {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| s.as_ref() as _)
    }
}

fn kind_of_io(e: &std::io::Error) -> Kind {
    use std::io::ErrorKind as K;
    match e.kind() {
        K::NotFound => Kind::NotFound,
        K::PermissionDenied | K::ReadOnlyFilesystem => Kind::Permission,
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => Kind::Space,
        K::ResourceBusy | K::ExecutableFileBusy => Kind::Busy,
        K::TimedOut => Kind::Timeout,
        _ => Kind::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_what_why_and_what_to_do() {
        let e = Error::io(
            "cannot open /x",
            std::io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()),
        )
        .advise("free some space")
        .context("disk scsi0");
        assert_eq!(e.kind(), Kind::Space);
        assert_eq!(
            e.to_string(),
            "disk scsi0: cannot open /x: No space left on device (os error 28) (free some space)"
        );
        let e = e.followed_by("so it ended");
        assert_eq!(e.kind(), Kind::Space);
        assert_eq!(
            e.to_string(),
            "disk scsi0: cannot open /x: No space left on device (os error 28); so it ended (free some space)"
        );
        let e = e.see(Runbook::PoolFull).see(Runbook::WrongVmid);
        let text = e
            .context("sync")
            .followed_by("nothing was changed")
            .to_string();
        assert!(text.starts_with("sync: disk scsi0: "), "{text}");
        assert!(
            text.ends_with("; nothing was changed (free some space; runbook: pool-full)"),
            "{text}"
        );
        let bare = Error::new(Kind::Refused, "no").see(Runbook::SplitBrain);
        assert_eq!(bare.to_string(), "no (runbook: split-brain)");
    }
}
