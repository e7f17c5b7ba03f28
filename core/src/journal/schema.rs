//! The journal's file: opened, brought to this release's form, or set aside if it is damaged.

use crate::error::{Error, Kind, Result};
use crate::lock::private_dir;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another process may keep the file to itself.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// What brings the file from one version to the next: the first from nothing to version 1. Append only.
pub const STEPS: [&str; 1] = ["
    CREATE TABLE run (
        number      INTEGER PRIMARY KEY AUTOINCREMENT,
        id          TEXT NOT NULL,
        side        TEXT NOT NULL CHECK (side IN ('source', 'target')),
        vm          TEXT NOT NULL,
        name        TEXT NOT NULL,
        peer        TEXT NOT NULL,
        peer_host   TEXT,
        pair        TEXT,
        process     TEXT NOT NULL,
        began_ms    INTEGER NOT NULL,
        ended_ms    INTEGER,
        error       TEXT,
        generation  INTEGER,
        taken_ms    INTEGER,
        changed     INTEGER,
        wire        INTEGER
    ) STRICT;
    CREATE INDEX run_by_vm ON run (side, vm, number);
    CREATE TABLE step (
        run         INTEGER NOT NULL REFERENCES run (number) ON DELETE CASCADE,
        state       TEXT NOT NULL,
        entered_ms  INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX step_by_run ON step (run);
"];

/// Opens the file, and makes it if there is none. Returns a note if it had to be set aside.
pub(super) fn open(path: &Path) -> Result<(Connection, Option<String>)> {
    if let Some(dir) = path.parent() {
        private_dir(dir)?;
    }
    match open_sound(path, true) {
        Err(e) if is_damaged(&e) => {
            let aside = set_aside(path)?;
            let note = format!(
                "the journal {} was damaged ({e}): it is now {}, and a new one begins; nothing else depends on it",
                path.display(),
                aside.display()
            );
            let fresh = open_sound(path, true).map_err(|e| failure(path, &e))?;
            Ok((fresh, Some(note)))
        }
        Err(e) => Err(failure(path, &e)),
        Ok(db) => Ok((db, None)),
    }
}

/// Opens the file for looking; `None` if there is none.
pub(super) fn look(path: &Path) -> Result<Option<Connection>> {
    if !path.exists() {
        return Ok(None);
    }
    open_sound(path, false)
        .map(Some)
        .map_err(|e| failure(path, &e))
}

fn open_sound(path: &Path, create: bool) -> rusqlite::Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let mut db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_MAX)?;
    // With a rollback journal only EXTRA flushes the directory after the commit (sqlite.org/pragma.html).
    db.pragma_update(None, "synchronous", "EXTRA")?;
    db.pragma_update(None, "foreign_keys", true)?;
    let found = version(&db)?;
    if found > STEPS.len() {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_SCHEMA),
            Some(format!("its form {found} is of a newer release")),
        ));
    }
    if found < STEPS.len() {
        let change = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        // Another process may have been first.
        for (i, step) in STEPS.iter().enumerate().skip(version(&change)?) {
            change.execute_batch(step)?;
            change.pragma_update(None, "user_version", i + 1)?;
        }
        change.commit()?;
    }
    let state: String = db.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    match state.as_str() {
        "ok" => Ok(db),
        _ => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            Some(state),
        )),
    }
}

fn version(db: &Connection) -> rusqlite::Result<usize> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn is_damaged(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// With its own journal of a transaction that was cut off: that belongs to no other file.
fn set_aside(path: &Path) -> Result<PathBuf> {
    let to = path.with_extension("db.damaged");
    for suffix in ["", "-journal"] {
        let with = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        match std::fs::rename(with(path), with(&to)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("cannot set aside {}", path.display()), e));
            }
            _ => {}
        }
    }
    crate::image::flush_parent(&to)?;
    Ok(to)
}

/// Says what failed on the journal.
pub(super) fn failure(path: &Path, error: &rusqlite::Error) -> Error {
    let what = format!("cannot use the journal {}", path.display());
    let of = |kind| Error::new(kind, what.clone()).because(error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => of(Kind::Space).advise("free some space there"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            of(Kind::Busy).advise("wait until the other run is done")
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
            of(Kind::Permission).advise("run as root")
        }
        Some(ErrorCode::SchemaChanged) => of(Kind::Refused).advise("use the newer release"),
        _ => of(Kind::Io).advise("move the file away: nothing but the history of runs is in it"),
    }
}
