//! The target's part of a replication, with files as volumes and a hypervisor that only notes what it is
//! told: nothing half-made is ever shown, and what was announced is finished.
#![allow(clippy::unwrap_used)]

use rblocksync::digest::{Digest, HashKind};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::hypervisor::{Hold, Published, TargetHypervisor};
use rblocksync::image::ImageFormat;
use rblocksync::replica::{
    list_generations, read_json, write_json, DiskRecord, DiskSpec, Fork, Generation, Layout,
    Location, Placement, Prepared, Proof, ReplicaRequest, ReplicaTarget, Retention, Role, Standing,
    TargetPair,
};
use rblocksync::snapshot::Consistency;
use rblocksync::sync::{DigestTable, Geometry};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// A process that a test beside this one is just starting has our locks, too, until it becomes its program.
const PATIENCE: Duration = Duration::from_secs(2);

struct Fake {
    dir: PathBuf,
    shown: RefCell<Vec<u64>>,
    publish_fails: Cell<bool>,
    taken_over: Cell<bool>,
}

struct Held;

impl Hold for Held {}

impl TargetHypervisor for Fake {
    fn describe(&self) -> Result<(String, String)> {
        Ok(("fake".into(), "here".into()))
    }

    fn place(
        &self,
        request: &ReplicaRequest,
        _: &BTreeMap<String, String>,
    ) -> Result<Vec<Placement>> {
        Ok(request
            .disks
            .iter()
            .map(|disk| Placement {
                key: disk.key.clone(),
                volume: disk.volume.clone(),
                location: Location::File {
                    path: self.dir.join(&disk.volume),
                    format: disk.format,
                    subvolume: false,
                },
            })
            .collect())
    }

    fn hold(&self, _: &TargetPair) -> Result<Box<dyn Hold>> {
        match self.taken_over.get() {
            true => Err(Error::new(Kind::Refused, "taken over")),
            false => Ok(Box::new(Held)),
        }
    }

    fn publish(&self, _: &TargetPair, generations: &[Published]) -> Result<Vec<String>> {
        if self.publish_fails.get() {
            return Err(Error::new(Kind::Io, "injected"));
        }
        *self.shown.borrow_mut() = generations.iter().map(|p| p.generation.number).collect();
        Ok(Vec::new())
    }
}

struct World {
    _dir: tempfile::TempDir,
    layout: Layout,
    fake: Fake,
    pair: Uuid,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let images = dir.path().join("images");
        std::fs::create_dir(&images).unwrap();
        World {
            layout: Layout::new(dir.path().join("state")),
            fake: Fake {
                dir: images,
                shown: RefCell::default(),
                publish_fails: Cell::new(false),
                taken_over: Cell::new(false),
            },
            pair: Uuid::new_v4(),
            _dir: dir,
        }
    }

    fn request(&self) -> ReplicaRequest {
        let disk = |key: &str, volume: &str| DiskSpec {
            key: key.into(),
            volume: volume.into(),
            size: 8192,
            used: 8192,
            format: ImageFormat::Raw,
        };
        ReplicaRequest {
            run: Uuid::nil(),
            pair: self.pair,
            source_host: Uuid::nil(),
            source_name: "there".into(),
            vm: "101".into(),
            target_vm: None,
            config: String::new(),
            described: None,
            disks: vec![disk("scsi0", "a.raw"), disk("scsi1", "b.raw")],
            excluded: Vec::new(),
            storage_map: Vec::new(),
            maps: Default::default(),
            formats: Vec::new(),
            retention: Retention {
                keep: 2,
                within_s: None,
            },
            in_place: false,
            epoch: 1,
            newest: None,
            tracked: Vec::new(),
        }
    }

    fn open(&self) -> Result<ReplicaTarget<'_>> {
        self.open_for(&self.request())
    }

    fn open_for(&self, request: &ReplicaRequest) -> Result<ReplicaTarget<'_>> {
        let layout = self.layout.clone();
        ReplicaTarget::open(layout, &self.fake, request, PATIENCE)
    }

    /// What this host becomes for the VM.
    fn standing(&self, role: Role, epoch: u64) {
        let path = self.layout.target_pair(self.pair);
        let mut pair: TargetPair = read_json(&path).unwrap().unwrap();
        pair.standing = Standing { role, epoch };
        write_json(&path, &pair).unwrap();
    }

    /// A whole sync in which both disks become full of `byte`.
    fn sync(&self, byte: u8) -> Result<Vec<u64>> {
        let mut target = self.open()?;
        let prepared = target.prepare(&self.request())?;
        fill(&prepared, byte);
        Ok(target.seal(generation(self.pair, &prepared))?.kept)
    }

    fn head(&self, volume: &str) -> u8 {
        let bytes = std::fs::read(self.fake.dir.join(volume)).unwrap();
        assert_eq!(bytes.len(), 8192);
        assert!(bytes.iter().all(|b| *b == bytes[0]), "{volume} is torn");
        bytes[0]
    }

    fn heads(&self) -> (u8, u8) {
        (self.head("a.raw"), self.head("b.raw"))
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.fake.dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn fill(prepared: &Prepared, byte: u8) {
    for fork in &prepared.forks {
        std::fs::write(&fork.path, [byte; 8192]).unwrap();
    }
}

fn generation(pair: Uuid, prepared: &Prepared) -> Generation {
    Generation {
        state: None,
        version: Generation::VERSION,
        pair,
        epoch: 1,
        number: prepared.number,
        parent: prepared.parent,
        taken_at: jiff::Timestamp::UNIX_EPOCH,
        consistency: Consistency::Offline,
        notes: Vec::new(),
        disks: prepared
            .forks
            .iter()
            .map(|fork| DiskRecord {
                key: fork.key.clone(),
                source: fork.placement.volume.clone(),
                target: fork.placement.volume.clone(),
                location: fork.placement.location.clone(),
                size: 8192,
                digest: Digest([0; 32]),
                hash: HashKind::Blake3,
                leaf_bytes: 4096,
                changed: 0,
            })
            .collect(),
        excluded: Vec::new(),
        config: String::new(),
        described: None,
    }
}

#[test]
fn the_head_changes_only_by_a_seal() {
    let world = World::new();
    assert!(world.sync(1).unwrap().ends_with(&[1]));
    assert_eq!(world.heads(), (1, 1));
    // A run that gets as far as writing its forks, and no further.
    let mut target = world.open().unwrap();
    let prepared = target.prepare(&world.request()).unwrap();
    fill(&prepared, 2);
    drop(target);
    assert_eq!(world.heads(), (1, 1));
    assert_eq!(*world.fake.shown.borrow(), [1]);
    assert!(world.sync(3).unwrap().ends_with(&[2]));
    assert_eq!(world.heads(), (3, 3));
}

/// The source is told, so both hosts can show it.
#[test]
fn a_seal_tells_where_the_disks_have_changed() {
    let world = World::new();
    let geometry = Geometry::new(8192, 4096).unwrap();
    let sync = |byte: u8| {
        let mut target = world.open().unwrap();
        let prepared = target.prepare(&world.request()).unwrap();
        fill(&prepared, byte);
        // By its digests the second disk is what it was.
        for (fork, digest) in prepared.forks.iter().zip([byte, 9]) {
            let (path, hash) = (&fork.table, HashKind::Blake3);
            let table = DigestTable::create(path, hash, geometry, Uuid::nil()).unwrap();
            table.put(0, &Digest([digest; 32])).unwrap();
        }
        target.seal(generation(world.pair, &prepared)).unwrap().told
    };
    let first = sync(1);
    assert_eq!(first.newest, Some(1));
    for map in &first.maps {
        assert_eq!((map.data.as_slice(), &map.changed), (&[100][..], &None));
    }
    let second = sync(2);
    let changed = |n: usize| (second.maps[n].key.as_str(), second.maps[n].changed.clone());
    assert_eq!(changed(0), ("scsi0", Some(vec![100])));
    assert_eq!(changed(1), ("scsi1", Some(vec![0])));
    sync(3);
    // It goes with its generation, of which two are kept at most.
    assert!(!world.layout.block_maps(world.pair, 1).exists());
    assert!(world.layout.block_maps(world.pair, 3).exists());
}

#[test]
fn a_fork_left_behind_is_used_again_only_for_the_same_parent() {
    let world = World::new();
    let mut target = world.open().unwrap();
    fill(&target.prepare(&world.request()).unwrap(), 7);
    drop(target);
    let mut target = world.open().unwrap();
    let fork = &target.prepare(&world.request()).unwrap().forks[0];
    assert_eq!(
        std::fs::read(&fork.path).unwrap()[0],
        7,
        "what was transferred is not thrown away"
    );
    drop(target);
    world.sync(1).unwrap();
    let mut target = world.open().unwrap();
    let fork = &target.prepare(&world.request()).unwrap().forks[0];
    assert_eq!(
        std::fs::read(&fork.path).unwrap()[0],
        1,
        "the next fork starts from the new head"
    );
}

#[test]
fn a_seal_that_was_announced_is_finished_by_the_next_run() {
    let world = World::new();
    world.sync(1).unwrap();
    let mut target = world.open().unwrap();
    let prepared = target.prepare(&world.request()).unwrap();
    fill(&prepared, 2);
    // As a power cut right after the point of no return leaves it.
    write_json(
        &world.layout.sealing(world.pair),
        &generation(world.pair, &prepared),
    )
    .unwrap();
    drop(target);
    assert_eq!(world.heads(), (1, 1));
    drop(world.open().unwrap());
    assert_eq!(world.heads(), (2, 2));
    assert_eq!(world.fake.shown.borrow().last(), Some(&2));
    assert!(!world.layout.sealing(world.pair).exists());
}

#[test]
fn a_seal_that_fails_half_way_is_finished_by_the_next_run() {
    let world = World::new();
    world.sync(1).unwrap();
    world.fake.publish_fails.set(true);
    assert_eq!(world.sync(2).unwrap_err().message(), "injected");
    assert!(
        world.open().is_err(),
        "it fails the same way until the cause is gone"
    );
    world.fake.publish_fails.set(false);
    let kept = world.sync(3).unwrap();
    assert_eq!(kept.last(), Some(&3));
    assert_eq!(world.heads(), (3, 3));
    assert!(world.fake.shown.borrow().ends_with(&[3]));
}

#[test]
fn only_the_generation_that_was_prepared_can_be_sealed() {
    let world = World::new();
    let mut target = world.open().unwrap();
    let prepared = target.prepare(&world.request()).unwrap();
    fill(&prepared, 1);
    let good = generation(world.pair, &prepared);
    let mut one_disk = good.clone();
    one_disk.disks.pop();
    let mut number = good.clone();
    number.number = 9;
    let mut pair = good.clone();
    pair.pair = Uuid::new_v4();
    let mut hidden = good.clone();
    hidden.excluded.push("scsi2".into());
    // What boots would have another VM's disk.
    let mut volume = good.clone();
    volume.disks[0].target = "elsewhere.raw".into();
    for bad in [one_disk, number, pair, hidden, volume] {
        assert_eq!(target.seal(bad).unwrap_err().kind(), Kind::Protocol);
    }
    assert!(!world.layout.sealing(world.pair).exists());
    target.seal(good).unwrap();
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let world = World::new();
    let foreign = world.fake.dir.join("b.raw");
    std::fs::write(&foreign, "precious").unwrap();
    let refused = ReplicaTarget::plan(&world.layout, &world.fake, &world.request()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(refused.message().contains("b.raw"), "{refused}");
    assert!(world.open().is_err());
    assert_eq!(world.files(), ["b.raw"]);
    assert_eq!(std::fs::read(&foreign).unwrap(), b"precious");
}

#[test]
fn two_runs_cannot_hold_a_replica_at_once() {
    let world = World::new();
    let held = world.open().unwrap();
    assert_eq!(world.open().map(|_| ()).unwrap_err().kind(), Kind::Busy);
    drop(held);
    world.open().unwrap();
}

#[test]
fn old_generations_go_and_the_list_tells_what_is_left() {
    let world = World::new();
    for byte in 1..=4 {
        world.sync(byte).unwrap();
    }
    let found = list_generations(&world.layout, Some("101")).unwrap();
    let (pair, generations) = &found[0];
    assert_eq!(pair.head, Some(4));
    let numbers: Vec<u64> = generations.iter().map(|g| g.number).collect();
    assert_eq!(numbers, *world.fake.shown.borrow());
    assert!(numbers.len() <= 2 && numbers.last() == Some(&4));
    let expected: Vec<String> = match shares_blocks(&world.fake.dir) {
        true => [
            ".a.raw.rbs3",
            ".a.raw.rbs4",
            ".b.raw.rbs3",
            ".b.raw.rbs4",
            "a.raw",
            "b.raw",
        ]
        .map(String::from)
        .into(),
        false => ["a.raw", "b.raw"].map(String::from).into(),
    };
    assert_eq!(world.files(), expected);
    assert!(list_generations(&world.layout, Some("999"))
        .unwrap()
        .is_empty());
}

fn shares_blocks(dir: &Path) -> bool {
    let file = || tempfile::tempfile_in(dir).unwrap();
    let (from, to) = (file(), file());
    from.set_len(4096).unwrap();
    rustix::fs::ioctl_ficlone(&to, &from).is_ok()
}

#[test]
fn what_is_unfinished_is_found_and_put_right() {
    let world = World::new();
    world.sync(1).unwrap();
    let inspect =
        |repair| rblocksync::replica::inspect(&world.layout, &world.fake, repair).unwrap();
    assert!(inspect(false).is_empty());
    let mut target = world.open().unwrap();
    let prepared = target.prepare(&world.request()).unwrap();
    fill(&prepared, 2);
    assert!(inspect(true).is_empty(), "a run is busy with it");
    drop(target);
    assert!(
        inspect(true).is_empty(),
        "the next run goes on with young forks"
    );
    let sealing = generation(world.pair, &prepared);
    write_json(&world.layout.sealing(world.pair), &sealing).unwrap();
    let found = inspect(false);
    assert!(found[0]
        .what
        .contains("the seal of generation rbs2 was cut off"));
    assert_eq!((found.len(), found[0].repaired), (1, false));
    assert_eq!(world.heads(), (1, 1), "looking changes nothing");
    assert!(inspect(true)[0].repaired);
    assert_eq!(world.heads(), (2, 2));
    assert!(inspect(false).is_empty());
    std::fs::remove_file(world.fake.dir.join("b.raw")).unwrap();
    let found = inspect(true);
    assert!(found[0]
        .what
        .contains("generation rbs2 of VM 101 has lost its disk scsi1"));
    assert_eq!((found.len(), found[0].repaired), (1, false));
}

#[test]
fn forks_that_nobody_came_back_for_go() {
    let world = World::new();
    world.sync(1).unwrap();
    let mut target = world.open().unwrap();
    target.prepare(&world.request()).unwrap();
    drop(target);
    let files = world.files();
    let weeks_ago = std::time::SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
    let state = std::fs::File::open(world.layout.target_pair(world.pair)).unwrap();
    state.set_modified(weeks_ago).unwrap();
    let inspect =
        |repair| rblocksync::replica::inspect(&world.layout, &world.fake, repair).unwrap();
    assert!(inspect(false)[0]
        .what
        .contains("the forks of a run that was never finished"));
    assert_eq!(world.files(), files);
    assert!(inspect(true)[0].repaired);
    assert_eq!(world.files(), ["a.raw", "b.raw"]);
    assert!(inspect(false).is_empty());
    assert!(world.sync(3).unwrap().ends_with(&[2]));
}

#[test]
fn a_pin_needs_a_generation() {
    let world = World::new();
    world.sync(1).unwrap();
    let pin = |number, pinned| rblocksync::replica::pin(&world.layout, "101", number, pinned);
    assert_eq!(pin(2, true).unwrap_err().kind(), Kind::NotFound);
    pin(1, true).unwrap();
    pin(1, true).unwrap();
    pin(1, false).unwrap();
    let target = world.open().unwrap();
    assert_eq!(
        pin(1, true).unwrap_err().kind(),
        Kind::Busy,
        "a run is busy with it"
    );
    drop(target);
}

#[test]
fn a_source_of_an_older_epoch_is_refused() {
    let world = World::new();
    world.sync(1).unwrap();
    world.standing(Role::Replica, 3);
    let refused = world.open().err().unwrap();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(refused.message().contains("has seen epoch 3"), "{refused}");
    assert_eq!(world.heads(), (1, 1));
    // A newer one is obeyed, and remembered.
    let request = ReplicaRequest {
        epoch: 4,
        ..world.request()
    };
    let mut target = world.open_for(&request).unwrap();
    let prepared = target.prepare(&request).unwrap();
    fill(&prepared, 2);
    let mut generation = generation(world.pair, &prepared);
    let old = target.seal(generation.clone()).unwrap_err();
    assert_eq!(old.kind(), Kind::Protocol, "its generation is of epoch 1");
    generation.epoch = 4;
    target.seal(generation).unwrap();
    drop(target);
    assert_eq!(world.heads(), (2, 2));
    assert!(world.open().is_err());
}

#[test]
fn a_host_that_became_primary_takes_no_generations() {
    let world = World::new();
    world.sync(1).unwrap();
    for role in [Role::Primary, Role::Retired, Role::Held] {
        world.standing(role, 1);
        let refused = world.open().err().unwrap();
        assert_eq!(refused.kind(), Kind::Refused);
        assert!(refused.message().contains(&role.to_string()), "{refused}");
    }
    assert_eq!(world.heads(), (1, 1));
}

#[test]
fn a_target_that_lost_its_state_finds_the_newest_generation_again() {
    let world = World::new();
    let mut target = world.open().unwrap();
    let prepared = target.prepare(&world.request()).unwrap();
    fill(&prepared, 1);
    let sealed = generation(world.pair, &prepared);
    target.seal(sealed.clone()).unwrap();
    drop(target);
    std::fs::remove_dir_all(world.layout.replicas()).unwrap();
    let request = ReplicaRequest {
        newest: Some(sealed),
        tracked: Vec::new(),
        ..world.request()
    };
    let mut target = world.open_for(&request).unwrap();
    let prepared = target.prepare(&request).unwrap();
    assert_eq!((prepared.parent, prepared.number), (Some(1), 2));
    assert!(
        prepared.notes.iter().any(|n| n.contains("found again")),
        "{:?}",
        prepared.notes
    );
    drop(target);
    // Not all of it is there: nothing is taken for granted.
    std::fs::remove_dir_all(world.layout.replicas()).unwrap();
    std::fs::remove_file(world.fake.dir.join("b.raw")).unwrap();
    let mut target = world.open_for(&request).unwrap();
    assert_eq!(target.prepare(&request).unwrap().parent, None);
}

#[test]
fn a_disk_that_was_moved_starts_anew_and_its_old_volume_goes_last() {
    let world = World::new();
    world.sync(1).unwrap();
    let mut request = world.request();
    request.disks[1].volume = "c.raw".into();
    for byte in [2, 3] {
        let mut target = world.open_for(&request).unwrap();
        let prepared = target.prepare(&request).unwrap();
        if byte == 2 {
            let fork = std::fs::read(&prepared.forks[1].path).unwrap();
            assert!(
                fork.iter().all(|b| *b == 0),
                "it has nothing of the old one"
            );
        }
        fill(&prepared, byte);
        target.seal(generation(world.pair, &prepared)).unwrap();
    }
    assert_eq!((world.head("a.raw"), world.head("c.raw")), (3, 3));
    assert!(
        !world.fake.dir.join("b.raw").exists(),
        "{:?}",
        world.files()
    );
}

#[test]
fn in_place_there_is_no_second_copy_and_no_generation_meanwhile() {
    let world = World::new();
    world.sync(1).unwrap();
    let request = ReplicaRequest {
        in_place: true,
        ..world.request()
    };
    let mut target = world.open_for(&request).unwrap();
    let prepared = target.prepare(&request).unwrap();
    assert_eq!((prepared.parent, prepared.number), (None, 2));
    assert!(
        prepared.notes.iter().any(|n| n.contains("in place")),
        "{:?}",
        prepared.notes
    );
    assert_eq!(world.files(), [".a.raw.rbs-fork", ".b.raw.rbs-fork"]);
    let fork = std::fs::read(&prepared.forks[0].path).unwrap();
    assert!(fork.iter().all(|b| *b == 1), "only what differs is sent");
    assert!(list_generations(&world.layout, None).unwrap().is_empty());
    drop(target);
    // The run after one that was cut off goes on there, and its number is none that was used before.
    let mut target = world.open_for(&request).unwrap();
    let prepared = target.prepare(&request).unwrap();
    assert_eq!((prepared.parent, prepared.number), (None, 2));
    let fork = std::fs::read(&prepared.forks[0].path).unwrap();
    assert!(fork.iter().all(|b| *b == 1));
    fill(&prepared, 2);
    target.seal(generation(world.pair, &prepared)).unwrap();
    drop(target);
    assert_eq!(world.heads(), (2, 2));
    assert_eq!(world.files(), ["a.raw", "b.raw"]);
    assert_eq!(*world.fake.shown.borrow(), [2]);
    let mut left = std::fs::read_dir(world.layout.generations(world.pair)).unwrap();
    let is_second = |name: &str| name.starts_with("000000000002");
    assert!(
        left.all(|entry| is_second(entry.unwrap().file_name().to_str().unwrap())),
        "nothing is left of the first one"
    );
    // Without it, a copy is made again.
    assert!(world.sync(3).unwrap().ends_with(&[3]));
}

#[test]
fn a_replica_in_use_is_not_overwritten_in_place() {
    let world = World::new();
    world.sync(1).unwrap();
    world.fake.taken_over.set(true);
    let request = ReplicaRequest {
        in_place: true,
        ..world.request()
    };
    let refused = world
        .open_for(&request)
        .map(|mut t| t.prepare(&request).map(drop));
    assert!(!matches!(refused, Ok(Ok(()))));
    assert_eq!(world.heads(), (1, 1));
}

#[test]
fn what_tells_of_a_fork_goes_with_it() {
    let world = World::new();
    let prepare = || {
        let mut target = world.open().unwrap();
        target.prepare(&world.request()).unwrap().forks
    };
    let forks = prepare();
    for fork in &forks {
        std::fs::write(&fork.table, "cursor").unwrap();
    }
    assert_eq!(prepare(), forks);
    assert!(forks.iter().all(|fork| fork.table.exists()));
    std::fs::remove_file(&forks[1].path).unwrap();
    assert_eq!(prepare(), forks);
    let left: Vec<bool> = forks.iter().map(|fork| fork.table.exists()).collect();
    assert_eq!(left, [true, false]);
}

#[test]
fn a_fork_is_only_trusted_if_nothing_was_written_since_the_seal() {
    let world = World::new();
    let tracked = ReplicaRequest {
        tracked: vec!["scsi0".into(), "scsi1".into()],
        ..world.request()
    };
    let prepare = |request: &ReplicaRequest| {
        let mut target = world.open().unwrap();
        let prepared = target.prepare(request).unwrap();
        (target, prepared)
    };
    let (mut target, prepared) = prepare(&tracked);
    assert_eq!(prepared.forks[0].proof, None, "there is nothing to prove");
    fill(&prepared, 1);
    let mut sealed = generation(world.pair, &prepared);
    let geometry = Geometry::new(8192, 4096).unwrap();
    for (disk, fork) in sealed.disks.iter_mut().zip(&prepared.forks) {
        let table =
            DigestTable::create(&fork.table, HashKind::Blake3, geometry, Uuid::nil()).unwrap();
        table.put(0, &Digest([3; 32])).unwrap();
        disk.digest = table.image_digest().unwrap();
    }
    target.seal(sealed).unwrap();
    drop(target);
    let proofs = || {
        let (_, prepared) = prepare(&tracked);
        let first = |fork: &Fork| std::fs::read(&fork.path).unwrap()[0];
        assert_eq!(first(&prepared.forks[0]), 1);
        // A run that gets this far and no further leaves what is no base for the next one.
        fill(&prepared, 7);
        let forks = prepared.forks.into_iter();
        forks.map(|fork| fork.proof.unwrap()).collect::<Vec<_>>()
    };
    let is_sealed = |proof: &Proof| matches!(proof, Proof::Sealed(_));
    let doubt = |proof: &Proof, words: &str| match proof {
        Proof::Doubt(why) => assert!(why.contains(words), "{why}"),
        Proof::Sealed(_) => panic!("trusted, in spite of: {words}"),
    };
    assert!(proofs().iter().all(is_sealed));
    assert!(proofs().iter().all(is_sealed));
    let (_, prepared) = prepare(&world.request());
    assert_eq!(prepared.forks[0].proof, None, "nobody asked");
    // The very bytes that it has; that nobody can know.
    std::fs::write(world.fake.dir.join("a.raw"), [1; 8192]).unwrap();
    let found = proofs();
    doubt(&found[0], "was written to");
    assert!(is_sealed(&found[1]));
    std::fs::remove_file(world.layout.stamp(world.pair, 1, 1)).unwrap();
    doubt(&proofs()[1], "was not noted");
    std::fs::remove_file(world.layout.table(world.pair, 1, 1)).unwrap();
    doubt(&proofs()[1], "digests of its segments are not there");
}
