//! The process that holds a guest still, so that nothing that befalls us can leave it so.
//!
//! While snapshots are taken, the guest's file systems are frozen and its vCPUs stopped. If that were done
//! by the process that takes them, a crash, a `kill -9` or a hang of it would leave the guest dead. So a
//! second process does it: the same executable in a session of its own, tied to us by two pipes. It freezes
//! and stops the guest, says so, and undoes it when it is told to, when our end of the pipe closes, when it
//! is asked to end (SIGTERM, SIGINT, SIGHUP), or when the deadline passes, whichever is first. It alone
//! talks to the monitor, which on Proxmox serves one client at a time, so a hung driver is not in its way.
//! If it should be killed itself, the driver sees that and lets the guest go in its stead.
//!
//! On its stdin it takes lines: `T` for thaw, or a monitor command in JSON, since nobody else gets at the monitor
//! meanwhile. On stdout it prints one JSON report a line: `found`, then `held`, an `answered` for each command,
//! then `released`; or `failed` at any point, after it has undone what it did.

mod driver;

pub use driver::WatchdogLauncher;
pub(super) use driver::{Door, Hold};

use super::guest::{Found, Guest, Held, Released, Sockets};
use super::managed::HeldGuest;
use super::reports::report;
use crate::error::{Error, Kind, Result};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The line that asks for the guest to be let go.
const THAW: &[u8] = b"T";

/// The longest line taken.
const LINE_MAX_BYTES: usize = 4 << 20;

/// A monitor command to be run while the guest is held.
#[derive(Debug, Serialize, Deserialize)]
struct Command {
    execute: String,
    arguments: Value,
}

/// What the watchdog tells its driver.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Report {
    Found(Found),
    Held(Held),
    /// What came of a command: what it returned, or the kind of error and why.
    Answered(std::result::Result<Value, (Kind, String)>),
    Released {
        outcome: Released,
        reason: Reason,
        held_ms: u64,
    },
    Failed {
        kind: Kind,
        message: String,
        advice: Option<String>,
        /// Why the guest may still be paused or frozen, if it may.
        problem: Option<String>,
    },
}

/// Why the guest was let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reason {
    /// The driver asked for it.
    Asked,
    /// The driver took too long.
    Deadline,
    /// The driver is gone.
    Orphaned,
    /// A signal asked us to end.
    Signal,
}

/// The hidden subcommand: `--qmp SOCKET [--agent SOCKET] --deadline-ms N`, given the arguments after its
/// name. Returns the exit code: 0 if the guest was let go as it was found, 1 if not, 2 for wrong arguments.
pub fn main_from_args(args: impl IntoIterator<Item = OsString>) -> i32 {
    let (sockets, deadline) = match parse(args) {
        Ok(parsed) => parsed,
        Err(e) => {
            complain(&e.to_string());
            return 2;
        }
    };
    main_for(deadline, || Guest::look(sockets))
}

/// The same for a guest that is reached otherwise, by a watchdog of another program: `look` finds it, and changes nothing.
pub fn main_for<G: HeldGuest>(
    deadline: Duration,
    look: impl FnOnce() -> Result<(G, Found)>,
) -> i32 {
    // A session of our own: what is sent to the driver's process group or terminal does not reach us. It
    // fails for the leader of a process group, which is out of reach as well.
    let _ = rustix::process::setsid();
    let signals = match signals() {
        Ok(signals) => signals,
        Err(e) => {
            complain(&format!("cannot listen for signals: {e}"));
            return 1;
        }
    };
    match guard(look, deadline, &signals) {
        Ok(None) => 0,
        Ok(Some(problem)) => {
            complain(&problem);
            1
        }
        Err(_) => 1,
    }
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(Sockets, Duration)> {
    let wrong = || {
        Error::new(Kind::Usage, "wrong arguments")
            .advise("watchdog --qmp SOCKET [--agent SOCKET] --deadline-ms N")
    };
    let (mut qmp, mut agent, mut deadline) = (None, None, None);
    let mut args = args.into_iter();
    while let Some(option) = args.next() {
        let value = args.next().ok_or_else(wrong)?;
        match option.to_str() {
            Some("--qmp") => qmp = Some(PathBuf::from(value)),
            Some("--agent") => agent = Some(PathBuf::from(value)),
            Some("--deadline-ms") => {
                let ms = value.to_str().and_then(|v| v.parse().ok());
                deadline = Some(Duration::from_millis(ms.ok_or_else(wrong)?));
            }
            _ => return Err(wrong()),
        }
    }
    match (qmp, deadline) {
        (Some(qmp), Some(deadline)) => Ok((Sockets { qmp, agent }, deadline)),
        _ => Err(wrong()),
    }
}

/// Holds the guest and lets it go. Returns why it may not be as it was, if so; an error if it never was
/// held. Both have been reported.
fn guard<G: HeldGuest>(
    look: impl FnOnce() -> Result<(G, Found)>,
    deadline: Duration,
    signals: &UnixStream,
) -> Result<Option<String>> {
    let (mut guest, found) = look().map_err(|e| failed(e, None))?;
    report(&Report::Found(found));
    let started = Instant::now();
    let held = match guest.hold(deadline) {
        Ok(held) => held,
        Err(e) => {
            let undone = guest.release();
            return Err(failed(e, undone.problem));
        }
    };
    report(&Report::Held(held));
    let reason = serve(&mut guest, started + deadline, signals);
    let outcome = guest.release();
    let problem = outcome.problem.clone();
    report(&Report::Released {
        outcome,
        reason,
        held_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    });
    Ok(problem)
}

fn failed(e: Error, problem: Option<String>) -> Error {
    if let Some(problem) = &problem {
        complain(problem);
    }
    report(&Report::Failed {
        kind: e.kind(),
        message: e.message(),
        advice: e.advice().map(str::to_owned),
        problem,
    });
    e
}

/// Runs commands until the first reason to let go.
fn serve(guest: &mut impl HeldGuest, deadline: Instant, signals: &UnixStream) -> Reason {
    let mut pending = Vec::new();
    loop {
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let line = line.trim_ascii_end();
            if line == THAW {
                return Reason::Asked;
            }
            let Ok(command) = serde_json::from_slice::<Command>(line) else {
                return Reason::Orphaned;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = guest.execute(&command.execute, command.arguments, left);
            report(&Report::Answered(
                answer.map_err(|e| (e.kind(), e.message())),
            ));
        }
        match more(&mut pending, deadline, signals) {
            Ok(()) if pending.len() <= LINE_MAX_BYTES => {}
            Ok(()) => return Reason::Orphaned,
            Err(reason) => return reason,
        }
    }
}

/// Waits for more of a line, or for a reason to let go.
fn more(
    pending: &mut Vec<u8>,
    deadline: Instant,
    signals: &UnixStream,
) -> std::result::Result<(), Reason> {
    let stdin = io::stdin();
    let left = deadline.saturating_duration_since(Instant::now());
    let Ok(timeout) = Timespec::try_from(left) else {
        return Err(Reason::Deadline);
    };
    let mut fds = [
        PollFd::new(&stdin, PollFlags::IN),
        PollFd::new(signals, PollFlags::IN),
    ];
    match poll(&mut fds, Some(&timeout)) {
        Ok(0) => Err(Reason::Deadline),
        Ok(_) if !fds[1].revents().is_empty() => Err(Reason::Signal),
        Ok(_) => {
            // Not through io::stdin(): what that reads ahead, poll does not know of.
            let mut bytes = [0u8; 4096];
            match rustix::io::read(&stdin, &mut bytes) {
                Ok(0) => Err(Reason::Orphaned),
                Ok(count) => {
                    pending.extend_from_slice(&bytes[..count]);
                    Ok(())
                }
                Err(Errno::INTR) => Ok(()),
                Err(_) => Err(Reason::Orphaned),
            }
        }
        Err(Errno::INTR) => Ok(()),
        // Not to be expected; letting go is the safe side.
        Err(_) => Err(Reason::Orphaned),
    }
}

/// A socket that becomes readable on a signal that asks us to end.
fn signals() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    for signal in [
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGHUP,
    ] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "watchdog: {text}");
}
