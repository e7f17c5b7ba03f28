//! A fleet of 20 real processes: a fake program that syncs nothing, but fails in all the ways that there are.
#![allow(clippy::unwrap_used)]

use rblocksync::cli::{OutputOptions, Reporter, EXIT_SOME_FAILED};
use rblocksync::error::{Error, Kind};
use rblocksync::job::fleet::{Limits, Runner};
use rblocksync::replica::Layout;
use rblocksync::stop::Stop;
use rblocksync::verbs::{fleet, Fleet, Picked, Task};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Notes when it begins and ends. Both are one write to a file that is appended to, so the lines are in their true order.
const FAKE: &str = r#"#!/bin/sh
vm=$1 log=$2
echo "+ $vm" >> "$log"
case $vm in
    103) echo "- $vm" >> "$log"; kill -KILL $$ ;;
    104) echo '{"event":"error","message":"no route"}'; echo "- $vm" >> "$log"; exit 1 ;;
    105) yes '{"event":"progress"}' | head -c 2100000; yes | head -c 2100000 >&2 ;;
    106) echo "- $vm" >> "$log"; exit 0 ;;
esac
printf '{"event":"sealed","generation":"rbs%s","disks":[{"summary":{"changed":1024,"wire_out":1,"wire_in":1}}]}\n' "$vm"
echo "- $vm" >> "$log"
"#;

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new(script: &str) -> World {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("fake");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        World { dir }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn tasks(&self, ids: std::ops::Range<u32>) -> Vec<Task> {
        ids.map(|id| Task {
            vm: id.to_string(),
            host: "host2".into(),
            rpo: Some(Duration::from_secs(900)),
            args: vec![id.to_string().into(), self.log().into()],
        })
        .collect()
    }

    fn run(&self, picked: Picked, parallel: usize, stop: &Stop) -> rblocksync::error::Result<u8> {
        let options = OutputOptions {
            quiet: true,
            ..OutputOptions::default()
        };
        fleet(
            picked,
            &Fleet {
                program: "test",
                layout: &Layout::new(self.dir.path().join("state")),
                reporter: &Reporter::new(options),
                quiet: true,
                stop,
                runner: Runner {
                    program: self.dir.path().join("fake"),
                    grace: Duration::from_secs(60),
                    dry_run: false,
                },
                limits: Limits {
                    parallel,
                    per_host: parallel,
                },
            },
        )
    }
}

/// Who began, in that order, and how many there were at once.
fn told(log: &Path) -> (Vec<String>, usize) {
    let (mut began, mut now, mut most) = (Vec::new(), 0usize, 0);
    for line in fs::read_to_string(log).unwrap().lines() {
        match line.split_at(2) {
            ("+ ", vm) => {
                began.push(vm.to_owned());
                now += 1;
                most = now.max(most);
            }
            ("- ", _) => now -= 1,
            _ => panic!("{line}"),
        }
    }
    (began, most)
}

#[test]
fn twenty_vms_of_which_some_are_broken() {
    let world = World::new(FAKE);
    let picked = Picked {
        tasks: world.tasks(100..120),
        ..Picked::default()
    };
    let code = world.run(picked, 3, &Stop::new()).unwrap();
    assert_eq!(code, EXIT_SOME_FAILED);
    let (mut began, most) = told(&world.log());
    assert!(most <= 3, "{most}");
    began.sort();
    let want: Vec<String> = (100..120).map(|id| id.to_string()).collect();
    assert_eq!(began, want);
}

#[test]
fn a_flood_of_events_is_no_failure() {
    let world = World::new(FAKE);
    let picked = Picked {
        tasks: world.tasks(105..106),
        ..Picked::default()
    };
    assert_eq!(world.run(picked, 1, &Stop::new()).unwrap(), 0);
}

#[test]
fn one_at_a_time_they_come_in_their_order() {
    let world = World::new(FAKE);
    let mut tasks = world.tasks(107..112);
    tasks.reverse();
    let picked = Picked {
        tasks,
        ..Picked::default()
    };
    assert_eq!(world.run(picked, 1, &Stop::new()).unwrap(), 0);
    let (began, most) = told(&world.log());
    assert_eq!(most, 1);
    assert_eq!(began, ["107", "108", "109", "110", "111"]);
}

#[test]
fn a_vm_that_could_not_be_looked_at_counts_as_failed() {
    let world = World::new(FAKE);
    let picked = Picked {
        tasks: world.tasks(107..108),
        failed: vec![("120".into(), Error::new(Kind::Io, "cannot read 120.conf"))],
        left_out: vec!["300 (templates)".into()],
    };
    let code = world.run(picked, 2, &Stop::new()).unwrap();
    assert_eq!(code, EXIT_SOME_FAILED);
}

#[test]
fn if_all_fail_alike_their_exit_code_is_that_of_all() {
    let world = World::new("#!/bin/sh\nexit 3\n");
    let picked = |world: &World| Picked {
        tasks: world.tasks(100..103),
        ..Picked::default()
    };
    assert_eq!(world.run(picked(&world), 2, &Stop::new()).unwrap(), 3);
    // An end that looks well without a generation is none.
    let world = World::new("#!/bin/sh\nexit 0\n");
    assert_eq!(world.run(picked(&world), 2, &Stop::new()).unwrap(), 1);
}

#[test]
fn a_fleet_that_is_stopped_before_it_begins_starts_nobody() {
    let world = World::new(FAKE);
    let stop = Stop::new();
    stop.stop_by_signal(15);
    let picked = Picked {
        tasks: world.tasks(100..103),
        ..Picked::default()
    };
    assert_eq!(world.run(picked, 2, &stop).unwrap(), 143);
    assert!(!world.log().exists());
}

#[test]
fn no_vm_at_all_is_an_error() {
    let world = World::new(FAKE);
    let picked = Picked {
        left_out: vec!["300 (templates)".into()],
        ..Picked::default()
    };
    let e = world.run(picked, 2, &Stop::new()).unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound);
    assert!(e.message().contains("300 (templates)"));
}
