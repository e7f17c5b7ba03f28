//! A migration is killed everywhere: at each record of its journal, at each step of its driver and of the other host's
//! agent. After each, one host at most may run the VM, and the same command, run again, brings it to the other host, whole;
//! or `--undo` keeps it where it was. The same for bringing a VM back after a failover.
//!
//! This program is also the front end that is killed: see `program.rs`.
#![allow(clippy::unwrap_used)]

mod folder;
mod live;
mod program;
mod world;

use folder::{State, BROKEN};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use world::World;

/// Where the driver can die before the other host may have the VM.
const BEFORE: [&str; 14] = [
    "journal plan",
    "journal sweep",
    "journal fork",
    "journal snap",
    "journal transfer",
    "journal seal",
    "journal release",
    "handover begun",
    "journal stop",
    "stopped",
    "last sync",
    "handover kept",
    "journal retire",
    "stand",
];
/// And from then on.
const BEHIND: [&str; 15] = [
    "retired standing",
    "retired guard",
    "journal hand-over",
    "journal reverse",
    "journal start",
    "started",
    "journal health",
    "journal adopt",
    "adopt given-up",
    "adopt pair",
    "adopt a",
    "adopt b",
    "adopt manifest",
    "adopt replica",
    "adopt publish",
];
/// Where the other host's agent can.
const AGENT: [&str; 9] = [
    "take-over checked",
    "take-over announced",
    "take-over heads",
    "take-over standing",
    "take-over primary",
    "take-over guard",
    "take-over promoted",
    "reverse known",
    "reverse bases",
];
/// Where a failback can die before it is a migration, and the agent that it asks.
const FAILBACK: [&str; 4] = [
    "journal plan",
    "failback pair",
    "journal adopt",
    "failback adopted",
];
const ADOPTING: [&str; 9] = [
    "adopt given-up",
    "retired standing",
    "retired guard",
    "adopt pair",
    "adopt a",
    "adopt b",
    "adopt manifest",
    "adopt replica",
    "adopt publish",
];

fn main() -> ExitCode {
    if let Some(code) = tests::cli::asked_as_front_end(program::main) {
        return code;
    }
    let mut trials = Vec::new();
    for (name, sweep) in [
        ("the_driver_dies_before_it_gives_the_vm_up", before as fn()),
        ("the_driver_dies_behind_that", behind),
        ("a_signal_comes_behind_that", interrupted),
        ("the_agent_dies_at_each_step", agent),
        ("what_was_begun_can_be_undone", undo),
        ("a_vm_is_brought_back_after_a_failover", bring_back),
        (
            "without_shared_blocks_it_goes_and_comes_back",
            without_shared_blocks,
        ),
        ("what_does_not_do_well_stays_where_it_is", ill),
        ("nothing_is_brought_back_while_both_run", both_run),
        ("a_guest_that_moves_has_its_memory", live::moves),
        ("a_guest_that_moves_survives_the_driver", live::driver_dies),
        ("a_guest_that_moves_survives_a_signal", live::interrupted),
        ("a_guest_that_moves_survives_the_agent", live::agent_dies),
        ("a_guest_that_moves_can_be_taken_back", live::taken_back),
    ] {
        trials
            .push(Trial::test(name, move || run(sweep)).with_ignored_flag(!tests::cli::is_root()));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn run(sweep: fn()) -> Result<(), Failed> {
    sweep();
    Ok(())
}

/// The driver on `from` dies at `point`; run again, it brings the VM to the other host.
fn dies_and_arrives(world: &mut World, from: usize, point: &str) {
    world.change(from);
    let content = world.content(from);
    let died = world.run(from, "migrate", point);
    assert_eq!(
        died.status.code(),
        None,
        "{point} was not reached: {died:?}"
    );
    world.check();
    world.run_well(from, "migrate");
    world.check_is_on(1 - from, &content);
}

/// Back and forth, so that both directions and what was left of earlier ones come into play.
fn before() {
    let mut world = World::new(true);
    for (case, point) in BEFORE.iter().enumerate() {
        dies_and_arrives(&mut world, case % 2, point);
    }
}

fn behind() {
    let mut world = World::new(true);
    for (case, point) in BEHIND.iter().enumerate() {
        dies_and_arrives(&mut world, case % 2, point);
    }
}

/// Whoever wants it to end gets a VM that runs, and what is left is done later.
fn interrupted() {
    let mut world = World::new(true);
    for (case, point) in ["stand", "retired guard", "journal hand-over"]
        .iter()
        .enumerate()
    {
        let from = case % 2;
        world.change(from);
        let content = world.content(from);
        let run = world.interrupt(from, "migrate", point);
        assert_eq!(run.status.code(), Some(1), "{point}: {run:?}");
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(said.contains("stopped by signal 2"), "{point}: {said}");
        world.check();
        assert!(world.runs(1 - from), "{point}: it runs nowhere");
        world.run_well(from, "migrate");
        world.check_is_on(1 - from, &content);
    }
}

fn agent() {
    let mut world = World::new(true);
    for (case, point) in AGENT.iter().enumerate() {
        let from = case % 2;
        world.change(from);
        let content = world.content(from);
        world.agent_dies_at(1 - from, point);
        let run = world.run(from, "migrate", "");
        world.check();
        world.agent_dies_at(1 - from, "");
        // Behind the step that another agent passes over, the run has gone on by itself.
        if run.status.code() != Some(0) {
            assert_eq!(run.status.code(), Some(1), "{point}: {run:?}");
            assert!(!world.runs(from), "{point}: it was given up");
            if !world.runs(1 - from) {
                let said = String::from_utf8_lossy(&run.stdout);
                assert!(said.contains("both hold still"), "{point}: {said}");
            }
            world.run_well(from, "migrate");
        }
        world.check_is_on(1 - from, &content);
    }
}

fn undo() {
    let mut world = World::new(true);
    world.run_well(0, "sync");
    for point in [
        "stopped",
        "handover kept",
        "stand",
        "retired guard",
        "journal hand-over",
    ] {
        // An undo may be cut off as well.
        for dies_at in [
            "",
            "undo begun",
            "undo confirmed",
            "undo standing",
            "undo started",
        ] {
            world.change(0);
            let content = world.content(0);
            let died = world.run(0, "migrate", point);
            assert_eq!(died.status.code(), None, "{point}: {died:?}");
            if !dies_at.is_empty() {
                // Before it was given up there is nothing to be confirmed.
                world.run(0, "undo", dies_at);
                world.check();
            }
            if dies_at != "undo started" || !world.runs(0) {
                let undone = world.run(0, "undo", "");
                let is_undone = String::from_utf8_lossy(&undone.stderr).contains("no migration");
                assert!(
                    undone.status.success() || is_undone,
                    "{point} {dies_at}: {undone:?}"
                );
            } else {
                world.run_well(0, "undo");
            }
            world.check();
            assert!(world.runs(0), "{point} {dies_at}");
            assert_eq!(world.content(0), content);
            world.run_well(0, "sync");
        }
    }
    let content = world.content(0);
    world.run_well(0, "migrate");
    world.check_is_on(1, &content);
    // What has arrived cannot be taken back like this.
    assert!(!world.run(0, "undo", "").status.success());
    world.check_is_on(1, &content);
    // One that was told to stay a replica obeys no older order: see what is said when the target has taken over.
    world.change(1);
    world.agent_dies_at(0, "take-over promoted");
    assert!(!world.run(1, "migrate", "").status.success());
    world.agent_dies_at(0, "");
    let refused = world.run(1, "undo", "");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("is primary"),
        "{said}"
    );
    world.check();
    // Then it is finished, as it says.
    let content = world.content(1);
    world.run_well(1, "migrate");
    world.check_is_on(0, &content);
}

fn bring_back() {
    let mut world = World::new(true);
    world.run_well(0, "sync");
    let points = FAILBACK.iter().map(|point| (point, false));
    let points: Vec<_> = points
        .chain(ADOPTING.iter().map(|point| (point, true)))
        .collect();
    for (case, (point, is_agents)) in points.into_iter().enumerate() {
        let (lost, heir) = (case % 2, 1 - case % 2);
        // What was written since the last sync is lost, or is it: it stays on the host that was.
        world.change(lost);
        let diverged = world.content(lost);
        world.stop(lost);
        world.run_well(heir, "fail-over");
        world.change(heir);
        let content = world.content(heir);
        if is_agents {
            world.agent_dies_at(lost, point);
            let failed = world.run(heir, "failback-only", "");
            assert_eq!(failed.status.code(), Some(1), "{point}: {failed:?}");
            world.agent_dies_at(lost, "");
        } else {
            let died = world.run(heir, "failback-only", point);
            assert_eq!(died.status.code(), None, "{point}: {died:?}");
        }
        assert!(world.runs(heir) && !world.runs(lost));
        world.run_well(heir, "failback-only");
        world.check_is_on(heir, &content);
        let kept = diverged_generation(&world, lost);
        assert_eq!(kept, diverged, "{point}: what was written there is gone");
        let said = world.run_well(heir, "failback");
        world.check_is_on(lost, &content);
        assert!(said.contains("of downtime"), "{said}");
        // In the next case the other host is lost.
        world.run_well(lost, "migrate");
        world.check_is_on(heir, &content);
    }
}

/// The oldest generation that `host` keeps, which are its own disks as they were left.
fn diverged_generation(world: &World, host: usize) -> [blake3::Hash; 2] {
    let folder = world.folder(host);
    let config = folder.read().unwrap().unwrap();
    world::DISKS.map(|disk| {
        let prefix = format!(".{}.rbs", config.disks[disk]);
        let mut numbers: Vec<u64> = std::fs::read_dir(&folder.dir)
            .unwrap()
            .filter_map(|e| {
                e.unwrap()
                    .file_name()
                    .to_str()?
                    .strip_prefix(&prefix)?
                    .parse()
                    .ok()
            })
            .collect();
        numbers.sort_unstable();
        // The newest is what was synced since.
        let number = numbers[numbers.len() - 2];
        blake3::hash(&std::fs::read(folder.dir.join(format!("{prefix}{number}"))).unwrap())
    })
}

fn without_shared_blocks() {
    let mut world = World::new(false);
    for (case, point) in [
        "",
        "adopt a",
        "handover kept",
        "adopt manifest",
        "adopt publish",
    ]
    .iter()
    .enumerate()
    {
        let from = case % 2;
        match point.is_empty() {
            true => {
                world.change(from);
                let content = world.content(from);
                world.run_well(from, "migrate");
                world.check_is_on(1 - from, &content);
            }
            false => dies_and_arrives(&mut world, from, point),
        }
    }
}

fn ill() {
    let mut world = World::new(true);
    world.change(0);
    let content = world.content(0);
    world.health = "test \"$VMID\" = 101 && test -n \"$HOST\" && false".into();
    let failed = world.run(0, "migrate", "");
    let said = String::from_utf8_lossy(&failed.stderr);
    assert!(
        !failed.status.success() && said.contains("does not do well"),
        "{said}"
    );
    world.check_is_on(1, &content);
    world.health = "true".into();
    // One that cannot even be started is not taken back either: nobody knows what was written.
    std::fs::write(world.folder(0).dir.join(BROKEN), "").unwrap();
    let failed = world.run(1, "migrate", "");
    let said = String::from_utf8_lossy(&failed.stderr);
    assert!(
        !failed.status.success() && said.contains("could not be started"),
        "{said}"
    );
    world.check();
    assert_eq!(world.vm_is(0), Some(State::Vm));
    assert!(matches!(world.vm_is(1), Some(State::Replica(_))));
    std::fs::remove_file(world.folder(0).dir.join(BROKEN)).unwrap();
    // It is off, and so it arrives.
    world.run_well(0, "migrate");
    world.check();
    assert_eq!(world.vm_is(1), Some(State::Vm));
    assert_eq!(world.content(1), content);
}

fn both_run() {
    let mut world = World::new(true);
    world.run_well(0, "sync");
    // It was thought to be dead.
    world.stop(0);
    world.run_well(1, "fail-over");
    std::fs::write(world.folder(0).dir.join(folder::RUNNING), "").unwrap();
    world.change(0);
    let contents = [world.content(0), world.content(1)];
    let refused = world.run(1, "failback", "");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("runs on first as well"),
        "{said}"
    );
    assert_eq!([world.content(0), world.content(1)], contents);
    // The old primary sends nothing to the new one.
    let refused = world.run(0, "sync", "");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    world.stop(0);
    world.run_well(1, "failback");
    world.check_is_on(0, &contents[1]);
}
