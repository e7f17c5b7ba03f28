//! Handing a VM over to the host that has its newest generation: from the moment it is off here and sealed there, to a
//! replica here of the VM that runs there.
//!
//! The point of no return is that this host is retired, durably. Before it everything can be undone, and the VM started
//! here again; from it on this only goes forward, and the same command, run again, finishes it: each step is asked of
//! whoever it is up to, and can be repeated. Between the two hosts there is never a moment at which both may run the VM.

use super::health::Health;
use super::messages::HostRequest;
use super::vm::Context;
use crate::agent::Client;
use crate::crash;
use crate::digest::HashKind;
use crate::driver::{RemoteAgent, Streams};
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{GuestState, LiveHypervisor, RoleHypervisor};
use crate::journal::{Run, State};
use crate::remote::Remote;
use crate::replica::{
    self, host_id, newest_sent, read_json, source_pair, Adopt, Adopted, BeginReverse, Generation,
    Layout, Reversed, TakeOver, TakenOver,
};
use crate::stop::PutOff;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A change of roles that this host has begun, as it is kept until it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Handover {
    /// The pair by which the VM goes.
    pub pair: Uuid,
    /// The pair by which it comes back.
    pub reverse: Uuid,
    /// Id of the other host.
    pub target: Uuid,
    /// Its name.
    pub target_name: String,
    /// The VM's id there.
    pub target_vm: String,
    /// The epoch that begins with this.
    pub epoch: u64,
    /// The VM ran when this began, and is to run again, wherever it comes to be.
    pub runs: bool,
    /// It is not to be started there, although it ran.
    pub no_start: bool,
    /// What was sealed there after it was off, and the number of the generation that the disks here become.
    pub sealed: Option<(u64, u64)>,
    /// Its guest goes along, with its memory.
    #[serde(default)]
    pub live: bool,
    /// Without being held still: something lies over its disks.
    #[serde(default)]
    pub seeded: bool,
    /// It was started there.
    pub started: bool,
    /// It is to be taken back: the other host may have been told not to take it over.
    pub undoing: bool,
}

impl Handover {
    /// The one that was begun for `vm` and is not done.
    pub fn pending(layout: &Layout, vm: &str) -> Result<Option<Handover>> {
        read_json(&layout.handover(vm))
    }

    /// Keeps it; durable when this returns.
    pub fn keep(&self, layout: &Layout, vm: &str) -> Result<()> {
        replica::write_json(&layout.handover(vm), self)
    }

    /// It is done, or undone.
    pub fn forget(layout: &Layout, vm: &str) -> Result<()> {
        replica::remove(&layout.handover(vm))
    }

    /// Whether this host has given the VM up, or has begun to: in one of its pairs is enough.
    pub fn is_retired(&self, layout: &Layout, vm: &str) -> Result<bool> {
        replica::has_given_up(layout, vm, self.epoch)
    }
}

/// How long the steps of a handover took.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// Until the guest waited for its memory there, if it did so before it was paused here.
    pub receive_early: Option<Duration>,
    /// The same while it was paused.
    pub receive: Duration,
    pub memory: Duration,
    /// Since when a guest does not run that was not held still.
    pub still_since: Option<Instant>,
    /// Giving the VM up, if that was done by this run.
    pub retire: Option<Duration>,
    pub flip: Duration,
    pub start: Duration,
    pub health: Duration,
    /// When the VM ran again, if it was started now.
    pub running_at: Option<Instant>,
    /// Why it could not be started there.
    pub ill: Option<Error>,
}

/// What came of it.
pub(super) struct HandedOver {
    pub adopted: Adopted,
    /// Disks that the first sync back has to compare.
    pub compared: Vec<String>,
    /// Why the VM may not do well there.
    pub ill: Option<Error>,
}

/// A VM of this host that is to be handed over, or taken back.
pub(super) struct Handing<'a> {
    pub context: &'a Context<'a>,
    pub program: &'static str,
    pub vm: &'a str,
    pub roles: &'a dyn RoleHypervisor,
    pub live: Option<&'a dyn LiveHypervisor>,
    pub health: &'a Health,
    pub hash: HashKind,
    /// Its page in the journal.
    pub run: &'a Run,
}

impl Handing<'_> {
    pub(super) fn layout(&self) -> &Layout {
        self.context.layout
    }

    /// Asks the target's agent, over a connection of its own.
    pub fn with_target<T>(&self, work: impl FnOnce(&mut Client) -> Result<T>) -> Result<T> {
        let Context {
            host, ssh, stop, ..
        } = self.context;
        Remote::during(host, ssh, |session| {
            let agent = RemoteAgent::start(session, self.program, Streams::Fixed(1), stop)?;
            agent.during(|agent| work(agent.client()))
        })
    }

    /// Gives the VM up: the point of no return. It must be off, and `handover` kept with what was sealed.
    pub fn retire(&self, handover: &Handover) -> Result<()> {
        if self.roles.is_running(self.vm)? {
            return Err(Error::new(
                Kind::Busy,
                format!(
                    "VM {} was started while it was synced for the last time",
                    self.vm
                ),
            )
            .advise("run again"));
        }
        self.run.enter(State::Retire)?;
        self.retire_again(handover)
    }

    fn retire_again(&self, handover: &Handover) -> Result<()> {
        let (layout, epoch) = (self.layout(), handover.epoch);
        let notes = replica::retire(layout, self.roles, self.vm, epoch, &handover.target_name)?;
        self.context.reporter.notes(&notes);
        Ok(())
    }

    /// Once this host is retired: the target takes the VM over, and has it run. What is done already is passed over. Until it
    /// runs there it runs nowhere, so signals are put off for that long.
    pub fn flip(
        &self,
        handover: &mut Handover,
        client: &mut Client,
        times: &mut Times,
        calm: PutOff,
    ) -> Result<()> {
        if handover.started {
            drop(calm);
            return self.end_left(handover, client);
        }
        let (number, _, _) = self.sealed(handover)?;
        let order = TakeOver {
            pair: handover.pair,
            generation: number,
            epoch: handover.epoch,
        };
        let began = Instant::now();
        if handover.live {
            return self.land(handover, client, order, times, calm);
        }
        // A kill may have come between the standing and the guards.
        if self.roles.is_running(self.vm)? {
            return Err(runs_here(self.vm, &handover.target_name));
        }
        if times.retire.is_none() {
            self.retire_again(handover)?;
        }
        self.run.enter(State::HandOver)?;
        let taken: TakenOver = client.host(&HostRequest::TakeOver(order))?;
        self.context.reporter.notes(&taken.notes);
        times.flip = began.elapsed();
        if !handover.runs || handover.no_start {
            return Ok(());
        }
        self.run.enter(State::Start)?;
        let start = Instant::now();
        let started = client.host::<_, ()>(&HostRequest::Start {
            vm: handover.target_vm.clone(),
        });
        times.start = start.elapsed();
        match started {
            Ok(()) => self.note_started(handover, times),
            // Nobody knows whether it was: it is asked for again.
            Err(e) if matches!(e.kind(), Kind::Remote | Kind::Timeout) => Err(e),
            Err(e) => {
                times.ill = Some(e.context("it could not be started there"));
                Ok(())
            }
        }
    }

    /// The same for a guest that waits there with its memory.
    fn land(
        &self,
        handover: &mut Handover,
        client: &mut Client,
        order: TakeOver,
        times: &mut Times,
        calm: PutOff,
    ) -> Result<()> {
        let live = self.live()?;
        let began = Instant::now();
        if live.guest(self.vm)? == GuestState::Running {
            return Err(runs_here(self.vm, &handover.target_name));
        }
        if times.retire.is_none() {
            self.give_up_paused(handover, live)?;
        }
        self.run.enter(State::HandOver)?;
        let taken: TakenOver = client.host(&HostRequest::Land(order))?;
        times.flip = began.elapsed();
        self.context.reporter.notes(&taken.notes);
        self.note_started(handover, times)?;
        drop(calm);
        self.end_left(handover, client)
    }

    fn note_started(&self, handover: &mut Handover, times: &mut Times) -> Result<()> {
        times.running_at = Some(Instant::now());
        crash::point("started");
        handover.started = true;
        handover.keep(self.layout(), self.vm)
    }

    /// A guest that goes on elsewhere is ended here. What lies over its disks is kept until it is in the disks there.
    fn end_left(&self, handover: &Handover, client: &mut Client) -> Result<()> {
        if handover.seeded {
            self.settle_there(handover, client)?;
        }
        match handover.live {
            true => self.live()?.end_paused(self.vm),
            false => Ok(()),
        }
    }

    pub(super) fn live(&self) -> Result<&dyn LiveHypervisor> {
        self.live.ok_or_else(|| {
            let what = format!("{} cannot move running VMs", self.program);
            Error::new(Kind::Usage, what)
        })
    }

    /// All that follows once this host is retired. What is done already is passed over.
    pub fn go_on(
        &self,
        handover: &mut Handover,
        client: &mut Client,
        times: &mut Times,
    ) -> Result<HandedOver> {
        self.flip(handover, client, times, self.context.stop.put_off())?;
        let (number, adopted_number, sent) = self.sealed(handover)?;
        self.run.enter(State::Reverse)?;
        let reversed = self.reverse(handover, client, &sent, number, adopted_number)?;
        let mut ill = times.ill.take();
        self.run.enter(State::Health)?;
        if handover.started {
            let health = Instant::now();
            ill = self.is_well(handover, client).err();
            times.health = health.elapsed();
        }
        self.run.enter(State::Adopt)?;
        let order = self.order(handover, &reversed)?;
        let adopted = replica::adopt(self.layout(), self.roles, &order, self.context.stop)
            .map_err(|e| {
                e.followed_by(format!(
                    "VM {} has gone to {} all the same",
                    self.vm, handover.target_name
                ))
                .advise("run the command again: what is left is done then")
            })?;
        Handover::forget(self.layout(), self.vm)?;
        Ok(HandedOver {
            adopted,
            compared: reversed.compared,
            ill,
        })
    }

    /// What was sealed last: its number, that of the generation which the disks here become, and its manifest.
    fn sealed(&self, handover: &Handover) -> Result<(u64, u64, Generation)> {
        let sent = newest_sent(self.layout(), self.vm, handover.target)?;
        match (handover.sealed, sent) {
            (Some((number, adopted)), Some(sent))
                if sent.pair == handover.pair && sent.number == number =>
            {
                Ok((number, adopted, sent))
            }
            _ => Err(Error::new(
                Kind::Io,
                format!(
                    "it is not known any more what of VM {} was sealed last on {}",
                    self.vm, handover.target_name
                ),
            )
            .advise("take the VM back with --undo")),
        }
    }

    fn reverse(
        &self,
        handover: &Handover,
        client: &mut Client,
        sent: &Generation,
        generation: u64,
        number: u64,
    ) -> Result<Reversed> {
        let pair = source_pair(self.layout(), self.vm, handover.target)?;
        let (_, here) = self.roles.describe()?;
        let mut disks = Vec::new();
        for disk in &sent.disks {
            let (location, _) = self.roles.locate(&disk.source)?;
            disks.push((disk.key.clone(), disk.source.clone(), location));
        }
        client.host(&HostRequest::BeginReverse(Box::new(BeginReverse {
            origin: handover.pair,
            generation,
            pair: handover.reverse,
            number,
            epoch: handover.epoch,
            host: host_id(self.layout(), true)?,
            host_name: here,
            vm_identity: pair.and_then(|pair| pair.vm_identity),
            disks,
        })))
    }

    fn order(&self, handover: &Handover, reversed: &Reversed) -> Result<Adopt> {
        Ok(Adopt {
            origin: handover.pair,
            pair: handover.reverse,
            epoch: handover.epoch,
            source_host: handover.target,
            source_name: handover.target_name.clone(),
            vm: handover.target_vm.clone(),
            target_vm: self.vm.to_owned(),
            config: reversed.config.clone(),
            described: reversed.described.clone(),
            excluded: Vec::new(),
            disks: reversed.disks.clone(),
            back: reversed.back.clone(),
            hash: self.hash,
            leaf_bytes: super::sync::LEAF_BYTES,
        })
    }
}

fn runs_here(vm: &str, target: &str) -> Error {
    Error::new(
        Kind::Refused,
        format!("VM {vm} runs on this host, although it was given up to {target}"),
    )
    .advise("shut it down and run the command again, or take it back with --undo")
}

/// What to do when it is not known which of the two hosts has the VM. One line each.
pub(super) fn decisions(vm: &str, target: &str) -> String {
    format!(
        "VM {vm} was given up here, and it is not known whether {target} has taken it over: both hold still. Decide:\n\
         \x20 {target} can be reached again       run the same command again: it is finished there\n\
         \x20 the VM is to stay on this host     run it with --undo: it comes back once {target} has confirmed that\n\
         \x20                                    it will not take it over\n\
         \x20 {target} is lost for good           --undo --target-lost {vm}: only if {target} will never run the VM again"
    )
}
