//! Holding a domain's guest still, from a process of its own, and letting it go again whatever happens in between.
//!
//! Only a guest that was running is made to run again: one that its user had paused stays paused. A connection that breaks,
//! as when libvirt is restarted, is made again, as often as it takes.

use crate::connect::{Connection, Domain, State};
use crate::ffi::{self, Lifecycle};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::snapshot::{watchdog, Consistency, Found, Held, HeldGuest, Released};
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long letting go is tried over and over.
const RELEASE_PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(200);

/// libvirt's default: it waits for an agent as long as that takes.
const AGENT_WAITS: i32 = -2;

/// The hidden subcommand `watchdog --uri URI --domain UUID --deadline-ms N`, given the arguments after its name. Returns the
/// exit code, as [`watchdog::main_from_args`] does.
pub fn watchdog_main(args: impl IntoIterator<Item = OsString>) -> i32 {
    match parse(args) {
        Ok((uri, uuid, deadline)) => watchdog::main_for(deadline, || Grip::look(&uri, uuid)),
        Err(e) => {
            eprintln!("watchdog: {e}");
            2
        }
    }
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(String, Uuid, Duration)> {
    let wrong = || {
        Error::new(Kind::Usage, "wrong arguments")
            .advise("watchdog --uri URI --domain UUID --deadline-ms N")
    };
    let (mut uri, mut uuid, mut deadline) = (None, None, None);
    let mut args = args.into_iter();
    while let Some(option) = args.next() {
        let value = args.next().and_then(|value| value.into_string().ok());
        let value = value.ok_or_else(wrong)?;
        match option.to_str() {
            Some("--uri") => uri = Some(value),
            Some("--domain") => uuid = Some(Uuid::parse_str(&value).map_err(|_| wrong())?),
            Some("--deadline-ms") => {
                let ms = value.parse().map_err(|_| wrong())?;
                deadline = Some(Duration::from_millis(ms));
            }
            _ => return Err(wrong()),
        }
    }
    match (uri, uuid, deadline) {
        (Some(uri), Some(uuid), Some(deadline)) => Ok((uri, uuid, deadline)),
        _ => Err(wrong()),
    }
}

/// A domain with our hands on it.
pub(super) struct Grip {
    uri: String,
    uuid: Uuid,
    /// `None` after the connection broke.
    domain: Option<Domain>,
    was_running: bool,
    /// We have asked for a freeze, so there may be something to thaw.
    frozen: bool,
    /// How libvirt waits for the agent was changed.
    agent_bounded: bool,
    /// How often the guest was made to run since it is held.
    resumed: Option<Arc<Lifecycle>>,
    resumed_before: u32,
    /// The connection broke, so events may have been missed.
    reconnected: bool,
    notes: Vec<String>,
}

fn connect(uri: &str, uuid: Uuid) -> Result<Domain> {
    Connection::open(uri)?.domain(&uuid.to_string())
}

fn watch(domain: &Domain) -> Result<Arc<Lifecycle>> {
    let watched = domain.clone();
    domain
        .connection()
        .call("listen to libvirt's events", move |connect| {
            watched.with_handle(|handle| ffi::watch_lifecycle(connect, handle))
        })
}

impl Grip {
    /// Connects and looks; changes nothing.
    fn look(uri: &str, uuid: Uuid) -> Result<(Grip, Found)> {
        // Before the connection is opened, which otherwise hears nothing.
        ffi::run_events().map_err(|e| crate::connect::explain("listen to libvirt's events", &e))?;
        let domain = connect(uri, uuid)?;
        let state = domain.state()?;
        let was_running = match state.state {
            State::Running => true,
            State::Paused if !state.is_migrating() => false,
            _ => {
                return Err(Error::new(
                    Kind::Busy,
                    format!("the domain {} is {state}", domain.name()),
                )
                .advise("run again when its migration, save, sleep or shutdown is over"))
            }
        };
        let mut notes = Vec::new();
        if !was_running {
            notes.push(format!(
                "the VM was not running but {state}, and is left so"
            ));
        }
        let resumed = watch(&domain)?;
        let grip = Grip {
            uri: uri.to_owned(),
            uuid,
            domain: Some(domain),
            was_running,
            frozen: false,
            agent_bounded: false,
            resumed: Some(resumed),
            resumed_before: 0,
            reconnected: false,
            notes,
        };
        Ok((grip, Found { was_running }))
    }

    /// Makes a guest run again that did, and whose watchdog has died, as far as can be told from outside.
    pub fn rescue(uri: &str, uuid: Uuid) -> Released {
        let mut grip = Grip {
            uri: uri.to_owned(),
            uuid,
            domain: None,
            was_running: true,
            frozen: true,
            agent_bounded: true,
            resumed: None,
            resumed_before: 0,
            reconnected: true,
            notes: Vec::new(),
        };
        let mut released = grip.release();
        released.broken = Some("the process that held the guest still died".into());
        released
    }

    /// The domain, over a new connection if the old one broke.
    fn domain(&mut self) -> Result<Domain> {
        if let Some(domain) = &self.domain {
            return Ok(domain.clone());
        }
        let domain = connect(&self.uri, self.uuid)?;
        self.reconnected = true;
        self.domain = Some(domain.clone());
        Ok(domain)
    }

    /// Does something to the domain; the next thing is done over a new connection if this one broke.
    fn attempt<T>(&mut self, act: impl FnOnce(&Domain) -> Result<T>) -> Result<T> {
        let done = self.domain().and_then(|domain| act(&domain));
        let alive = |domain: &Domain| domain.connection().is_alive();
        if done.is_err() && !self.domain.as_ref().is_some_and(alive) {
            self.domain = None;
        }
        done
    }

    /// Freezes the file systems if there is an agent that can. Whether that was done.
    fn freeze(&mut self, budget: Duration) -> bool {
        let seconds = i32::try_from(budget.as_secs()).unwrap_or(i32::MAX).max(1);
        let frozen = self.attempt(|domain| {
            domain.call("bound the agent of", move |d| {
                ffi::set_agent_timeout(d, seconds)
            })?;
            Ok(())
        });
        // Fails where there is no agent.
        self.agent_bounded = frozen.is_ok();
        let limit = budget + Duration::from_secs(10);
        let done = frozen.and_then(|()| {
            self.attempt(|domain| {
                domain.call_within(limit, "freeze the file systems of", ffi::fs_freeze)
            })
        });
        match done {
            Ok(0) => {
                self.notes
                    .push("the guest agent found no file system to freeze".into());
                false
            }
            Ok(_) => {
                self.frozen = true;
                true
            }
            Err(e) => {
                // One that answers at all has undone what it began. Of others nobody knows.
                self.frozen = matches!(e.kind(), Kind::Timeout | Kind::Remote);
                if e.kind() != Kind::Refused {
                    self.notes
                        .push(format!("the file systems could not be frozen: {e}"));
                }
                false
            }
        }
    }

    fn resume(&mut self, deadline: Instant, released: &mut Released) -> Result<()> {
        let mut looked = false;
        loop {
            let state = self.attempt(Domain::state);
            let done = match state {
                Ok(state) => {
                    if !looked {
                        looked = true;
                        (released.broken, released.lost) = self.interference(state.state);
                    }
                    match state.state {
                        State::Paused if self.was_running => self.attempt(Domain::resume),
                        // Off, crashed, or as it was: nothing that resuming it would mend.
                        _ => Ok(()),
                    }
                }
                Err(e) => Err(e),
            };
            match done {
                Err(e) if e.kind() != Kind::NotFound && Instant::now() < deadline => {
                    std::thread::sleep(RETRY);
                }
                done => return done,
            }
        }
    }

    /// Why the guest may have run in between, and whether that is only because nobody listened for a while.
    fn interference(&self, state: State) -> (Option<String>, bool) {
        let resumed = self.resumed.as_ref().map_or(0, |seen| seen.resumed());
        if state != State::Paused || resumed != self.resumed_before {
            let why = "somebody else made the VM run in the middle of it, or ended it";
            (Some(why.into()), false)
        } else if self.reconnected {
            let why = "the connection to libvirt broke in the middle of it";
            (Some(why.into()), true)
        } else {
            (None, false)
        }
    }

    fn thaw(&mut self, deadline: Instant) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = left.max(Duration::from_secs(5));
            let thawed = self.attempt(|domain| {
                if domain.state()?.state != State::Running {
                    return Ok(());
                }
                let thawed = domain.call_within(limit, "thaw the file systems of", ffi::fs_thaw);
                thawed.map(drop)
            });
            match thawed {
                Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Refused) => return Ok(()),
                Err(_) if Instant::now() < deadline => std::thread::sleep(RETRY),
                done => return done,
            }
        }
    }
}

impl HeldGuest for Grip {
    fn hold(&mut self, budget: Duration) -> Result<Held> {
        let deadline = Instant::now() + budget;
        let mut consistency = Consistency::Crash;
        if self.was_running {
            if self.freeze(budget / 2) {
                consistency = Consistency::Filesystem;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_secs(1));
            self.attempt(|domain| {
                domain.call_within(left, "suspend", |d| d.suspend().map(drop))?;
                let state = domain.state()?;
                match state.state {
                    State::Paused => Ok(()),
                    _ => Err(Error::new(
                        Kind::Tool,
                        format!("the VM is {state} although libvirt was told to suspend it"),
                    )),
                }
            })?;
        }
        // From here on, an event says that somebody else had a hand in it.
        self.resumed_before = self.resumed.as_ref().map_or(0, |seen| seen.resumed());
        Ok(Held {
            consistency,
            notes: std::mem::take(&mut self.notes),
        })
    }

    fn release(&mut self) -> Released {
        let deadline = Instant::now() + RELEASE_PATIENCE;
        let mut released = Released::default();
        let mut problems = Vec::new();
        if let Err(e) = self.resume(deadline, &mut released) {
            problems.push(format!("the VM may still be paused: {e}"));
        }
        if self.frozen {
            if let Err(e) = self.thaw(deadline) {
                problems.push(format!("its file systems may still be frozen: {e}"));
            }
        }
        if self.agent_bounded {
            // Others get what they had: it is libvirt's default, as nothing tells what was set.
            let _ = self.attempt(|domain| {
                domain.call("let libvirt wait for the agent of", |d| {
                    ffi::set_agent_timeout(d, AGENT_WAITS)
                })
            });
        }
        if !problems.is_empty() {
            released.problem = Some(problems.join("; "));
        }
        released
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<(String, Uuid, Duration)> {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn the_watchdog_is_told_whom_it_holds() {
        let uuid = "5b1c0ae8-7d2c-4b8d-9a70-1f2f34a2f0aa";
        let all = [
            "--uri",
            "test:///default",
            "--domain",
            uuid,
            "--deadline-ms",
            "250",
        ];
        let (uri, domain, deadline) = parsed(&all).unwrap();
        assert_eq!(uri, "test:///default");
        assert_eq!(domain, Uuid::parse_str(uuid).unwrap());
        assert_eq!(deadline, Duration::from_millis(250));
        for less in [&all[2..], &all[..4], &all[..5]] {
            assert_eq!(parsed(less).unwrap_err().kind(), Kind::Usage);
        }
        assert!(parsed(&["--uri", "x", "--domain", "web01", "--deadline-ms", "1"]).is_err());
    }
}
