//! A domain on its way: source, replica, taken over, retired, back again. libvirt is one of the test's own.

#![allow(clippy::unwrap_used)]

mod arrived;
mod tpm;

use crate::domain::Domain;
use crate::host::memory::Memory;
use crate::host::{Host, State};
use crate::target::VirtTarget;
use crate::tpm::TpmStore;
use crate::{marks, standstill};
use rblocksync::digest::{Digest, HashKind};
use rblocksync::error::Kind;
use rblocksync::hypervisor::{Published, RoleHypervisor, TargetHypervisor, TrialHypervisor};
use rblocksync::image::ImageFormat;
use rblocksync::replica::{
    DiskRecord, DiskSpec, Generation, Layout, Location, Maps, Placement, ReplicaRequest, Retention,
    Role, Standing, TargetPair, Trial,
};
use rblocksync::snapshot::Consistency;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

const PAIR: Uuid = Uuid::from_u128(7);

/// As libvirt tells it, of a host where the emulator is elsewhere.
const SOURCE: &str = include_str!("fixtures/web01.xml");

struct World {
    dir: tempfile::TempDir,
    memory: Arc<Memory>,
    target: VirtTarget,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    for sub in ["images", "fast", "nvram"] {
        std::fs::create_dir(dir.path().join(sub)).unwrap();
    }
    let mut memory = Memory::default()
        .with_dir_pool("default", &dir.path().join("images"))
        .with_dir_pool("fast", &dir.path().join("fast"));
    memory.networks = vec!["default".into(), "lab".into()];
    memory.tpms = TpmStore::below(dir.path());
    let memory = Arc::new(memory);
    let layout = Layout::new(dir.path().join("state"));
    let target = VirtTarget::new(memory.clone(), layout);
    World {
        dir,
        memory,
        target,
    }
}

impl World {
    fn path(&self, sub: &str) -> String {
        self.dir.path().join(sub).display().to_string()
    }

    /// The source's definition, with its files in this test's directory.
    fn source_text(&self) -> String {
        SOURCE.replace("@DIR@", &self.path(""))
    }

    fn request(&self, name: Option<&str>, map: &[(&str, &str)]) -> ReplicaRequest {
        let spec = |key: &str, file: &str, format| DiskSpec {
            key: key.into(),
            volume: self.path(file),
            size: 1 << 20,
            used: 1 << 20,
            format,
        };
        let mut config = Domain::parse(&self.source_text()).unwrap();
        let pools = BTreeMap::from([("vda".to_owned(), "default".to_owned())]);
        marks::set_source(&mut config, &pools, true);
        ReplicaRequest {
            run: Uuid::nil(),
            pair: PAIR,
            source_host: Uuid::nil(),
            source_name: "hosta".into(),
            vm: "web01".into(),
            target_vm: name.map(str::to_owned),
            config: config.to_string(),
            described: None,
            disks: vec![
                spec("vda", "images/web01.qcow2", ImageFormat::Qcow2),
                spec("vdb", "images/web01-data.img", ImageFormat::Raw),
                spec("nvram", "nvram/web01_VARS.fd", ImageFormat::Raw),
            ],
            excluded: vec!["vdc".into()],
            storage_map: map
                .iter()
                .map(|(a, b)| (a.to_string(), b.to_string()))
                .collect(),
            maps: Maps::default(),
            formats: Vec::new(),
            retention: Retention {
                keep: 3,
                within_s: None,
            },
            in_place: false,
            epoch: 1,
            newest: None,
            tracked: Vec::new(),
        }
    }

    fn pair(&self, request: &ReplicaRequest, role: Role) -> TargetPair {
        TargetPair {
            pair: PAIR,
            source_host: Uuid::nil(),
            source_name: "hosta".into(),
            vm: "web01".into(),
            target_vm: request.target_vm.clone().unwrap_or("web01".into()),
            volumes: BTreeMap::new(),
            storage_map: request.storage_map.clone(),
            maps: request.maps.clone(),
            forks: Vec::new(),
            pinned: BTreeSet::new(),
            head: Some(3),
            last: 3,
            standing: Standing { role, epoch: 1 },
        }
    }

    fn generation(&self, request: &ReplicaRequest, placed: &[Placement]) -> Generation {
        let disks = request.disks.iter().zip(placed).map(|(spec, place)| {
            std::fs::write(&place.volume, vec![0; 1 << 20]).unwrap();
            DiskRecord {
                key: spec.key.clone(),
                source: spec.volume.clone(),
                target: place.volume.clone(),
                location: place.location.clone(),
                size: spec.size,
                digest: Digest([0; 32]),
                hash: HashKind::default(),
                leaf_bytes: 4096,
                changed: 0,
            }
        });
        Generation {
            state: None,
            version: Generation::VERSION,
            pair: PAIR,
            epoch: 1,
            number: 3,
            parent: None,
            taken_at: "2024-05-01T10:00:00Z".parse().unwrap(),
            consistency: Consistency::Offline,
            notes: Vec::new(),
            disks: disks.collect(),
            excluded: request.excluded.clone(),
            config: request.config.clone(),
            described: None,
        }
    }

    fn publish(&self, request: &ReplicaRequest) -> (Generation, Vec<String>) {
        let placed = self.target.place(request, &BTreeMap::new()).unwrap();
        let generation = self.generation(request, &placed);
        let pair = self.pair(request, Role::Replica);
        let published = [Published {
            generation: &generation,
            snapshots: BTreeSet::new(),
        }];
        self.target.hold(&pair).unwrap();
        let notes = self.target.publish(&pair, &published).unwrap();
        (generation, notes)
    }

    fn trial(&self, generation: &Generation) -> Trial {
        let name = self.target.spare_vm(None).unwrap();
        let formats = [ImageFormat::Qcow2, ImageFormat::Raw, ImageFormat::Raw];
        let placed = self.target.place_clones(&name, generation, &formats);
        Trial {
            id: Uuid::from_u128(9),
            pair: PAIR,
            generation: 3,
            replica: "web01".into(),
            disks: placed.unwrap(),
            vm: name,
        }
    }

    fn xml(&self, name: &str) -> String {
        self.target.host.domain(name).unwrap().unwrap().xml
    }

    /// Without what is this run's.
    fn shown(&self, text: &str) -> String {
        text.replace(&self.path(""), "@DIR@/")
    }
}

#[test]
fn a_replica_is_the_same_machine_on_this_host() {
    let world = world();
    let mut request = world.request(None, &[("default", "fast")]);
    request.maps.networks = vec![("network:default".into(), "network:lab".into())];
    let (_, notes) = world.publish(&request);
    insta::assert_snapshot!("replica", world.shown(&world.xml("web01")));
    insta::assert_snapshot!("replica-notes", world.shown(&notes.join("\n")));
}

#[test]
fn a_replica_of_another_name_has_a_uuid_and_files_of_its_own() {
    let world = world();
    world.publish(&world.request(Some("web01-copy"), &[]));
    let domain = Domain::parse(&world.xml("web01-copy")).unwrap();
    assert_eq!(domain.uuid(), Some(PAIR));
    let identity = marks::identity_of(&domain).unwrap();
    assert_eq!(
        identity.to_string(),
        "4dea22b3-1d52-d8f3-2516-782e98ab3fa0",
        "it is the same VM"
    );
    let text = world.shown(&domain.to_string());
    assert!(text.contains("@DIR@/images/web01-copy.qcow2"), "{text}");
    assert!(text.contains("@DIR@/nvram/web01-copy_VARS.fd"), "{text}");
    // And again, when it is there.
    world.publish(&world.request(Some("web01-copy"), &[]));
}

#[test]
fn neither_a_name_nor_a_uuid_is_taken_from_another_domain() {
    let world = world();
    let request = world.request(None, &[]);
    let other =
        |name: &str, uuid: &str| format!("<domain><name>{name}</name><uuid>{uuid}</uuid></domain>");
    world
        .memory
        .define(&other("web01", "00000000-0000-0000-0000-000000000001"))
        .unwrap();
    let refused = world.target.place(&request, &BTreeMap::new()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(refused.to_string().contains("--target-name"), "{refused}");
    world.memory.undefine("web01").unwrap();
    world
        .memory
        .define(&other("db", "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"))
        .unwrap();
    let refused = world.target.place(&request, &BTreeMap::new()).unwrap_err();
    assert!(
        refused.to_string().contains("the domain db has the UUID"),
        "{refused}"
    );
    // Under another name it has another.
    world
        .target
        .place(&world.request(Some("web02"), &[]), &BTreeMap::new())
        .unwrap();
}

#[test]
fn a_replica_in_use_is_left_alone() {
    let world = world();
    let request = world.request(None, &[]);
    world.publish(&request);
    world.memory.change("web01", |d| d.state = State::Paused);
    let busy = world.target.place(&request, &BTreeMap::new()).unwrap_err();
    assert_eq!(busy.kind(), Kind::Busy);
    let pair = world.pair(&request, Role::Replica);
    assert_eq!(
        world.target.hold(&pair).map(drop).unwrap_err().kind(),
        Kind::Busy
    );
}

#[test]
fn what_was_placed_stays_where_it_is() {
    let world = world();
    let request = world.request(None, &[]);
    let (generation, _) = world.publish(&request);
    let known = generation
        .disks
        .iter()
        .map(|d| (d.source.clone(), d.target.clone()))
        .collect();
    let elsewhere = world.request(None, &[("default", "fast")]);
    let placed = world.target.place(&elsewhere, &known).unwrap();
    for (place, disk) in placed.iter().zip(&generation.disks) {
        assert_eq!(place.volume, disk.target);
        assert_eq!(place.location, disk.location);
    }
    let mut other = request.clone();
    other.formats = vec![("vda".into(), ImageFormat::Raw)];
    assert!(world.target.place(&other, &known).is_err());
}

#[test]
fn only_a_replica_that_was_taken_over_can_be_started() {
    let world = world();
    let request = world.request(None, &[]);
    let (generation, _) = world.publish(&request);
    let refused = world.target.start("web01").unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("not-to-be-started-on-this-host"),
        "{refused}"
    );
    let guard = std::fs::read_to_string(world.target.layout.guard("web01")).unwrap();
    assert!(guard.starts_with("replica 1 "), "{guard}");

    let pair = world.pair(&request, Role::Primary);
    world.target.promote(&pair, &generation).unwrap();
    insta::assert_snapshot!("taken-over", world.shown(&world.xml("web01")));
    assert!(
        world.memory.domain("web01").unwrap().unwrap().autostart,
        "as at the source"
    );
    world.target.start("web01").unwrap();
    assert!(world.target.is_running("web01").unwrap());
    // Again, as somebody who was cut off does.
    world.target.promote(&pair, &generation).unwrap();
    // It is no replica any more.
    let refused = world.target.place(&request, &BTreeMap::new()).unwrap_err();
    assert!(refused.to_string().contains("taken over"), "{refused}");
    assert!(world
        .target
        .shut_down("web01", std::time::Duration::from_secs(5))
        .unwrap());
    world.target.stop("web01").unwrap();
}

#[test]
fn a_domain_that_has_gone_cannot_be_started_until_it_is_back() {
    let world = world();
    let before = world.source_text();
    world.memory.define(&before).unwrap();
    world.memory.set_autostart("web01", true).unwrap();
    for file in [
        "images/web01.qcow2",
        "images/web01-data.img",
        "nvram/web01_VARS.fd",
    ] {
        std::fs::write(world.path(file), vec![0; 1 << 20]).unwrap();
    }
    let config = world.target.config("web01").unwrap();
    world.memory.change("web01", |d| d.state = State::Running);
    assert_eq!(
        world.target.retire("web01", "went").unwrap_err().kind(),
        Kind::Busy
    );
    world.memory.change("web01", |d| d.state = State::Off);

    for _ in 0..2 {
        world.target.retire("web01", "it went to hostc").unwrap();
    }
    let found = world.memory.domain("web01").unwrap().unwrap();
    assert!(!found.autostart);
    let text = Domain::parse(&found.xml).unwrap();
    assert!(standstill::is_imposed(&text));
    assert!(found.xml.contains("it went to hostc"));
    assert!(world.target.start("web01").is_err());
    // What it is has not changed, nor where its disks are.
    assert_eq!(world.target.config("web01").unwrap(), config);
    let data = world.path("images/web01-data.img");
    let (location, size) = world.target.locate(&data).unwrap();
    let file = Location::File {
        path: data.clone().into(),
        format: ImageFormat::Raw,
        subvolume: false,
    };
    assert_eq!((location, size), (file, 1 << 20));

    // Somebody has put one disk back by hand.
    world.memory.change("web01", |d| {
        d.xml = d.xml.replacen(standstill::PREFIX, "", 1)
    });
    world.target.retire("web01", "it went to hostc").unwrap();
    assert!(standstill::is_imposed(
        &Domain::parse(&world.xml("web01")).unwrap()
    ));

    world.target.reinstate("web01").unwrap();
    world.target.reinstate("web01").unwrap();
    let found = world.memory.domain("web01").unwrap().unwrap();
    assert!(found.autostart);
    assert_eq!(found.xml, Domain::parse(&before).unwrap().to_string());
}

#[test]
fn a_domain_that_has_gone_makes_room_for_its_replica() {
    let world = world();
    let request = world.request(None, &[]);
    world.memory.define(&world.source_text()).unwrap();
    assert!(
        world.target.yield_to("web01", PAIR).is_err(),
        "it was not retired"
    );
    world.target.retire("web01", "it went to hostc").unwrap();
    assert!(world.target.place(&request, &BTreeMap::new()).is_err());
    for _ in 0..2 {
        world.target.yield_to("web01", PAIR).unwrap();
    }
    world.publish(&request);
    assert!(standstill::is_imposed(
        &Domain::parse(&world.xml("web01")).unwrap()
    ));
}

#[test]
fn a_clone_reaches_nothing_and_goes_again() {
    let world = world();
    let request = world.request(None, &[]);
    let (generation, _) = world.publish(&request);
    assert!(world.target.spare_vm(Some("web01")).is_err());
    let trial = world.trial(&generation);
    let name = trial.vm.clone();
    let pair = world.pair(&request, Role::Replica);
    world.target.show_clone(&pair, &generation, &trial).unwrap();
    insta::assert_snapshot!("clone", world.shown(&world.xml(&name)));
    // Another test's clone is not ours to remove.
    let other = Trial {
        id: Uuid::nil(),
        ..trial.clone()
    };
    world.target.end_clone(&other).unwrap();
    assert!(world.memory.domain(&name).unwrap().is_some());
    for disk in &trial.disks {
        std::fs::write(PathBuf::from(&disk.volume), "").unwrap();
    }
    world.target.start(&name).unwrap();
    world.target.end_clone(&trial).unwrap();
    assert!(world.memory.domain(&name).unwrap().is_none());
}
