//! A guest that is moved while it lives: whoever is killed, it is one guest, it is not left paused, and it keeps its memory.

use crate::world::World;
use rblocksync::hypervisor::GuestState;
use tests::kills::BEFORE_GIVING_UP;

/// From when the VM is given up until the other host has it.
const BETWEEN: [&str; 4] = [
    "stand",
    "retired standing",
    "retired guard",
    "journal hand-over",
];
/// And behind that.
const BEHIND: [&str; 6] = [
    "started",
    "journal reverse",
    "journal health",
    "journal adopt",
    "adopt given-up",
    "adopt manifest",
];
/// Where the other host's agent can die before the VM was given up, and behind that.
const AGENT: [(&str, bool); 7] = [
    ("landing announced", false),
    ("landing waits", false),
    ("landing checked", true),
    ("landing standing", true),
    ("landing guard", true),
    ("landing runs", true),
    ("landing promoted", true),
];

/// The VM has gone from `from` to the other host, with what it had in its memory.
fn has_moved(world: &World, from: usize, content: &[blake3::Hash; 2], memory: &str) {
    world.check_is_on(1 - from, content);
    assert_eq!(world.memory(1 - from), memory, "it is another guest");
    assert_eq!(world.folder(from).state(), GuestState::Off);
}

pub fn moves() {
    let mut world = World::new(true);
    for from in [0, 1, 0] {
        world.change(from);
        let (content, memory) = (world.content(from), world.memory(from));
        let said = world.run_well(from, "live");
        has_moved(&world, from, &content, &memory);
        for words in ["of downtime", "memory", "it comes from a folder"] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
    // What cannot go on there stays as it is.
    let memory = world.memory(1);
    std::fs::write(world.folder(0).dir.join(crate::folder::BROKEN), "").unwrap();
    let refused = world.run(1, "live", "");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("could not go on here"),
        "{said}"
    );
    assert_eq!(world.folder(1).state(), GuestState::Running);
    assert_eq!(world.memory(1), memory);
    assert_eq!(world.folder(0).state(), GuestState::Off);
}

/// Whoever wants it to end once the memory is there gets the guest that has it.
pub fn interrupted() {
    let mut world = World::new(true);
    let points = ["memory sent", "keeper bound"].iter().chain(&BETWEEN);
    for (case, point) in points.enumerate() {
        let from = case % 2;
        world.change(from);
        let (content, memory) = (world.content(from), world.memory(from));
        let run = world.interrupt(from, "live", point);
        assert_eq!(run.status.code(), Some(1), "{point}: {run:?}");
        world.check();
        assert!(world.runs(1 - from), "{point}: it runs nowhere");
        world.run_well(from, "live");
        has_moved(&world, from, &content, &memory);
    }
}

pub fn driver_dies() {
    let mut world = World::new(true);
    world.run_well(0, "sync");
    let before = BEFORE_GIVING_UP.iter().map(|point| (point, true));
    let behind = BETWEEN.iter().chain(&BEHIND).map(|point| (point, false));
    for (case, (point, goes_on)) in before.chain(behind).enumerate() {
        let from = case % 2;
        world.change(from);
        let (content, memory) = (world.content(from), world.memory(from));
        let died = world.run(from, "live", point);
        assert_eq!(
            died.status.code(),
            None,
            "{point} was not reached: {died:?}"
        );
        world.check();
        if goes_on {
            world.expect_guest(from, GuestState::Running);
            world.check();
        }
        world.run_well(from, "live");
        has_moved(&world, from, &content, &memory);
    }
}

pub fn agent_dies() {
    let mut world = World::new(true);
    world.run_well(0, "sync");
    for (case, (point, given_up)) in AGENT.into_iter().enumerate() {
        let from = case % 2;
        world.change(from);
        let (content, memory) = (world.content(from), world.memory(from));
        world.agent_dies_at(1 - from, point);
        let run = world.run(from, "live", "");
        world.check();
        world.agent_dies_at(1 - from, "");
        // Behind the step that another agent passes over, the run has gone on by itself.
        if run.status.code() != Some(0) {
            assert_eq!(run.status.code(), Some(1), "{point}: {run:?}");
            assert_eq!(
                world.folder(from).state() == GuestState::Running,
                !given_up,
                "{point}: {run:?}"
            );
            world.run_well(from, "live");
        }
        has_moved(&world, from, &content, &memory);
    }
}

pub fn taken_back() {
    let mut world = World::new(true);
    world.run_well(0, "sync");
    for point in [
        "memory sent",
        "keeper bound",
        "retired standing",
        "journal hand-over",
    ] {
        world.change(0);
        let (content, memory) = (world.content(0), world.memory(0));
        let died = world.run(0, "live", point);
        assert_eq!(died.status.code(), None, "{point}: {died:?}");
        world.run_well(0, "undo");
        world.check();
        assert_eq!(world.folder(0).state(), GuestState::Running, "{point}");
        assert_eq!(world.memory(0), memory, "{point}");
        assert_eq!(world.content(0), content);
        world.expect_guest(1, GuestState::Off);
        world.run_well(0, "sync");
    }
}
