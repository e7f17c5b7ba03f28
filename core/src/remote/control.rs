//! The private directory of one ssh master: its control socket and its log.
//!
//! Whoever can reach the socket can run commands on the other host, so the directory is made fresh with
//! mode 0700, in a place that no other user controls. The driver holds a lock on it for as long as it
//! lives: what a killed driver left behind is recognised by the lock being free, and cleared by the next.

use crate::error::{Error, Kind, Result};
use rustix::fs::{flock, FlockOperation, Mode, OFlags};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const PREFIX: &str = "rblocksync-ssh-";
const SOCKET: &str = "master";

/// `sun_path` holds 108 bytes with the closing NUL, and ssh binds the socket under its name plus a dot
/// and 16 random characters before it moves it into place.
const MAX_SOCKET_PATH: usize = 107 - 17;

/// Longer than any connect takes: a directory this young may belong to a driver that has not locked it yet.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// The directory; removed when dropped.
#[derive(Debug)]
pub(super) struct ControlDir {
    dir: TempDir,
    _lock: OwnedFd,
}

impl ControlDir {
    /// Makes one under `$XDG_RUNTIME_DIR`, or else in the system's directory for temporary files.
    pub(super) fn create() -> Result<ControlDir> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let bases = runtime
            .into_iter()
            .chain([std::env::temp_dir(), PathBuf::from("/tmp")]);
        let mut last = None;
        for base in bases.filter(|base| usable(base)) {
            clear_leftovers(&base);
            match ControlDir::create_in(&base) {
                Ok(dir) => return Ok(dir),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::new(
                Kind::Permission,
                "no directory can hold the ssh control socket",
            )
            .advise("set XDG_RUNTIME_DIR or TMPDIR to a short path of a directory of your own")
        }))
    }

    fn create_in(base: &Path) -> Result<ControlDir> {
        let failed = |e: std::io::Error| {
            let what = format!(
                "cannot make the ssh control directory in {}",
                base.display()
            );
            Error::io(what, e)
        };
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(base)
            .map_err(failed)?;
        let lock = open_dir(dir.path()).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| failed(e.into()))?;
        Ok(ControlDir { dir, _lock: lock })
    }

    /// Where the master listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join(SOCKET)
    }

    /// Where ssh writes its messages.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

/// A place where no other user can swap our directory, short enough for a socket, and without characters
/// which ssh would expand (`%`, `~`, `${}`).
fn usable(base: &Path) -> bool {
    let socket_len = base.as_os_str().len() + PREFIX.len() + SOCKET.len() + "/XXXXXX/".len();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/._-+".contains(b);
    let Ok(meta) = fs::metadata(base) else {
        return false;
    };
    let ours = meta.uid() == rustix::process::geteuid().as_raw();
    // Sticky or not, its owner can move what is in it.
    let owner_is_trusted = ours || meta.uid() == 0;
    let sticky = meta.mode() & 0o1000 != 0;
    let others_write = meta.mode() & 0o022 != 0;
    base.is_absolute()
        && socket_len <= MAX_SOCKET_PATH
        && base.as_os_str().as_bytes().iter().all(plain)
        && meta.is_dir()
        && ((sticky && owner_is_trusted) || (ours && !others_write))
}

fn open_dir(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Best effort: a leftover is an empty socket name and a log, and harms nobody.
fn clear_leftovers(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let path = entry.path();
        let stale = fs::symlink_metadata(&path).is_ok_and(|meta| {
            meta.is_dir()
                && meta.uid() == rustix::process::geteuid().as_raw()
                && meta
                    .modified()
                    .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STALE_AFTER))
        });
        if !stale {
            continue;
        }
        if let Ok(dir) = open_dir(&path) {
            if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustix::fs::{utimensat, AtFlags, Timespec, Timestamps, CWD};

    fn make_old(path: &Path) {
        let old = Timespec {
            tv_sec: 1_000_000_000,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: old,
            last_modification: old,
        };
        utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
    }

    #[test]
    fn is_private_and_goes_when_dropped() {
        let base = TempDir::new().unwrap();
        let control = ControlDir::create_in(base.path()).unwrap();
        let path = control.dir.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        drop(control);
        assert!(!path.exists());
    }

    #[test]
    fn clears_what_a_killed_driver_left_and_nothing_else() {
        let base = TempDir::new().unwrap();
        let alive = ControlDir::create_in(base.path()).unwrap();
        make_old(alive.dir.path());
        let left = base.path().join(format!("{PREFIX}abcdef"));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("log"), "x").unwrap();
        make_old(&left);
        let young = base.path().join(format!("{PREFIX}ghijkl"));
        fs::create_dir(&young).unwrap();
        let other = base.path().join("other");
        fs::create_dir(&other).unwrap();
        make_old(&other);

        clear_leftovers(base.path());
        assert!(!left.exists());
        assert!(alive.dir.path().exists() && young.exists() && other.exists());
    }

    #[test]
    fn a_place_that_is_long_foreign_or_odd_is_not_used() {
        let base = TempDir::new().unwrap();
        assert!(usable(base.path()));
        assert!(!usable(&base.path().join("missing")));
        let long = base.path().join("x".repeat(80));
        let odd = base.path().join("a%h");
        let open = base.path().join("open");
        for dir in [&long, &odd, &open] {
            fs::create_dir(dir).unwrap();
        }
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(!usable(&long) && !usable(&odd) && !usable(&open));
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(usable(&open));
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&open, Some(65534), None).unwrap();
            assert!(!usable(&open), "somebody else's, and sticky");
            fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
            assert!(!usable(&open), "somebody else's");
        }
    }
}
