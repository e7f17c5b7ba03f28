//! `take_over`: the replica becomes the VM, whatever happens in between.

use crate::dies_at;
use crate::folder::{World, PAIR};
use rblocksync::error::Kind;
use rblocksync::replica::{
    inspect, pending_take_over, prune, take_over, Retention, Role, Standing, TakeOver,
};

fn order(generation: u64, epoch: u64) -> TakeOver {
    TakeOver {
        pair: PAIR,
        generation,
        epoch,
    }
}

/// Generations 1 and 2, and a head that somebody has written to.
fn world() -> World {
    let world = World::new();
    world.sync(1).unwrap();
    world.sync(2).unwrap();
    world
}

pub fn task(world: &World) {
    take_over(&world.layout, &world.folder, &order(2, 2)).unwrap();
}

fn assert_taken_over(world: &World, generation: u64) {
    let pair = world.pair();
    let primary = Standing {
        role: Role::Primary,
        epoch: 2,
    };
    assert_eq!((pair.standing, pair.head), (primary, Some(generation)));
    assert!(pair.forks.is_empty());
    let guard = std::fs::read_to_string(world.layout.guard("101")).unwrap();
    assert!(guard.starts_with("primary 2 "), "{guard}");
    assert_eq!(world.folder.get("promoted"), Some(generation.to_string()));
    assert_eq!(world.heads(), [generation as u8; 2]);
    assert_eq!(pending_take_over(&world.layout, PAIR).unwrap(), None);
}

#[test]
fn the_newest_generation_becomes_the_vm_and_takes_no_syncs_any_more() {
    let world = world();
    let taken = take_over(&world.layout, &world.folder, &order(2, 2)).unwrap();
    assert_eq!((taken.generation.number, taken.notes.len()), (2, 0));
    assert_taken_over(&world, 2);
    let refused = world.sync(3).unwrap_err();
    assert!(refused.message().contains("primary"), "{refused}");
    let all = Retention {
        keep: 1,
        within_s: None,
    };
    let refused = prune(&world.layout, &world.folder, "101", all, false).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    // The VM writes to its disks; running it again touches none of them.
    std::fs::write(world.folder.dir.join("images/a.raw"), [9; 8192]).unwrap();
    take_over(&world.layout, &world.folder, &order(2, 2)).unwrap();
    assert_eq!(world.heads(), [9, 2]);
}

#[test]
fn an_older_generation_becomes_the_head_and_the_newer_one_stays() {
    let world = world();
    if !world.keeps_generations() {
        let gone = take_over(&world.layout, &world.folder, &order(1, 2)).unwrap_err();
        assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
        assert_eq!(world.pair().standing, Standing::replica());
        return;
    }
    take_over(&world.layout, &world.folder, &order(1, 2)).unwrap();
    assert_taken_over(&world, 1);
    assert!(world.folder.images().contains(&".a.raw.rbs2".to_owned()));
}

#[test]
fn a_head_that_was_written_to_is_made_anew_or_told() {
    let world = world();
    std::fs::write(world.folder.dir.join("images/a.raw"), [7; 8192]).unwrap();
    let taken = take_over(&world.layout, &world.folder, &order(2, 2)).unwrap();
    match world.keeps_generations() {
        true => assert_taken_over(&world, 2),
        false => assert!(
            taken.notes.iter().any(|n| n.contains("was written to")),
            "{:?}",
            taken.notes
        ),
    }
}

#[test]
fn what_is_no_replica_of_an_older_epoch_is_refused_untouched() {
    let world = world();
    let unknown = TakeOver {
        pair: uuid::Uuid::nil(),
        ..order(2, 2)
    };
    let refused = |order: &TakeOver, kind: Kind, words: &str| {
        let error = take_over(&world.layout, &world.folder, order).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(words), "{error}");
        assert_eq!(world.folder.get("promoted"), None);
        assert_eq!(pending_take_over(&world.layout, PAIR).unwrap(), None);
    };
    refused(&unknown, Kind::NotFound, "no replica");
    refused(
        &order(2, 1),
        Kind::Refused,
        "replica for VM 101 since epoch 1",
    );
    refused(&order(7, 2), Kind::NotFound, "rbs7");
    world.folder.set("in-use", "");
    refused(&order(2, 2), Kind::Refused, "in use");
    std::fs::remove_file(world.folder.dir.join("in-use")).unwrap();
    for (role, epoch) in [(Role::Retired, 1), (Role::Held, 1), (Role::Primary, 3)] {
        world.change_pair(|pair| pair.standing = Standing { role, epoch });
        refused(&order(2, 2), Kind::Refused, &role.to_string());
    }
    // Taken over in that epoch, but not from this.
    world.change_pair(|pair| {
        pair.standing = Standing {
            role: Role::Primary,
            epoch: 2,
        };
        pair.head = Some(1);
    });
    refused(&order(2, 2), Kind::Refused, "another generation");
    world.change_pair(|pair| {
        pair.standing = Standing::replica();
        pair.head = Some(2);
    });
    std::fs::remove_file(world.folder.dir.join("images/b.raw")).unwrap();
    if !world.keeps_generations() {
        refused(&order(2, 2), Kind::NotFound, "has lost its disk scsi1");
    }
    world.change_pair(|pair| assert_eq!(pair.standing, Standing::replica()));
}

const POINTS: [&str; 14] = [
    "take-over checked",
    "take-over announced",
    "take-over distrust scsi0",
    "take-over distrust scsi1",
    "take-over head scsi0",
    "take-over head scsi1",
    "take-over swap scsi0",
    "take-over swap scsi1",
    "take-over heads",
    "take-over standing",
    "take-over primary",
    "take-over guard",
    "take-over promoted",
    "",
];

#[test]
fn killed_anywhere_the_same_order_finishes_it() {
    for point in POINTS {
        let world = world();
        let died = dies_at(point, "take-over", &world.folder.dir);
        assert_eq!(died, !point.is_empty(), "{point}");
        task(&world);
        assert_taken_over(&world, 2);
    }
}

#[test]
fn once_announced_no_sync_comes_in_between_and_doctor_tells() {
    for point in POINTS {
        let world = world();
        dies_at(point, "take-over", &world.folder.dir);
        let was_announced = pending_take_over(&world.layout, PAIR).unwrap().is_some()
            || world.pair().standing.role == Role::Primary;
        assert_eq!(was_announced, point != "take-over checked", "{point}");
        let found = inspect(&world.layout, &world.folder, false).unwrap();
        let told = found.iter().any(|f| f.what.contains("take-over"));
        let pending = pending_take_over(&world.layout, PAIR).unwrap().is_some();
        assert_eq!(told, pending, "{point}: {found:?}");
        let synced = world.sync(3);
        assert_eq!(synced.is_err(), was_announced, "{point}: {synced:?}");
        if was_announced {
            assert_eq!(world.heads(), [2, 2], "{point}");
            task(&world);
            assert_taken_over(&world, 2);
        }
    }
}
