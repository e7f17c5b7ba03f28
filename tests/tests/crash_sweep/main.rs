//! A sync is killed everywhere: at each record of the driver's journal, at each step of the target's seal, and by
//! cutting the link after any number of bytes. After each, whatever was shown before is still whole, and one plain run
//! makes all well.
//!
//! This program is also the front end that is killed: see `program.rs`.
#![allow(clippy::unwrap_used)]

mod checker;
mod guest;
mod program;
mod relay;
mod world;

use libtest_mimic::{Arguments, Failed, Trial};
use rblocksync::journal::State;
use std::process::ExitCode;
use world::World;

/// Links cut by `make test`; `SWEEP_CUTS` asks for another number.
const CUTS: u64 = 20;
/// Links cut where the run may try again.
const OUTLIVED: u64 = 12;
/// Where an agent can die: at the records of its journal, and while it seals and prunes.
const AGENT_STEPS: [&str; 11] = [
    "journal fork",
    "journal seal",
    "seal a",
    "seal b",
    "head a",
    "head b",
    "swap a",
    "swap b",
    "manifest",
    "publish",
    "prune",
];
/// Steps of the soak in `make test`, each of 15 minutes; `SOAK_DAYS` asks for days.
const SOAK_STEPS: u64 = 24;
const STEP_S: i64 = 900;
/// What the soak keeps, in seconds.
const SOAK_WITHIN_S: u64 = 7200;
const SEED: u64 = 0x5eed_0004;

fn main() -> ExitCode {
    if let Some(code) = tests::cli::asked_as_front_end(program::main) {
        return code;
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
        ("days_of_syncs_with_random_faults", soak),
        ("the_link_is_cut_at_any_byte", link),
        ("a_run_outlives_a_lost_connection", outlive),
        ("the_guest_reboots_and_writes_in_the_transfer", reboot),
        ("a_disk_is_rolled_back", roll_back),
        ("damage_is_put_right_from_the_source", damage),
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
    let mut points: Vec<String> = State::SYNC
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
    for point in AGENT_STEPS {
        world.change();
        world.agent_dies_at(point);
        let run = world.run("");
        assert_eq!(run.status.code(), Some(1), "{point}: {run:?}");
        // Between two swaps the heads are of two versions, and the replica is held by its hypervisor.
        world.check_after_a_crash(point != "swap b");
        world.converge();
    }
    AGENT_STEPS.len() as u64
}

fn at_records(world: &mut World, act: fn(&World, State)) -> u64 {
    for state in State::SYNC {
        let point = format!("journal {}", state.name());
        world.change();
        let run = world.run_stopped_at(&point, |world| act(world, state));
        // At the last record there is nothing left to ask of the target.
        assert!(
            state == State::Release || !run.status.success(),
            "{point}: {run:?}"
        );
        world.check_after_a_crash(true);
        world.converge();
    }
    State::SYNC.len() as u64
}

fn agent_at_records(world: &mut World) -> u64 {
    at_records(world, |world, state| {
        // For the last one no agent is needed any more.
        let there = usize::from(state != State::Release);
        assert_eq!(world.kill_agents(), there);
    })
}

fn link_at_records(world: &mut World) -> u64 {
    at_records(world, |world, _| world.cut_after(0))
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
    let mut random = Random(SEED);
    println!("seed {SEED:#x}, {whole} bytes a run");
    let mut failed = 0;
    for _ in 0..cuts {
        let at = random.below(whole);
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

/// What the guest does after the point in time is not in the generation.
fn reboot(world: &mut World) -> u64 {
    world.change();
    let run = world.run_stopped_at("journal transfer", |world| {
        world.reset_guest();
        (0..1024).for_each(|block| world.turn_source_over(block));
    });
    assert!(run.status.success(), "{run:?}");
    (0..1024).for_each(|block| world.turn_source_over(block));
    world.check_after_a_crash(true);
    assert_eq!(world.shown(), Some(world.version()));
    world.converge();
    1
}

/// To what it was before all generations that are kept.
fn roll_back(world: &mut World) -> u64 {
    let old = world.save();
    for _ in 0..program::KEEP {
        world.change();
        world.converge();
    }
    world.roll_back(&old);
    world.converge();
    1
}

/// Blocks of three segments, one of which the guest has written to since.
fn damage(world: &mut World) -> u64 {
    const MIB: u64 = 256;
    let blocks = [1, MIB, 4 * MIB + 7];
    let all_is = |world: &World, options: &[&str], code, words: &[&str]| {
        let run = world.verify(options);
        let said = String::from_utf8_lossy(&run.stdout).into_owned()
            + &String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(code), "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in {said}");
        }
    };
    all_is(
        world,
        &[],
        0,
        &["a: a.raw is as it was sealed", "b: b.raw is as"],
    );
    blocks.iter().for_each(|block| world.damage(*block));
    world.turn_source_over(MIB);
    let damaged = ["a: a.raw is damaged, 3.0 MiB of 6.0 MiB: bytes 0..2097152, 4194304..5242880"];
    all_is(world, &[], 4, &damaged);
    // A slice finds what is in it, and the next one goes on there.
    let slices: Vec<Option<i32>> = (0..4)
        .map(|_| world.verify(&["--slice", "30"]).status.code())
        .collect();
    assert_eq!(slices, [Some(4), Some(4), Some(0), Some(0)]);
    let two = [
        "put right: 2.0 MiB; 1.0 MiB are not on the source",
        "bytes 1048576..2097152",
    ];
    all_is(world, &["--repair"], 4, &two);
    world.turn_source_over(MIB);
    // What is left of a repair that was cut off is done by the next run.
    world.agent_dies_at("mended");
    let run = world.verify(&["--repair"]);
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    let said = world.doctor();
    assert!(
        said.contains("true replica 101 of VM 101 on here: the repair of "),
        "{said}"
    );
    all_is(world, &[], 0, &["a: a.raw is as it was sealed"]);
    world.check_after_a_crash(true);
    world.converge();
    6
}

/// Where the driver may try again, what is lost on the way in the transfer does not end the run.
fn outlive(world: &mut World) -> u64 {
    world.retry_s = 60;
    world.change();
    let run = world.run_stopped_at("journal transfer", |world| {
        assert_eq!(world.kill_agents(), 1);
    });
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{run:?}");
    assert!(said.contains("connected again"), "{said}");
    world.check_after_a_crash(true);
    assert_eq!(world.shown(), Some(world.version()));
    world.change();
    world.cut_after(i64::MAX / 2);
    assert!(world.run("").status.success());
    let whole = (i64::MAX / 2 - world.mend()) as u64;
    let mut random = Random(SEED);
    let mut outlived = 0;
    for _ in 0..OUTLIVED {
        world.change();
        world.cut_once_after(random.below(whole) as i64);
        let run = world.run("");
        let said = String::from_utf8_lossy(&run.stdout);
        world.check_after_a_crash(true);
        if said.contains("connected again") {
            assert!(run.status.success(), "{run:?}");
            assert_eq!(world.shown(), Some(world.version()), "{said}");
            outlived += 1;
        }
        world.converge();
    }
    assert!(3 * outlived >= OUTLIVED, "{outlived} of {OUTLIVED}");
    OUTLIVED + 1
}

/// xorshift64: the seed is the whole of a sweep.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// A sync every 15 minutes, by a clock that is put forward, and now and then back. Three in ten meet a fault, so that
/// faults meet what earlier ones left.
fn soak(world: &mut World) -> u64 {
    let days = std::env::var("SOAK_DAYS").ok();
    let steps = days.map_or(SOAK_STEPS, |days| days.parse::<u64>().unwrap() * 96);
    let seed = std::env::var("SOAK_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    println!("seed {seed}, {steps} steps");
    let mut random = Random(seed);
    world.within_s = SOAK_WITHIN_S;
    let (mut faults, mut heads_may_differ) = (0, false);
    for step in 0..steps {
        world.clock_s += STEP_S;
        if random.below(100) == 0 {
            world.clock_s -= 3 * STEP_S;
        }
        if random.below(4) > 0 {
            world.change();
        }
        world.agent_dies_at("");
        world.mend();
        if random.below(10) >= 3 {
            world.converge();
            heads_may_differ = false;
            let kept = world.generations();
            // Eight in two hours, its ends, and what a clock that was set back adds.
            assert!(kept <= 14, "step {step}: {kept} generations");
            continue;
        }
        faults += 1;
        let record = format!("journal {}", random.one_of(&State::SYNC).name());
        match random.below(5) {
            0 => drop(world.run(&record)),
            1 => drop(world.run("held")),
            2 => {
                let at = random.one_of(&AGENT_STEPS);
                heads_may_differ |= at == "swap b";
                world.agent_dies_at(at);
                world.run("");
            }
            3 => drop(world.run_stopped_at(&record, |world| {
                world.kill_agents();
            })),
            _ => {
                world.cut_after(random.below(600_000) as i64);
                world.run("");
            }
        }
        world.check_after_a_crash(!heads_may_differ);
    }
    world.agent_dies_at("");
    world.mend();
    world.converge();
    println!("{faults} faults");
    steps
}
