//! How old the newest generation of each VM is on a host, by this host's journal.

use crate::error::Result;
use crate::journal::{Journal, RunRecord, Side};
use crate::replica::Layout;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// How far the newest generation may be of the future, in seconds, before its age counts as unknown.
const CLOCKS_APART_S_MAX: i64 = 60;

/// When the newest generation of each VM was taken, for each host that it was sent to.
#[derive(Debug, Default)]
pub struct Ages {
    /// Names of hosts, and what the last run by that name has reached.
    hosts: BTreeMap<String, String>,
    /// By VM and host.
    taken: BTreeMap<(String, String), Timestamp>,
}

impl Ages {
    /// What this host's journal knows. None of it is older than the journal.
    pub fn read(layout: &Layout) -> Result<Ages> {
        Ok(match Journal::look(&layout.journal())? {
            Some(journal) => Ages::of(&journal.runs(Side::Source)?),
            None => Ages::default(),
        })
    }

    fn of(runs: &[RunRecord]) -> Ages {
        let mut ages = Ages::default();
        for run in runs {
            if let Some(host) = &run.peer_host {
                ages.hosts.insert(run.peer.clone(), host.clone());
            }
        }
        let mut pairs: BTreeMap<(&str, String), &str> = BTreeMap::new();
        for run in runs {
            let host = run.peer_host.as_ref().or_else(|| ages.hosts.get(&run.peer));
            let host = host.unwrap_or(&run.peer).clone();
            let key = (run.vm.clone(), host.clone());
            if let Some(pair) = &run.pair {
                // Another VM under the same id: what the former one sent is of no use to it.
                if pairs
                    .insert((&run.vm, host), pair)
                    .is_some_and(|old| old != pair)
                {
                    ages.taken.remove(&key);
                }
            }
            if let (Some(_), Some(at)) = (run.generation, run.taken_at) {
                ages.taken.insert(key, at);
            }
        }
        ages
    }

    /// When the newest generation of a VM was taken that a host has, by any of the host's names.
    pub fn taken_at(&self, vm: &str, host: &str) -> Option<Timestamp> {
        let host = self.hosts.get(host).map_or(host, String::as_str);
        self.taken.get(&(vm.to_owned(), host.to_owned())).copied()
    }

    /// Seconds since then. `None` also if that is in the future, because a clock was set back: then nobody can tell.
    pub fn age_s(&self, vm: &str, host: &str, now: Timestamp) -> Option<u64> {
        let age = now.duration_since(self.taken_at(vm, host)?).as_secs();
        (age >= -CLOCKS_APART_S_MAX).then(|| age.max(0).unsigned_abs())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 0).unwrap()
    }

    fn run(vm: &str, peer: &str, host: Option<&str>, pair: &str, second: Option<i64>) -> RunRecord {
        RunRecord {
            id: String::new(),
            vm: vm.into(),
            name: String::new(),
            peer: peer.into(),
            peer_host: host.map(Into::into),
            pair: host.map(|_| pair.into()),
            state: "plan".into(),
            began_at: at(0),
            ended_at: None,
            error: None,
            generation: second.map(|_| 1),
            taken_at: second.map(at),
            changed: None,
            wire: None,
            running: false,
        }
    }

    #[test]
    fn a_host_is_known_by_all_its_names() {
        let ages = Ages::of(&[
            run("101", "host2", Some("B"), "p", Some(100)),
            run("101", "10.0.0.2", Some("B"), "p", Some(200)),
            run("101", "host3", Some("C"), "q", Some(300)),
            run("101", "host2", None, "", None),
            run("102", "host2", None, "", None),
        ]);
        let now = at(1000);
        assert_eq!(ages.age_s("101", "host2", now), Some(800));
        assert_eq!(ages.age_s("101", "10.0.0.2", now), Some(800));
        assert_eq!(ages.age_s("101", "host3", now), Some(700));
        assert_eq!(ages.age_s("101", "host4", now), None);
        assert_eq!(ages.age_s("102", "host2", now), None);
    }

    #[test]
    fn another_vm_under_the_same_id_was_never_synced() {
        let mut runs = vec![
            run("101", "host2", Some("B"), "old", Some(100)),
            run("101", "host2", Some("B"), "new", None),
        ];
        assert_eq!(Ages::of(&runs).age_s("101", "host2", at(1000)), None);
        runs.push(run("101", "host2", Some("B"), "new", Some(400)));
        assert_eq!(Ages::of(&runs).age_s("101", "host2", at(1000)), Some(600));
    }

    #[test]
    fn the_future_has_no_age() {
        let ages = Ages::of(&[run("101", "h", Some("B"), "p", Some(1000))]);
        assert_eq!(ages.age_s("101", "h", at(970)), Some(0));
        assert_eq!(ages.age_s("101", "h", at(900)), None);
    }

    #[test]
    fn without_a_journal_nobody_was_synced() {
        let dir = tempfile::tempdir().unwrap();
        let ages = Ages::read(&Layout::new(dir.path())).unwrap();
        assert_eq!(ages.age_s("101", "h", at(0)), None);
    }
}
