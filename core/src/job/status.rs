//! The state of all replications that this host has a part in.

use crate::error::Result;
use crate::journal::{Journal, RunRecord, Side};
use crate::replica::{
    list_generations, source_pairs_to, told, told_by, Boot, Checked, Generation, Layout, Role,
    Standing, TargetPair, Told,
};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// How far the clocks of two hosts may be apart, in seconds, before a point in time is called one of the future.
const CLOCKS_APART_S_MAX: i64 = 60;

/// One VM and one other host.
#[derive(Debug, Clone, Serialize)]
pub struct PairStatus {
    /// Which end is here.
    pub side: Side,
    /// The VM's id on this host.
    pub vm: String,
    /// Its name, where it is known.
    pub name: String,
    /// The other host.
    pub peer: String,
    /// The pair, once a run has found it.
    pub pair: Option<String>,
    /// What this host is for the VM, once there is a pair.
    pub standing: Option<Standing>,
    /// Number of the newest generation.
    pub generation: Option<u64>,
    /// When that was taken, by the source's clock.
    pub taken_at: Option<Timestamp>,
    /// How many generations there are; only the target knows.
    pub generations: Option<usize>,
    /// The newest generation that was seen to boot, by its number; the source knows it as of its last sync.
    pub booted: Option<(u64, Boot)>,
    /// The newest generation that was read again, by its number; the source knows it as of its last sync, or of a
    /// verification from there.
    pub checked: Option<(u64, Checked)>,
    /// The last run, as this host has seen it.
    pub last: Option<RunRecord>,
}

/// What monitoring is to think of a replication. Ordered by what is told first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// The newest generation is young enough, and the last run was fine.
    Ok,
    /// It is young enough, but the last run was not fine.
    Warning,
    /// It cannot be told.
    Unknown,
    /// There is no generation, or it is too old.
    Critical,
}

impl PairStatus {
    /// Seconds since the newest generation was taken.
    pub fn age_s(&self, now: Timestamp) -> Option<i64> {
        self.taken_at.map(|at| now.duration_since(at).as_secs())
    }

    /// Whether the newest generation is younger than `age_s_max`, and why not.
    pub fn judge(&self, age_s_max: u64, now: Timestamp) -> (Verdict, String) {
        let role = self.standing.map(|standing| standing.role);
        if (self.side, role) == (Side::Source, Some(Role::Retired)) {
            return (
                Verdict::Ok,
                "the VM has gone: nothing is sent from here".into(),
            );
        }
        match self.damage() {
            Some(damage) => (Verdict::Critical, damage),
            None => self.judge_age(age_s_max, now),
        }
    }

    /// The same, whatever was found when it was read again.
    pub(crate) fn judge_age(&self, age_s_max: u64, now: Timestamp) -> (Verdict, String) {
        let last = self.last_problem();
        let because = match &last {
            Some(problem) => format!("; {problem}"),
            None => String::new(),
        };
        match self.age_s(now) {
            None => (Verdict::Critical, format!("no generation yet{because}")),
            Some(age) if age < -CLOCKS_APART_S_MAX => (
                Verdict::Unknown,
                format!(
                    "the newest generation is {} s of the future: a clock was set back",
                    -age
                ),
            ),
            Some(age) if age > 0 && age.unsigned_abs() > age_s_max => {
                (Verdict::Critical, format!("{age} s old{because}"))
            }
            Some(age) => match last {
                Some(problem) => (Verdict::Warning, format!("{age} s old; {problem}")),
                None => (Verdict::Ok, format!("{age} s old")),
            },
        }
    }

    /// Takes the newest of what is known of generations.
    fn knows(&mut self, mut told: Told) {
        self.booted = told.booted.pop_last();
        self.checked = told.checked.pop_last();
    }

    /// Damage that the newest verification has found. Later generations share what did not change, so they have it, too.
    pub fn damage(&self) -> Option<String> {
        let (number, checked) = self.checked.as_ref()?;
        (!checked.damaged.is_empty()).then(|| {
            format!(
                "generation {number} is damaged: {}",
                checked.damaged.join(", ")
            )
        })
    }

    /// What was wrong with the last run.
    pub fn last_problem(&self) -> Option<String> {
        let last = self.last.as_ref()?;
        match &last.error {
            Some(error) => Some(format!("the last run failed: {error}")),
            None if last.was_cut_off() => Some(format!(
                "the last run was cut off in its step {}",
                last.state
            )),
            None => None,
        }
    }
}

/// What is known on this host, of one VM (by its id here) or of all.
pub fn statuses(layout: &Layout, vm: Option<&str>) -> Result<Vec<PairStatus>> {
    let mut found = Vec::new();
    let mut received = Vec::new();
    if let Some(journal) = Journal::look(&layout.journal())? {
        found.extend(of_source(journal.runs(Side::Source)?));
        received = journal.runs(Side::Target)?;
    }
    for (pair, generations) in list_generations(layout, None)? {
        let id = pair.pair.to_string();
        let last = received.iter().rfind(|run| run.pair.as_ref() == Some(&id));
        let mut status = of_replica(pair.clone(), &generations, last.cloned());
        status.knows(told(layout, &generations)?);
        found.push(status);
    }
    for status in found.iter_mut().filter(|s| s.side == Side::Source) {
        let pairs = source_pairs_to(layout, &status.vm)?.into_iter();
        let mut of_pair = pairs.filter(|(_, p)| Some(p.pair.to_string()) == status.pair);
        if let Some((target, pair)) = of_pair.next() {
            status.standing = Some(pair.standing);
            status.knows(told_by(layout, &status.vm, target, pair.pair));
        }
    }
    found.retain(|status| vm.is_none_or(|vm| status.vm == vm));
    Ok(found)
}

fn of_replica(pair: TargetPair, generations: &[Generation], last: Option<RunRecord>) -> PairStatus {
    let head = generations.iter().find(|g| Some(g.number) == pair.head);
    PairStatus {
        side: Side::Target,
        vm: pair.target_vm,
        name: String::new(),
        peer: pair.source_name,
        pair: Some(pair.pair.to_string()),
        standing: Some(pair.standing),
        generation: pair.head,
        taken_at: head.map(|g| g.taken_at),
        generations: Some(generations.len()),
        booted: None,
        checked: None,
        last,
    }
}

/// A target may be named in more than one way, and a run that did not reach it knows only the name: such a run
/// belongs to whatever that name meant last.
fn of_source(runs: Vec<RunRecord>) -> Vec<PairStatus> {
    let mut meant: BTreeMap<String, String> = BTreeMap::new();
    for run in &runs {
        if let Some(host) = &run.peer_host {
            meant.insert(run.peer.clone(), host.clone());
        }
    }
    let mut by_target: BTreeMap<(String, String), PairStatus> = BTreeMap::new();
    for run in runs {
        let host = run.peer_host.as_ref().or_else(|| meant.get(&run.peer));
        let key = (run.vm.clone(), host.unwrap_or(&run.peer).clone());
        let status = by_target.entry(key).or_insert_with(|| PairStatus {
            side: Side::Source,
            vm: run.vm.clone(),
            name: String::new(),
            peer: String::new(),
            pair: None,
            standing: None,
            generation: None,
            taken_at: None,
            generations: None,
            booted: None,
            checked: None,
            last: None,
        });
        if run.pair.is_some() && run.pair != status.pair {
            // Another VM under the same id: what the former one had says nothing of it.
            status.pair.clone_from(&run.pair);
            status.generation = None;
            status.taken_at = None;
        }
        if run.generation.is_some() {
            status.generation = run.generation;
            status.taken_at = run.taken_at;
        }
        if !run.name.is_empty() {
            status.name.clone_from(&run.name);
        }
        status.peer.clone_from(&run.peer);
        status.last = Some(run);
    }
    by_target.into_values().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run(peer: &str, host: Option<&str>, pair: Option<&str>) -> RunRecord {
        RunRecord {
            id: String::new(),
            vm: "101".into(),
            name: "web".into(),
            peer: peer.into(),
            peer_host: host.map(Into::into),
            pair: pair.map(Into::into),
            state: "transfer".into(),
            began_at: Timestamp::UNIX_EPOCH,
            ended_at: Some(Timestamp::UNIX_EPOCH),
            error: None,
            generation: None,
            taken_at: None,
            changed: None,
            wire: None,
            running: false,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 0).unwrap()
    }

    fn sealed(mut run: RunRecord, generation: u64, second: i64) -> RunRecord {
        run.generation = Some(generation);
        run.taken_at = Some(at(second));
        run
    }

    #[test]
    fn runs_to_one_host_by_two_names_are_one_replication() {
        let failed = RunRecord {
            error: Some("no route".into()),
            ..run("10.0.0.2", None, None)
        };
        let runs = vec![
            sealed(run("host2", Some("B"), Some("p")), 1, 100),
            sealed(run("10.0.0.2", Some("B"), Some("p")), 2, 200),
            sealed(run("host3", Some("C"), Some("q")), 1, 300),
            failed,
        ];
        let found = of_source(runs);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].generation, found[0].taken_at),
            (Some(2), Some(at(200)))
        );
        let (verdict, why) = found[0].judge(900, at(300));
        assert_eq!(verdict, Verdict::Warning);
        assert_eq!(why, "100 s old; the last run failed: no route");
        assert_eq!(found[0].judge(99, at(300)).0, Verdict::Critical);
        assert_eq!(found[1].judge(900, at(300)).0, Verdict::Ok);
    }

    #[test]
    fn another_vm_under_the_same_id_starts_from_nothing() {
        let runs = vec![
            sealed(run("host2", Some("B"), Some("old")), 9, 100),
            run("host2", Some("B"), Some("new")),
        ];
        let found = of_source(runs);
        assert_eq!(found[0].judge(900, at(101)).0, Verdict::Critical);
    }

    #[test]
    fn a_clock_that_was_set_back_is_not_taken_for_a_young_generation() {
        let found = of_source(vec![sealed(run("host2", Some("B"), Some("p")), 1, 10_000)]);
        assert_eq!(found[0].judge(900, at(9_000)).0, Verdict::Unknown);
        assert_eq!(found[0].judge(900, at(9_970)).0, Verdict::Ok);
    }

    #[test]
    fn a_replica_that_was_found_damaged_is_no_replica() {
        let mut status =
            of_source(vec![sealed(run("host2", Some("B"), Some("p")), 4, 100)]).remove(0);
        let found = |damaged: &[&str]| Checked {
            at: at(90),
            whole: None,
            damaged: damaged.iter().map(|key| (*key).to_owned()).collect(),
        };
        status.checked = Some((3, found(&["scsi0"])));
        let (verdict, why) = status.judge(900, at(100));
        assert_eq!(verdict, Verdict::Critical);
        assert_eq!(why, "generation 3 is damaged: scsi0");
        status.checked = Some((4, found(&[])));
        assert_eq!(status.judge(900, at(100)).0, Verdict::Ok);
    }

    #[test]
    fn a_run_that_was_cut_off_is_told() {
        let mut last = sealed(run("host2", Some("B"), Some("p")), 1, 100);
        last.ended_at = None;
        let found = of_source(vec![last]);
        let (verdict, why) = found[0].judge(900, at(100));
        assert_eq!(verdict, Verdict::Warning);
        assert!(why.ends_with("cut off in its step transfer"), "{why}");
    }
}
