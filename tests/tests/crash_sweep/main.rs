//! A sync is killed everywhere: at each record of the driver's journal, at each step of the target's seal, and by
//! cutting the link after any number of bytes. After each, whatever was shown before is still whole, and one plain run
//! makes all well.
//!
//! This program is also the front end that is killed: see `program.rs`.
#![allow(clippy::unwrap_used)]

mod checker;
mod program;
mod relay;
mod world;

use libtest_mimic::{Arguments, Failed, Trial};
use rblocksync::journal::State;
use std::process::ExitCode;
use world::World;

/// Links cut by `make test`; `SWEEP_CUTS` asks for another number.
const CUTS: u64 = 40;
const SEED: u64 = 0x5eed_0004;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if let Some(word) = args.next().and_then(|word| word.into_string().ok()) {
        if let Some(code) = program::main(&word, args.collect()) {
            return code;
        }
    }
    let mut trials = Vec::new();
    for (name, sweep) in [
        (
            "the_driver_dies_at_each_record",
            driver as fn(&mut World) -> u64,
        ),
        ("the_agent_dies_at_each_step", agent),
        ("the_agent_is_killed_at_each_record", agent_at_records),
        ("the_link_is_cut_at_each_record", link_at_records),
        ("the_journals_disk_is_full", full_disk),
        ("the_link_is_cut_at_any_byte", link),
        ("a_doctor_puts_right_what_was_left", doctor),
    ] {
        trials
            .push(Trial::test(name, move || run(sweep)).with_ignored_flag(!tests::cli::is_root()));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn run(sweep: fn(&mut World) -> u64) -> Result<(), Failed> {
    let mut world = World::new();
    // One generation, so that there is something to lose.
    world.converge();
    let cases = sweep(&mut world);
    println!("{cases} cases, {} versions", world.version());
    Ok(())
}

fn driver(world: &mut World) -> u64 {
    let mut points: Vec<String> = State::ALL
        .iter()
        .map(|state| format!("journal {}", state.name()))
        .collect();
    points.push("held".into());
    for point in &points {
        world.change();
        let run = world.run(point);
        assert_eq!(run.status.code(), None, "{point}: {run:?} {}", world.log());
        world.check_after_a_crash(true);
        world.converge();
    }
    points.len() as u64
}

fn agent(world: &mut World) -> u64 {
    let points = [
        "seal a", "seal b", "head a", "head b", "swap a", "swap b", "manifest", "publish", "prune",
    ];
    for point in points {
        world.change();
        world.agent_dies_at(point);
        let run = world.run("");
        assert_eq!(run.status.code(), Some(1), "{point}: {run:?}");
        // Between two swaps the heads are of two versions, and the replica is held by its hypervisor.
        world.check_after_a_crash(point != "swap b");
        world.converge();
    }
    points.len() as u64
}

fn at_records(world: &mut World, act: fn(&World)) -> u64 {
    for state in State::ALL {
        let point = format!("journal {}", state.name());
        world.change();
        let run = world.run_stopped_at(&point, act);
        // At the last record there is nothing left to ask of the target.
        assert!(
            state == State::Release || !run.status.success(),
            "{point}: {run:?}"
        );
        world.check_after_a_crash(true);
        world.converge();
    }
    State::ALL.len() as u64
}

fn agent_at_records(world: &mut World) -> u64 {
    at_records(world, |world| assert_eq!(world.kill_agents(), 1))
}

fn link_at_records(world: &mut World) -> u64 {
    at_records(world, |world| world.cut_after(0))
}

/// What cannot be noted is not begun.
fn full_disk(world: &mut World) -> u64 {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let disk = tests::cli::Mount::ext4(dir.path(), 8 << 20);
    let filler = std::fs::File::create(disk.dir().join("filler")).unwrap();
    let mut filled = 0;
    while std::os::unix::fs::FileExt::write_at(&filler, &[1; 4096], filled).is_ok() {
        filled += 4096;
    }
    world.change();
    let run = world.run_with_state(&disk.dir().join("state"));
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(
        said.contains("journal.db") && said.contains("free some space"),
        "{said}"
    );
    world.check_after_a_crash(true);
    filler.set_len(0).unwrap();
    world.converge();
    1
}

/// Without another run: the source's clones go, and a seal that was announced is finished.
fn doctor(world: &mut World) -> u64 {
    world.change();
    world.run("journal transfer");
    let said = world.doctor();
    assert!(
        said.contains("true VM 101: a run that was cut off left "),
        "{said}"
    );
    world.check_after_a_crash(true);
    for point in ["seal b", "swap b", "publish"] {
        world.change();
        world.agent_dies_at(point);
        world.run("");
        let said = world.doctor();
        assert!(
            said.contains("true replica 101 of VM 101 on here: the seal of "),
            "{said}"
        );
        world.check_after_a_crash(true);
        assert_eq!(world.shown(), Some(world.version()), "{point}");
    }
    world.converge();
    4
}

fn link(world: &mut World) -> u64 {
    let cuts = std::env::var("SWEEP_CUTS").map_or(CUTS, |n| n.parse().unwrap());
    // How much a whole run needs.
    world.change();
    world.cut_after(i64::MAX / 2);
    assert!(world.run("").status.success());
    let whole = (i64::MAX / 2 - world.mend()) as u64;
    let mut random = SEED;
    println!("seed {SEED:#x}, {whole} bytes a run");
    let mut failed = 0;
    for _ in 0..cuts {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let at = random % whole;
        world.change();
        world.cut_after(at as i64);
        let run = world.run("");
        failed += u64::from(!run.status.success());
        world.check_after_a_crash(true);
        world.converge();
    }
    assert!(failed * 10 >= cuts * 9, "{failed} of {cuts} were cut");
    cuts
}
