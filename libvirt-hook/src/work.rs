//! `virt-blocksync work`: looks at what the hook has left, outside of the hook, where libvirt can be asked.
//!
//! What it is for: `virsh migrate` moves a domain without telling us, and unless it was told to, leaves the definition
//! and the disks behind. Started there once more, the domain would run twice, here on old disks. So a domain of ours that
//! libvirt has moved away is *held* here, until it comes back the same way. Why a domain has ended decides libvirt's own
//! reason, never the hook's call alone: that comes also after a failed arrival and a refused start.

use crate::connect::Connection;
use crate::hook::events::{self, Event};
use crate::hook::{self, away, forget_away, Away};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::lock::Lock;
use rblocksync::replica::{clear_guard, set_guard, Layout, Role, Standing};
use rblocksync::stop::Stop;
use std::time::{Duration, Instant};

/// How long a domain may take to arrive, or a run of ours to be done with it, before its event is put aside.
pub const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(500);

/// What has become of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// libvirt has none of that name.
    Gone,
    /// It is off, and its guest went on elsewhere.
    Migrated,
    /// It is off.
    Off,
    /// Its memory is on the way here or from here.
    Moving,
    /// It runs, or stands still, here.
    Here,
}

/// What is asked about domains.
pub trait Fates {
    /// What has become of a domain.
    fn fate(&self, name: &str) -> Result<Fate>;
}

impl Fates for Connection {
    fn fate(&self, name: &str) -> Result<Fate> {
        let Some(domain) = self.find(name)? else {
            return Ok(Fate::Gone);
        };
        let state = domain.state()?;
        Ok(match domain.is_active()? {
            _ if state.is_migrating() => Fate::Moving,
            true => Fate::Here,
            false if state.has_migrated() => Fate::Migrated,
            false => Fate::Off,
        })
    }
}

/// Connects to libvirt, as soon as its daemon is there. What started us would start us again at once.
pub fn connect(uri: &str, patience: Duration, stop: &Stop) -> Result<Connection> {
    let until = Instant::now() + patience;
    loop {
        match Connection::open(uri) {
            Err(_) if Instant::now() < until => {}
            done => return done,
        }
        stop.check()?;
        std::thread::sleep(POLL);
    }
}

/// Looks at all events there are, also at those that come meanwhile, and returns what was done about them. Fails in the
/// end if something could not be done; that event is put aside, so that it does not keep others waiting.
pub fn work(
    layout: &Layout,
    fates: &dyn Fates,
    patience: Duration,
    stop: &Stop,
) -> Result<Vec<String>> {
    let until = Instant::now() + patience;
    let mut said = Vec::new();
    let mut failure: Option<Error> = None;
    loop {
        let pending = events::pending(layout)?;
        if pending.is_empty() {
            break;
        }
        let mut is_waiting = false;
        for (path, event) in pending {
            let late = Instant::now() >= until;
            let done = event.and_then(|event| {
                let done = handle(layout, fates, &event)?;
                if done.is_some() {
                    events::done(&path, &event)?;
                }
                Ok(done)
            });
            match done {
                Ok(Some(text)) => said.push(text),
                Ok(None) if !late => is_waiting = true,
                Err(e) if e.kind() == Kind::Busy && !late => is_waiting = true,
                Ok(None) => {
                    events::put_aside(layout, &path)?;
                    failure = Some(Error::new(
                        Kind::Timeout,
                        format!("{}: it is still on the move", path.display()),
                    ));
                }
                Err(e) => {
                    events::put_aside(layout, &path)?;
                    failure = Some(e.context(path.display()));
                }
            }
        }
        stop.check()?;
        if is_waiting {
            std::thread::sleep(POLL);
        }
    }
    match failure {
        Some(e) => Err(e.advise("it was put aside, into hook/failed of the state directory")),
        None => Ok(said),
    }
}

/// Does what is to be done about one event, and says what that was; `None`: it is too early to tell.
fn handle(layout: &Layout, fates: &dyn Fates, event: &Event) -> Result<Option<String>> {
    let vm = event.domain.as_str();
    let mut fate = fates.fate(vm)?;
    if event.extra == "migrated" && matches!(fate, Fate::Gone | Fate::Off) {
        fate = Fate::Migrated;
    }
    match fate {
        Fate::Moving => Ok(None),
        Fate::Here => came_back(layout, vm).map(Some),
        Fate::Migrated => left(layout, vm).map(Some),
        Fate::Off => Ok(Some(format!("{vm}: is off"))),
        Fate::Gone => Ok(Some(format!("{vm}: libvirt has none"))),
    }
}

/// Whoever has this lock is moving it, and notes by himself what this host is for it then.
fn lock(layout: &Layout, vm: &str) -> Result<Lock> {
    Lock::take(&layout.vm_lock(vm), &format!("domain {vm}"))
}

fn left(layout: &Layout, vm: &str) -> Result<String> {
    let _lock = lock(layout, vm)?;
    if layout.handover(vm).exists() {
        return Ok(format!("{vm}: is being moved by virt-blocksync"));
    }
    let guard = hook::guard_of(layout, vm)?;
    let epoch = match guard {
        None => None,
        Some((role, epoch)) if role == "primary" => Some(epoch),
        Some((role, _)) => return Ok(format!("{vm}: has left; this host is {role} for it")),
    };
    hook::note_away(layout, vm, &Away { epoch })?;
    let standing = Standing {
        role: Role::Held,
        epoch: epoch.unwrap_or(1),
    };
    set_guard(
        layout,
        vm,
        standing,
        "libvirt has moved it to another host, so the disks here are old",
    )?;
    Ok(format!(
        "{vm}: libvirt has moved it to another host; it must not start here until it is back"
    ))
}

fn came_back(layout: &Layout, vm: &str) -> Result<String> {
    let Some(Away { epoch }) = away(layout, vm)? else {
        return Ok(format!("{vm}: is here"));
    };
    let _lock = lock(layout, vm)?;
    match epoch {
        Some(epoch) => {
            let standing = Standing {
                role: Role::Primary,
                epoch,
            };
            set_guard(layout, vm, standing, "it was away, and is back")?;
        }
        None => clear_guard(layout, vm)?,
    }
    forget_away(layout, vm)?;
    Ok(format!("{vm}: is back, and may start here again"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Fixed(Fate);

    impl Fates for Fixed {
        fn fate(&self, _: &str) -> Result<Fate> {
            Ok(self.0)
        }
    }

    /// What this host is for web01 after an event, when libvirt tells that fate.
    fn guard_after(layout: &Layout, fate: Fate, extra: &str) -> Option<(String, u64)> {
        events::queue(layout, "web01", "release", extra).unwrap();
        work(layout, &Fixed(fate), PATIENCE, &Stop::new()).unwrap();
        assert!(events::pending(layout).unwrap().is_empty());
        hook::guard_of(layout, "web01").unwrap()
    }

    fn guard(layout: &Layout, role: Role, epoch: u64) {
        set_guard(layout, "web01", Standing { role, epoch }, "test").unwrap();
    }

    #[test]
    fn a_domain_that_left_is_held_until_it_is_back() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let held = |epoch| Some(("held".to_owned(), epoch));
        assert_eq!(guard_after(&layout, Fate::Off, "-"), None);
        assert_eq!(guard_after(&layout, Fate::Migrated, "-"), held(1));
        assert_eq!(guard_after(&layout, Fate::Migrated, "-"), held(1));
        assert_eq!(guard_after(&layout, Fate::Here, "-"), None);
        assert_eq!(guard_after(&layout, Fate::Gone, "migrated"), held(1));
        assert_eq!(guard_after(&layout, Fate::Here, "-"), None);
        guard(&layout, Role::Primary, 4);
        assert_eq!(guard_after(&layout, Fate::Migrated, "-"), held(4));
        let primary = Some(("primary".to_owned(), 4));
        assert_eq!(guard_after(&layout, Fate::Here, "-"), primary);
        assert_eq!(away(&layout, "web01").unwrap(), None);
    }

    #[test]
    fn what_our_own_moves_have_noted_stays() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        for (role, name) in [(Role::Retired, "retired"), (Role::Replica, "replica")] {
            guard(&layout, role, 2);
            for fate in [Fate::Migrated, Fate::Here, Fate::Off, Fate::Gone] {
                let after = guard_after(&layout, fate, "-");
                assert_eq!(after, Some((name.to_owned(), 2)), "{fate:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_done_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let broken = events::directory(&layout).join("broken.json");
        events::queue(&layout, "web01", "release", "-").unwrap();
        std::fs::write(&broken, "{").unwrap();
        let fates = Fixed(Fate::Moving);
        work(&layout, &fates, Duration::ZERO, &Stop::new()).unwrap_err();
        assert!(events::pending(&layout).unwrap().is_empty());
        let failed = std::fs::read_dir(dir.path().join("hook/failed")).unwrap();
        assert_eq!(failed.count(), 2);
    }

    #[test]
    fn a_run_that_has_the_domain_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        events::queue(&layout, "web01", "release", "-").unwrap();
        let lock = lock(&layout, "web01").unwrap();
        let (ours, thread) = (layout.clone(), std::thread::spawn);
        let worker =
            thread(move || work(&ours, &Fixed(Fate::Migrated), PATIENCE, &Stop::new()).unwrap());
        // The move notes what this host is, and lets go.
        guard(&layout, Role::Retired, 3);
        drop(lock);
        worker.join().unwrap();
        assert_eq!(
            hook::guard_of(&layout, "web01").unwrap(),
            Some(("retired".to_owned(), 3))
        );
    }
}
