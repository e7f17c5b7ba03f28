//! The lab's own error: a line that says what failed and why.
//!
//! The lab links nothing of the product it tests, so it does not use the product's error type either.

use std::fmt;

/// What failed, on what and why, as one readable text.
#[derive(Debug)]
pub struct Error(String);

/// Shorthand used all over the lab.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// `what` names the action, the object and the reason.
    pub fn new(what: impl Into<String>) -> Self {
        Error(what.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Adds to a foreign error what was being done.
pub(crate) trait Context<T> {
    fn context<S: fmt::Display>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context<S: fmt::Display>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error(format!("{}: {e}", what())))
    }
}
