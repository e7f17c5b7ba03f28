//! Locks between processes of one host: an flock on a file, gone with the process that holds it.

use crate::error::{Error, Kind, Result};
use rustix::fs::{flock, FlockOperation};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Pause between two tries.
const RETRY: Duration = Duration::from_millis(200);

/// A held lock. Dropped, it is released; the file stays, so that nobody locks a deleted one.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Like [`Lock::take`], but waits up to `patience` for another process to let go.
    pub fn take_within(patience: Duration, path: &Path, what: &str) -> Result<Lock> {
        let until = Instant::now() + patience;
        loop {
            match Lock::take(path, what) {
                Err(e) if e.kind() == Kind::Busy && Instant::now() < until => sleep(RETRY),
                done => return done,
            }
        }
    }

    /// Takes the lock at `path`, for `what` in messages, or says who holds it.
    pub fn take(path: &Path, what: &str) -> Result<Lock> {
        let name = path.display();
        if let Some(dir) = path.parent() {
            private_dir(dir)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|e| Error::io(format!("cannot open lock {name}"), e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let read = (&mut file).take(64).read_to_string(&mut holder);
                drop(read);
                let holder = match holder.trim() {
                    "" => String::new(),
                    pid => format!(" (process {pid})"),
                };
                return Err(Error::new(
                    Kind::Busy,
                    format!("another run is busy with {what}{holder}"),
                )
                .advise("wait until it is done"));
            }
            Err(e) => return Err(Error::io(format!("cannot lock {name}"), e.into())),
        }
        // Only for the message above; failing to leave it is no reason to stop.
        let noted = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        drop(noted);
        Ok(Lock { _file: file })
    }
}

/// Makes a directory, and those above it, for root alone.
pub fn private_dir(dir: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Error::io(format!("cannot create {}", dir.display()), e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/lock");
        let held = Lock::take(&path, "VM 101").unwrap();
        let refused = Lock::take(&path, "VM 101").map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), Kind::Busy);
        assert!(refused.message().contains(&std::process::id().to_string()));
        drop(held);
        Lock::take(&path, "VM 101").unwrap();
    }
}
