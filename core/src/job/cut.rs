//! The last part of a migration up to the point of no return, and right behind it, as long as the VM stands still: what can
//! be done before is done while it runs (connections, forks, the number of its way back), and what can wait is left for
//! when it runs again.

use super::handover::{Handing, Handover};
use super::keeper::Keeper;
use super::messages::{HostRequest, Position};
use super::migrate::{Figures, Migration, StopMode};
use super::sync::{sync_around, Around};
use super::vm::{SourceVm, SyncOptions, SyncOutcome};
use crate::agent::Client;
use crate::cli::units::human_time;
use crate::crash;
use crate::driver::{RemoteAgent, Streams};
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{HostDescription, Incoming};
use crate::image::{open_target, TargetOptions};
use crate::journal::State;
use crate::lock::Lock;
use crate::lvm;
use crate::remote::Remote;
use crate::replica::{
    self, source_pair, Generation, Location, Prepared, Role, SourcePair, TakeOver,
};
use crate::snapshot::{Consistency, DiskSource, VmRuntime};
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long devices may stay open after their VM has ended.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
const CLOSE_POLL: Duration = Duration::from_millis(100);

/// The way back as it is prepared while the VM runs.
#[derive(Default)]
struct WayBack {
    /// Number of the generation that the disks here become, and their volumes.
    reserved: Option<(u64, Vec<String>)>,
    /// Those that are files.
    files: Vec<(String, PathBuf)>,
}

/// What changes on the way.
pub(super) struct Cut<'c> {
    pub client: &'c mut Client,
    pub session: &'c Remote,
    pub handover: &'c mut Option<Handover>,
    way_back: WayBack,
    pub keeper: Option<Keeper>,
    /// A guest that waits there already, and what it is to become.
    pub waits: Option<(TakeOver, Incoming)>,
}

impl Migration<'_> {
    /// Brings the VM to the target with all that is left of it, and has it run there. Before this host has given it up,
    /// whatever fails, it runs here as it did. From then on what fails is told, and left to [`Handing::flip`].
    pub(super) fn cut(
        &self,
        handing: &Handing,
        begun: Option<Handover>,
        figures: &mut Figures,
        lock: &Lock,
    ) -> Result<Handover> {
        let mut kept = begun;
        let result = self.connected(handing, &mut kept, figures, lock);
        match (result, kept) {
            (result, Some(handover)) if handover.is_retired(self.context.layout, self.vm)? => {
                if let Err(e) = result {
                    self.context.reporter.note(&e.message());
                }
                Ok(handover)
            }
            (Err(e), Some(handover)) => Err(match handing.start_again(&handover) {
                Ok(()) => e,
                Err(also) => e.followed_by(also).advise(format!(
                    "VM {} is still this host's, and does not run: look why it does not start",
                    self.vm
                )),
            }),
            (Err(e), None) => Err(e),
            (Ok(()), _) => Err(Error::new(Kind::Protocol, "the last sync sealed nothing")),
        }
    }

    /// Over a connection that is made before the VM stands still.
    fn connected(
        &self,
        handing: &Handing,
        kept: &mut Option<Handover>,
        figures: &mut Figures,
        lock: &Lock,
    ) -> Result<()> {
        let context = self.context;
        Remote::during(context.host, context.ssh, |session| {
            let agent = RemoteAgent::start(session, self.program, Streams::Fixed(1), context.stop)?;
            agent.during(|agent| {
                let cut = Cut {
                    client: agent.client(),
                    session,
                    handover: kept,
                    way_back: WayBack::default(),
                    keeper: None,
                    waits: None,
                };
                self.cut_over(handing, cut, figures, lock)
            })
        })
    }

    fn cut_over(
        &self,
        handing: &Handing,
        mut cut: Cut,
        figures: &mut Figures,
        lock: &Lock,
    ) -> Result<()> {
        let live = self.live_of(cut.handover.as_ref())?;
        let running = self.roles.is_running(self.vm)?;
        if running || cut.handover.is_some() {
            let mut handover = match cut.handover.take() {
                Some(begun) => begun,
                None => self.begin(cut.client, running)?,
            };
            handover.runs |= running;
            handover.live = live.is_some();
            // Known of, since it was synced. So that an error from here on undoes it.
            cut.way_back = self.way_back(&handover)?;
            let handover = cut.handover.insert(handover);
            if let Some(live) = &live {
                handover.seeded = self.check_incoming(live, handover, cut.client)?;
            }
            handover.keep(self.context.layout, self.vm)?;
        }
        crash::point("handover begun");
        let (vm, runtime) = (self.look)()?;
        if live.is_some() {
            check_complete(&vm)?;
        }
        let seeded = cut.is_seeded();
        if live.is_some() && !seeded {
            self.check_pause(figures.predicted)?;
        }
        let cut = RefCell::new(cut);
        let figures = RefCell::new(figures);
        let stop = || -> Result<VmRuntime> {
            if running {
                handing.run.enter(State::Stop)?;
                let asked = Instant::now();
                figures.borrow_mut().asked_at = Some(asked);
                match &live {
                    Some(live) => cut.borrow_mut().pause(self, live)?,
                    None => self.end_vm(&vm)?,
                }
                let mut figures = figures.borrow_mut();
                match seeded {
                    // It goes on meanwhile.
                    true => figures.asked_at = None,
                    false => figures.stop = asked.elapsed(),
                }
            }
            crash::point("stopped");
            (self.runtime)()
        };
        let sealed = |outcome: SyncOutcome| -> Result<()> {
            let mut figures = figures.borrow_mut();
            figures.add(&outcome);
            let Some(generation) = outcome.generation.clone() else {
                return Err(Error::new(Kind::Protocol, "the last sync sealed nothing"));
            };
            figures.last = Some(outcome);
            let mut cut = cut.borrow_mut();
            self.was_still(&generation, live.is_some())?;
            crash::point("last sync");
            self.note_sealed(&mut cut, &generation)?;
            crash::point("handover kept");
            // From here on it is better to go on than back.
            let calm = match &live {
                Some(live) => {
                    cut.move_memory(self, handing, live, &generation, &mut figures.times)?
                }
                None => {
                    let calm = self.context.stop.put_off();
                    if let Some(handover) = &*cut.handover {
                        let began = Instant::now();
                        handing.retire(handover)?;
                        figures.times.retire = Some(began.elapsed());
                    }
                    calm
                }
            };
            let cut = &mut *cut;
            match cut.handover {
                Some(handover) => handing.flip(handover, cut.client, &mut figures.times, calm),
                None => Ok(()),
            }
        };
        let mut options = self.sync_options();
        if options.retention.keep > 1 {
            // What is one too many goes with the next sync: nobody waits for that.
            options.retention.keep = options.retention.keep.saturating_add(1);
        }
        if live.is_some() {
            // A paused guest does not wait for a way that is lost.
            options.retry_for = Duration::ZERO;
        }
        let on_heads = |prepared: &Prepared| -> Result<()> {
            let (mut cut, mut figures) = (cut.borrow_mut(), figures.borrow_mut());
            match &live {
                Some(live) => cut.receive_early(self, live, prepared.number, &mut figures.times),
                None => Ok(()),
            }
        };
        let around = Around {
            on_heads: (live.is_some() && !seeded).then_some(&on_heads),
            stop: &stop,
            sealed: &sealed,
            runs: seeded,
        };
        sync_around(self.context, &vm, runtime, &options, lock, Some(&around)).map(drop)
    }

    /// What is kept of a round makes the next one short, and is the way back afterwards.
    pub(super) fn sync_options(&self) -> SyncOptions {
        SyncOptions {
            keep_base: true,
            moves: true,
            ..self.sync.clone()
        }
    }

    /// Nobody has let it run while it was synced for the last time.
    fn was_still(&self, generation: &Generation, live: bool) -> Result<()> {
        let off = generation.consistency == Consistency::Offline;
        if live || (off && !self.roles.is_running(self.vm)?) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Busy,
            format!(
                "VM {} was started while it was synced for the last time",
                self.vm
            ),
        )
        .advise("run again"))
    }

    fn note_sealed(&self, cut: &mut Cut, generation: &Generation) -> Result<()> {
        let layout = self.context.layout;
        let mut handover = match cut.handover.take() {
            Some(handover) => handover,
            None => {
                let handover = self.begin(cut.client, false)?;
                cut.way_back = self.way_back(&handover)?;
                handover
            }
        };
        let volumes = volumes_of(generation);
        let number = match cut.way_back.reserved.take() {
            Some((number, of)) if of == volumes => Ok(number),
            _ => self.reserve(&handover, &volumes),
        };
        let files = &cut.way_back.files;
        let noted = replica::note_written(layout, self.vm, handover.target, generation, files);
        if let Ok(number) = number {
            handover.sealed = Some((generation.number, number));
        }
        // Also so that an error from here on undoes it.
        let handover = cut.handover.insert(handover);
        number.and(noted)?;
        handover.keep(layout, self.vm)
    }

    /// What is needed to know before the VM is touched.
    fn begin(&self, client: &mut Client, runs: bool) -> Result<Handover> {
        let layout = self.context.layout;
        let target: HostDescription = client.host(&HostRequest::Describe { keep: true })?;
        if self.options.live && runs && target.form != self.roles.form() {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "{} is another kind of hypervisor ({}): the memory of a running guest cannot go there",
                    target.name, target.hypervisor
                ),
            )
            .advise("leave --live out: the VM is shut down for the move then"));
        }
        let pair: Option<SourcePair> = source_pair(layout, self.vm, target.id)?;
        let Some(pair) = pair else {
            return Err(Error::new(
                Kind::NotFound,
                format!("VM {} was never synced to {}", self.vm, target.name),
            ));
        };
        let newest = replica::newest_sent(layout, self.vm, target.id)?;
        let position: Position = client.host(&HostRequest::Position { pair: pair.pair })?;
        if position.standing.role != Role::Replica || newest.is_none() {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "{} is {} for VM {} since epoch {}",
                    target.name, position.standing.role, self.vm, position.standing.epoch
                ),
            ));
        }
        // The way back is the one by which the VM came, if it did.
        let mut ways = replica::targets_of(layout, self.vm)?;
        ways.retain(|way| way.source_host == target.id && way.vm == position.vm);
        let reverse = ways.pop().map_or_else(Uuid::new_v4, |way| way.pair);
        let epochs = [
            replica::newest_epoch(layout, self.vm)?,
            position.standing.epoch,
        ];
        Ok(Handover {
            pair: pair.pair,
            reverse,
            target: target.id,
            target_name: target.name,
            target_vm: position.vm,
            epoch: epochs.into_iter().max().unwrap_or(0) + 1,
            runs,
            no_start: self.options.no_start,
            live: false,
            seeded: false,
            sealed: None,
            started: false,
            undoing: false,
        })
    }

    /// What stays behind becomes a replica. That it cannot is to be found out while the VM runs.
    fn way_back(&self, handover: &Handover) -> Result<WayBack> {
        let newest = replica::newest_sent(self.context.layout, self.vm, handover.target)?;
        let Some(newest) = newest else {
            return Ok(WayBack::default());
        };
        let mut files = Vec::new();
        for disk in &newest.disks {
            let located = self.roles.locate(&disk.source);
            let (location, _) =
                located.map_err(|e| e.context(format!("disk {}: no way back", disk.key)))?;
            if let Location::File { path, .. } = location {
                files.push((disk.source.clone(), path));
            }
        }
        let volumes = volumes_of(&newest);
        let number = self.reserve(handover, &volumes)?;
        Ok(WayBack {
            reserved: Some((number, volumes)),
            files,
        })
    }

    fn reserve(&self, handover: &Handover, volumes: &[String]) -> Result<u64> {
        let (layout, epoch) = (self.context.layout, handover.epoch);
        replica::reserve(layout, self.roles, handover.reverse, epoch, volumes)
            .map(|(number, _)| number)
    }

    /// Ends the VM, and waits until nobody has its disks open.
    fn end_vm(&self, vm: &SourceVm) -> Result<()> {
        match self.options.stop {
            StopMode::Off => self.roles.stop(self.vm)?,
            StopMode::Shutdown => {
                let limit = self.options.shutdown_timeout;
                if !self.roles.shut_down(self.vm, limit)? {
                    return Err(Error::new(
                        Kind::Timeout,
                        format!(
                            "the guest of VM {} has not shut down within {}",
                            self.vm,
                            human_time(limit)
                        ),
                    )
                    .advise(
                        "it was asked to, and may still do so. Give it more time with --shutdown-timeout, or switch it off \
                         with --stop off",
                    ));
                }
            }
        }
        if self.roles.is_running(self.vm)? {
            return Err(Error::new(
                Kind::Busy,
                format!("VM {} still runs after it was stopped", self.vm),
            ));
        }
        let until = Instant::now() + CLOSE_PATIENCE;
        for disk in &vm.disks {
            while let Some(why) = in_use(&disk.source)? {
                if Instant::now() >= until {
                    return Err(why.context(format!("disk {}", disk.spec.key)));
                }
                std::thread::sleep(CLOSE_POLL);
            }
        }
        Ok(())
    }
}

/// Refuses a guest that is to go on elsewhere without a disk that it may have open, as that is left out. Those that are not
/// attached do not matter.
pub(super) fn check_complete(vm: &SourceVm) -> Result<()> {
    let mut attached = vm.excluded.iter();
    match attached.find(|(key, _)| !key.starts_with("unused")) {
        None => Ok(()),
        Some((key, why)) => Err(Error::new(
            Kind::Refused,
            format!("disk {key} of VM {} would be missing there: {why}", vm.id),
        )
        .advise("have it replicated, or move the VM without --live")),
    }
}

fn volumes_of(generation: &Generation) -> Vec<String> {
    generation.disks.iter().map(|d| d.source.clone()).collect()
}

/// Who has a disk open, as an error; `None` if nobody has.
fn in_use(disk: &DiskSource) -> Result<Option<Error>> {
    match disk {
        DiskSource::Lv(id) => Ok(lvm::get(id)?.open.then(|| {
            Error::new(Kind::Busy, format!("{id} is still open"))
                .advise("find out who uses it with fuser or lsblk")
        })),
        DiskSource::Path(path) => {
            // A writer's locks, taken and let go again.
            match open_target(path, TargetOptions::default(), |_| Ok(None)) {
                Ok(_) => Ok(None),
                Err(e) if e.kind() == Kind::Busy => Ok(Some(e)),
                Err(e) => Err(e),
            }
        }
    }
}
