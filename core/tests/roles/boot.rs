//! The check before VMs are started: what another host says decides, and no VM that runs is touched.

use crate::dies_at;
use crate::folder::{World, PAIR};
use rblocksync::cli::{OutputOptions, Reporter};
use rblocksync::error::{Error, Kind};
use rblocksync::job::{Answer, BootCheck, BootOptions, Fate, Position, Question, Unreachable};
use rblocksync::journal::{Journal, Side};
use rblocksync::replica::{
    guard_of, source_pairs, targets_of, write_json, Role, SourcePair, Standing,
};
use std::cell::RefCell;
use std::collections::BTreeSet;
use uuid::Uuid;

const HOST: Uuid = Uuid::from_u128(2);
const OTHER: Uuid = Uuid::from_u128(3);

/// A host that sends its VM 101 to host2, and is primary in epoch 3.
fn source() -> World {
    let world = World::new();
    add(&world, HOST, "host2", Uuid::from_u128(0x21), Some("web"));
    world.folder.set("config-101", "web");
    world
}

fn add(world: &World, host: Uuid, name: &str, pair: Uuid, identity: Option<&str>) {
    let pair = SourcePair {
        pair,
        vm_identity: identity.map(Into::into),
        target_name: name.into(),
        address: Some(format!("root@{name}")),
        standing: Standing {
            role: Role::Primary,
            epoch: 3,
        },
    };
    write_json(&world.layout.source_pair("101", host), &pair).unwrap();
}

fn says(role: Role, epoch: u64) -> Answer {
    Answer::Says(Position {
        side: Side::Target,
        vm: "101".into(),
        standing: Standing { role, epoch },
        head: None,
        running: role == Role::Primary,
    })
}

fn silent() -> Answer {
    Answer::Unasked("no route".into())
}

fn options(unreachable: Unreachable) -> BootOptions {
    BootOptions {
        vms: Vec::new(),
        unreachable,
        sure: BTreeSet::new(),
        dry_run: false,
    }
}

/// What became of each VM.
type Fates = Vec<(String, Fate)>;

/// What the check comes to, when the hosts answer so, and what it asked.
fn check(
    world: &World,
    answers: &[Answer],
    options: &BootOptions,
) -> (Result<Fates, Error>, Vec<Question>) {
    let reporter = Reporter::new(OutputOptions {
        quiet: true,
        ..OutputOptions::default()
    });
    let asked = RefCell::new(Vec::new());
    let ask = |questions: &[Question]| {
        asked.borrow_mut().extend_from_slice(questions);
        if options.unreachable == Unreachable::Hold && !options.dry_run {
            let off = world.folder.get("off-101").is_some();
            let running = world.folder.get("running-101").is_some();
            assert!(off || running, "it may start while others are asked");
        }
        answers.to_vec()
    };
    let done = BootCheck {
        program: "prog",
        layout: &world.layout,
        hypervisor: &world.folder,
        reporter: &reporter,
        identity_of: &|config| (!config.is_empty()).then(|| config.to_owned()),
        ask: &ask,
    }
    .run(options);
    (done, asked.into_inner())
}

fn fate(world: &World, answers: &[Answer], options: &BootOptions) -> Fate {
    let done = check(world, answers, options).0.unwrap();
    assert_eq!(done.len(), 1);
    done[0].1
}

fn refused(world: &World, answers: &[Answer], options: &BootOptions) -> Error {
    let error = check(world, answers, options).0.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    error
}

fn standing(world: &World) -> Standing {
    source_pairs(&world.layout, "101").unwrap()[0].standing
}

fn guard(world: &World) -> Option<Role> {
    guard_of(&world.layout, "101").unwrap()
}

const PRIMARY: Standing = Standing {
    role: Role::Primary,
    epoch: 3,
};

pub fn task(world: &World) {
    let done = fate(
        world,
        &[says(Role::Primary, 4)],
        &options(Unreachable::Hold),
    );
    assert_eq!(done, Fate::Retired);
}

#[test]
fn a_vm_that_was_taken_over_is_given_up() {
    let world = source();
    for unreachable in [Unreachable::Start, Unreachable::Hold] {
        let (done, asked) = check(&world, &[says(Role::Primary, 4)], &options(unreachable));
        assert_eq!(done.unwrap(), [("101".to_owned(), Fate::Retired)]);
        let retired = Standing {
            role: Role::Retired,
            epoch: 4,
        };
        assert_eq!(standing(&world), retired);
        assert_eq!(guard(&world), Some(Role::Retired));
        assert_eq!(
            world.folder.get("retired-101").as_deref(),
            Some("it has gone to host2")
        );
        // The second time nobody has to be asked.
        match unreachable {
            Unreachable::Start => {
                assert_eq!(
                    (asked[0].host.as_str(), asked[0].side),
                    ("host2", Side::Source)
                );
                assert_eq!(asked[0].address, "root@host2");
            }
            Unreachable::Hold => assert!(asked.is_empty()),
        }
    }
    let journal = Journal::look(&world.layout.journal()).unwrap().unwrap();
    let runs = journal.runs(Side::Source).unwrap();
    assert_eq!(runs.len(), 1);
    let run = &runs[0];
    assert_eq!((run.state.as_str(), &run.error), ("retire", &None));
    assert_eq!(run.peer_host, Some(HOST.to_string()));
}

#[test]
fn nothing_is_changed_for_a_vm_that_is_still_this_hosts() {
    for answer in [
        says(Role::Replica, 3),
        says(Role::Replica, 1),
        says(Role::Retired, 3),
        // It was replaced by this host, and does not know.
        says(Role::Primary, 2),
    ] {
        for unreachable in [Unreachable::Start, Unreachable::Hold] {
            let world = source();
            let done = fate(&world, std::slice::from_ref(&answer), &options(unreachable));
            assert_eq!(done, Fate::MayStart, "{answer:?}");
            assert_eq!(standing(&world), PRIMARY);
            assert_eq!(world.folder.get("off-101"), None);
            assert_ne!(guard(&world), Some(Role::Held));
            assert!(!world.layout.journal().exists());
        }
    }
}

#[test]
fn who_cannot_be_asked_is_a_matter_of_policy() {
    let world = source();
    assert_eq!(
        fate(&world, &[silent()], &options(Unreachable::Start)),
        Fate::MayStart
    );
    assert_eq!(guard(&world), None);
    let error = refused(&world, &[silent()], &options(Unreachable::Hold));
    assert!(error.message().contains("VM 101 is kept off"), "{error}");
    assert!(error
        .advice()
        .unwrap()
        .contains("prog boot-check 101 --i-am-sure 101"));
    assert_eq!(guard(&world), Some(Role::Held));
    assert_eq!(
        world.folder.get("off-101").as_deref(),
        Some("host2 could not be asked: no route")
    );
    assert_eq!(standing(&world), PRIMARY);
    // To be asked less strictly is no answer.
    refused(&world, &[silent()], &options(Unreachable::Start));
    assert_eq!(guard(&world), Some(Role::Held));
    // Until it answers.
    let answered = fate(
        &world,
        &[says(Role::Replica, 3)],
        &options(Unreachable::Hold),
    );
    assert_eq!(answered, Fate::MayStart);
    assert_eq!(guard(&world), Some(Role::Primary));
    assert_eq!(world.folder.get("off-101"), None);
    // Or somebody says so.
    refused(&world, &[silent()], &options(Unreachable::Hold));
    let sure = BootOptions {
        sure: ["101".to_owned()].into(),
        ..options(Unreachable::Hold)
    };
    assert_eq!(fate(&world, &[silent()], &sure), Fate::MayStart);
    assert_eq!(world.folder.get("off-101"), None);
    // But nobody can be sure against a newer epoch.
    assert_eq!(
        fate(&world, &[says(Role::Primary, 4)], &sure),
        Fate::Retired
    );
}

#[test]
fn what_cannot_be_keeps_the_vm_off_whatever_the_policy() {
    for answer in [
        says(Role::Primary, 3),
        says(Role::Replica, 4),
        says(Role::Retired, 4),
        says(Role::Held, 1),
    ] {
        let world = source();
        refused(
            &world,
            std::slice::from_ref(&answer),
            &options(Unreachable::Start),
        );
        assert_eq!(guard(&world), Some(Role::Held), "{answer:?}");
        assert!(world.folder.get("off-101").is_some());
        assert_eq!(standing(&world), PRIMARY);
    }
}

#[test]
fn a_vm_that_runs_is_left_alone() {
    for answer in [
        says(Role::Primary, 4),
        says(Role::Primary, 3),
        says(Role::Replica, 4),
    ] {
        for unreachable in [Unreachable::Start, Unreachable::Hold] {
            let world = source();
            world.folder.set("running-101", "");
            let error = refused(&world, std::slice::from_ref(&answer), &options(unreachable));
            assert!(error.message().contains("runs here"), "{error}");
            assert!(world.folder.get("running-101").is_some());
            assert_eq!(standing(&world), PRIMARY);
            assert_eq!(guard(&world), None);
        }
    }
    // Silence is no reason to worry about what runs already.
    let world = source();
    world.folder.set("running-101", "");
    assert_eq!(
        fate(&world, &[silent()], &options(Unreachable::Hold)),
        Fate::MayStart
    );
}

#[test]
fn all_hosts_are_asked_and_the_newest_primary_counts() {
    let world = source();
    add(&world, OTHER, "host3", Uuid::from_u128(0x31), Some("web"));
    let (done, asked) = check(
        &world,
        &[silent(), says(Role::Primary, 5)],
        &options(Unreachable::Start),
    );
    assert_eq!(asked.len(), 2);
    assert_eq!(done.unwrap()[0].1, Fate::Retired);
    let pairs = source_pairs(&world.layout, "101").unwrap();
    assert!(pairs.iter().all(|p| p.standing.role == Role::Retired));
    assert_eq!(
        world.folder.get("retired-101").as_deref(),
        Some("it has gone to host3")
    );
}

#[test]
fn another_vm_under_the_id_is_not_taken_for_the_one_that_went() {
    let world = source();
    world.folder.set("config-101", "another");
    let (done, asked) = check(
        &world,
        &[says(Role::Primary, 4)],
        &options(Unreachable::Start),
    );
    assert_eq!((done.unwrap(), asked), (Vec::new(), Vec::new()));
    assert_eq!(world.folder.get("retired-101"), None);
}

#[test]
fn a_vm_that_is_not_here_any_more_is_no_trouble() {
    let world = source();
    std::fs::remove_file(world.folder.dir.join("config-101")).unwrap();
    world.folder.set("retire-fails", "no such VM");
    assert_eq!(
        fate(
            &world,
            &[says(Role::Primary, 4)],
            &options(Unreachable::Start)
        ),
        Fate::Retired
    );
    assert_eq!(guard(&world), Some(Role::Retired));
}

#[test]
fn one_that_cannot_be_retired_is_kept_off_by_the_hook_all_the_same() {
    let world = source();
    world
        .folder
        .set("retire-fails", "VM 101 is locked (backup)");
    let (done, _) = check(
        &world,
        &[says(Role::Primary, 4)],
        &options(Unreachable::Start),
    );
    let error = done.unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    assert_eq!(guard(&world), Some(Role::Retired));
    assert!(world.folder.get("off-101").is_some());
}

#[test]
fn a_replica_that_became_the_vm_asks_its_old_source() {
    let world = World::new();
    world.sync(1).unwrap();
    let (done, asked) = check(&world, &[], &options(Unreachable::Hold));
    assert_eq!((done.unwrap(), asked), (Vec::new(), Vec::new()));
    world.change_pair(|pair| pair.standing = PRIMARY);
    // The source is lost: that is why this host has the VM.
    let (done, asked) = check(&world, &[silent()], &options(Unreachable::Hold));
    assert_eq!(done.unwrap()[0].1, Fate::MayStart);
    assert_eq!((asked[0].pair, asked[0].host.as_str()), (PAIR, "there"));
    // It is back, and was told that this host would never be.
    assert_eq!(
        fate(
            &world,
            &[says(Role::Primary, 5)],
            &options(Unreachable::Start)
        ),
        Fate::Retired
    );
    let pair = &targets_of(&world.layout, "101").unwrap()[0];
    assert_eq!(
        (pair.standing.role, pair.standing.epoch),
        (Role::Retired, 5)
    );
}

#[test]
fn one_damaged_file_does_not_let_the_others_go_unasked() {
    let world = source();
    let pair = world.layout.target_pair(PAIR);
    std::fs::create_dir_all(pair.parent().unwrap()).unwrap();
    std::fs::write(pair, "junk").unwrap();
    let (done, _) = check(
        &world,
        &[says(Role::Primary, 4)],
        &options(Unreachable::Start),
    );
    assert!(done.unwrap_err().message().contains("damaged"));
    assert_eq!(guard(&world), Some(Role::Retired));
}

#[test]
fn a_dry_run_changes_nothing() {
    for answer in [says(Role::Primary, 4), says(Role::Primary, 3), silent()] {
        let world = source();
        let dry = BootOptions {
            dry_run: true,
            ..options(Unreachable::Hold)
        };
        let _ = check(&world, &[answer], &dry);
        assert_eq!(standing(&world), PRIMARY);
        assert_eq!(guard(&world), None);
        for file in ["off-101", "retired-101"] {
            assert_eq!(world.folder.get(file), None);
        }
        assert!(!world.layout.journal().exists());
    }
}

#[test]
fn only_the_vms_that_are_named_are_checked() {
    let world = source();
    let named = |vm: &str| BootOptions {
        vms: vec![vm.into()],
        ..options(Unreachable::Start)
    };
    assert_eq!(
        fate(&world, &[says(Role::Replica, 3)], &named("101")),
        Fate::MayStart
    );
    let error = check(&world, &[], &named("999")).0.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn killed_at_each_step_the_vm_stays_off_and_the_next_check_finishes_it() {
    for point in [
        "boot held",
        "journal retire",
        "stand",
        "retired standing",
        "retired guard",
    ] {
        let world = source();
        assert!(dies_at(point, "boot", &world.folder.dir), "{point}");
        // Proxmox would ask the guard, or find no hook at all yet, while the check has not come that far.
        let kept = guard(&world);
        assert!(
            matches!(kept, Some(Role::Held | Role::Retired)),
            "{point}: {kept:?}"
        );
        task(&world);
        assert_eq!(standing(&world).role, Role::Retired, "{point}");
        assert_eq!(guard(&world), Some(Role::Retired), "{point}");
        assert!(world.folder.get("retired-101").is_some(), "{point}");
    }
}
