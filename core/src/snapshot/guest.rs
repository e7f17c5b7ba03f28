//! Holding a guest still, and letting it go again whatever happens in between.
//!
//! Only a guest that was running is made to run again: one that its user had paused stays paused.

use super::{Consistency, HeldGuest};
use crate::error::{Error, Kind, Result};
use crate::qemu::agent::{FreezeStatus, GuestAgent, PING_TIMEOUT};
use crate::qemu::qmp::{Qmp, RunState};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long to queue for a monitor that serves somebody else; nothing is held still yet.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one command may take that makes the guest run again, and how long it is tried over and over.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const RELEASE_PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(200);

/// States in which the VM's disks are not QEMU's alone, or not for long.
const MIGRATING: [&str; 7] = [
    "inmigrate",
    "finish-migrate",
    "postmigrate",
    "save-vm",
    "restore-vm",
    "colo",
    "suspended",
];

/// Where the sockets are.
#[derive(Debug, Clone)]
pub(super) struct Sockets {
    pub qmp: PathBuf,
    pub agent: Option<PathBuf>,
}

/// How the guest was found, before anything was done to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Found {
    /// It is to run again.
    pub was_running: bool,
}

/// How it is held.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Held {
    /// What was reached.
    pub consistency: Consistency,
    /// Why it is not better, what was unusual.
    pub notes: Vec<String>,
}

/// How letting go went.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Released {
    /// Why the guest may have run in between; then what was taken is no point in time.
    pub broken: Option<String>,
    /// It is only that: the connection to who has the guest broke, so that nobody can tell.
    #[serde(default)]
    pub lost: bool,
    /// Why the guest may still be paused or frozen.
    pub problem: Option<String>,
}

/// A guest with our hands on its monitor.
pub(super) struct Guest {
    sockets: Sockets,
    qmp: Qmp,
    agent: Option<GuestAgent>,
    was_running: bool,
    /// We have asked for a freeze, so there may be something to thaw.
    freeze_asked: bool,
    /// The connection to the monitor broke, so events may have been missed.
    reconnected: bool,
    notes: Vec<String>,
}

impl Guest {
    /// Connects and looks; changes nothing. An agent that does not answer is noted.
    pub(super) fn look(sockets: Sockets) -> Result<(Guest, Found)> {
        let mut qmp = Qmp::connect(&sockets.qmp, CONNECT_TIMEOUT)?;
        let state = qmp.status(COMMAND_TIMEOUT)?;
        if MIGRATING.contains(&state.status.as_str()) {
            return Err(Error::new(
                Kind::Busy,
                format!("the VM is in the state {:?}", state.status),
            )
            .advise("run again when its migration, save or sleep is over"));
        }
        let mut guest = Guest {
            sockets,
            qmp,
            agent: None,
            was_running: state.running,
            freeze_asked: false,
            reconnected: false,
            notes: Vec::new(),
        };
        if state.running {
            guest.meet_agent();
        } else {
            guest.notes.push(format!(
                "the VM was not running but {:?}, and is left so",
                state.status
            ));
        }
        let found = Found {
            was_running: state.running,
        };
        Ok((guest, found))
    }

    fn meet_agent(&mut self) {
        let Some(path) = &self.sockets.agent else {
            return;
        };
        let met = GuestAgent::connect(path, PING_TIMEOUT).and_then(|mut agent| {
            let status = agent.freeze_status()?;
            Ok((agent, status))
        });
        match met {
            Ok((agent, FreezeStatus::Thawed)) => self.agent = Some(agent),
            Ok((_, FreezeStatus::Frozen)) => self.notes.push(
                "the guest's file systems were frozen already, by somebody else: not relied on"
                    .into(),
            ),
            Err(e) => self
                .notes
                .push(format!("the guest agent does not answer: {e}")),
        }
    }
}

impl HeldGuest for Guest {
    fn hold(&mut self, budget: Duration) -> Result<Held> {
        let deadline = Instant::now() + budget;
        let mut consistency = Consistency::Crash;
        if let Some(agent) = &mut self.agent {
            self.freeze_asked = true;
            match agent.freeze(budget / 2) {
                Ok(0) => self
                    .notes
                    .push("the guest agent found no file system to freeze".into()),
                Ok(_) => consistency = Consistency::Filesystem,
                Err(e) => self
                    .notes
                    .push(format!("the file systems could not be frozen: {e}")),
            }
        }
        let left = || deadline.saturating_duration_since(Instant::now());
        self.qmp.stop(left())?;
        let state = self.qmp.status(left())?;
        if state.running {
            return Err(Error::new(
                Kind::Tool,
                "the VM runs on although QEMU was told to stop it",
            ));
        }
        // From here on, an event says that somebody else had a hand in it.
        self.qmp.take_events();
        Ok(Held {
            consistency,
            notes: std::mem::take(&mut self.notes),
        })
    }

    fn execute(&mut self, command: &str, arguments: Value, left: Duration) -> Result<Value> {
        self.qmp.execute(command, arguments, left)
    }

    fn release(&mut self) -> Released {
        let deadline = Instant::now() + RELEASE_PATIENCE;
        let mut released = Released::default();
        let mut problems = Vec::new();
        if let Err(e) = self.resume(deadline, &mut released) {
            problems.push(format!("the VM may still be paused: {e}"));
        }
        if self.freeze_asked {
            if let Err(e) = self.thaw(deadline) {
                problems.push(format!("its file systems may still be frozen: {e}"));
            }
        }
        if !problems.is_empty() {
            released.problem = Some(problems.join("; "));
        }
        released
    }
}

impl Guest {
    fn resume(&mut self, deadline: Instant, released: &mut Released) -> Result<()> {
        let mut looked = false;
        until(deadline, || {
            let state = self.status()?;
            if !looked {
                looked = true;
                released.broken = self.interference(&state);
            }
            if !self.was_running || state.running {
                return Ok(());
            }
            self.qmp.cont(COMMAND_TIMEOUT)?;
            match self.qmp.status(COMMAND_TIMEOUT)? {
                RunState { running: true, .. } => Ok(()),
                RunState { status, .. } => Err(Error::new(
                    Kind::Tool,
                    format!("the VM is {status:?} although QEMU was told to continue it"),
                )),
            }
        })
    }

    /// The state, over a new connection if the old one broke.
    fn status(&mut self) -> Result<RunState> {
        match self.qmp.status(COMMAND_TIMEOUT) {
            Err(e) if e.kind() != Kind::Tool => {
                self.qmp = Qmp::connect(&self.sockets.qmp, CONNECT_TIMEOUT)?;
                self.reconnected = true;
                self.qmp.status(COMMAND_TIMEOUT)
            }
            done => done,
        }
    }

    fn interference(&mut self, state: &RunState) -> Option<String> {
        let events = self.qmp.take_events();
        if state.running || events.iter().any(|e| e == "RESUME") {
            Some("somebody else made the VM run in the middle of it".into())
        } else if self.reconnected {
            Some("the connection to its monitor broke in the middle of it".into())
        } else {
            None
        }
    }

    fn thaw(&mut self, deadline: Instant) -> Result<()> {
        until(deadline, || {
            let mut agent = match self.agent.take() {
                Some(agent) => agent,
                None => match &self.sockets.agent {
                    Some(path) => GuestAgent::connect(path, COMMAND_TIMEOUT)?,
                    None => return Ok(()),
                },
            };
            // An agent that had not finished freezing answers only then: give it all the time there is.
            let left = deadline.saturating_duration_since(Instant::now());
            agent.thaw(left)?;
            match agent.freeze_status()? {
                FreezeStatus::Thawed => Ok(()),
                FreezeStatus::Frozen => {
                    Err(Error::new(Kind::Tool, "the guest agent left them frozen"))
                }
            }
        })
    }
}

/// Makes a guest run again whose guard has died, as far as can be told from outside. What was being taken
/// is lost in any case.
pub(super) fn rescue(sockets: Sockets, found: &Found) -> Released {
    let mut released = if found.was_running {
        Qmp::connect(&sockets.qmp, CONNECT_TIMEOUT)
            .map(|qmp| Guest {
                freeze_asked: sockets.agent.is_some(),
                reconnected: false,
                sockets,
                qmp,
                agent: None,
                was_running: true,
                notes: Vec::new(),
            })
            .map_or_else(
                |e| Released {
                    problem: Some(format!("the VM may still be paused: {e}")),
                    ..Released::default()
                },
                |mut guest| guest.release(),
            )
    } else {
        Released::default()
    };
    released.broken = Some("the process that held the guest still died".into());
    released
}

/// Tries until it works or time is up; the last error tells why it did not.
fn until(deadline: Instant, mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    loop {
        match attempt() {
            Err(e) if e.kind() != Kind::NotFound && Instant::now() < deadline => sleep(RETRY),
            done => return done,
        }
    }
}
