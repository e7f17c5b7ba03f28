//! The driver's end of the keeper.

use super::{Report, Way, DONE, EARLIER_MAX, GIVING_UP, LAID_OVER};
use crate::error::{Error, Kind, Result};
use crate::snapshot::{reports, WatchdogLauncher};
use std::io::Write;
use std::process::{self, Child, ChildStdin};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// What pausing and letting go may take on a busy host, besides waiting for an earlier keeper.
const PATIENCE: Duration = Duration::from_secs(90);

/// A guest that a keeper holds still. Dropped, it is let go.
pub(in super::super) struct Keeper {
    child: Child,
    stdin: Option<ChildStdin>,
    reports: Receiver<Report>,
    over: bool,
}

impl Keeper {
    /// Has `vm`, which is to be given up in `epoch`, held still for at most `limit`, or its disks laid over.
    pub fn start(
        launcher: &WatchdogLauncher,
        vm: &str,
        epoch: u64,
        (way, limit): (Way, Duration),
    ) -> Result<Keeper> {
        let mut command = process::Command::new(&launcher.exe);
        command.args(&launcher.args);
        command.args([vm, &epoch.to_string(), &limit.as_millis().to_string()]);
        if way == Way::LaidOver {
            command.arg(LAID_OVER);
        }
        let what = format!("the keeper {}", launcher.exe.display());
        let (child, stdin, reports) = reports::start(&mut command, &what)?;
        let mut keeper = Keeper {
            stdin,
            child,
            reports,
            over: false,
        };
        match keeper.next(EARLIER_MAX + PATIENCE) {
            Ok(Report::Paused) => Ok(keeper),
            Ok(other) => Err(keeper.unexpected(other)),
            Err(e) => Err(e),
        }
    }

    /// From here on the guest goes on only if this process ends without having given the VM up. Fails if it was let go
    /// already.
    pub fn bind(&mut self) -> Result<()> {
        self.send(GIVING_UP);
        match self.next(PATIENCE)? {
            Report::Bound => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    /// The VM is given up, durably: the guest stays as it is.
    pub fn done(mut self) {
        self.send(DONE);
        self.over = true;
    }

    /// If this fails, the keeper has ended, and the next report tells how or is missing.
    fn send(&mut self, word: u8) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(&[word]);
        }
    }

    fn next(&mut self, patience: Duration) -> Result<Report> {
        let why = match self.reports.recv_timeout(patience) {
            Ok(report) => return Ok(report),
            Err(RecvTimeoutError::Timeout) => "does not answer",
            Err(RecvTimeoutError::Disconnected) => "has ended",
        };
        self.over = true;
        Err(Error::new(
            Kind::Tool,
            format!("the keeper, which holds the guest still, {why}"),
        ))
    }

    fn unexpected(&mut self, report: Report) -> Error {
        self.over = true;
        match report {
            Report::Failed {
                kind,
                message,
                advice,
            } => {
                let error = Error::new(kind, format!("cannot hold the VM: {message}"));
                match advice {
                    Some(advice) => error.advise(advice),
                    None => error,
                }
            }
            Report::Released(why) => {
                Error::new(Kind::Timeout, "the VM was let go on before all was sent")
                    .because(why)
                    .advise(
                        "it runs on here; allow more with --pause-max, or move it without --live",
                    )
            }
            Report::Stuck(why) => Error::new(Kind::Tool, "the VM may still be paused")
                .because(why)
                .advise("look at it, and resume it"),
            other => Error::new(
                Kind::Protocol,
                format!("the keeper said {other:?} out of turn"),
            ),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stdin = None;
        while !self.over {
            if let Ok(Report::Released(_) | Report::Stuck(_) | Report::Failed { .. }) =
                self.next(PATIENCE)
            {
                self.over = true;
            }
        }
        let _ = self.child.wait();
    }
}
