//! `failover`: who is asked, who decides, and that it ends the same way however often it is begun.

use crate::dies_at;
use crate::folder::{World, PAIR};
use rblocksync::cli::{OutputOptions, Reporter};
use rblocksync::error::{Error, Kind};
use rblocksync::job::{FailedOver, Failover, FailoverOptions, Fence, Position, SourceState};
use rblocksync::journal::{Journal, Side};
use rblocksync::replica::{Role, Standing};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

fn world() -> World {
    let world = World::new();
    world.sync(1).unwrap();
    world.sync(2).unwrap();
    world
}

fn options() -> FailoverOptions {
    FailoverOptions {
        vm: "101".into(),
        generation: None,
        start: true,
        dry_run: false,
        fence: None,
        sure: None,
    }
}

fn silent() -> SourceState {
    SourceState::Silent("10.0.0.1:22: timed out".into())
}

fn says(role: Role, epoch: u64, running: bool) -> SourceState {
    SourceState::Says(Position {
        side: Side::Source,
        vm: "101".into(),
        standing: Standing { role, epoch },
        head: None,
        running,
    })
}

fn run(
    world: &World,
    source: SourceState,
    options: &FailoverOptions,
) -> Result<Option<FailedOver>, Error> {
    let reporter = Reporter::new(OutputOptions {
        quiet: true,
        ..OutputOptions::default()
    });
    Failover {
        layout: &world.layout,
        hypervisor: &world.folder,
        reporter: &reporter,
        source: &|_| source.clone(),
        name_of: &|_| Some("web".into()),
    }
    .run(options)
}

pub fn task(world: &World) {
    let done = run(world, silent(), &options()).unwrap().unwrap();
    assert!(done.running);
}

fn assert_untouched(world: &World) {
    assert_eq!(world.pair().standing, Standing::replica());
    assert_eq!(world.folder.get("promoted"), None);
    assert_eq!(world.folder.get("running-101"), None);
}

/// A program that does this.
fn script(world: &World, text: &str) -> Fence {
    let program = world.folder.dir.join("fence.sh");
    std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    Fence {
        program,
        arguments: vec!["one two".into()],
        limit: Duration::from_secs(20),
    }
}

#[test]
fn a_silent_source_is_replaced_by_its_newest_generation() {
    let world = world();
    let done = run(&world, silent(), &options()).unwrap().unwrap();
    let expected = FailedOver {
        vm: "101".into(),
        generation: 2,
        epoch: 2,
        running: true,
    };
    assert_eq!(done, expected);
    assert_eq!(world.heads(), [2, 2]);
    // Again: nothing is left to be done, whatever the source says by now.
    let up = SourceState::Answers("it takes connections".into());
    for source in [silent(), up, says(Role::Primary, 1, false)] {
        assert_eq!(
            run(&world, source, &options()).unwrap(),
            Some(expected.clone())
        );
    }
    let journal = Journal::look(&world.layout.journal()).unwrap().unwrap();
    let runs = journal.runs(Side::Target).unwrap();
    assert!(runs
        .iter()
        .all(|run| run.error.is_none() && run.ended_at.is_some()));
    assert_eq!(runs[0].pair, Some(PAIR.to_string()));
}

#[test]
fn while_the_source_may_run_the_vm_nothing_happens() {
    let up = || SourceState::Answers("it takes connections".into());
    let unknown = || SourceState::Unknown("no address".into());
    for source in [
        up(),
        unknown(),
        says(Role::Primary, 1, true),
        says(Role::Primary, 1, false),
        says(Role::Primary, 7, false),
        says(Role::Held, 1, false),
        says(Role::Retired, 2, true),
    ] {
        let world = world();
        let error = run(&world, source.clone(), &options()).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{source:?}: {error}");
        assert!(error.advice().unwrap().contains("--i-am-sure web"));
        assert_untouched(&world);
        // The wrong name is no yes.
        let wrong = FailoverOptions {
            sure: Some("db".into()),
            ..options()
        };
        let error = run(&world, source.clone(), &wrong).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert_untouched(&world);
        let sure = FailoverOptions {
            sure: Some("web".into()),
            ..options()
        };
        let done = run(&world, source.clone(), &sure).unwrap().unwrap();
        let newer = matches!(&source, SourceState::Says(p) if p.standing.epoch == 7);
        assert_eq!(done.epoch, if newer { 8 } else { 2 }, "{source:?}");
    }
}

#[test]
fn a_source_that_has_given_the_vm_up_is_believed() {
    let world = world();
    // It got as far as its own half of a change of roles.
    let done = run(&world, says(Role::Retired, 2, false), &options());
    assert_eq!(done.unwrap().unwrap().epoch, 2);
}

#[test]
fn a_fence_must_succeed_and_is_told_whom_it_is_about() {
    let world = world();
    let with = |fence: Fence| FailoverOptions {
        fence: Some(fence),
        ..options()
    };
    let fails = script(&world, "echo powered on; echo no route >&2; exit 3");
    for source in [says(Role::Primary, 1, true), silent()] {
        let error = run(&world, source, &with(fails.clone())).unwrap_err();
        for words in ["exit code 3", "powered on", "no route"] {
            assert!(error.message().contains(words), "{error}");
        }
        assert_untouched(&world);
    }
    let slow = Fence {
        limit: Duration::from_millis(300),
        ..script(&world, "exec sleep 600")
    };
    let error = run(&world, silent(), &with(slow)).unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert_untouched(&world);
    let said = world.folder.dir.join("said");
    let works = script(
        &world,
        &format!(
            "echo \"$RBLOCKSYNC_SOURCE $RBLOCKSYNC_VM $# $1\" > {}",
            said.display()
        ),
    );
    let done = run(&world, says(Role::Primary, 1, true), &with(works));
    assert!(done.unwrap().unwrap().running);
    assert_eq!(
        std::fs::read_to_string(said).unwrap(),
        "there 101 1 one two\n"
    );
    // Not once more, when it is done.
    let done = run(&world, silent(), &with(script(&world, "exit 1")));
    assert!(done.unwrap().unwrap().running);
}

#[test]
fn a_dry_run_changes_nothing() {
    let world = world();
    let dry = FailoverOptions {
        dry_run: true,
        sure: Some("web".into()),
        fence: Some(script(&world, "touch /nonexistent/x")),
        ..options()
    };
    for source in [silent(), says(Role::Primary, 1, true)] {
        assert_eq!(run(&world, source, &dry).unwrap(), None);
        assert_untouched(&world);
    }
    assert!(!world.layout.journal().exists());
}

#[test]
fn a_vm_that_does_not_start_is_taken_over_all_the_same() {
    let world = world();
    world.folder.set("start-fails", "no memory");
    let error = run(&world, silent(), &options()).unwrap_err();
    assert!(error.message().contains("no memory"), "{error}");
    assert_eq!(world.pair().standing.role, Role::Primary);
    std::fs::remove_file(world.folder.dir.join("start-fails")).unwrap();
    assert!(run(&world, silent(), &options()).unwrap().unwrap().running);
}

#[test]
fn it_is_left_off_if_that_is_wanted() {
    let off = FailoverOptions {
        start: false,
        ..options()
    };
    assert!(!run(&world(), silent(), &off).unwrap().unwrap().running);
}

#[test]
fn what_is_not_there_is_said() {
    let world = world();
    let vm = |vm: &str| FailoverOptions {
        vm: vm.into(),
        ..options()
    };
    let error = run(&world, silent(), &vm("999")).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let old = FailoverOptions {
        generation: Some(9),
        ..options()
    };
    assert_eq!(
        run(&world, silent(), &old).unwrap_err().kind(),
        Kind::NotFound
    );
    world.change_pair(|pair| pair.standing.role = Role::Retired);
    let error = run(&world, silent(), &options()).unwrap_err();
    assert!(error.message().contains("retired"), "{error}");
}

#[test]
fn killed_at_each_record_the_same_command_finishes_it() {
    for point in [
        "journal plan",
        "journal hand-over",
        "take-over announced",
        "take-over swap scsi1",
        "take-over standing",
        "take-over guard",
        "journal start",
    ] {
        let world = world();
        assert!(dies_at(point, "failover", &world.folder.dir), "{point}");
        task(&world);
        let primary = Standing {
            role: Role::Primary,
            epoch: 2,
        };
        assert_eq!(world.pair().standing, primary, "{point}");
        assert_eq!(world.folder.get("promoted").as_deref(), Some("2"));
        assert_eq!(world.heads(), [2, 2]);
    }
}
