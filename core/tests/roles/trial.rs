//! `test-failover`: a clone boots, and nothing of it is left.

use crate::dies_at;
use crate::folder::{World, PAIR};
use rblocksync::cli::{OutputOptions, Reporter};
use rblocksync::error::{Error, Kind};
use rblocksync::job::{sweep_trials, TrialOptions, TrialRun};
use rblocksync::replica::{boot_of, trials, Boot, BootSign, Standing};
use rblocksync::stop::Stop;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

fn world() -> World {
    let world = World::new();
    world.sync(1).unwrap();
    world.folder.set("agent", "answers");
    world
}

fn options() -> TrialOptions {
    TrialOptions {
        vm: "101".into(),
        generation: None,
        test_vm: None,
        script: None,
        limit: Duration::from_secs(20),
        keep_for: Duration::ZERO,
    }
}

fn run(world: &World, options: &TrialOptions) -> Result<Boot, Error> {
    let reporter = Reporter::new(OutputOptions {
        quiet: true,
        ..OutputOptions::default()
    });
    TrialRun {
        layout: &world.layout,
        hypervisor: &world.folder,
        reporter: &reporter,
        stop: &Stop::new(),
    }
    .run(options)
}

pub fn task(world: &World) {
    run(world, &options()).unwrap();
}

/// Only what there was before.
fn assert_nothing_left(world: &World, before: &[String]) {
    assert_eq!(world.folder.images(), before);
    assert_eq!(world.folder.get("vm-900"), None);
    assert_eq!(world.folder.get("running-900"), None);
    assert!(trials(&world.layout).unwrap().is_empty());
    assert_eq!(world.pair().standing, Standing::replica());
    assert_eq!(world.heads(), [1, 1]);
}

#[test]
fn the_agents_answer_is_noted_and_the_clone_goes() {
    let world = world();
    let before = world.folder.images();
    let boot = run(&world, &options()).unwrap();
    assert_eq!(boot.sign, BootSign::Agent);
    assert_nothing_left(&world, &before);
    assert_eq!(boot_of(&world.layout, PAIR, 1).unwrap(), Some(boot));
    // The replica goes on as ever, and what was noted goes with its generation.
    for byte in 2..=5 {
        world.sync(byte).unwrap();
    }
    assert_eq!(boot_of(&world.layout, PAIR, 1).unwrap(), None);
}

#[test]
fn a_clone_that_does_not_prove_itself_goes_too_and_nothing_is_noted() {
    let world = world();
    let before = world.folder.images();
    let short = TrialOptions {
        limit: Duration::from_millis(1),
        ..options()
    };
    world.folder.set("agent", "is silent");
    assert_eq!(run(&world, &short).unwrap_err().kind(), Kind::Timeout);
    assert_nothing_left(&world, &before);
    world.folder.set("start-fails", "no boot sector");
    let error = run(&world, &options()).unwrap_err();
    assert!(error.message().contains("no boot sector"), "{error}");
    assert_nothing_left(&world, &before);
    assert_eq!(boot_of(&world.layout, PAIR, 1).unwrap(), None);
    let none = TrialOptions {
        generation: Some(9),
        ..options()
    };
    assert_eq!(run(&world, &none).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn without_an_agent_it_must_keep_running() {
    let world = world();
    std::fs::remove_file(world.folder.dir.join("agent")).unwrap();
    let short = TrialOptions {
        limit: Duration::from_millis(1),
        ..options()
    };
    assert_eq!(run(&world, &short).unwrap().sign, BootSign::Runs);
}

#[test]
fn a_script_judges_and_is_told_what() {
    let world = world();
    let before = world.folder.images();
    let program = world.folder.dir.join("judge.sh");
    let with = |text: &str| {
        std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        TrialOptions {
            script: Some((program.clone(), vec!["x y".into()])),
            ..options()
        }
    };
    let good = with(&format!(
        "[ \"$1\" = 'x y' ] && [ $RBLOCKSYNC_VM = 900 ] && [ $RBLOCKSYNC_QMP = {0}/900.qmp ] && \
         [ $RBLOCKSYNC_QGA = {0}/900.qga ]",
        world.folder.dir.display()
    ));
    assert_eq!(run(&world, &good).unwrap().sign, BootSign::Script);
    // Syncs go on meanwhile, unless the clone reads the generation's own file.
    let look = with(&format!(
        "flock -n {} true && echo free > {1} || echo held > {1}",
        world.layout.pair_lock(PAIR).display(),
        world.folder.dir.join("lock").display()
    ));
    run(&world, &look).unwrap();
    let expected = match world.keeps_generations() {
        true => "free\n",
        false => "held\n",
    };
    assert_eq!(world.folder.get("lock").as_deref(), Some(expected));
    let error = run(&world, &with("echo the database is empty; exit 4")).unwrap_err();
    assert!(error.message().contains("the database is empty"), "{error}");
    assert_nothing_left(&world, &before);
}

#[test]
fn killed_anywhere_the_next_test_sweeps() {
    for point in [
        "trial announced",
        "trial cloned",
        "trial shown",
        "trial started",
        "trial verdict",
    ] {
        let world = world();
        let before = world.folder.images();
        assert!(dies_at(point, "trial", &world.folder.dir), "{point}");
        assert_eq!(trials(&world.layout).unwrap().len(), 1, "{point}");
        let swept = sweep_trials(&world.layout, &world.folder).unwrap();
        assert_eq!(swept.len(), 1, "{point}");
        assert_nothing_left(&world, &before);
        assert!(dies_at(point, "trial", &world.folder.dir), "{point}");
        task(&world);
        assert_nothing_left(&world, &before);
    }
}

#[test]
fn what_has_the_clones_names_by_chance_is_left_alone() {
    let world = world();
    world.folder.set("vm-900", "somebody's");
    let error = run(&world, &options()).unwrap_err();
    assert!(error.message().contains("taken"), "{error}");
    assert_eq!(world.folder.get("vm-900").as_deref(), Some("somebody's"));
    std::fs::remove_file(world.folder.dir.join("vm-900")).unwrap();
    world.folder.set("images/900-b.raw", "somebody's");
    assert!(run(&world, &options()).is_err());
    let images = world.folder.images();
    assert!(images.contains(&"900-b.raw".to_owned()) && !images.contains(&"900-a.raw".to_owned()));
    assert!(trials(&world.layout).unwrap().is_empty());
    // The VM of that id was started by somebody after a test was killed.
    std::fs::remove_file(world.folder.dir.join("images/900-b.raw")).unwrap();
    assert!(dies_at("trial started", "trial", &world.folder.dir));
    world.folder.set("vm-900", "somebody's");
    sweep_trials(&world.layout, &world.folder).unwrap();
    assert_eq!(world.folder.get("vm-900").as_deref(), Some("somebody's"));
    assert_eq!(world.folder.get("running-900").as_deref(), Some(""));
}
