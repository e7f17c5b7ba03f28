//! Moving a VM to the host that keeps its replica, with a downtime that was agreed to before.
//!
//! Rounds of syncs while it runs; then it is shut down, what is left is sent, and it is handed over ([`super::handover`]).
//! All of it under the VM's lock. What has been begun is kept in a file, so that the same command, run again after it was
//! cut off, finishes it.

use super::converge::{self, Goal, Next, Round};
use super::handover::{decisions, Handing, Handover, Times};
use super::health::Health;
use super::live::Live;
use super::messages::HostRequest;
use super::sync::{self, beginning, open_journal, sync_holding};
use super::vm::{Context, Sent, SourceVm, SyncOptions, SyncOutcome};
use crate::cli::units::human_time;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{HostDescription, RoleHypervisor};
use crate::journal::State;
use crate::lock::Lock;
use crate::runbook::Runbook;
use crate::snapshot::VmRuntime;
use serde_json::json;
use std::time::{Duration, Instant};

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
    /// Its guest is not ended, but paused, and goes on there.
    pub live: bool,
    /// It is paused for that, also where it need not be.
    pub pause: bool,
    /// How long it may be paused for that at the most; then it goes on here.
    pub pause_max: Duration,
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
    /// What is needed to move it while it runs, if this program can do that.
    pub live: Option<Live<'a>>,
    /// What the VM is.
    pub look: Look<'a>,
    /// The second half of that: how to get at it now.
    pub runtime: &'a dyn Fn() -> Result<VmRuntime>,
    /// Refuses a VM that cannot be moved for a reason of this hypervisor's; notes for the user.
    pub fitness: &'a dyn Fn() -> Result<Vec<String>>,
    /// How to sync.
    pub sync: &'a SyncOptions,
    /// How to migrate.
    pub options: &'a MigrateOptions,
}

/// What a migration has come to.
#[derive(Default)]
pub(super) struct Figures {
    pub rounds: usize,
    /// How long it took to end or pause the VM.
    pub stop: Duration,
    /// How long the rest is expected to take while the VM stands still, by the last round.
    pub predicted: Duration,
    /// The last sync, up to the seal.
    pub last: Option<SyncOutcome>,
    /// Since when the VM is on its way down.
    pub asked_at: Option<Instant>,
    pub moved: Sent,
    pub times: Times,
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
        live: migration.live.map(|live| live.hypervisor),
        health: &migration.options.health,
        hash: migration.sync.tuning.hash,
        run: &run,
    };
    let result = act(&handing);
    sync::finish(run, result)
}

impl Migration<'_> {
    pub(super) fn say(&self, text: String, event: serde_json::Value) {
        self.context.reporter.say(text, event);
    }

    /// A dry run: what the first sync would do, and whether the VM may go at all.
    fn tell_what_would_be(&self) -> Result<()> {
        let notes = (self.fitness)()?;
        self.live_of(None)?;
        self.memory_time(None)?;
        let (vm, runtime) = (self.look)()?;
        sync::sync(self.context, &vm, runtime, &self.sync_options())?;
        self.context.reporter.notes(&notes);
        let stop = match self.options.stop {
            _ if self.options.live => "paused",
            StopMode::Shutdown => "shut down",
            StopMode::Off => "switched off",
        };
        self.say(
            format!(
                "  then: syncs until the last one is expected to take at most {}, VM {} {stop} here, the rest sent, {} on {}",
                human_time(self.options.downtime_max),
                self.vm,
                if self.options.live { "going on" } else { "started" },
                self.context.host
            ),
            json!({"event": "plan-line"}),
        );
        Ok(())
    }

    fn run(&self, handing: &Handing, lock: &Lock) -> Result<()> {
        handing.run.enter(State::Plan)?;
        let layout = self.context.layout;
        let mut figures = Figures::default();
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
                self.live_of(Some(&handover))?;
                self.settle_left()?;
                if self.roles.is_running(self.vm)? {
                    self.converge(&mut figures, lock)?;
                }
                handover = self.cut(handing, Some(handover), &mut figures, lock)?;
                return self.hand_over(handing, handover, figures);
            }
            self.sweep_left();
            if self.finish(handing, &mut handover, &mut figures)? {
                return Ok(());
            }
            figures = Figures::default();
        }
        self.settle_left()?;
        let notes = (self.fitness)()?;
        self.context.reporter.notes(&notes);
        if self.options.live && self.options.no_start {
            return Err(Error::new(
                Kind::Usage,
                "a guest that is moved while it runs cannot be left off",
            ));
        }
        if self.live_of(None)?.is_some() {
            // Before anything is sent.
            super::cut::check_complete(&(self.look)()?.0)?;
        }
        if self.roles.is_running(self.vm)? {
            self.memory_time(None)?;
            self.converge(&mut figures, lock)?;
        }
        let handover = self.cut(handing, None, &mut figures, lock)?;
        self.hand_over(handing, handover, figures)
    }

    /// What a sync has left that was cut off behind its seal. Nobody else would look for it on a host that has given the VM up.
    fn sweep_left(&self) {
        let swept =
            (self.look)().and_then(|(vm, _)| sync::sweep_left(self.context, &vm, self.sync));
        if let Err(e) = swept {
            self.context.reporter.note(&e.message());
        }
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
            figures.predicted = round.predicted();
            self.context.stop.check()?;
            let memory = self.memory_time(Some(&round))?;
            if memory > self.options.downtime_max {
                return Err(Error::new(
                    Kind::Timeout,
                    format!(
                        "the memory of VM {} alone is expected to take {}, and it is paused meanwhile",
                        self.vm,
                        human_time(memory)
                    ),
                )
                .advise("it runs on here. Allow more with --max-downtime and --pause-max, or move it without --live"));
            }
            let goal = Goal {
                downtime_max: match self.may_seed() {
                    true => Duration::MAX,
                    false => self.options.downtime_max.saturating_sub(memory),
                },
                rounds_max: self.options.rounds_max,
            };
            if converge::next(&rounds, &goal, self.vm)? == Next::Cut {
                return Ok(());
            }
        }
    }

    fn sync_once(&self, lock: &Lock) -> Result<SyncOutcome> {
        let (vm, runtime) = (self.look)()?;
        sync_holding(self.context, &vm, runtime, &self.sync_options(), lock)
    }

    /// The rest, with the VM given up a moment ago.
    fn hand_over(
        &self,
        handing: &Handing,
        mut handover: Handover,
        mut figures: Figures,
    ) -> Result<()> {
        match self.finish(handing, &mut handover, &mut figures)? {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Remote,
                format!(
                    "{} has lost the memory of VM {}, so the VM was taken back",
                    handover.target_name, self.vm
                ),
            )
            .advise("it runs on here: run again")),
        }
    }

    /// From the point of no return on: goes forward, and tries again for a while when the target cannot be reached. False:
    /// there is no guest any more to go on there, and the one here does instead.
    fn finish(
        &self,
        handing: &Handing,
        handover: &mut Handover,
        figures: &mut Figures,
    ) -> Result<bool> {
        let until = Instant::now() + self.sync.retry_for;
        let done = loop {
            let times = &mut figures.times;
            let done = handing.with_target(|client| handing.go_on(handover, client, times));
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
            Ok(done) => self.tell(handover, figures, done).map(|()| true),
            Err(e) if handover.started => Err(e),
            // The guest is paused here with all that it has, and is not to wait for somebody to look.
            Err(e) if handover.live && !matches!(e.kind(), Kind::Remote | Kind::Timeout) => {
                self.context.reporter.note(&e.message());
                match handing.take_back(handover, false) {
                    Ok(()) if e.kind() == Kind::NotFound => Ok(false),
                    Ok(()) => Err(e.context(format!("VM {} was taken back", self.vm))),
                    Err(also) => Err(self.held(handover, e.followed_by(also))),
                }
            }
            Err(e) => Err(self.held(handover, e)),
        }
    }

    pub(super) fn held(&self, handover: &Handover, error: Error) -> Error {
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
            .see(Runbook::MigrationInterrupted)
    }
}

impl Figures {
    pub(super) fn add(&mut self, outcome: &SyncOutcome) {
        self.moved.changed += outcome.sent.changed;
        self.moved.compared += outcome.sent.compared;
        self.moved.wire += outcome.sent.wire;
    }
}
