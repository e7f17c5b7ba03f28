//! What a host asks before it starts its VMs: was one of them taken over elsewhere while this host was away?
//!
//! A host that comes back after an outage does not know of a failover. Its VM would start, and run twice. So for every VM
//! that this host is primary for the other hosts of its pairs are asked what they are. One that is primary in a newer
//! epoch has the VM: this host gives it up, durably. One that says something which cannot be, or a newer change of roles
//! that this host knows nothing of, keeps the VM off until somebody decides. One that cannot be asked is a matter of
//! policy: only people know whether it is worse for them if the VM is off, or if it runs twice.
//!
//! No VM that runs is ever taken down. What may not start is kept off by the guard, which outlives this process.

use super::messages::Position;
use crate::cli::Reporter;
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::RoleHypervisor;
use crate::journal::{Beginning, Journal, Side, State};
use crate::lock::Lock;
use crate::replica::{
    guard_of, read_json, retire, set_guard, source_pairs, source_pairs_to, source_vms,
    target_pairs, Generation, Layout, Role, SourcePair, Standing, TargetPair,
};
use crate::runbook::Runbook;
use serde::Serialize;
use serde_json::json;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

/// How long a run that is busy with the VM is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// What is done about a VM whose other hosts cannot all be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Unreachable {
    /// It may start: a host that is alone must be able to.
    Start,
    /// It is kept off until they have answered, or somebody decides.
    Hold,
}

/// A question to another host: what are you for this pair?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The pair.
    pub pair: Uuid,
    /// The other host's id.
    pub host_id: Uuid,
    /// Its name.
    pub host: String,
    /// How it is reached.
    pub address: String,
    /// Which end of the pair this host is.
    pub side: Side,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has answered.
    Says(Position),
    /// It could not be asked, or knows nothing of the pair: why.
    Unasked(String),
}

/// Which VMs to check, and how.
#[derive(Debug, Clone)]
pub struct BootOptions {
    /// Only these; all if empty.
    pub vms: Vec<String>,
    /// What happens if a host cannot be asked.
    pub unreachable: Unreachable,
    /// VMs of which somebody is sure that they run nowhere else.
    pub sure: BTreeSet<String>,
    /// Only tell.
    pub dry_run: bool,
}

/// Where VMs are about to start, and who is asked.
pub struct BootCheck<'a> {
    /// The front end's program, as it is called in advice.
    pub program: &'static str,
    /// State on this host.
    pub layout: &'a Layout,
    /// This host's hypervisor.
    pub hypervisor: &'a dyn RoleHypervisor,
    /// Who is told.
    pub reporter: &'a Reporter,
    /// What tells a VM from another one that gets its id later, by its configuration.
    pub identity_of: &'a dyn Fn(&str) -> Option<String>,
    /// Asks all of it, within its own limit of time. One answer for each question.
    pub ask: &'a dyn Fn(&[Question]) -> Vec<Answer>,
}

/// What may become of a VM here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It may start.
    MayStart,
    /// It was given up before, or now: another host has it.
    Retired,
    /// It is kept off until somebody decides.
    Held,
    /// It runs here, although another host may run it: it was left alone.
    RunsHere,
    /// It could not be found out, or not be done.
    Failed,
}

/// A VM of this host, as this host knows it.
struct Local {
    vm: String,
    standing: Standing,
    questions: Vec<Question>,
}

/// What the answers mean.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is this host's.
    Ours(String),
    /// The host that this question went to has taken it over in this epoch.
    Gone { by: Question, epoch: u64 },
    /// It must not start before somebody decides: why.
    Doubtful(String),
    /// Not all could be asked: why.
    Unasked(String),
}

impl BootCheck<'_> {
    /// Checks the VMs, and tells a line of each. An error if one of them needs somebody.
    pub fn run(&self, options: &BootOptions) -> Result<Vec<(String, Fate)>> {
        let mut found = Vec::new();
        let mut locals = Vec::new();
        // One damaged file must not let all the others start unasked.
        let (targets, broken) = match target_pairs(self.layout) {
            Ok(targets) => (targets, None),
            Err(e) => (Vec::new(), Some(e)),
        };
        for (vm, local) in self.locals(&options.vms, &targets)? {
            match local {
                Ok(Some(local)) => locals.push(local),
                Ok(None) => {}
                Err(e) => found.push(self.failed(&vm, &e)),
            }
        }
        if options.unreachable == Unreachable::Hold && !options.dry_run {
            // First, so that they stay off if this is killed, or late.
            for local in &locals {
                if let Err(e) = self.hold_for_now(local) {
                    self.reporter
                        .note(&format!("VM {}: {}", local.vm, e.message()));
                }
            }
        }
        // Whoever is not primary any more has nothing to ask.
        for local in &mut locals {
            if local.standing.role != Role::Primary {
                local.questions.clear();
            }
        }
        let asked: Vec<Question> = locals
            .iter()
            .flat_map(|local| local.questions.iter().cloned())
            .collect();
        let mut answers = match asked.is_empty() {
            true => Vec::new(),
            false => (self.ask)(&asked),
        }
        .into_iter();
        for local in &locals {
            let given: Vec<Answer> = answers.by_ref().take(local.questions.len()).collect();
            found.push(match self.settle(local, &given, options) {
                Ok((fate, why)) => self.tell(&local.vm, fate, &why),
                Err(e) => self.failed(&local.vm, &e),
            });
        }
        if found.is_empty() {
            self.reporter.say(
                "no VM that this host may start is replicated",
                json!({"event": "boot-check-empty"}),
            );
        }
        match broken {
            Some(e) => Err(match self.end(&found) {
                Ok(()) => e,
                Err(also) => e.followed_by(also),
            }
            .context("not all replicas of this host are known")),
            None => self.end(&found).map(|()| found),
        }
    }

    /// The VMs that this host is, or was, primary for. Of one whose files cannot be read, the error.
    fn locals(
        &self,
        wanted: &[String],
        targets: &[TargetPair],
    ) -> Result<Vec<(String, Result<Option<Local>>)>> {
        let mut vms: BTreeSet<String> = source_vms(self.layout)?.into_iter().collect();
        vms.extend(targets.iter().map(|pair| pair.target_vm.clone()));
        if let Some(unknown) = wanted.iter().find(|vm| !vms.contains(*vm)) {
            return Err(Error::new(
                Kind::NotFound,
                format!("this host has no part in any replication of VM {unknown}"),
            )
            .advise("'status' lists what it has a part in"));
        }
        vms.retain(|vm| wanted.is_empty() || wanted.contains(vm));
        let read = |vm: String| {
            let local = self.local(&vm, targets);
            (vm, local)
        };
        Ok(vms.into_iter().map(read).collect())
    }

    /// What this host is for `vm`; `None` if it keeps a replica of it, which is guarded anyway, or if the VM that has the
    /// id by now was never replicated.
    fn local(&self, vm: &str, targets: &[TargetPair]) -> Result<Option<Local>> {
        let mut sources = source_pairs_to(self.layout, vm)?;
        let mut taken: Vec<&TargetPair> = targets.iter().filter(|p| p.target_vm == vm).collect();
        if let Ok(config) = self.hypervisor.config(vm) {
            let here = (self.identity_of)(&config);
            sources.retain(|(_, pair)| pair.vm_identity == here);
            let mut same = Vec::new();
            for pair in taken {
                if self.identity_in(pair)?.is_none_or(|there| there == here) {
                    same.push(pair);
                }
            }
            taken = same;
        }
        let of_source = sources.iter().map(|(_, pair)| pair.standing);
        let standings = of_source.chain(taken.iter().map(|pair| pair.standing));
        // On a tie the replica counts: the VM was adopted.
        let newest = standings.max_by_key(|s| (s.epoch, s.role == Role::Replica));
        let Some(standing) = newest.filter(|s| s.role != Role::Replica) else {
            return Ok(None);
        };
        Ok(Some(Local {
            vm: vm.to_owned(),
            standing,
            questions: questions(&sources, &taken),
        }))
    }

    /// The identity of the VM of which there is, or was, a replica here: what its newest generation tells. `None` if there
    /// is no generation.
    fn identity_in(&self, pair: &TargetPair) -> Result<Option<Option<String>>> {
        let Some(head) = pair.head else {
            return Ok(None);
        };
        let newest: Option<Generation> = read_json(&self.layout.generation(pair.pair, head))?;
        Ok(newest.map(|newest| (self.identity_of)(&newest.config)))
    }

    fn hold_for_now(&self, local: &Local) -> Result<()> {
        if local.standing.role != Role::Primary || self.hypervisor.is_running(&local.vm)? {
            return Ok(());
        }
        self.keep_off(local, "the hosts that keep its replicas are being asked")
    }

    fn keep_off(&self, local: &Local, why: &str) -> Result<()> {
        let held = Standing {
            role: Role::Held,
            epoch: local.standing.epoch,
        };
        set_guard(self.layout, &local.vm, held, why)?;
        crash::point("boot held");
        let notes = self.hypervisor.keep_off(&local.vm, why)?;
        self.reporter.notes(&notes);
        Ok(())
    }

    /// Does what the answers ask for.
    fn settle(
        &self,
        local: &Local,
        answers: &[Answer],
        options: &BootOptions,
    ) -> Result<(Fate, String)> {
        let vm = &local.vm;
        let is_sure = options.sure.contains(vm);
        let running = self.hypervisor.is_running(vm)?;
        if local.standing.role != Role::Primary {
            return self.given_up(local, running, options.dry_run);
        }
        match judge(local.standing.epoch, &local.questions, answers) {
            Verdict::Gone { by, epoch } => {
                let told = format!("{} is primary since epoch {epoch}", by.host);
                match running {
                    true => Ok((
                        Fate::RunsHere,
                        format!("although {told}: both may have written. It was left alone"),
                    )),
                    false if options.dry_run => Ok((Fate::Retired, told)),
                    false => {
                        self.give_up(vm, &by, epoch)?;
                        Ok((Fate::Retired, told))
                    }
                }
            }
            Verdict::Ours(why) => self.release(local, why, options),
            Verdict::Doubtful(why) | Verdict::Unasked(why) if is_sure => self.release(
                local,
                format!("as somebody is sure, although {why}"),
                options,
            ),
            Verdict::Unasked(why) if options.unreachable == Unreachable::Start => {
                // What it was kept off for before is not over because nobody answers now.
                let is_held = guard_of(self.layout, vm)? == Some(Role::Held);
                Ok(match is_held && !running {
                    true => (Fate::Held, format!("as before; {why}")),
                    false => (Fate::MayStart, format!("although {why}")),
                })
            }
            Verdict::Doubtful(why) if running => {
                Ok((Fate::RunsHere, format!("although {why}. It was left alone")))
            }
            // It is a policy about starting only.
            Verdict::Unasked(why) if running => Ok((Fate::MayStart, format!("it runs; {why}"))),
            Verdict::Doubtful(why) | Verdict::Unasked(why) => {
                if !options.dry_run {
                    self.keep_off(local, &why)?;
                }
                Ok((Fate::Held, why))
            }
        }
    }

    /// It may start. What kept it off before is taken away.
    fn release(&self, local: &Local, why: String, options: &BootOptions) -> Result<(Fate, String)> {
        let vm = &local.vm;
        if guard_of(self.layout, vm)? == Some(Role::Held) && !options.dry_run {
            let _lock = self.lock(vm)?;
            let notes = self.hypervisor.let_start(vm)?;
            self.reporter.notes(&notes);
            // Last: whoever is cut off before finds it held, and lets it go again.
            set_guard(self.layout, vm, local.standing, "it was checked")?;
        }
        Ok((Fate::MayStart, why))
    }

    fn lock(&self, vm: &str) -> Result<Lock> {
        let path = self.layout.vm_lock(vm);
        Lock::take_within(LOCK_PATIENCE, &path, &format!("VM {vm}"))
    }

    /// This host is not primary any more, and says so to the guard once more: it may have died before it did.
    fn given_up(&self, local: &Local, running: bool, dry_run: bool) -> Result<(Fate, String)> {
        let Local { vm, standing, .. } = local;
        let why = format!("since epoch {}", standing.epoch);
        if running {
            let why = format!("although this host is {} for it {why}", standing.role);
            return Ok((Fate::RunsHere, why));
        }
        if !dry_run && self.hypervisor.config(vm).is_ok() {
            let _lock = self.lock(vm)?;
            let sources = source_pairs(self.layout, vm)?;
            let to = sources.first().map(|pair| pair.target_name.as_str());
            let to = to.unwrap_or("another host");
            self.retire(vm, standing.epoch, to)?;
        }
        Ok((Fate::Retired, why))
    }

    /// Gives the VM up to the host that has taken it over, and notes that in the journal of runs.
    fn give_up(&self, vm: &str, by: &Question, epoch: u64) -> Result<()> {
        let _lock = self.lock(vm)?;
        let (journal, note) = Journal::open(&self.layout.journal())?;
        self.reporter.notes(&note);
        let run = journal.begin(&Beginning {
            id: Uuid::new_v4(),
            side: by.side,
            vm,
            name: "",
            peer: &by.host,
        })?;
        let retired = run
            .is_of(by.pair, by.host_id)
            .and_then(|()| run.enter(State::Retire))
            .and_then(|()| self.retire(vm, epoch, &by.host));
        match retired {
            Ok(()) => run.end(None),
            Err(e) => Err(run.fail(e)),
        }
    }

    fn retire(&self, vm: &str, epoch: u64, to: &str) -> Result<()> {
        match retire(self.layout, self.hypervisor, vm, epoch, to) {
            Ok(notes) => {
                self.reporter.notes(&notes);
                Ok(())
            }
            Err(e) => match self.hypervisor.config(vm) {
                // Nothing is here that could be started.
                Err(gone) if gone.kind() == Kind::NotFound => Ok(()),
                // Whatever is in the way of the rest, the hook can be told.
                _ => {
                    let why = format!("it has gone to {to}");
                    let retired = Standing {
                        role: Role::Retired,
                        epoch,
                    };
                    let kept = set_guard(self.layout, vm, retired, &why)
                        .and_then(|()| self.hypervisor.keep_off(vm, &why));
                    Err(match kept {
                        Ok(_) => e,
                        Err(also) => e.followed_by(also),
                    })
                }
            },
        }
    }

    fn failed(&self, vm: &str, error: &Error) -> (String, Fate) {
        let advice = error.advice().map(|advice| format!(" ({advice})"));
        let why = error.message() + &advice.unwrap_or_default();
        self.tell(vm, Fate::Failed, &why)
    }

    fn tell(&self, vm: &str, fate: Fate, why: &str) -> (String, Fate) {
        let word = match fate {
            Fate::MayStart => "may start",
            Fate::Retired => "does not start, it was given up",
            Fate::Held => "is kept off",
            Fate::RunsHere => "RUNS HERE",
            Fate::Failed => "could not be checked, or kept off",
        };
        self.reporter.say(
            format!("VM {vm} {word}: {why}"),
            json!({"event": "boot-check", "vm": vm, "fate": fate, "why": why}),
        );
        (vm.to_owned(), fate)
    }

    /// An error if one of them needs somebody. The worst is its kind.
    fn end(&self, found: &[(String, Fate)]) -> Result<()> {
        let of = |fate: Fate| -> Vec<&str> {
            let vms = found.iter().filter(|(_, f)| *f == fate);
            vms.map(|(vm, _)| vm.as_str()).collect()
        };
        let (held, runs, failed) = (of(Fate::Held), of(Fate::RunsHere), of(Fate::Failed));
        let mut words = Vec::new();
        for (vms, what) in [
            (&runs, "runs here, and may run elsewhere"),
            (&failed, "could not be checked, or kept off"),
            (&held, "is kept off"),
        ] {
            if !vms.is_empty() {
                words.push(format!("VM {} {what}", vms.join(", ")));
            }
        }
        let Some(vm) = runs.first().or(failed.first()).or(held.first()) else {
            return Ok(());
        };
        let kind = match failed.is_empty() {
            true => Kind::Refused,
            false => Kind::Io,
        };
        let (advice, runbook) = match runs.is_empty() {
            false => (
                "look which host has what is to be kept, and stop the other".to_owned(),
                Runbook::SplitBrain,
            ),
            true => (format!(
                "when the other hosts can be asked: {0} boot-check. If you are certain that VM {vm} runs nowhere else: \
                 {0} boot-check {vm} --i-am-sure {vm}",
                self.program
            ), Runbook::BothBack),
        };
        Err(Error::new(kind, words.join("; "))
            .advise(advice)
            .see(runbook))
    }
}

/// Whom to ask: the hosts that this one sends to, and those that it has a VM from.
fn questions(sources: &[(Uuid, SourcePair)], targets: &[&TargetPair]) -> Vec<Question> {
    let mut questions = Vec::new();
    for (host_id, pair) in sources {
        let address = pair.address.as_ref().unwrap_or(&pair.target_name);
        questions.push(Question {
            pair: pair.pair,
            host_id: *host_id,
            host: pair.target_name.clone(),
            address: address.clone(),
            side: Side::Source,
        });
    }
    for pair in targets.iter().filter(|p| p.standing.role != Role::Replica) {
        // How it is reached is known if something was ever sent there.
        let mut known = sources.iter().filter(|(id, _)| *id == pair.source_host);
        let address = known.find_map(|(_, source)| source.address.clone());
        questions.push(Question {
            pair: pair.pair,
            host_id: pair.source_host,
            host: pair.source_name.clone(),
            address: address.unwrap_or_else(|| pair.source_name.clone()),
            side: Side::Target,
        });
    }
    questions
}

/// What the answers to the questions mean for a host that is primary in `epoch`. The newest epoch is right; one that
/// has taken the VM over counts before all others.
fn judge(epoch: u64, questions: &[Question], answers: &[Answer]) -> Verdict {
    let mut gone: Option<(u64, &Question)> = None;
    let (mut doubts, mut unasked, mut fine) = (Vec::new(), Vec::new(), Vec::new());
    for (at, question) in questions.iter().enumerate() {
        let host = &question.host;
        let standing = match answers.get(at) {
            Some(Answer::Says(position)) => position.standing,
            Some(Answer::Unasked(why)) => {
                // What it was before this host took over is known, and of no consequence.
                if question.side == Side::Source {
                    unasked.push(format!("{host} could not be asked: {why}"));
                }
                continue;
            }
            None => {
                unasked.push(format!("{host} was not asked"));
                continue;
            }
        };
        let says = format!("{host} is {} in epoch {}", standing.role, standing.epoch);
        match (standing.role, standing.epoch.cmp(&epoch)) {
            (Role::Primary, Ordering::Greater) => {
                if gone.is_none_or(|(newest, _)| newest < standing.epoch) {
                    gone = Some((standing.epoch, question));
                }
            }
            (Role::Primary, Ordering::Equal) => {
                doubts.push(format!("{says}, and so is this host"));
            }
            (_, Ordering::Greater) => doubts.push(format!(
                "{says}, and this host is primary in epoch {epoch} only: it has missed a change of roles"
            )),
            (Role::Held, _) => doubts.push(says),
            _ => fine.push(says),
        }
    }
    if let Some((epoch, by)) = gone {
        let by = by.clone();
        return Verdict::Gone { by, epoch };
    }
    let here = format!("this host is primary in epoch {epoch}");
    if !doubts.is_empty() {
        return Verdict::Doubtful(doubts.join("; "));
    }
    if !unasked.is_empty() {
        return Verdict::Unasked(unasked.join("; "));
    }
    fine.insert(0, here);
    Verdict::Ours(fine.join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ask(host: &str, side: Side) -> Question {
        Question {
            pair: Uuid::nil(),
            host_id: Uuid::nil(),
            host: host.into(),
            address: host.into(),
            side,
        }
    }

    fn says(role: Role, epoch: u64) -> Answer {
        Answer::Says(Position {
            side: Side::Target,
            vm: "101".into(),
            standing: Standing { role, epoch },
            head: None,
            running: false,
        })
    }

    fn verdict(answers: &[Answer]) -> Verdict {
        let questions: Vec<Question> = answers
            .iter()
            .enumerate()
            .map(|(n, _)| ask(&format!("host{n}"), Side::Source))
            .collect();
        judge(5, &questions, answers)
    }

    #[test]
    fn each_answer_has_its_meaning() {
        let is = |answer: Answer| match verdict(&[answer]) {
            Verdict::Ours(_) => "ours",
            Verdict::Gone { .. } => "gone",
            Verdict::Doubtful(_) => "doubtful",
            Verdict::Unasked(_) => "unasked",
        };
        for (role, older, same, newer) in [
            (Role::Primary, "ours", "doubtful", "gone"),
            (Role::Replica, "ours", "ours", "doubtful"),
            (Role::Retired, "ours", "ours", "doubtful"),
            (Role::Held, "doubtful", "doubtful", "doubtful"),
        ] {
            assert_eq!(is(says(role, 4)), older, "{role}");
            assert_eq!(is(says(role, 5)), same, "{role}");
            assert_eq!(is(says(role, 6)), newer, "{role}");
        }
        assert_eq!(is(Answer::Unasked("no route".into())), "unasked");
    }

    #[test]
    fn the_newest_primary_counts_before_all_else() {
        let silent = || Answer::Unasked("no route".into());
        let gone = verdict(&[
            silent(),
            says(Role::Primary, 6),
            says(Role::Primary, 8),
            says(Role::Held, 9),
        ]);
        assert!(
            matches!(&gone, Verdict::Gone { by, epoch: 8 } if by.host == "host2"),
            "{gone:?}"
        );
        let doubt = verdict(&[silent(), says(Role::Primary, 5), says(Role::Replica, 5)]);
        assert!(matches!(doubt, Verdict::Doubtful(_)));
        let unasked = verdict(&[says(Role::Replica, 5), silent()]);
        assert!(matches!(unasked, Verdict::Unasked(_)));
        // A question without an answer is no answer.
        let none = judge(5, &[ask("a", Side::Source)], &[]);
        assert!(matches!(none, Verdict::Unasked(_)));
    }

    #[test]
    fn the_host_that_was_replaced_may_stay_silent() {
        let lost = judge(
            5,
            &[ask("old", Side::Target)],
            &[Answer::Unasked("no route".into())],
        );
        assert!(matches!(lost, Verdict::Ours(_)));
        // But if it was told that this host is lost for good, and has it back, it is right.
        let back = judge(5, &[ask("old", Side::Target)], &[says(Role::Primary, 6)]);
        assert!(matches!(back, Verdict::Gone { .. }));
    }
}
