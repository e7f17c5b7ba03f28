//! The journal of runs on this host: what each of them is about to do, durable before it is done, and how it
//! ended.
//!
//! It tells people and monitoring what happened, and recovery in which step a run was cut off. What is true of
//! replicas is not decided by it, but by the volumes, their marks and the state files of [`crate::replica`]: a
//! journal that is lost or damaged costs the history, and nothing else.

mod process;
mod schema;

/// The statements that make the journal's tables, a version after the other.
pub use schema::STEPS as SCHEMA;

use crate::error::{Error, Result};
use crate::{clock, crash};
use jiff::Timestamp;
use rusqlite::{params, Connection, OptionalExtension, Params, Row};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use uuid::Uuid;

/// How many runs of a VM are remembered: five days of one every 15 minutes. The newest ones that sealed something are
/// kept for longer.
const RUNS_MAX: u32 = 500;

/// What [`record`] reads.
const COLUMNS: &str = "id, vm, name, peer, peer_host, pair,
    coalesce((SELECT state FROM step WHERE step.run = run.number ORDER BY step.rowid DESC LIMIT 1), ''),
    began_ms, ended_ms, error, generation, taken_ms, changed, wire, process";

/// What a run is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Connect, look, plan. Nothing is changed.
    Plan,
    /// Remove what runs that were cut off left on the source.
    Sweep,
    /// Make the forks on the target.
    Fork,
    /// Hold the guest, take snapshots, let it go.
    Snap,
    /// Send what differs.
    Transfer,
    /// Seal the generation on the target.
    Seal,
    /// Drop the source's snapshots.
    Release,
    /// Have the user's command cut the source off.
    Fence,
    /// Shut the VM down on the host that it is to leave.
    Stop,
    /// Have the guest's memory sent to the host that it goes to.
    Memory,
    /// Give the VM up, durably: the point of no return of a change of roles.
    Retire,
    /// Have the other host take it over.
    HandOver,
    /// Prepare the way back on the other host.
    Reverse,
    /// Start the VM there.
    Start,
    /// See whether it does well.
    Health,
    /// Make what was given up a replica.
    Adopt,
}

impl State {
    /// Those of a sync, in their order.
    pub const SYNC: [State; 7] = [
        State::Plan,
        State::Sweep,
        State::Fork,
        State::Snap,
        State::Transfer,
        State::Seal,
        State::Release,
    ];

    /// All of them.
    pub const ALL: [State; 16] = [
        State::Plan,
        State::Sweep,
        State::Fork,
        State::Snap,
        State::Transfer,
        State::Seal,
        State::Release,
        State::Fence,
        State::Stop,
        State::Memory,
        State::Retire,
        State::HandOver,
        State::Reverse,
        State::Start,
        State::Health,
        State::Adopt,
    ];

    /// Its name in the journal, for people too.
    pub fn name(self) -> &'static str {
        match self {
            State::Plan => "plan",
            State::Sweep => "sweep",
            State::Fork => "fork",
            State::Snap => "snap",
            State::Transfer => "transfer",
            State::Seal => "seal",
            State::Release => "release",
            State::Fence => "fence",
            State::Stop => "stop",
            State::Memory => "memory",
            State::Retire => "retire",
            State::HandOver => "hand-over",
            State::Reverse => "reverse",
            State::Start => "start",
            State::Health => "health",
            State::Adopt => "adopt",
        }
    }
}

/// On which side of a replication a run was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The VM is here.
    Source,
    /// The replica is here.
    Target,
}

impl Side {
    /// Its name in the journal, and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }
}

/// A run as it begins.
#[derive(Debug, Clone)]
pub struct Beginning<'a> {
    /// Random id of the run, the same on both hosts.
    pub id: Uuid,
    /// Which end this is.
    pub side: Side,
    /// The VM's id on the source.
    pub vm: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The other host, as it was named or names itself.
    pub peer: &'a str,
}

/// What came of a run that sealed a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// The generation's number.
    pub generation: u64,
    /// When its point in time was taken.
    pub taken_at: Timestamp,
    /// Bytes that were sent, before compression.
    pub changed: u64,
    /// Bytes on the wire, both ways; only the source knows.
    pub wire: Option<u64>,
}

/// A run as the journal knows it.
#[derive(Debug, Clone, Serialize)]
pub struct RunRecord {
    /// Random id of the run.
    pub id: String,
    /// The VM's id on the source.
    pub vm: String,
    /// Its name.
    pub name: String,
    /// The other host.
    pub peer: String,
    /// Its random id, once it was reached.
    pub peer_host: Option<String>,
    /// The pair, once it was known.
    pub pair: Option<String>,
    /// The last step that was begun.
    pub state: String,
    /// When the run began.
    pub began_at: Timestamp,
    /// When it ended; `None` while it runs or if it was cut off.
    pub ended_at: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<String>,
    /// Number of the generation that it sealed.
    pub generation: Option<u64>,
    /// When that was taken.
    pub taken_at: Option<Timestamp>,
    /// Bytes that were sent.
    pub changed: Option<u64>,
    /// Bytes on the wire.
    pub wire: Option<u64>,
    /// Its process is still there.
    pub running: bool,
}

impl RunRecord {
    /// Neither ended nor running: it was killed, or the host lost power.
    pub fn was_cut_off(&self) -> bool {
        self.ended_at.is_none() && !self.running
    }
}

/// The journal of this host.
pub struct Journal {
    path: PathBuf,
    db: Connection,
}

impl Journal {
    /// Opens the journal at `path`, and makes one if there is none. Returns a note if a damaged one was set aside.
    pub fn open(path: &Path) -> Result<(Rc<Journal>, Option<String>)> {
        let (db, note) = schema::open(path)?;
        let path = path.to_owned();
        Ok((Rc::new(Journal { path, db }), note))
    }

    /// Opens it for looking; `None` if there is none.
    pub fn look(path: &Path) -> Result<Option<Journal>> {
        let db = schema::look(path)?;
        let path = path.to_owned();
        Ok(db.map(|db| Journal { path, db }))
    }

    fn done<T>(&self, result: rusqlite::Result<T>) -> Result<T> {
        result.map_err(|e| schema::failure(&self.path, &e))
    }

    /// Notes that a run begins, and drops what is too old to be of interest.
    pub fn begin(self: &Rc<Self>, beginning: &Beginning) -> Result<Run> {
        let now = clock::now().as_millisecond();
        self.done(self.db.execute(
            "INSERT INTO run (id, side, vm, name, peer, process, began_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                beginning.id.to_string(),
                beginning.side.name(),
                beginning.vm,
                beginning.name,
                beginning.peer,
                process::this()?,
                now
            ],
        ))?;
        let number = self.db.last_insert_rowid();
        self.done(self.db.execute(
            "DELETE FROM run WHERE side = ?1 AND vm = ?2
                 AND number <= (SELECT number FROM run WHERE side = ?1 AND vm = ?2
                                ORDER BY number DESC LIMIT 1 OFFSET ?3)
                 AND number NOT IN (SELECT max(number) FROM run
                                    WHERE side = ?1 AND vm = ?2 AND generation IS NOT NULL GROUP BY pair)",
            params![beginning.side.name(), beginning.vm, RUNS_MAX],
        ))?;
        Ok(Run {
            journal: self.clone(),
            id: beginning.id,
            number,
        })
    }

    /// All runs of this side, oldest first.
    pub fn runs(&self, side: Side) -> Result<Vec<RunRecord>> {
        self.done(self.read_runs(side))
    }

    fn read_runs(&self, side: Side) -> rusqlite::Result<Vec<RunRecord>> {
        let sql = format!("SELECT {COLUMNS} FROM run WHERE side = ?1 ORDER BY number");
        let mut found = self.db.prepare(&sql)?;
        let rows = found.query_map([side.name()], record)?;
        rows.collect()
    }

    /// The newest run of a VM.
    pub fn newest(&self, side: Side, vm: &str) -> Result<Option<RunRecord>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM run WHERE side = ?1 AND vm = ?2 ORDER BY number DESC LIMIT 1"
        );
        let found = self.db.query_row(&sql, [side.name(), vm], record);
        self.done(found.optional())
    }

    /// The steps that a run has begun, in their order.
    pub fn steps(&self, id: Uuid) -> Result<Vec<String>> {
        let read = || {
            let mut found = self.db.prepare(
                "SELECT step.state FROM step JOIN run ON run.number = step.run WHERE run.id = ?1 ORDER BY step.rowid",
            )?;
            let rows = found.query_map([id.to_string()], |row| row.get(0))?;
            rows.collect()
        };
        self.done(read())
    }
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn record(row: &Row) -> rusqlite::Result<RunRecord> {
    let when = |i| row.get::<_, Option<i64>>(i).map(|ms| ms.map(time));
    let ended_at = when(8)?;
    Ok(RunRecord {
        id: row.get(0)?,
        vm: row.get(1)?,
        name: row.get(2)?,
        peer: row.get(3)?,
        peer_host: row.get(4)?,
        pair: row.get(5)?,
        state: row.get(6)?,
        began_at: time(row.get(7)?),
        ended_at,
        error: row.get(9)?,
        generation: row.get(10)?,
        taken_at: when(11)?,
        changed: row.get(12)?,
        wire: row.get(13)?,
        running: ended_at.is_none() && process::is_there(&row.get::<_, String>(14)?),
    })
}

/// A run that goes on.
pub struct Run {
    journal: Rc<Journal>,
    id: Uuid,
    number: i64,
}

impl Run {
    /// Random id of the run, the same on both hosts.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Notes what comes next. It is durable when this returns.
    pub fn enter(&self, state: State) -> Result<()> {
        let sql = "INSERT INTO step (run, state, entered_ms) VALUES (?1, ?2, ?3)";
        let now = clock::now().as_millisecond();
        self.write(sql, params![self.number, state.name(), now])?;
        crash::point(&format!("journal {}", state.name()));
        Ok(())
    }

    /// Notes whom it was found to be about.
    pub fn is_of(&self, pair: Uuid, peer_host: Uuid) -> Result<()> {
        let sql = "UPDATE run SET pair = ?2, peer_host = ?3 WHERE number = ?1";
        let values = params![self.number, pair.to_string(), peer_host.to_string()];
        self.write(sql, values)
    }

    /// Notes the generation that was sealed.
    pub fn sealed(&self, sealed: &Sealed) -> Result<()> {
        let sql = "UPDATE run SET generation = ?2, taken_ms = ?3, changed = ?4, wire = ?5 WHERE number = ?1";
        let values = params![
            self.number,
            sealed.generation,
            sealed.taken_at.as_millisecond(),
            sealed.changed,
            sealed.wire
        ];
        self.write(sql, values)
    }

    /// Notes that it failed, and gives the error back, with what may have been in the way of noting it.
    pub fn fail(self, error: Error) -> Error {
        match self.end(Some(&error)) {
            Ok(()) => error,
            Err(also) => error.followed_by(also),
        }
    }

    fn write(&self, sql: &str, values: impl Params) -> Result<()> {
        let journal = &self.journal;
        journal.done(journal.db.execute(sql, values)).map(drop)
    }

    /// Notes how it ended.
    pub fn end(self, error: Option<&Error>) -> Result<()> {
        let sql = "UPDATE run SET ended_ms = ?2, error = ?3 WHERE number = ?1";
        let now = clock::now().as_millisecond();
        let values = params![self.number, now, error.map(Error::message)];
        self.write(sql, values)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn beginning(vm: &str) -> Beginning<'_> {
        Beginning {
            id: Uuid::new_v4(),
            side: Side::Source,
            vm,
            name: "web",
            peer: "host2",
        }
    }

    #[test]
    fn a_run_is_known_by_its_steps_and_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/journal.db");
        assert!(Journal::look(&path).unwrap().is_none());
        let (journal, note) = Journal::open(&path).unwrap();
        assert_eq!(note, None);
        let beginning = beginning("101");
        let run = journal.begin(&beginning).unwrap();
        for state in State::ALL {
            run.enter(state).unwrap();
        }
        let seen = Journal::look(&path).unwrap().unwrap();
        let found = seen.runs(Side::Source).unwrap();
        assert!(found[0].running && !found[0].was_cut_off());
        assert_eq!(found[0].state, "adopt");
        assert_eq!(
            seen.steps(beginning.id).unwrap(),
            State::ALL.map(State::name)
        );
        let sealed = Sealed {
            generation: 7,
            taken_at: Timestamp::UNIX_EPOCH,
            changed: 1,
            wire: Some(2),
        };
        run.sealed(&sealed).unwrap();
        let error = Error::new(crate::error::Kind::Io, "the snapshot stays");
        run.end(Some(&error)).unwrap();
        let found = seen.runs(Side::Source).unwrap();
        assert_eq!(found[0].error.as_deref(), Some("the snapshot stays"));
        assert_eq!((found[0].generation, found[0].running), (Some(7), false));
        assert!(seen.runs(Side::Target).unwrap().is_empty());
    }

    #[test]
    fn a_run_whose_process_is_gone_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let (journal, _) = Journal::open(&path).unwrap();
        let run = journal.begin(&beginning("101")).unwrap();
        run.enter(State::Transfer).unwrap();
        // The same number, started at another time.
        let process = process::this().unwrap();
        let (other, _) = process.rsplit_once(' ').unwrap();
        let sql = "UPDATE run SET process = ?1";
        journal.db.execute(sql, [format!("{other} 1")]).unwrap();
        assert!(journal.runs(Side::Source).unwrap()[0].was_cut_off());
    }

    #[test]
    fn a_damaged_journal_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        for junk in [
            &b"not a database, but long enough to be looked at".repeat(100)[..],
            b"",
        ] {
            std::fs::write(&path, junk).unwrap();
            let (journal, note) = Journal::open(&path).unwrap();
            assert_eq!(note.is_some(), !junk.is_empty());
            journal.begin(&beginning("101")).unwrap();
        }
        let aside = std::fs::read(dir.path().join("journal.db.damaged")).unwrap();
        assert!(aside.starts_with(b"not a database"));
        // A page in the middle, as a bad disk gives it back.
        let (journal, _) = Journal::open(&path).unwrap();
        for _ in 0..200 {
            journal.begin(&beginning("101")).unwrap();
        }
        drop(journal);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = (bytes.len() / 2) & !4095;
        bytes[middle..middle + 4096].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
        let (journal, note) = Journal::open(&path).unwrap();
        assert!(note.unwrap().contains("damaged"));
        assert!(journal.runs(Side::Source).unwrap().is_empty());
    }

    #[test]
    fn a_journal_of_a_newer_release_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let (journal, _) = Journal::open(&path).unwrap();
        journal.db.pragma_update(None, "user_version", 99).unwrap();
        drop(journal);
        let error = Journal::open(&path).map(|_| ()).unwrap_err();
        assert!(error.message().contains("newer release"), "{error}");
        assert!(!dir.path().join("journal.db.damaged").exists());
    }

    #[test]
    fn old_runs_are_forgotten_but_the_last_success() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(&dir.path().join("journal.db")).unwrap();
        let sealed = |generation| Sealed {
            generation,
            taken_at: Timestamp::UNIX_EPOCH,
            changed: 0,
            wire: None,
        };
        for number in 1..=3 {
            let run = journal.begin(&beginning("101")).unwrap();
            run.enter(State::Plan).unwrap();
            run.sealed(&sealed(number)).unwrap();
        }
        journal.begin(&beginning("102")).unwrap();
        for _ in 0..RUNS_MAX + 5 {
            journal.begin(&beginning("101")).unwrap();
        }
        let runs = journal.runs(Side::Source).unwrap();
        let kept = runs.iter().filter(|run| run.vm == "101");
        assert_eq!(kept.clone().count(), 1 + RUNS_MAX as usize);
        let sealed: Vec<_> = kept.filter_map(|run| run.generation).collect();
        assert_eq!(sealed, [3]);
        assert!(runs.iter().any(|run| run.vm == "102"));
        let newest = journal.newest(Side::Source, "101").unwrap().unwrap();
        assert_eq!(newest.id, runs.last().unwrap().id);
    }
}
