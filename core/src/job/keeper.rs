//! The process that holds a guest still while its memory moves to another host, so that nothing that befalls the driver
//! can leave it so.
//!
//! A guest that need not be held still has a keeper too (`Way::LaidOver`): it lays something over its disks, and settles that
//! when it lets the guest go.
//!
//! It is the front end's own program in a session of its own, tied to the driver by two pipes. It pauses the guest, says so,
//! and lets it go on when the driver's end of the pipe closes, when it is asked to end (SIGTERM, SIGINT, SIGHUP), or when
//! the deadline passes. Other than the watchdog of a snapshot it keeps no connection to the guest's monitor: while it waits,
//! the driver takes snapshots and sends the memory.
//!
//! Before the driver gives the VM up it says so (`H`). From then on only the driver's end counts, by a `D` (done: the guest
//! is to stay paused) or without a word. In that case the keeper looks at what is durable: a host that is retired lets
//! nothing go, any other does. A driver that hangs there is killed. So the guest goes on here exactly if this host has not
//! given it up, and neither of the two can be wrong about that.

mod driver;

pub(super) use driver::Keeper;

use super::seeded::seeder;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::LiveHypervisor;
use crate::lock::Lock;
use crate::replica::{has_given_up, Layout};
use crate::snapshot::reports::report;
use crate::snapshot::WatchdogLauncher;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{getppid, kill_process, Pid, Signal};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The word that makes a front end's program a keeper.
pub const WORD: &str = "keeper";

/// How the keeper is started where the front end's program takes that word.
pub fn launcher() -> WatchdogLauncher {
    WatchdogLauncher {
        args: vec![WORD.into()],
        ..WatchdogLauncher::this_executable()
    }
}

/// The driver is about to give the VM up.
const GIVING_UP: u8 = b'H';
/// It has, and the guest goes on elsewhere or not at all.
const DONE: u8 = b'D';

/// How long giving up may take: some small files are written.
const GIVING_UP_MAX: Duration = Duration::from_secs(30);
/// How long an earlier keeper of the same VM may still need to let go.
pub(super) const EARLIER_MAX: Duration = Duration::from_secs(120);

/// What the keeper tells its driver, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Report {
    /// The guest is paused.
    Paused,
    /// It stays so from now on, unless the driver ends without having given it up.
    Bound,
    /// It was let go, and why.
    Released(String),
    /// It may still be paused.
    Stuck(String),
    /// It could not be paused.
    Failed {
        kind: Kind,
        message: String,
        advice: Option<String>,
    },
}

/// Why the keeper does not wait any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The driver has ended, or has closed its pipe.
    Left,
    /// The driver has given the VM up.
    Done,
    Deadline,
    Signal,
}

/// What is done to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It is paused.
    Paused,
    /// Something is laid over its disks, and it runs.
    LaidOver,
}

/// What makes a keeper lay something over the disks.
const LAID_OVER: &str = "laid-over";
const WRONG: &str = "wrong arguments: VM EPOCH MILLISECONDS [laid-over]";

/// The hidden subcommand: `VM EPOCH MILLISECONDS [laid-over]`. The epoch is the one in which the VM is given up. Returns the exit code.
pub fn keep(
    args: impl IntoIterator<Item = OsString>,
    layout: &Layout,
    live: &dyn LiveHypervisor,
) -> i32 {
    let words: Vec<String> = args
        .into_iter()
        .filter_map(|a| a.into_string().ok())
        .collect();
    let (vm, epoch, ms, way) = match words.as_slice() {
        [vm, epoch, ms] => (vm, epoch, ms, Way::Paused),
        [vm, epoch, ms, way] if way == LAID_OVER => (vm, epoch, ms, Way::LaidOver),
        _ => {
            complain(WRONG);
            return 2;
        }
    };
    let (Ok(epoch), Ok(ms)) = (epoch.parse(), ms.parse()) else {
        complain(WRONG);
        return 2;
    };
    // What is sent to the driver's process group or terminal does not reach us.
    let _ = rustix::process::setsid();
    let kept = Kept {
        layout,
        live,
        vm,
        epoch,
        way,
        driver: getppid(),
    };
    match kept.run(Duration::from_millis(ms)) {
        Ok(()) => 0,
        Err(e) => {
            complain(&e.to_string());
            1
        }
    }
}

struct Kept<'a> {
    layout: &'a Layout,
    live: &'a dyn LiveHypervisor,
    vm: &'a str,
    epoch: u64,
    way: Way,
    driver: Option<Pid>,
}

impl Kept<'_> {
    fn run(&self, limit: Duration) -> Result<()> {
        let ready = signals().and_then(|signals| {
            // One that still lets the guest of an earlier run go would do so under our hands.
            let path = self.layout.keeper_lock(self.vm);
            let what = format!("letting VM {} go", self.vm);
            Ok((Lock::take_within(EARLIER_MAX, &path, &what)?, signals))
        });
        let (_lock, signals) = ready.map_err(failed)?;
        let until = Instant::now() + limit;
        let held = match self.way {
            Way::Paused => self.live.pause(self.vm).map(Some),
            Way::LaidOver => seeder(self.live).and_then(|seeded| {
                seeded.lay_over(self.vm)?;
                Ok(None)
            }),
        };
        let hold = match held {
            Ok(hold) => hold,
            Err(e) => {
                // It may have been done all the same.
                let undone = match self.way {
                    Way::Paused => self.let_go("it could not be paused", false),
                    Way::LaidOver => {
                        seeder(self.live).and_then(|seeded| seeded.settle(self.vm).map(drop))
                    }
                };
                return Err(failed(match undone {
                    Ok(()) => e,
                    Err(also) => e.followed_by(also),
                }));
            }
        };
        report(&Report::Paused);
        let (end, bound) = match wait(Some(until), Some(&signals)) {
            Ok(Wait::Word(GIVING_UP)) => {
                // The hypervisor's own lock is the driver's to take now.
                drop(hold);
                report(&Report::Bound);
                (self.be_bound(), true)
            }
            Ok(Wait::End(end)) => (end, false),
            // Letting go is the safe side.
            Ok(Wait::Word(_)) | Err(_) => (End::Left, false),
        };
        match end {
            End::Done => Ok(()),
            End::Left => self.let_go("the driver has ended", bound),
            End::Deadline => self.let_go("it took longer than the guest may be held still", bound),
            End::Signal => self.let_go("the keeper was told to end", bound),
        }
    }

    /// Kills a driver that hangs. False: it has ended.
    fn end_driver(&self) -> bool {
        match self.driver {
            Some(driver) if getppid() == Some(driver) => {
                complain("the driver hangs, and is killed");
                kill_process(driver, Signal::KILL).is_ok()
            }
            _ => false,
        }
    }

    /// Until the driver has given the VM up, or is no more.
    fn be_bound(&self) -> End {
        match wait(Some(Instant::now() + GIVING_UP_MAX), None) {
            Ok(Wait::Word(DONE)) => return End::Done,
            Ok(Wait::End(End::Left)) => return End::Left,
            _ => {}
        }
        // Nobody can tell whether it has, as long as it lives.
        self.end_driver();
        loop {
            match wait(None, None) {
                Ok(Wait::Word(DONE)) => return End::Done,
                Ok(Wait::End(End::Left)) | Err(_) => return End::Left,
                Ok(_) => {}
            }
        }
    }

    /// Lets the guest go on; once `bound`, only if this host has not given it up.
    fn let_go(&self, why: &str, bound: bool) -> Result<()> {
        if bound && has_given_up(self.layout, self.vm, self.epoch)? {
            report(&Report::Stuck("this host has given the VM up".into()));
            return Ok(());
        }
        let mut resumed = self.live.resume(self.vm);
        if resumed.is_err() && self.end_driver() {
            // It may have been in the way.
            resumed = self.live.resume(self.vm);
        }
        match resumed {
            Ok(()) => {
                report(&Report::Released(why.into()));
                match self.way {
                    Way::Paused => Ok(()),
                    // The driver waits for our end.
                    Way::LaidOver => seeder(self.live)?.settle(self.vm).map(drop),
                }
            }
            Err(e) => {
                report(&Report::Stuck(e.message()));
                Err(e.context(format!("VM {} may still be paused", self.vm)))
            }
        }
    }
}

enum Wait {
    Word(u8),
    End(End),
}

/// Waits for a word of the driver's, or a reason not to wait any longer.
fn wait(until: Option<Instant>, signals: Option<&UnixStream>) -> Result<Wait> {
    let stdin = io::stdin();
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Wait::End(End::Deadline));
        }
        let time = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = vec![PollFd::new(&stdin, PollFlags::IN)];
        fds.extend(signals.map(|signals| PollFd::new(signals, PollFlags::IN)));
        match poll(&mut fds, time.as_ref()) {
            Ok(0) => {}
            Ok(_) if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) => {
                return Ok(Wait::End(End::Signal))
            }
            Ok(_) => {
                let mut word = [0];
                // Not through io::stdin(): what that reads ahead, poll does not know of.
                match rustix::io::read(&stdin, &mut word) {
                    Ok(0) => return Ok(Wait::End(End::Left)),
                    Ok(_) => return Ok(Wait::Word(word[0])),
                    Err(Errno::INTR) => {}
                    Err(_) => return Ok(Wait::End(End::Left)),
                }
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::io("cannot wait for the driver", e.into())),
        }
    }
}

fn signals() -> Result<UnixStream> {
    let cannot = |e| Error::io("cannot listen for signals", e);
    let (read, write) = UnixStream::pair().map_err(cannot)?;
    for signal in [
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGHUP,
    ] {
        let write = write.try_clone().map_err(cannot)?;
        signal_hook::low_level::pipe::register(signal, write).map_err(cannot)?;
    }
    Ok(read)
}

fn failed(e: Error) -> Error {
    report(&Report::Failed {
        kind: e.kind(),
        message: e.message(),
        advice: e.advice().map(str::to_owned),
    });
    e
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "keeper: {text}");
}
