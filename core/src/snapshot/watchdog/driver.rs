//! The driver's end of the watchdog.

use super::super::guest::{rescue, Found, Held, Sockets, CONNECT_TIMEOUT, RELEASE_PATIENCE};
use super::super::{reports, GuestManager, VmRuntime};
use super::{Command, Reason, Report, THAW};
use crate::error::{Error, Kind, Result};
use serde_json::Value;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{self, Child, ChildStdin};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What may pass on top of the times the watchdog keeps to, on a busy host.
const SLACK: Duration = Duration::from_secs(20);

/// How to start the watchdog: an executable that calls [`super::main_from_args`], and the arguments that
/// make it do so.
#[derive(Debug, Clone)]
pub struct WatchdogLauncher {
    /// The executable.
    pub exe: PathBuf,
    /// What comes before the watchdog's own arguments.
    pub args: Vec<OsString>,
}

impl WatchdogLauncher {
    /// This very executable, also if its file was removed meanwhile, with the subcommand `watchdog`.
    pub fn this_executable() -> Self {
        WatchdogLauncher {
            exe: "/proc/self/exe".into(),
            args: vec!["watchdog".into()],
        }
    }
}

/// How the watchdog gets at the guest.
pub(in super::super) enum Door {
    Sockets(Sockets),
    Managed(Arc<dyn GuestManager>),
}

impl Door {
    /// That of a VM that runs.
    pub fn to(vm: &VmRuntime) -> Option<Door> {
        if let Some(manager) = &vm.manager {
            return Some(Door::Managed(Arc::clone(manager)));
        }
        let qmp = vm.qmp.clone()?;
        let agent = vm.agent.clone();
        Some(Door::Sockets(Sockets { qmp, agent }))
    }

    fn args(&self) -> Vec<OsString> {
        match self {
            Door::Managed(manager) => manager.watchdog_args(),
            Door::Sockets(Sockets { qmp, agent }) => {
                let mut args = vec!["--qmp".into(), qmp.into()];
                if let Some(agent) = agent {
                    args.extend(["--agent".into(), agent.into()]);
                }
                args
            }
        }
    }

    fn rescue(&self, found: &Found) {
        match self {
            Door::Sockets(sockets) => drop(rescue(sockets.clone(), found)),
            Door::Managed(manager) if found.was_running => drop(manager.rescue()),
            Door::Managed(_) => {}
        }
    }
}

/// A guest that is held still by a watchdog. Dropped, it is let go.
pub(in super::super) struct Hold {
    child: Child,
    /// Closed, it makes the watchdog let go.
    stdin: Option<ChildStdin>,
    reports: Receiver<Report>,
    door: Door,
    found: Option<Found>,
    /// When the watchdog lets go by itself.
    until: Instant,
    over: bool,
}

impl Hold {
    /// Starts a watchdog that holds the guest, for at most `deadline` from the first moment in which it is
    /// disturbed. Either it is held now, or it is as it was.
    pub fn take(
        launcher: &WatchdogLauncher,
        door: Door,
        deadline: Duration,
    ) -> Result<(Hold, Held)> {
        let (child, stdin, reports) = reports::start(
            process::Command::new(&launcher.exe)
                .args(&launcher.args)
                .args(door.args())
                .args(["--deadline-ms", &deadline.as_millis().to_string()]),
            &format!("the watchdog {}", launcher.exe.display()),
        )?;
        let mut hold = Hold {
            stdin,
            child,
            reports,
            door,
            found: None,
            until: Instant::now() + deadline,
            over: false,
        };
        // Connecting to monitor and agent comes before anything is disturbed.
        match hold.next(CONNECT_TIMEOUT * 2)? {
            Report::Found(found) => hold.found = Some(found),
            other => return Err(hold.unexpected(other)),
        }
        hold.until = Instant::now() + deadline;
        // Undoing a hold that failed takes its time, too.
        match hold.next(deadline + RELEASE_PATIENCE)? {
            Report::Held(held) => Ok((hold, held)),
            other => Err(hold.unexpected(other)),
        }
    }

    /// Fails with [`Kind::Timeout`] if there is no time left to do anything while the guest is held.
    pub fn check_time(&self) -> Result<()> {
        if Instant::now() < self.until {
            Ok(())
        } else {
            Err(overrun())
        }
    }

    /// Runs a monitor command while the guest is held.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.check_time()?;
        let command = Command {
            execute: command.to_owned(),
            arguments,
        };
        let line = serde_json::to_string(&command)
            .map_err(|e| Error::new(Kind::Usage, "cannot encode a command").because(e))?;
        self.send(line.as_bytes());
        let left = self.until.saturating_duration_since(Instant::now());
        match self.next(left + RELEASE_PATIENCE)? {
            Report::Answered(Ok(value)) => Ok(value),
            Report::Answered(Err((kind, message))) => Err(Error::new(kind, message)),
            Report::Released { .. } => {
                self.over = true;
                Err(overrun())
            }
            other => Err(self.unexpected(other)),
        }
    }

    /// If this fails, the watchdog has ended, and the next report tells how or is missing.
    fn send(&mut self, line: &[u8]) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(line).and_then(|()| stdin.write_all(b"\n"));
        }
    }

    /// Lets the guest go. Fails if it was not held still all the time, or may still be; returns how long
    /// it was, in milliseconds.
    pub fn thaw(mut self) -> Result<u64> {
        self.send(THAW);
        match self.next(RELEASE_PATIENCE * 2)? {
            Report::Released {
                outcome,
                reason,
                held_ms,
            } => {
                self.over = true;
                if let Some(problem) = outcome.problem {
                    return Err(stuck(&problem));
                }
                let not_still = |kind, why: String| {
                    Err(Error::new(kind, "the VM could not be held still").because(why))
                };
                match (reason, outcome.broken) {
                    (Reason::Asked, None) => Ok(held_ms),
                    (_, Some(broken)) if outcome.lost => not_still(Kind::Remote, broken),
                    (Reason::Asked, Some(broken)) => not_still(Kind::Busy, broken),
                    (Reason::Deadline, _) => Err(overrun()),
                    (Reason::Orphaned | Reason::Signal, _) => Err(Error::new(
                        Kind::Cancelled,
                        "the watchdog was told to end before the snapshots were complete",
                    )),
                }
            }
            other => Err(self.unexpected(other)),
        }
    }

    /// The next report; if none comes, the watchdog is done away with and the guest rescued.
    fn next(&mut self, patience: Duration) -> Result<Report> {
        let ended = match self.reports.recv_timeout(patience + SLACK) {
            Ok(report) => return Ok(report),
            Err(RecvTimeoutError::Timeout) => "does not answer",
            Err(RecvTimeoutError::Disconnected) => "has ended",
        };
        self.rescue();
        Err(Error::new(
            Kind::Tool,
            format!("the watchdog {ended}, so the guest was let go without it"),
        ))
    }

    fn rescue(&mut self) {
        self.over = true;
        // Out of the way of the monitor. Ended already, if it ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(found) = self.found.take() {
            self.door.rescue(&found);
        }
    }

    fn unexpected(&mut self, report: Report) -> Error {
        self.over = true;
        match report {
            Report::Failed {
                kind,
                message,
                advice,
                problem,
            } => {
                let mut error = Error::new(kind, format!("cannot hold the VM still: {message}"));
                if let Some(advice) = advice {
                    error = error.advise(advice);
                }
                match problem {
                    Some(problem) => error.context(stuck(&problem)),
                    None => error,
                }
            }
            other => Error::new(
                Kind::Protocol,
                format!("the watchdog said {other:?} out of turn"),
            ),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.stdin = None;
        if !self.over {
            // Takes the guest's release with it. Errors have nowhere to go; the watchdog complains itself.
            while let Ok(report) = self.next(RELEASE_PATIENCE * 2) {
                if matches!(report, Report::Released { .. } | Report::Failed { .. }) {
                    break;
                }
            }
        }
        let _ = self.child.wait();
    }
}

fn overrun() -> Error {
    Error::new(
        Kind::Timeout,
        "the snapshots took longer than the VM may be held still",
    )
    .advise("it runs on; allow more time, or look why the storage is slow")
}

fn stuck(problem: &str) -> Error {
    Error::new(Kind::Tool, problem).advise("look at the VM: resume it, and thaw its file systems")
}
