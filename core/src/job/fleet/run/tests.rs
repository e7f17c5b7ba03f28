use super::*;
use std::collections::HashMap;
use std::sync::{Condvar, Mutex};

fn member(vm: u32, host: &str, age_s: Option<u64>, rpo_s: Option<u64>) -> Member {
    Member {
        vm: vm.to_string(),
        host: host.into(),
        age_s,
        rpo_s,
        args: Vec::new(),
    }
}

/// Syncs nothing, but only ends one when as many run as may, or nobody else is left to come.
#[derive(Default)]
struct Fake {
    state: Mutex<State>,
    change: Condvar,
}

#[derive(Default)]
struct State {
    started: Vec<String>,
    running: HashMap<String, usize>,
    most: HashMap<String, usize>,
    most_of_all: usize,
}

impl Fake {
    fn sync(&self, member: &Member, all: usize, parallel: usize) -> Outcome {
        let mut state = self.state.lock().unwrap();
        state.started.push(member.vm.clone());
        *state.running.entry(member.host.clone()).or_default() += 1;
        let to_host = state.running[&member.host];
        let most = state.most.entry(member.host.clone()).or_default();
        *most = to_host.max(*most);
        let sum = state.running.values().sum::<usize>();
        state.most_of_all = sum.max(state.most_of_all);
        self.change.notify_all();
        // The first ones wait for as many as there may be: fewer would hang here.
        let mut state = self
            .change
            .wait_while(state, |s| s.started.len() < parallel.min(all))
            .unwrap();
        *state.running.get_mut(&member.host).unwrap() -= 1;
        drop(state);
        match member.vm.as_str() {
            "104" => Outcome::failed(4, "damaged"),
            "105" => panic!("a bug"),
            _ => Outcome::of(Ending::Done),
        }
    }
}

#[test]
fn twenty_vms_at_most_three_at_once_and_a_broken_one_stops_nobody() {
    // The higher the id the older; all are to be as young as each other.
    let members: Vec<Member> = (100..120)
        .map(|vm| member(vm, "h", Some(u64::from(vm)), Some(60)))
        .collect();
    let limits = Limits {
        parallel: 3,
        per_host: 3,
    };
    let fake = Fake::default();
    let told = Mutex::new(Vec::new());
    let all = run(
        members,
        limits,
        &Stop::new(),
        &|m| fake.sync(m, 20, 3),
        &|t| {
            if let Told::Started(m) = t {
                told.lock().unwrap().push(m.vm.clone());
            }
        },
    );
    let state = fake.state.into_inner().unwrap();
    assert_eq!(state.most_of_all, 3);
    let want: Vec<String> = (100..120).rev().map(|vm| vm.to_string()).collect();
    assert_eq!(told.into_inner().unwrap(), want);
    assert_eq!(all.len(), 20);
    let mut bad: Vec<&str> = all
        .iter()
        .filter(|(_, o)| !o.is_done())
        .map(|(m, _)| m.vm.as_str())
        .collect();
    bad.sort();
    assert_eq!(bad, ["104", "105"]);
}

#[test]
fn a_host_has_its_own_limit() {
    let members: Vec<Member> = (100..112)
        .map(|vm| member(vm, if vm % 3 == 0 { "a" } else { "b" }, None, None))
        .collect();
    let limits = Limits {
        parallel: 4,
        per_host: 2,
    };
    let fake = Fake::default();
    let all = run(
        members,
        limits,
        &Stop::new(),
        &|m| fake.sync(m, 12, 4),
        &|_| {},
    );
    let state = fake.state.into_inner().unwrap();
    assert_eq!(state.most_of_all, 4);
    assert_eq!(
        state.most,
        HashMap::from([("a".into(), 2), ("b".into(), 2)])
    );
    assert_eq!(all.len(), 12);
}

#[test]
fn nobody_is_started_after_a_stop() {
    let members: Vec<Member> = (100..110).map(|vm| member(vm, "h", None, None)).collect();
    let limits = Limits {
        parallel: 1,
        per_host: 1,
    };
    let stop = Stop::new();
    let sync = |m: &Member| {
        if m.vm == "102" {
            stop.stop_by_signal(15);
        }
        Outcome::of(Ending::Done)
    };
    let all = run(members, limits, &stop, &sync, &|_| {});
    let ended = all.iter().filter(|(_, o)| o.is_done()).count();
    assert_eq!((ended, all.len()), (3, 10));
    assert!(all[3..].iter().all(|(_, o)| o.ending == Ending::NotStarted));
}

#[test]
fn an_empty_fleet_ends() {
    let limits = Limits {
        parallel: 2,
        per_host: 2,
    };
    let all = run(Vec::new(), limits, &Stop::new(), &|_| panic!(), &|_| {});
    assert!(all.is_empty());
}
