//! `failover`: the replica becomes the VM, because its source is lost.
//!
//! The one thing that must not happen is that both hosts run the VM. Only the source can know whether it does, so it is
//! asked first; while it answers, and has not given the VM up itself, nothing is done unless somebody has made sure by
//! other means: a command that cuts it off, or a person who types the VM's name.

use super::messages::Position;
use crate::cli::units::human_time;
use crate::cli::Reporter;
use crate::clock;
use crate::cmd;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::RoleHypervisor;
use crate::journal::{Beginning, Journal, Run, Side, State};
use crate::replica::{
    list_generations, pending_take_over, read_json, take_over, Generation, Layout, Role, TakeOver,
    TargetPair,
};
use crate::runbook::Runbook;
use jiff::Timestamp;
use serde_json::json;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

/// What is known of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// Its agent was asked.
    Says(Position),
    /// It is up, but could not be asked: why.
    Answers(String),
    /// Nothing comes back from it: what was tried.
    Silent(String),
    /// It could not be found out: why.
    Unknown(String),
}

/// A command that makes sure that the source does not run the VM any more.
#[derive(Debug, Clone)]
pub struct Fence {
    /// The program's absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Longest time it may take.
    pub limit: Duration,
}

/// What to fail over, and how.
#[derive(Debug, Clone)]
pub struct FailoverOptions {
    /// The VM's id, here or at the source.
    pub vm: String,
    /// Number of the generation; the newest if `None`.
    pub generation: Option<u64>,
    /// Start the VM.
    pub start: bool,
    /// Only tell.
    pub dry_run: bool,
    /// Cuts the source off.
    pub fence: Option<Fence>,
    /// The VM's name, typed by somebody who knows that it does not run elsewhere.
    pub sure: Option<String>,
}

/// Where a failover happens, and whom it asks.
pub struct Failover<'a> {
    /// State on this host.
    pub layout: &'a Layout,
    /// This host's hypervisor.
    pub hypervisor: &'a dyn RoleHypervisor,
    /// Who is told.
    pub reporter: &'a Reporter,
    /// Finds out about the source of a pair.
    pub source: &'a dyn Fn(&TargetPair) -> SourceState,
    /// The VM's name by a generation's configuration.
    pub name_of: &'a dyn Fn(&Generation) -> Option<String>,
}

/// What it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedOver {
    /// The VM's id here.
    pub vm: String,
    /// Number of the generation that it was made from.
    pub generation: u64,
    /// The epoch that began with it.
    pub epoch: u64,
    /// Whether it runs now.
    pub running: bool,
}

/// Whether the VM may be started here.
enum Decision {
    /// It may: why.
    Safe(String),
    /// It runs elsewhere, or may: why.
    Unsafe(String),
}

/// What is about to be done.
struct Plan {
    pair: TargetPair,
    generation: Generation,
    name: String,
    order: TakeOver,
    source: SourceState,
    decision: Decision,
    now: Timestamp,
}

impl Failover<'_> {
    /// Makes the replica the VM, and starts it. `None` after a dry run.
    pub fn run(&self, options: &FailoverOptions) -> Result<Option<FailedOver>> {
        let plan = self.plan(options)?;
        self.tell_plan(&plan);
        if let Some(sure) = &options.sure {
            if *sure != plan.name {
                return Err(Error::new(
                    Kind::Usage,
                    format!("the VM's name is {:?}, not {sure:?}", plan.name),
                )
                .advise("nothing was changed; look whether this is the VM that you mean"));
            }
        }
        if options.dry_run {
            return Ok(None);
        }
        let (journal, note) = Journal::open(&self.layout.journal())?;
        self.reporter.notes(&note);
        let run = journal.begin(&Beginning {
            id: Uuid::new_v4(),
            side: Side::Target,
            vm: &plan.pair.vm,
            name: &plan.name,
            peer: &plan.pair.source_name,
        })?;
        match self.carry_out(&run, &plan, options) {
            Ok(done) => {
                run.end(None)?;
                Ok(Some(done))
            }
            Err(e) => Err(run.fail(e)),
        }
    }

    fn carry_out(&self, run: &Run, plan: &Plan, options: &FailoverOptions) -> Result<FailedOver> {
        run.is_of(plan.pair.pair, plan.pair.source_host)?;
        run.enter(State::Plan)?;
        self.make_sure(run, plan, options)?;
        run.enter(State::HandOver)?;
        let taken = take_over(self.layout, self.hypervisor, &plan.order)?;
        self.reporter.notes(&taken.notes);
        let vm = &plan.pair.target_vm;
        self.reporter.say(
            format!(
                "VM {vm} is taken over from generation {}: this host is primary in epoch {}",
                taken.generation.name(),
                plan.order.epoch
            ),
            json!({
                "event": "taken-over",
                "vm": vm,
                "pair": plan.pair.pair,
                "generation": taken.generation.name(),
                "epoch": plan.order.epoch,
            }),
        );
        if options.start {
            run.enter(State::Start)?;
            self.hypervisor.start(vm).map_err(|e| {
                e.context(format!(
                    "VM {vm} was taken over, but could not be started; when that is put right, run this again"
                ))
            })?;
        }
        let done = FailedOver {
            vm: vm.clone(),
            generation: taken.generation.number,
            epoch: plan.order.epoch,
            running: self.hypervisor.is_running(vm)?,
        };
        self.tell_end(plan, &done);
        Ok(done)
    }

    fn plan(&self, options: &FailoverOptions) -> Result<Plan> {
        let (pair, mut generations) = self.choose(&options.vm)?;
        // Announced, so the take-over finishes it first.
        generations.extend(read_json::<Generation>(&self.layout.sealing(pair.pair))?);
        generations.sort_by_key(|g| (g.epoch, g.number));
        generations.dedup_by_key(|g| g.number);
        let pending = pending_take_over(self.layout, pair.pair)?;
        let again = pair.standing.role == Role::Primary;
        if !again && pair.standing.role != Role::Replica {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "this host is {} for VM {} since epoch {}, so there is nothing to fail over to",
                    pair.standing.role, pair.target_vm, pair.standing.epoch
                ),
            )
            .advise("'status' on both hosts tells the roles; the newest epoch counts")
            .see(Runbook::SplitBrain));
        }
        let wanted = options
            .generation
            .or(pending.as_ref().map(|p| p.generation))
            .or(if again { pair.head } else { None });
        let at = match wanted {
            Some(number) => generations.iter().position(|g| g.number == number),
            None => generations.len().checked_sub(1),
        };
        let generation = at.map(|at| generations.swap_remove(at)).ok_or_else(|| {
            let number = wanted.map_or(String::new(), |n| format!(" {n}"));
            Error::new(
                Kind::NotFound,
                format!("the replica of VM {} has no generation{number}", options.vm),
            )
            .advise("'generations' lists those that there are")
        })?;
        let source = (self.source)(&pair);
        let running = self.hypervisor.is_running(&pair.target_vm)?;
        let decision = decide(&pair, &source, running);
        let order = TakeOver {
            pair: pair.pair,
            generation: generation.number,
            epoch: match (again, pending) {
                (true, _) => pair.standing.epoch,
                (false, Some(pending)) => pending.epoch,
                (false, None) => next_epoch(&pair, &source),
            },
        };
        Ok(Plan {
            name: (self.name_of)(&generation).unwrap_or_else(|| pair.target_vm.clone()),
            pair,
            generation,
            order,
            source,
            decision,
            now: clock::now(),
        })
    }

    /// The replica of `vm`. A VM that went back and forth has left more than one pair: the newest epoch counts.
    fn choose(&self, vm: &str) -> Result<(TargetPair, Vec<Generation>)> {
        let mut found = list_generations(self.layout, Some(vm))?;
        if found.iter().any(|(pair, _)| pair.target_vm == vm) {
            found.retain(|(pair, _)| pair.target_vm == vm);
        }
        found.sort_by_key(|(pair, _)| pair.standing.epoch);
        let Some(newest) = found.pop() else {
            return Err(Error::new(
                Kind::NotFound,
                format!("there is no replica of VM {vm} on this host"),
            )
            .advise("run this on the host that keeps it; 'generations' lists what a host keeps"));
        };
        let rival = found.last();
        match rival.filter(|(pair, _)| pair.standing.epoch == newest.0.standing.epoch) {
            None => Ok(newest),
            Some((other, _)) => Err(Error::new(
                Kind::Refused,
                format!(
                    "there is more than one replica of VM {vm} on this host: VM {} of {}, VM {} of {}",
                    newest.0.target_vm, newest.0.source_name, other.target_vm, other.source_name
                ),
            )
            .advise("name it by its id on this host")),
        }
    }

    /// Fails unless the VM does not run elsewhere, or somebody says so.
    fn make_sure(&self, run: &Run, plan: &Plan, options: &FailoverOptions) -> Result<()> {
        let sure = options.sure.is_some();
        match (&plan.decision, &options.fence) {
            // The source was cut off before this host became primary; it may be under repair by now.
            (Decision::Safe(_), _) if plan.pair.standing.role == Role::Primary => Ok(()),
            // It has said itself that it has given the VM up.
            (Decision::Safe(_), _) if matches!(plan.source, SourceState::Says(_)) => Ok(()),
            (_, Some(fence)) => {
                run.enter(State::Fence)?;
                let done = run_fence(fence, plan);
                match done {
                    Err(e) if sure => {
                        self.reporter
                            .note(&format!("gone on with, as you are sure: {e}"));
                        Ok(())
                    }
                    other => other,
                }
            }
            (Decision::Safe(_), None) => Ok(()),
            (Decision::Unsafe(why), None) => match sure {
                true => {
                    self.reporter
                        .note(&format!("gone on with, as you are sure: {why}"));
                    Ok(())
                }
                false => {
                    self.tell_table(plan);
                    Err(Error::new(
                        Kind::Refused,
                        format!("VM {} is not taken over: {why}", plan.pair.target_vm),
                    )
                    .advise(format!(
                        "make sure that it does not run on {} and cut that off with --fence COMMAND, or, if you are \
                         certain, give --i-am-sure {}",
                        plan.pair.source_name, plan.name
                    ))
                    .see(Runbook::SourceHostDead))
                }
            },
        }
    }

    fn tell_plan(&self, plan: &Plan) {
        let generation = &plan.generation;
        let verdict = match &plan.decision {
            Decision::Safe(why) | Decision::Unsafe(why) => why,
        };
        let mut text = format!(
            "VM {} ({}), replica of VM {} on {}: {}, taken {} ago, {}\n  {verdict}",
            plan.pair.target_vm,
            plan.name,
            plan.pair.vm,
            plan.pair.source_name,
            generation.name(),
            human_time(plan.age()),
            generation.consistency,
        );
        for note in &generation.notes {
            text.push_str(&format!("\n  note: {note}"));
        }
        self.reporter.say(
            text,
            json!({
                "event": "failover-plan",
                "vm": plan.pair.target_vm,
                "name": plan.name,
                "pair": plan.pair.pair,
                "standing": plan.pair.standing,
                "generation": generation.name(),
                "taken_at": generation.taken_at,
                "age_s": plan.age().as_secs(),
                "consistency": generation.consistency.to_string(),
                "notes": generation.notes,
                "epoch": plan.order.epoch,
                "safe": matches!(plan.decision, Decision::Safe(_)),
                "why": verdict,
                "source": said(&plan.source),
            }),
        );
    }

    /// What is known, and what follows from it: for whoever has to decide now.
    fn tell_table(&self, plan: &Plan) {
        let (pair, host) = (&plan.pair, &plan.pair.source_name);
        let rows = [
            (
                "this host".to_owned(),
                format!(
                    "{} in epoch {}, generation {} of {} ago",
                    pair.standing.role,
                    pair.standing.epoch,
                    plan.generation.name(),
                    human_time(plan.age())
                ),
            ),
            (host.clone(), said(&plan.source)),
            (
                "if the VM runs there".to_owned(),
                format!("leave it; move it in good order from {host}, with 'migrate'"),
            ),
            (
                format!("if {host} is broken, but up"),
                "cut it off: --fence COMMAND".to_owned(),
            ),
            (
                format!("if {host} is gone for good"),
                format!("--i-am-sure {}", plan.name),
            ),
        ];
        let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
        for (left, right) in rows {
            self.reporter.say(
                format!("  {left:width$}  {right}"),
                json!({"event": "decision", "case": left, "answer": right}),
            );
        }
    }

    fn tell_end(&self, plan: &Plan, done: &FailedOver) {
        let state = match done.running {
            true => "runs",
            false => "is not started",
        };
        self.reporter.say(
            format!(
                "VM {} {state} on this host. Lost is what it wrote after {:.0}: the last {}.\n  When {} is back, do not \
                 start VM {} there; bring it up to date from here with 'failback'.",
                done.vm,
                plan.generation.taken_at,
                human_time(plan.age()),
                plan.pair.source_name,
                plan.pair.vm
            ),
            json!({
                "event": "failed-over",
                "vm": done.vm,
                "pair": plan.pair.pair,
                "generation": plan.generation.name(),
                "epoch": done.epoch,
                "running": done.running,
                "taken_at": plan.generation.taken_at,
                "loss_s": plan.age().as_secs(),
            }),
        );
    }
}

impl Plan {
    /// How old the generation is, by the source's clock and ours.
    fn age(&self) -> Duration {
        let age = self.now.duration_since(self.generation.taken_at).as_secs();
        Duration::from_secs(age.max(0).unsigned_abs())
    }
}

fn decide(pair: &TargetPair, source: &SourceState, runs_here: bool) -> Decision {
    let host = &pair.source_name;
    let ours = pair.standing;
    match source {
        SourceState::Says(theirs) if theirs.running => {
            Decision::Unsafe(format!("{host} says: {}", position_in_words(theirs)))
        }
        // Nothing is left to be decided.
        _ if ours.role == Role::Primary && runs_here => {
            Decision::Safe("it runs on this host already".to_owned())
        }
        SourceState::Says(theirs) => {
            let words = format!("{host} says: {}", position_in_words(theirs));
            match theirs.standing.role {
                Role::Retired if theirs.standing.epoch >= ours.epoch => Decision::Safe(words),
                // It was away when this host took over, and does not know yet.
                _ if ours.role == Role::Primary && theirs.standing.epoch < ours.epoch => {
                    Decision::Safe(words)
                }
                _ => Decision::Unsafe(words),
            }
        }
        SourceState::Answers(how) => Decision::Unsafe(format!("{host} is up: {how}")),
        SourceState::Silent(how) => Decision::Safe(format!("{host} does not answer: {how}")),
        SourceState::Unknown(why) => {
            Decision::Unsafe(format!("it cannot be told whether {host} is up: {why}"))
        }
    }
}

/// One that is newer than all that either host has seen.
fn next_epoch(pair: &TargetPair, source: &SourceState) -> u64 {
    let ours = pair.standing.epoch + 1;
    match source {
        // It has begun this very change of roles.
        SourceState::Says(p) if p.standing.role == Role::Retired => ours.max(p.standing.epoch),
        SourceState::Says(p) => ours.max(p.standing.epoch + 1),
        _ => ours,
    }
}

fn position_in_words(position: &Position) -> String {
    let runs = match position.running {
        true => "runs",
        false => "does not run",
    };
    format!(
        "{} in epoch {}, VM {} {runs} there",
        position.standing.role, position.standing.epoch, position.vm
    )
}

fn said(source: &SourceState) -> String {
    match source {
        SourceState::Says(position) => position_in_words(position),
        SourceState::Answers(how) => format!("up, but it could not be asked: {how}"),
        SourceState::Silent(how) => format!("silent: {how}"),
        SourceState::Unknown(why) => format!("not known: {why}"),
    }
}

fn run_fence(fence: &Fence, plan: &Plan) -> Result<()> {
    let told = [
        ("RBLOCKSYNC_SOURCE", plan.pair.source_name.as_str()),
        ("RBLOCKSYNC_VM", plan.pair.vm.as_str()),
    ];
    let ended = cmd::run_named(&fence.program, &fence.arguments, &told, fence.limit);
    ended
        .and_then(|output| output.check("the fence command"))
        .map_err(|e| {
            e.advise(format!(
                "{} may still run the VM, so nothing was changed here",
                plan.pair.source_name
            ))
        })
}
