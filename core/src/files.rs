//! What is done to files everywhere in the same way.

use crate::error::{Error, Result};
use std::io::ErrorKind;
use std::path::Path;

/// Removes a file; one that is not there is fine. Whether it was there.
///
/// # Errors
/// It cannot be removed.
pub fn remove_present(path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io(format!("cannot remove {}", path.display()), e)),
    }
}
