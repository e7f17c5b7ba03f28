//! A domain that is moved while it runs, or comes to this host: paused, its disks synced for the last time, its memory
//! sent by libvirt.
//!
//! libvirt has no guest that merely waits for its memory: it makes one, sends all and ends the old one in one call, which
//! the leaving host makes at both daemons (`send`). So `receive` only opens the door, and when `send_memory` returns the
//! guest is on the other host, paused, and its QEMU here has ended. That is as good: its disks here are as they were when it
//! was paused, and it does not run anywhere until the other host is primary. If it never gets there, it is started from
//! those disks.
//!
//! A guest whose disks are all files need not be paused: see `seeded`.
//!
//! Both connections, to the other libvirt and for the memory, lead through ours: see [`Incoming`].

mod fits;
mod records;
mod relay;
mod seeded;
mod send;
mod xml;

use crate::connect::{Domain as Handle, Job, State};
use crate::domain::Domain;
use crate::marks::{self, mark_of, set_mark, Mark};
use crate::overlay;
use crate::target::VirtTarget;
use crate::volumes;
use fits::Details;
use libvirt_domain::guest::foreign;
use rblocksync::cli::units::human;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::files::remove_present;
use rblocksync::hypervisor::{
    GuestState, Hold, Incoming, LiveHypervisor, LiveProfile, RoleHypervisor, SeededHypervisor,
};
use rblocksync::replica::{write_text, Generation, TargetPair};
use rblocksync::stop::Stop;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where libvirt's daemons for QEMU listen, the one that has nothing else to do first.
const DAEMON_SOCKETS: [&str; 2] = ["/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock"];

/// How long letting a guest go on is tried again.
const RESUME_MAX: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(200);

/// Nothing keeps others from resuming a domain; that somebody did is seen before it is given up.
struct Paused;
impl Hold for Paused {}

impl VirtTarget {
    fn handle(&self, vm: &str) -> Result<Handle> {
        let found = self.host.connection()?.find(vm)?;
        let found = found.filter(|domain| domain.name() == vm);
        found.ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!("there is no domain {vm} on this host"),
            )
            .advise("'virsh list --all' shows them")
        })
    }

    /// The file that lets the hook pass a guest that comes in.
    fn door(&self, vm: &str) -> PathBuf {
        self.layout.guard(&format!("{vm}.incoming"))
    }

    /// The definition of the replica of `pair`, with its disks under their own names.
    fn replica_of(&self, pair: &TargetPair) -> Result<Domain> {
        let handle = self.handle(&pair.target_vm)?;
        let mut domain = Domain::parse(&handle.inactive_xml()?)?;
        match mark_of(&domain) {
            Some(Mark::Replica { pair: of, .. }) if of == pair.pair => {
                crate::standstill::lift(&mut domain);
                Ok(domain)
            }
            _ => Err(Error::new(
                Kind::Refused,
                format!(
                    "the domain {} is not the replica that is to be received",
                    pair.target_vm
                ),
            )
            .advise("sync it again")),
        }
    }

    /// Lets the guest of a replica in. Gives the replica, what the guest needs, and where it is waited for.
    fn open_door(
        &self,
        pair: &TargetPair,
        generation: &Generation,
        profile: &LiveProfile,
    ) -> Result<(Domain, Details, Incoming)> {
        let replica = self.replica_of(pair)?;
        let details = Details::parse(&profile.details)?;
        details.check(&self.host.connection()?, &replica)?;
        volumes::activate(generation)?;
        // What an earlier move has left beside the disks would be taken for this guest's.
        overlay::remove_all(&replica)?;
        let memory = relay::path(&pair.target_vm)?;
        relay::make_room(&memory)?;
        write_text(
            &self.door(&pair.target_vm),
            &format!("{}\n", std::process::id()),
        )?;
        let sockets = vec![daemon_socket()?, memory];
        Ok((replica, details, Incoming { sockets }))
    }

    fn remove_sockets(&self, vm: &str) -> Result<()> {
        remove_present(&relay::path(vm)?)?;
        remove_present(&relay::disks_path(vm)?).map(drop)
    }

    fn end(&self, vm: &str) -> Result<()> {
        let Some(domain) = self.host.connection()?.find(vm)? else {
            return Ok(());
        };
        if !domain.is_active()? {
            return Ok(());
        }
        let state = domain.state()?;
        if state.state == State::Running {
            return Err(Error::new(
                Kind::Busy,
                format!("domain {vm} runs, although it should not"),
            )
            .advise("'virt-blocksync status' on both hosts tells which one has it"));
        }
        domain.destroy()
    }
}

impl LiveHypervisor for VirtTarget {
    fn profile(&self, vm: &str) -> Result<LiveProfile> {
        let handle = self.handle(vm)?;
        let live = Domain::parse(&handle.live_xml()?)?;
        fits::check_leaves(&live)?;
        relay::path(vm)?;
        let details = Details::of(&handle, &live)?;
        let text = serde_json::to_string(&details)
            .map_err(|e| Error::new(Kind::Protocol, "cannot encode a profile").because(e))?;
        Ok(LiveProfile {
            memory: fits::memory_bytes(&live)?,
            details: text,
        })
    }

    fn pause(&self, vm: &str) -> Result<Box<dyn Hold>> {
        let handle = self.handle(vm)?;
        let state = handle.state()?;
        if state.state != State::Running {
            return Err(Error::new(Kind::Busy, format!("domain {vm} is {state}")));
        }
        handle.suspend()?;
        Ok(Box::new(Paused))
    }

    fn send_memory(&self, vm: &str, sockets: &[PathBuf], stop: &Stop) -> Result<()> {
        let [daemon, memory] = sockets else {
            return Err(Error::new(
                Kind::Protocol,
                "libvirt needs a way to the other daemon and one for the memory",
            ));
        };
        let handle = self.handle(vm)?;
        // What it still shows of the disks has been read and sealed.
        crate::running::end_own_backup(&handle)?;
        let way = send::Way {
            daemon,
            memory,
            from: &relay::path(vm)?,
        };
        send::send(&handle, &way, None, stop).map(drop)
    }

    fn retire_paused(&self, vm: &str, why: &str) -> Result<Vec<String>> {
        self.retire_as(vm, why, true)
    }

    fn end_paused(&self, vm: &str) -> Result<()> {
        self.end(vm)?;
        self.drop_overlays(vm)?;
        crate::running::forget_checkpoints(&self.handle(vm)?)
    }

    fn check_incoming(&self, pair: &TargetPair, profile: &LiveProfile) -> Result<Vec<String>> {
        let replica = self.replica_of(pair)?;
        let details = Details::parse(&profile.details)?;
        let connection = self.host.connection()?;
        details.check(&connection, &replica)?;
        let free = connection.call("ask libvirt for this host's memory", |c| {
            c.get_free_memory()
        })?;
        if free < profile.memory {
            return Err(Error::new(
                Kind::Space,
                format!(
                    "domain {} needs {} of memory, but this host has {} to spare",
                    pair.target_vm,
                    human(profile.memory),
                    human(free)
                ),
            ));
        }
        daemon_socket().map(|_| Vec::new())
    }

    fn receive(
        &self,
        pair: &TargetPair,
        generation: &Generation,
        profile: &LiveProfile,
    ) -> Result<Incoming> {
        self.open_door(pair, generation, profile)
            .map(|(_, _, incoming)| incoming)
    }

    fn end_received(&self, pair: &TargetPair) -> Result<()> {
        remove_present(&self.door(&pair.target_vm))?;
        self.end(&pair.target_vm)?;
        if let Ok(replica) = self.replica_of(pair) {
            overlay::remove_all(&replica)?;
        }
        self.remove_sockets(&pair.target_vm)
    }

    fn promote_received(&self, pair: &TargetPair, generation: &Generation) -> Result<Vec<String>> {
        remove_present(&self.door(&pair.target_vm))?;
        self.remove_sockets(&pair.target_vm)?;
        self.promote_as(pair, generation, true)
    }

    fn seeded(&self) -> Option<&dyn SeededHypervisor> {
        Some(self)
    }

    fn guest(&self, vm: &str) -> Result<GuestState> {
        let Some(handle) = self.host.connection()?.find(vm)? else {
            return Ok(GuestState::Off);
        };
        let state = handle.state()?;
        Ok(match state.state {
            State::Off => GuestState::Off,
            State::Running | State::ShuttingDown => GuestState::Running,
            _ if handle.job()? == Some(Job::MigrationIn) || state.is_starting() => {
                GuestState::Waiting
            }
            _ => GuestState::Paused,
        })
    }

    fn resume(&self, vm: &str) -> Result<()> {
        let until = Instant::now() + RESUME_MAX;
        loop {
            match self.try_resume(vm) {
                Err(e)
                    if !matches!(e.kind(), Kind::Refused | Kind::NotFound)
                        && Instant::now() < until =>
                {
                    std::thread::sleep(RETRY);
                }
                done => return done,
            }
        }
    }
}

impl VirtTarget {
    fn try_resume(&self, vm: &str) -> Result<()> {
        let handle = self.handle(vm)?;
        let state = handle.state()?;
        match state.state {
            State::Running => Ok(()),
            State::Paused if state.is_starting() => Err(Error::new(
                Kind::Refused,
                format!("domain {vm} waits for its memory"),
            )),
            State::Paused => {
                if handle.job()? == Some(Job::MigrationOut) {
                    send::abort(&handle)?;
                }
                handle.resume()
            }
            // Its memory has gone, but it was not given up: it is this host's, and its disks are as they were then.
            State::Off if state.has_migrated() => self.start(vm),
            _ => Err(Error::new(
                Kind::Refused,
                format!("domain {vm} is {state}, and cannot go on"),
            )),
        }
    }

    /// Makes the definition of a replica that of the VM; of one whose guest is here already if `runs`.
    pub(crate) fn promote_as(
        &self,
        pair: &TargetPair,
        generation: &Generation,
        runs: bool,
    ) -> Result<Vec<String>> {
        let name = &pair.target_vm;
        let present = self.host.domain(name)?;
        if let Some(found) = &present {
            match mark_of(&Domain::parse(&found.xml)?) {
                Some(Mark::TakenOver { pair: of, .. }) if of == pair.pair => return Ok(Vec::new()),
                Some(Mark::Replica { pair: of, .. }) if of == pair.pair => {}
                _ => {
                    return Err(Error::new(
                        Kind::Refused,
                        format!("there is another domain {name} here, which is not this replica"),
                    )
                    .advise(format!(
                        "give that one another name: virsh domrename {name} NEW"
                    )))
                }
            }
            if found.state.is_active() && !runs {
                return Err(Error::new(Kind::Busy, format!("domain {name} is running"))
                    .advise("it was started in spite of its guard: stop it, and run this again"));
            }
        }
        let (mut domain, mut notes) = self.rendered_replica(pair, generation, present.as_ref())?;
        if !runs {
            // Before it can be started: from then on they are the domain's own.
            self.cut_vars(name, generation)?;
            volumes::activate(generation)?;
            notes.extend(self.place_tpm(&domain, generation)?);
        }
        let note = format!(
            "Taken over in epoch {} from generation {}, of {}: until then it was {} on {}.",
            pair.standing.epoch,
            generation.name(),
            generation.taken_at,
            pair.vm,
            pair.source_name
        );
        let mark = Mark::TakenOver {
            pair: pair.pair,
            note,
        };
        set_mark(&mut domain, Some(&mark));
        if runs {
            // What the guest has brought, and is not in its disks yet. If it has ended, only the files tell.
            match present.as_ref().and_then(|found| found.live.as_ref()) {
                Some(live) => overlay::impose(&mut domain, &overlay::used(&Domain::parse(live)?)),
                None => overlay::impose_present(&mut domain),
            }
        }
        // What the source's said of its start counts here now.
        let starts = match foreign(generation.described.as_deref()) {
            Some(described) => described.guest()?.autostart,
            None => marks::source_starts(&Domain::parse(&generation.config)?),
        };
        self.host.define(&domain.to_string())?;
        self.host.set_autostart(name, starts)?;
        Ok(notes)
    }
}

fn daemon_socket() -> Result<PathBuf> {
    let found = DAEMON_SOCKETS.iter().find(|path| Path::new(path).exists());
    found.map(PathBuf::from).ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            "libvirt's daemon does not listen where it usually does on this host",
        )
        .advise(format!("one of {} is needed", DAEMON_SOCKETS.join(", ")))
    })
}
