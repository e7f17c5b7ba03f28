//! Moving a VM to the host that keeps its replica, with a downtime that was agreed to before.
//!
//! Rounds of syncs while it runs; then it is shut down, what is left is sent, and it is handed over ([`super::handover`]).
//! All of it under the VM's lock. What has been begun is kept in a file, so that the same command, run again after it was
//! cut off, finishes it.

use super::converge::{self, Goal, Next, Round};
use super::handover::{decisions, HandedOver, Handing, Handover, Health};
use super::messages::HostRequest;
use super::sync::{self, beginning, open_journal, sync_holding};
use super::vm::{Context, Sent, SourceVm, SyncOptions, SyncOutcome};
use crate::cli::units::{human, human_time};
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{HostDescription, RoleHypervisor};
use crate::image::{open_target, TargetOptions};
use crate::journal::State;
use crate::lock::Lock;
use crate::lvm;
use crate::replica::{self, source_pair, Generation, Role, SourcePair};
use crate::snapshot::{Consistency, DiskSource, VmRuntime};
use serde_json::json;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long devices may stay open after their VM has ended.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
const CLOSE_POLL: Duration = Duration::from_millis(100);
/// Pauses between attempts to reach a target that was told to take over, or is about to be.
const REACH_POLL: Duration = Duration::from_secs(2);

/// How the VM is brought to an end before it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StopMode {
    /// Its guest is asked to shut down.
    Shutdown,
    /// It is switched off: its guest sees that as a power cut.
    Off,
}

/// How to migrate.
#[derive(Debug, Clone)]
pub struct MigrateOptions {
    /// How long the last sync may be expected to take.
    pub downtime_max: Duration,
    /// How the VM is ended.
    pub stop: StopMode,
    /// How long its guest may take for that.
    pub shutdown_timeout: Duration,
    /// Most syncs of the running VM.
    pub rounds_max: u32,
    /// How its health is found out.
    pub health: Health,
    /// Do not start it there.
    pub no_start: bool,
}

/// Reads anew what the VM is, and how to get at it.
pub type Look<'a> = &'a dyn Fn() -> Result<(SourceVm, VmRuntime)>;

/// A VM of this host that is to go to another one, or to come back from it.
pub struct Migration<'a> {
    /// Where everything is.
    pub context: &'a Context<'a>,
    /// The front end's program, which is also the agent's.
    pub program: &'static str,
    /// The VM's id here.
    pub vm: &'a str,
    /// This host's hypervisor.
    pub roles: &'a dyn RoleHypervisor,
    /// What the VM is.
    pub look: Look<'a>,
    /// Refuses a VM that cannot be moved for a reason of this hypervisor's; notes for the user.
    pub fitness: &'a dyn Fn() -> Result<Vec<String>>,
    /// How to sync.
    pub sync: &'a SyncOptions,
    /// How to migrate.
    pub options: &'a MigrateOptions,
}

/// What the last part of a migration has come to.
struct Figures {
    rounds: usize,
    stop: Duration,
    last: Option<SyncOutcome>,
    asked_at: Option<Instant>,
    moved: Sent,
}

/// Moves the VM to the context's host, or finishes what was cut off.
pub fn migrate(migration: &Migration) -> Result<()> {
    if migration.sync.dry_run {
        return migration.tell_what_would_be();
    }
    let lock = sync::lock(migration.context, migration.vm)?;
    migrate_holding(migration, &lock)
}

/// The same for somebody who holds the VM's lock.
pub(super) fn migrate_holding(migration: &Migration, lock: &Lock) -> Result<()> {
    in_journal(migration, |handing| migration.run(handing, lock))
}

/// Takes back a VM that was given up, or about to be, and has not been taken over. `is_lost`: somebody says that the other
/// host will never run it.
pub fn undo_migrate(migration: &Migration, is_lost: bool) -> Result<()> {
    let _lock = sync::lock(migration.context, migration.vm)?;
    let layout = migration.context.layout;
    let Some(mut handover) = Handover::pending(layout, migration.vm)? else {
        return Err(Error::new(
            Kind::NotFound,
            format!(
                "no migration of VM {} was begun and not finished",
                migration.vm
            ),
        )
        .advise("a VM that has gone comes back with 'failback', run on the host where it is"));
    };
    in_journal(migration, |handing| {
        handing.run.enter(State::Start)?;
        handing.take_back(&mut handover, is_lost)
    })
}

fn in_journal<T>(migration: &Migration, act: impl FnOnce(&Handing) -> Result<T>) -> Result<T> {
    let context = migration.context;
    let journal = open_journal(context)?;
    let run = journal.begin(&beginning(context, migration.vm, ""))?;
    let handing = Handing {
        context,
        program: migration.program,
        vm: migration.vm,
        roles: migration.roles,
        health: &migration.options.health,
        hash: migration.sync.tuning.hash,
        run: &run,
    };
    let result = act(&handing);
    sync::finish(run, result)
}

impl Migration<'_> {
    fn say(&self, text: String, event: serde_json::Value) {
        self.context.reporter.say(text, event);
    }

    /// A dry run: what the first sync would do, and whether the VM may go at all.
    fn tell_what_would_be(&self) -> Result<()> {
        let notes = (self.fitness)()?;
        let (vm, runtime) = (self.look)()?;
        sync::sync(self.context, &vm, runtime, self.sync)?;
        notes
            .iter()
            .for_each(|note| self.context.reporter.note(note));
        let stop = match self.options.stop {
            StopMode::Shutdown => "shut down",
            StopMode::Off => "switched off",
        };
        self.say(
            format!(
                "  then: syncs until the last one is expected to take at most {}, VM {} {stop} here, the rest sent, started on {}",
                human_time(self.options.downtime_max),
                self.vm,
                self.context.host
            ),
            json!({"event": "plan-line"}),
        );
        Ok(())
    }

    fn run(&self, handing: &Handing, lock: &Lock) -> Result<()> {
        handing.run.enter(State::Plan)?;
        let layout = self.context.layout;
        let mut figures = Figures {
            rounds: 0,
            stop: Duration::ZERO,
            last: None,
            asked_at: None,
            moved: Sent::default(),
        };
        let pending = Handover::pending(layout, self.vm)?;
        if let Some(mut handover) = pending {
            self.check_same_target(handing, &handover)?;
            if handover.undoing {
                return Err(Error::new(
                    Kind::Refused,
                    format!(
                        "VM {} is being taken back from {}",
                        self.vm, handover.target_name
                    ),
                )
                .advise("finish that with --undo"));
            }
            let retired = handover.is_retired(layout, self.vm)?;
            self.say(
                match retired {
                    true => format!("  VM {} was given up already: going on from there", self.vm),
                    false => "  a migration that was cut off is gone on with".to_owned(),
                },
                json!({"event": "cut-off-migration", "vm": self.vm, "retired": retired}),
            );
            if !retired {
                if self.roles.is_running(self.vm)? {
                    self.converge(&mut figures, lock)?;
                }
                handover = self.cut(handing, Some(handover), &mut figures, lock)?;
            }
            return self.hand_over(handing, handover, figures);
        }
        let notes = (self.fitness)()?;
        notes
            .iter()
            .for_each(|note| self.context.reporter.note(note));
        if self.roles.is_running(self.vm)? {
            self.converge(&mut figures, lock)?;
        }
        let handover = self.cut(handing, None, &mut figures, lock)?;
        self.hand_over(handing, handover, figures)
    }

    fn check_same_target(&self, handing: &Handing, handover: &Handover) -> Result<()> {
        let asked = handing.with_target(|client| {
            client.host::<_, HostDescription>(&HostRequest::Describe { keep: false })
        });
        match asked {
            Ok(host) if host.id == handover.target => Ok(()),
            Ok(host) => Err(Error::new(
                Kind::Refused,
                format!(
                    "a migration of VM {} to {} was begun, and {} is another host",
                    self.vm, handover.target_name, host.name
                ),
            )
            .advise("finish that one, or take the VM back with --undo")),
            Err(e) if handover.is_retired(self.context.layout, self.vm)? => {
                Err(self.held(handover, e))
            }
            Err(e) if handover.undoing => Err(e),
            Err(e) => Err(match handing.start_again(handover) {
                Ok(()) => e,
                Err(also) => e.followed_by(also),
            }),
        }
    }

    /// Syncs the running VM until the rest is small enough.
    fn converge(&self, figures: &mut Figures, lock: &Lock) -> Result<()> {
        let goal = Goal {
            downtime_max: self.options.downtime_max,
            rounds_max: self.options.rounds_max,
        };
        let mut rounds = Vec::new();
        loop {
            let outcome = self.sync_once(lock)?;
            let round = Round::of(&outcome);
            figures.add(&outcome);
            rounds.push(round);
            self.say(
                format!(
                    "round {}: {}; with the VM off it would take about {}",
                    rounds.len(),
                    round.told(),
                    human_time(round.predicted())
                ),
                json!({
                    "event": "round",
                    "round": rounds.len(),
                    "sent": round.sent,
                    "seconds": round.took.as_secs_f64(),
                    "predicted_s": round.predicted().as_secs_f64(),
                }),
            );
            figures.rounds = rounds.len();
            self.context.stop.check()?;
            if converge::next(&rounds, &goal, self.vm)? == Next::Cut {
                return Ok(());
            }
        }
    }

    fn sync_once(&self, lock: &Lock) -> Result<SyncOutcome> {
        let (vm, runtime) = (self.look)()?;
        // What is kept of it makes the next round short, and is the way back afterwards.
        let options = SyncOptions {
            keep_base: true,
            ..self.sync.clone()
        };
        sync_holding(self.context, &vm, runtime, &options, lock)
    }

    /// Up to the point of no return: the VM off, all of it on the target. Whatever fails, the VM runs here as it did.
    fn cut(
        &self,
        handing: &Handing,
        begun: Option<Handover>,
        figures: &mut Figures,
        lock: &Lock,
    ) -> Result<Handover> {
        let mut kept = begun;
        let result = self.try_cut(handing, &mut kept, figures, lock);
        match (result, kept) {
            (Ok(handover), _) => Ok(handover),
            (Err(e), Some(handover)) if !handover.is_retired(self.context.layout, self.vm)? => {
                Err(match handing.start_again(&handover) {
                    Ok(()) => e,
                    Err(also) => e.followed_by(also).advise(format!(
                        "VM {} is still this host's, and is off: look why it does not start",
                        self.vm
                    )),
                })
            }
            (Err(e), Some(handover)) => Err(self.held(&handover, e)),
            (Err(e), None) => Err(e),
        }
    }

    fn try_cut(
        &self,
        handing: &Handing,
        kept: &mut Option<Handover>,
        figures: &mut Figures,
        lock: &Lock,
    ) -> Result<Handover> {
        let layout = self.context.layout;
        let running = self.roles.is_running(self.vm)?;
        if running {
            if kept.is_none() {
                // Known of, since it was synced.
                *kept = Some(self.begin(handing, true)?);
            }
            if let Some(handover) = kept {
                handover.runs = true;
                handover.keep(layout, self.vm)?;
            }
            crash::point("handover begun");
            handing.run.enter(State::Stop)?;
            let asked = Instant::now();
            figures.asked_at = Some(asked);
            self.end_vm()?;
            figures.stop = asked.elapsed();
        }
        crash::point("stopped");
        let outcome = self.sync_once(lock)?;
        figures.add(&outcome);
        let Some(generation) = &outcome.generation else {
            return Err(Error::new(Kind::Protocol, "the last sync sealed nothing"));
        };
        if generation.consistency != Consistency::Offline || self.roles.is_running(self.vm)? {
            return Err(Error::new(
                Kind::Busy,
                format!(
                    "VM {} was started while it was synced for the last time",
                    self.vm
                ),
            )
            .advise("run again"));
        }
        crash::point("last sync");
        let mut handover = match kept.take() {
            Some(handover) => handover,
            None => self.begin(handing, false)?,
        };
        handover.sealed = Some((generation.number, self.reserve(&handover, generation)?));
        // So that an error from here on undoes it.
        *kept = Some(handover.clone());
        replica::note_written(layout, self.roles, self.vm, handover.target, generation)?;
        handover.keep(layout, self.vm)?;
        figures.last = Some(outcome);
        crash::point("handover kept");
        handing.retire(&handover)?;
        Ok(handover)
    }

    /// What is needed to know before the VM is touched.
    fn begin(&self, handing: &Handing, runs: bool) -> Result<Handover> {
        let layout = self.context.layout;
        let target: HostDescription =
            handing.with_target(|client| client.host(&HostRequest::Describe { keep: true }))?;
        let pair: Option<SourcePair> = source_pair(layout, self.vm, target.id)?;
        let Some(pair) = pair else {
            return Err(Error::new(
                Kind::NotFound,
                format!("VM {} was never synced to {}", self.vm, target.name),
            ));
        };
        let newest = replica::newest_sent(layout, self.vm, target.id)?;
        let position: super::messages::Position = handing
            .with_target(|client| client.host(&HostRequest::Position { pair: pair.pair }))?;
        if position.standing.role != Role::Replica || newest.is_none() {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "{} is {} for VM {} since epoch {}",
                    target.name, position.standing.role, self.vm, position.standing.epoch
                ),
            ));
        }
        // What stays behind becomes a replica. That it cannot is to be found out while the VM runs.
        for disk in newest.iter().flat_map(|newest| &newest.disks) {
            let located = self.roles.locate(&disk.source);
            located.map_err(|e| e.context(format!("disk {}: no way back", disk.key)))?;
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
            sealed: None,
            started: false,
            undoing: false,
        })
    }

    fn reserve(&self, handover: &Handover, generation: &Generation) -> Result<u64> {
        let volumes: Vec<String> = generation.disks.iter().map(|d| d.source.clone()).collect();
        let (layout, epoch) = (self.context.layout, handover.epoch);
        replica::reserve(layout, self.roles, handover.reverse, epoch, &volumes)
            .map(|(number, _)| number)
    }

    /// Ends the VM, and waits until nobody has its disks open.
    fn end_vm(&self) -> Result<()> {
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
        let (vm, _) = (self.look)()?;
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

    /// From the point of no return on: goes forward, and tries again for a while when the target cannot be reached.
    fn hand_over(&self, handing: &Handing, mut handover: Handover, figures: Figures) -> Result<()> {
        let until = Instant::now() + self.sync.retry_for;
        let done = loop {
            let done = handing.with_target(|client| handing.go_on(&mut handover, client));
            match done {
                Err(e)
                    if matches!(e.kind(), Kind::Remote | Kind::Timeout)
                        && Instant::now() < until
                        && !self.context.stop.is_stopped() =>
                {
                    self.context.reporter.note(&format!(
                        "{} is not to be reached: {}; trying again",
                        handover.target_name,
                        e.message()
                    ));
                    std::thread::sleep(REACH_POLL);
                }
                done => break done,
            }
        };
        match done {
            Ok(done) => self.tell(&handover, &figures, done),
            Err(e) if handover.started => Err(e),
            Err(e) => Err(self.held(&handover, e)),
        }
    }

    fn held(&self, handover: &Handover, error: Error) -> Error {
        let table = decisions(self.vm, &handover.target_name);
        self.say(
            table.clone(),
            json!({"event": "held", "vm": self.vm, "target": handover.target_name, "decisions": table}),
        );
        error
            .context(format!(
                "VM {} was given up here, and {} may not have taken it over yet; nothing was started",
                self.vm, handover.target_name
            ))
            .advise("run the same command again, or with --undo")
    }

    fn tell(&self, handover: &Handover, figures: &Figures, done: HandedOver) -> Result<()> {
        let HandedOver {
            times,
            adopted,
            compared,
            ill,
        } = done;
        for note in &adopted.notes {
            self.context.reporter.note(note);
        }
        for key in &compared {
            self.context.reporter.note(&format!(
                "{key}: the first sync back has to compare all of it"
            ));
        }
        let downtime = match (figures.asked_at, times.running_at) {
            (Some(from), Some(to)) => Some(to.duration_since(from)),
            _ => None,
        };
        let steps = figures.last.as_ref().map(|last| last.steps.clone());
        let steps = steps.unwrap_or_default();
        let sync: Duration = steps.iter().map(|(_, took)| *took).sum();
        let sync_parts: Vec<String> = steps
            .iter()
            .map(|(state, took)| format!("{} {}", state.name(), human_time(*took)))
            .collect();
        let what = match downtime {
            Some(downtime) => format!(", {} of downtime", human_time(downtime)),
            None if handover.started => ", started".to_owned(),
            None => ", not started".to_owned(),
        };
        self.say(
            format!(
                "VM {} is on {} now as VM {}{what}\n  stop {}, sync {} ({}), flip {}, start {}, health {}; {} changed in all, {} on the wire",
                self.vm,
                handover.target_name,
                handover.target_vm,
                human_time(figures.stop),
                human_time(sync),
                sync_parts.join(", "),
                human_time(times.flip),
                human_time(times.start),
                human_time(times.health),
                human(figures.moved.changed),
                human(figures.moved.wire),
            ),
            json!({
                "event": "migrated",
                "vm": self.vm,
                "target": handover.target_name,
                "target_vm": handover.target_vm,
                "epoch": handover.epoch,
                "rounds": figures.rounds,
                "started": handover.started,
                "downtime_s": downtime.map(|d| d.as_secs_f64()),
                "stop_s": figures.stop.as_secs_f64(),
                "sync_s": sync.as_secs_f64(),
                "sync_steps": steps.iter().map(|(state, took)| json!({"step": state.name(), "seconds": took.as_secs_f64()})).collect::<Vec<_>>(),
                "flip_s": times.flip.as_secs_f64(),
                "start_s": times.start.as_secs_f64(),
                "health_s": times.health.as_secs_f64(),
                "sent": figures.moved,
                "way_back": adopted.generation.name(),
                "read_again": adopted.read,
                "healthy": ill.is_none(),
            }),
        );
        match ill {
            None => Ok(()),
            Some(e) => Err(e
                .context(format!(
                    "VM {} was moved to {}, but does not do well there",
                    self.vm, handover.target_name
                ))
                .advise(format!(
                    "it stays there, as its guest may have written. To bring it back, run there: {} failback {} --to {}",
                    self.program,
                    handover.target_vm,
                    self.roles.describe().map_or_else(|_| "HOST".into(), |(_, here)| here)
                ))),
        }
    }
}

impl Figures {
    fn add(&mut self, outcome: &SyncOutcome) {
        self.moved.changed += outcome.sent.changed;
        self.moved.compared += outcome.sent.compared;
        self.moved.wire += outcome.sent.wire;
    }
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
