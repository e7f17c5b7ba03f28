//! Holding a pool's metadata snapshot, of which there can be only one, and never leaving it behind.
//!
//! A lock file keeps our own processes apart; against other tools there is only waiting. A reservation
//! outlives its process and even a reboot, and costs the pool metadata space all the while. So a note in
//! `/var/lib/rblocksync` is made before it is taken, and completed with the number by which the kernel
//! shows it. Who finds such a note while holding the lock releases what a killed process left.

use crate::cmd::{Cmd, Tool};
use crate::error::{Error, Kind, Result};
use crate::files::remove_present;
use crate::lvm::{self, LvId};
use rustix::fs::{flock, FlockOperation};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);

/// Directories for lock files and for notes that survive a reboot.
pub(super) struct Places {
    locks: PathBuf,
    notes: PathBuf,
}

impl Places {
    pub(super) fn system() -> Self {
        Places {
            locks: "/run/lock/rblocksync".into(),
            notes: "/var/lib/rblocksync".into(),
        }
    }
}

/// A metadata snapshot that is ours. Dropped, it is released as well as possible.
pub(super) struct Reservation {
    target: String,
    note: PathBuf,
    held: bool,
    _lock: File,
}

impl Reservation {
    /// Reserves the metadata snapshot of an active pool. Fails with [`Kind::Busy`] when somebody else
    /// still holds it after `patience`.
    pub(super) fn take(pool: &LvId, places: &Places, patience: Duration) -> Result<Self> {
        let until = Instant::now() + patience;
        let lock = lock(&places.locks, pool, until)?;
        let (target, status) = lvm::pool_status(pool)?;
        private_dir(&places.notes)?;
        let note = places
            .notes
            .join(format!("thin-{}.held", pool.mapper_name()));
        release_leftover(&target, status.held_root, &note)?;

        write_note(&note, "")?;
        let mut reservation = Reservation {
            target,
            note,
            held: true,
            _lock: lock,
        };
        loop {
            match message(&reservation.target, "reserve_metadata_snap") {
                Ok(()) => break,
                Err(e) if e.kind() == Kind::Busy && Instant::now() < until => sleep(POLL),
                Err(e) if e.kind() == Kind::Busy => {
                    reservation.held = false;
                    remove_present(&reservation.note)?;
                    return Err(e.advise("another tool holds this pool's metadata snapshot"));
                }
                Err(e) => return Err(e),
            }
        }
        let root = lvm::status_of_target(&reservation.target)?.held_root;
        write_note(
            &reservation.note,
            &root.map_or(String::new(), |r| r.to_string()),
        )?;
        Ok(reservation)
    }

    /// Gives it back.
    pub(super) fn release(mut self) -> Result<()> {
        self.let_go()
    }

    fn let_go(&mut self) -> Result<()> {
        if std::mem::take(&mut self.held) {
            message(&self.target, "release_metadata_snap").map_err(|e| {
                e.advise("the next run tries again; by hand: dmsetup message POOL 0 release_metadata_snap")
            })?;
            remove_present(&self.note)?;
        }
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // The note stays if this fails, so the next reservation makes up for it.
        let _ = self.let_go();
    }
}

/// Releases what a note says is ours. A note without number was made by a process killed in the instant
/// around the reservation: what is held then is almost surely its own.
fn release_leftover(target: &str, held_root: Option<u64>, note: &Path) -> Result<()> {
    let noted = match fs::read_to_string(note) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(format!("cannot read {}", note.display()), e)),
    };
    if is_leftover(&noted, held_root) {
        message(target, "release_metadata_snap")?;
    }
    remove_present(note).map(drop)
}

fn is_leftover(noted: &str, held_root: Option<u64>) -> bool {
    match (noted.trim(), held_root) {
        (_, None) => false,
        ("", Some(_)) => true,
        (noted, Some(root)) => noted == root.to_string(),
    }
}

fn message(target: &str, text: &str) -> Result<()> {
    Cmd::new(Tool::Dmsetup)
        .args(["message", target, "0", text])
        .run()
        .map(drop)
}

fn write_note(note: &Path, text: &str) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(note)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|e| Error::io(format!("cannot write {}", note.display()), e))
}

/// Waits for our own other processes. The lock goes with the file, so also when we are killed.
fn lock(dir: &Path, pool: &LvId, until: Instant) -> Result<File> {
    private_dir(dir)?;
    let path = dir.join(format!("thin-{}.lock", pool.mapper_name()));
    let failed = |e: io::Error| Error::io(format!("cannot lock {}", path.display()), e);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
            Err(e) => return Err(failed(e.into())),
        }
        if Instant::now() >= until {
            return Err(Error::new(
                Kind::Busy,
                format!("another of our runs is reading the metadata of {pool}"),
            ));
        }
        sleep(POLL);
    }
}

/// A directory only we can use. `/run/lock` is writable by everybody, so somebody could have made it first.
fn private_dir(dir: &Path) -> Result<()> {
    let created = DirBuilder::new().mode(0o700).recursive(true).create(dir);
    let checked = created.and_then(|()| fs::symlink_metadata(dir));
    let found = checked.map_err(|e| Error::io(format!("cannot create {}", dir.display()), e))?;
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    if !found.is_dir() || !ours || found.mode() & 0o022 != 0 {
        return Err(Error::new(
            Kind::Refused,
            format!("{} can be changed by others", dir.display()),
        )
        .advise("remove it and try again"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::{symlink, PermissionsExt};

    #[test]
    fn a_leftover_is_told_from_what_others_hold() {
        assert!(is_leftover("45\n", Some(45)));
        assert!(is_leftover("", Some(45)));
        assert!(!is_leftover("45", Some(46)));
        assert!(!is_leftover("45", None));
        assert!(!is_leftover("", None));
    }

    #[test]
    fn one_lock_a_pool() {
        let dir = tempfile::tempdir().unwrap();
        let locks = dir.path().join("locks");
        let data = LvId::new("pve", "data").unwrap();
        let other = LvId::new("pve", "data2").unwrap();
        let held = lock(&locks, &data, Instant::now()).unwrap();
        let second = lock(&locks, &data, Instant::now()).unwrap_err();
        assert_eq!(second.kind(), Kind::Busy);
        assert!(lock(&locks, &other, Instant::now()).is_ok());
        drop(held);
        assert!(lock(&locks, &data, Instant::now()).is_ok());
        assert_eq!(fs::metadata(&locks).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_of_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(private_dir(&open).unwrap_err().kind(), Kind::Refused);
        let link = dir.path().join("link");
        symlink(dir.path(), &link).unwrap();
        assert_eq!(private_dir(&link).unwrap_err().kind(), Kind::Refused);
    }
}
