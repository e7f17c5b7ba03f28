//! Handing a VM over to the host that has its newest generation: from the moment it is off here and sealed there, to a
//! replica here of the VM that runs there.
//!
//! The point of no return is that this host is retired, durably. Before it everything can be undone, and the VM started
//! here again; from it on this only goes forward, and the same command, run again, finishes it: each step is asked of
//! whoever it is up to, and can be repeated. Between the two hosts there is never a moment at which both may run the VM.

use super::messages::HostRequest;
use super::vm::Context;
use crate::agent::Client;
use crate::cmd::run_named;
use crate::crash;
use crate::digest::HashKind;
use crate::driver::{RemoteAgent, Streams};
use crate::error::{Error, Kind, Result};
use crate::hypervisor::RoleHypervisor;
use crate::journal::{Run, State};
use crate::remote::Remote;
use crate::replica::{
    self, host_id, newest_sent, read_json, source_pair, source_pairs, Adopt, Adopted, BeginReverse,
    Decline, Generation, Layout, Reversed, Role, Standing, TakeOver, TakenOver,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Pause between two looks at a guest that does not answer yet.
const HEALTH_POLL: Duration = Duration::from_secs(1);
/// Longest time that a single try of the user's command may take.
const HEALTH_TRY_MAX: Duration = Duration::from_secs(60);

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
        let pairs = source_pairs(layout, vm)?;
        let mut standings = pairs.iter().map(|pair| pair.standing);
        Ok(standings.any(|s| s.role == Role::Retired && s.epoch >= self.epoch))
    }
}

/// How it is to be found out whether the VM does well on the other host.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// A program by its absolute path, with arguments, run on this host with VMID and HOST in its environment: it exits with
    /// 0 if all is well.
    pub command: Option<(PathBuf, Vec<OsString>)>,
    /// How long to wait for it, or for the guest's agent.
    pub timeout: Duration,
}

/// How long the steps of a handover took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    pub flip: Duration,
    pub start: Duration,
    pub health: Duration,
    /// When the VM ran again, if it was started now.
    pub running_at: Option<Instant>,
}

/// What came of it.
pub(super) struct HandedOver {
    pub times: Times,
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
    pub health: &'a Health,
    pub hash: HashKind,
    /// Its page in the journal.
    pub run: &'a Run,
}

impl Handing<'_> {
    fn layout(&self) -> &Layout {
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
        notes
            .iter()
            .for_each(|note| self.context.reporter.note(note));
        Ok(())
    }

    /// All that follows once this host is retired. What is done already is passed over.
    pub fn go_on(&self, handover: &mut Handover, client: &mut Client) -> Result<HandedOver> {
        let mut times = Times::default();
        let (number, adopted_number, sent) = self.sealed(handover)?;
        let flip = Instant::now();
        if !handover.started {
            // A kill may have come between the standing and the guards.
            if self.roles.is_running(self.vm)? {
                return Err(runs_here(self.vm, &handover.target_name));
            }
            self.retire_again(handover)?;
            self.run.enter(State::HandOver)?;
            let taken: TakenOver = client.host(&HostRequest::TakeOver(TakeOver {
                pair: handover.pair,
                generation: number,
                epoch: handover.epoch,
            }))?;
            taken
                .notes
                .iter()
                .for_each(|note| self.context.reporter.note(note));
        }
        self.run.enter(State::Reverse)?;
        let reversed = self.reverse(handover, client, &sent, number, adopted_number)?;
        times.flip = flip.elapsed();
        let mut ill = None;
        if handover.runs && !handover.no_start {
            if !handover.started {
                self.run.enter(State::Start)?;
                let start = Instant::now();
                let started = client.host::<_, ()>(&HostRequest::Start {
                    vm: handover.target_vm.clone(),
                });
                times.start = start.elapsed();
                match started {
                    Ok(()) => {
                        times.running_at = Some(Instant::now());
                        crash::point("started");
                        handover.started = true;
                        handover.keep(self.layout(), self.vm)?;
                    }
                    // Nobody knows whether it was: it is asked for again.
                    Err(e) if matches!(e.kind(), Kind::Remote | Kind::Timeout) => return Err(e),
                    Err(e) => ill = Some(e.context("it could not be started there")),
                }
            }
            self.run.enter(State::Health)?;
            if handover.started {
                let health = Instant::now();
                ill = self.is_well(handover, client).err();
                times.health = health.elapsed();
            }
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
            times,
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
            hash: self.hash,
            leaf_bytes: super::sync::LEAF_BYTES,
        })
    }

    /// Waits until the guest's agent answers, if there is one, and the user's command is content.
    fn is_well(&self, handover: &Handover, client: &mut Client) -> Result<()> {
        let until = Instant::now() + self.health.timeout;
        let answers = HostRequest::Answers {
            vm: handover.target_vm.clone(),
        };
        loop {
            let why = match client.host::<_, Option<bool>>(&answers) {
                Ok(Some(true)) => break,
                Ok(None) => {
                    if self.health.command.is_none() {
                        self.context.reporter.note(
                            "the VM has no guest agent: it runs, and whether its guest is well is not known",
                        );
                    }
                    break;
                }
                Ok(Some(false)) => Error::new(
                    Kind::Timeout,
                    format!(
                        "the guest agent did not answer within {} s",
                        self.health.timeout.as_secs()
                    ),
                ),
                Err(e) => e,
            };
            self.wait(until, why)?;
        }
        let Some((program, arguments)) = &self.health.command else {
            return Ok(());
        };
        loop {
            let told = [
                ("VMID", handover.target_vm.as_str()),
                ("HOST", self.context.host.host()),
            ];
            let limit = HEALTH_TRY_MAX.min(self.health.timeout);
            let tried = run_named(program, arguments, &told, limit)
                .and_then(|ended| ended.check("the health command"));
            match tried {
                Ok(()) => return Ok(()),
                Err(e) => self.wait(until, e)?,
            }
        }
    }

    /// Waits a little, or fails with `why` when it is late.
    fn wait(&self, until: Instant, why: Error) -> Result<()> {
        if Instant::now() >= until || self.context.stop.is_stopped() {
            return Err(why);
        }
        std::thread::sleep(HEALTH_POLL);
        Ok(())
    }

    /// Takes the VM back that was given up, once the target has made sure that it will not take it over; or, if somebody
    /// says that it is lost for good (`is_lost`), without asking.
    pub fn take_back(&self, handover: &mut Handover, is_lost: bool) -> Result<()> {
        let layout = self.layout();
        handover.undoing = true;
        handover.keep(layout, self.vm)?;
        crash::point("undo begun");
        let standing = Standing {
            role: Role::Primary,
            epoch: handover.epoch + 1,
        };
        if replica::newest_epoch(layout, self.vm)? >= handover.epoch {
            if !is_lost {
                let order = Decline {
                    pair: handover.pair,
                    epoch: standing.epoch,
                };
                self.with_target(|client| {
                    client.host::<_, ()>(&HostRequest::Decline(order.clone()))
                })?;
            }
            crash::point("undo confirmed");
            replica::stand(layout, self.vm, standing)?;
            replica::set_guard(layout, self.vm, standing, "it was taken back")?;
            crash::point("undo standing");
            let notes = self.roles.reinstate(self.vm)?;
            notes
                .iter()
                .for_each(|note| self.context.reporter.note(note));
        }
        self.start_again(handover)
    }

    /// The VM stays here: it runs again if it did, and nothing is pending.
    pub fn start_again(&self, handover: &Handover) -> Result<()> {
        if handover.runs && !self.roles.is_running(self.vm)? {
            self.roles.start(self.vm)?;
        }
        crash::point("undo started");
        let adopting = self.layout().adopting(handover.reverse);
        replica::remove(&adopting)?;
        Handover::forget(self.layout(), self.vm)?;
        self.context.reporter.say(
            format!("VM {} stays on this host", self.vm),
            json!({"event": "undone", "vm": self.vm, "runs": handover.runs}),
        );
        Ok(())
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
