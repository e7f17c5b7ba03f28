//! The part of a migration that moves a running guest: it is paused by a keeper, and its memory sent once its disks are
//! sealed. See [`crate::hypervisor::LiveHypervisor`] for the order of things.

use super::converge::Round;
use super::cut::Cut;
use super::handover::{Handing, Handover, Times};
use super::keeper::{Keeper, Way};
use super::messages::HostRequest;
use super::migrate::Migration;
use super::seeded::{seeder, SEEDED_MAX};
use crate::agent::Client;
use crate::cli::units::{human, human_time};
use crate::crash;
use crate::driver::Tunnel;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{GuestState, Incoming, LiveHypervisor};
use crate::journal::State;
use crate::replica::{self, Generation, TakeOver};
use crate::snapshot::WatchdogLauncher;
use crate::stop::PutOff;
use std::time::{Duration, Instant};

/// A round that sent less than this says nothing about how fast memory would be.
const PACE_BYTES_MIN: u64 = 16 << 20;

/// What moving running VMs needs.
#[derive(Clone, Copy)]
pub struct Live<'a> {
    /// This host's hypervisor.
    pub hypervisor: &'a dyn LiveHypervisor,
    /// How to start the keeper: see [`super::keeper`].
    pub keeper: &'a WatchdogLauncher,
}

impl<'m> Migration<'m> {
    /// How the VM is to be moved while it runs, if it does, and if that was asked for.
    pub(super) fn live_of(&self, begun: Option<&Handover>) -> Result<Option<Live<'m>>> {
        if !self.options.live {
            return Ok(None);
        }
        let Some(live) = self.live else {
            return Err(Error::new(
                Kind::Usage,
                format!("{} cannot move running VMs", self.program),
            ));
        };
        if let Some(begun) = begun.filter(|begun| begun.live) {
            // A run that was killed may not have let it go on.
            self.let_run(live.hypervisor, begun)?;
        }
        Ok(match live.hypervisor.guest(self.vm)? {
            GuestState::Off => None,
            _ => Some(live),
        })
    }

    /// A guest that was paused for this handover runs again.
    fn let_run(&self, live: &dyn LiveHypervisor, begun: &Handover) -> Result<()> {
        let paused = matches!(live.guest(self.vm)?, GuestState::Paused | GuestState::Sent);
        match paused && begun.runs {
            true => live.resume(self.vm),
            false => Ok(()),
        }
    }

    /// Refuses what can be refused while the VM runs. How long its memory would take, if a round told how fast the way is.
    pub(super) fn memory_time(&self, last: Option<&Round>) -> Result<Duration> {
        let Some(live) = self.live.filter(|_| self.options.live) else {
            return Ok(Duration::ZERO);
        };
        if live.hypervisor.guest(self.vm)? == GuestState::Off {
            return Ok(Duration::ZERO);
        }
        let profile = live.hypervisor.profile(self.vm)?;
        if self.may_seed() {
            return Ok(Duration::ZERO);
        }
        let pace = last.filter(|last| last.sent.wire >= PACE_BYTES_MIN);
        let Some(pace) =
            pace.map(|last| last.sent.wire as f64 / last.transfer.as_secs_f64().max(0.001))
        else {
            return Ok(Duration::ZERO);
        };
        let time = Duration::from_secs_f64(profile.memory as f64 / pace);
        self.context.reporter.note(&format!(
            "its memory, {}, takes at most {} at the pace of that round",
            human(profile.memory),
            human_time(time)
        ));
        Ok(time)
    }

    /// The other host is asked whether the guest could go on there. Whether it need not be held still for that.
    pub(super) fn check_incoming(
        &self,
        live: &Live,
        handover: &Handover,
        client: &mut Client,
    ) -> Result<bool> {
        let profile = Box::new(live.hypervisor.profile(self.vm)?);
        // One that an earlier run has left would be in the way.
        client.host::<_, ()>(&HostRequest::Leave {
            pair: handover.pair,
        })?;
        let notes: Vec<String> = client.host(&HostRequest::CheckIncoming {
            pair: handover.pair,
            profile: profile.clone(),
        })?;
        self.context.reporter.notes(&notes);
        self.can_seed(live, handover, &profile, client)
    }
}

impl Cut<'_> {
    /// From here on the guest does not run, or does not change its disks.
    pub(super) fn pause(&mut self, migration: &Migration, live: &Live) -> Result<()> {
        let epoch = self.handover.as_ref().map_or(0, |handover| handover.epoch);
        let how = match self.is_seeded() {
            true => (Way::LaidOver, SEEDED_MAX),
            false => (Way::Paused, migration.options.pause_max),
        };
        self.keeper = Some(Keeper::start(live.keeper, migration.vm, epoch, how)?);
        crash::point("paused");
        Ok(())
    }

    pub(super) fn is_seeded(&self) -> bool {
        self.handover
            .as_ref()
            .is_some_and(|handover| handover.seeded)
    }

    /// Has the guest wait on the target before it is paused here. Its heads become generation `number`.
    pub(super) fn receive_early(
        &mut self,
        migration: &Migration,
        live: &Live,
        number: u64,
        times: &mut Times,
    ) -> Result<()> {
        let Some(handover) = &self.handover else {
            return Err(Error::new(Kind::Protocol, "no handover was begun"));
        };
        let began = Instant::now();
        let order = order(handover, number);
        let profile = Box::new(live.hypervisor.profile(migration.vm)?);
        let request = HostRequest::ReceiveEarly {
            order: order.clone(),
            profile,
        };
        let incoming: Incoming = self.client.host(&request)?;
        times.receive_early = Some(began.elapsed());
        crash::point("received early");
        self.waits = Some((order, incoming));
        Ok(())
    }

    /// Sends the memory, and gives the VM up when all of it has arrived: the point of no return. From then on signals
    /// are put off, as long as there is what it gives.
    pub(super) fn move_memory(
        &mut self,
        migration: &Migration,
        handing: &Handing,
        live: &Live,
        sealed: &Generation,
        times: &mut Times,
    ) -> Result<PutOff> {
        let (Some(handover), Some(mut keeper)) = (self.handover.clone(), self.keeper.take()) else {
            return Err(Error::new(Kind::Protocol, "nobody holds the guest still"));
        };
        let hypervisor = live.hypervisor;
        handing.run.enter(State::Memory)?;
        let began = Instant::now();
        let order = order(&handover, sealed.number);
        let seeded = handover.seeded;
        let incoming: Incoming = match self.waits.take() {
            Some((waits, incoming)) if waits == order => incoming,
            _ => {
                let profile = Box::new(hypervisor.profile(migration.vm)?);
                self.client.host(&HostRequest::Receive {
                    order,
                    profile,
                    seeded,
                })?
            }
        };
        times.receive = began.elapsed();
        crash::point("received");
        let tunnel = Tunnel {
            session: self.session,
            program: migration.program,
            stop: migration.context.stop,
        };
        let client = &mut *self.client;
        let (still_since, calm) = tunnel.during(&incoming.sockets, |sockets| {
            let (vm, stop) = (migration.vm, migration.context.stop);
            let still_since = match seeded {
                true => Some(seeder(hypervisor)?.send_seeded(vm, sockets, stop)?),
                false => {
                    hypervisor.send_memory(vm, sockets, stop)?;
                    None
                }
            };
            // It is all with the guest that waits there: from here on that is the one to go on.
            let calm = stop.put_off();
            // What is on the way is lost with the tunnel.
            client.host::<_, ()>(&HostRequest::Arrived {
                pair: handover.pair,
            })?;
            Ok((still_since, calm))
        })?;
        times.still_since = still_since;
        times.memory = began.elapsed().saturating_sub(times.receive);
        crash::point("memory sent");
        keeper.bind()?;
        crash::point("keeper bound");
        let began = Instant::now();
        handing.run.enter(State::Retire)?;
        handing.give_up_paused(&handover, hypervisor)?;
        keeper.done();
        times.retire = Some(began.elapsed());
        Ok(calm)
    }
}

fn order(handover: &Handover, generation: u64) -> TakeOver {
    TakeOver {
        pair: handover.pair,
        generation,
        epoch: handover.epoch,
    }
}

impl Handing<'_> {
    /// Gives the VM up whose guest does not run: the point of no return, unless it runs all the same. Safe to repeat.
    pub(super) fn give_up_paused(
        &self,
        handover: &Handover,
        live: &dyn LiveHypervisor,
    ) -> Result<()> {
        if live.guest(self.vm)? == GuestState::Running {
            return Err(Error::new(
                Kind::Busy,
                format!("somebody has let VM {} go on while it was moved", self.vm),
            )
            .advise("run again"));
        }
        let (layout, epoch, to) = (self.context.layout, handover.epoch, &handover.target_name);
        let why = replica::give_up(layout, self.roles, self.vm, epoch, to)?;
        let notes = live.retire_paused(self.vm, &why)?;
        self.context.reporter.notes(&notes);
        Ok(())
    }
}
