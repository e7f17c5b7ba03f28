//! Disks that only QEMU can keep as they were, and what QEMU knows of what changed.

use crate::vm::{Vm, LONG};
use rblocksync::error::Kind;
use rblocksync::image::{Image, ImageFormat, NbdImage, NbdOptions};
use rblocksync::lvm::{Listing, OwnerTag};
use rblocksync::qemu::{Export, QemuPoint, ScratchSpace, Wanted};
use rblocksync::range::ByteRange;
use rblocksync::snapshot::{self, DiskSource, PointInTime, Request, SnapshotKind};
use serde_json::{json, Value};
use std::path::{Path, PathBuf};
use std::process::Command;
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const GRAIN: u64 = 64 << 10;
const SIZE: u64 = 64 * MIB;

/// A VM with a qcow2 and a raw disk, and what is needed to take points in time of it.
struct World {
    dir: tempfile::TempDir,
    vm: Vm,
    owner: String,
}

impl World {
    fn start() -> Option<World> {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(dir.path().join("a.qcow2"))
            .arg(SIZE.to_string())
            .status();
        if !made.is_ok_and(|status| status.success()) {
            println!("skipped: qemu-img is not installed");
            return None;
        }
        let raw = std::fs::File::create(dir.path().join("b.raw")).unwrap();
        raw.set_len(SIZE).unwrap();
        let vm = World::run(dir.path())?;
        let owner = format!("rbs-{}-", Uuid::new_v4().simple());
        Some(World { dir, vm, owner })
    }

    fn run(dir: &Path) -> Option<Vm> {
        let (qcow2, raw) = (dir.join("a.qcow2"), dir.join("b.raw"));
        Vm::start_with(&[(&qcow2, "qcow2"), (&raw, "raw")], &[])
    }

    fn path(&self, disk: usize) -> PathBuf {
        self.dir.path().join(["a.qcow2", "b.raw"][disk])
    }

    fn space(&self, bytes_max: u64) -> ScratchSpace {
        ScratchSpace {
            dir: self.dir.path().join("scratch"),
            bytes_max: Some(bytes_max),
        }
    }

    fn name(&self, number: u64) -> String {
        format!("{}{number}", self.owner)
    }

    fn wanted(&self, since: Option<u64>, next: u64) -> Vec<Wanted> {
        let formats = [ImageFormat::Qcow2, ImageFormat::Raw];
        let disks = formats.into_iter().enumerate();
        disks
            .map(|(disk, format)| Wanted {
                path: self.path(disk),
                format,
                copy: true,
                since: since.map(|n| self.name(n)),
                next: Some(self.name(next)),
            })
            .collect()
    }

    /// A point in time that becomes generation `next`, with what changed since generation `since`.
    fn take(&mut self, run: &str, since: Option<u64>, next: u64) -> QemuPoint {
        let space = self.space(256 * MIB);
        let wanted = self.wanted(since, next);
        let monitor = self.vm.qmp_path();
        let mut point = QemuPoint::prepare(&monitor, run, &self.owner, &wanted, &space).unwrap();
        let transaction = point.transaction();
        let side = self.vm.side();
        side.execute("transaction", transaction, LONG).unwrap();
        point.publish().unwrap();
        point
    }

    /// The names of our bitmaps of both disks.
    fn bitmaps(&mut self) -> Vec<Vec<String>> {
        let nodes = self.nodes();
        let of = |name: &str| {
            let node = nodes.iter().find(|n| n["node-name"] == name).unwrap();
            let bitmaps = node["dirty-bitmaps"].as_array().cloned();
            let bitmaps = bitmaps.unwrap_or_default();
            let names = bitmaps.iter().filter_map(|b| b["name"].as_str());
            names.map(str::to_owned).collect()
        };
        vec![of("n0"), of("n1")]
    }

    fn nodes(&mut self) -> Vec<Value> {
        let side = self.vm.side();
        let nodes = side.execute("query-named-block-nodes", json!({"flat": true}), LONG);
        nodes.unwrap().as_array().unwrap().clone()
    }

    /// Nothing of a run is left in QEMU or in the file system.
    fn assert_clean(&mut self) {
        let nodes = self.nodes();
        let left = nodes.iter().filter(|node| {
            let name = node["node-name"].as_str().unwrap();
            name.starts_with("rbs-") || node["drv"] == "copy-before-write"
        });
        assert_eq!(left.count(), 0, "{nodes:?}");
        for query in ["query-jobs", "query-block-exports"] {
            assert_eq!(
                self.vm.side().execute(query, json!({}), LONG).unwrap(),
                json!([])
            );
        }
        assert_eq!(
            std::fs::read_dir(self.dir.path().join("scratch"))
                .unwrap()
                .count(),
            0
        );
        // The server is ours no more: somebody else can have it.
        let address = json!({"type": "unix", "data": {"path": self.dir.path().join("other")}});
        let side = self.vm.side();
        side.execute("nbd-server-start", json!({"addr": address}), LONG)
            .unwrap();
        side.execute("nbd-server-stop", json!({}), LONG).unwrap();
    }
}

fn open(export: &Export) -> NbdImage {
    let options = NbdOptions {
        name: export.name.clone(),
        bitmap: export.changed.clone(),
        writable: false,
    };
    NbdImage::connect(&export.socket, &export.name, options).unwrap()
}

fn byte_at(image: &NbdImage, offset: u64) -> u8 {
    let mut buf = rblocksync::buf::AlignedBuf::zeroed(4096);
    image.read_at(&mut buf, offset & !4095).unwrap();
    buf[(offset & 4095) as usize]
}

fn grains(image: &NbdImage) -> Vec<u64> {
    let dirty = image.dirty().unwrap();
    let of = |range: &ByteRange| (range.start / GRAIN)..range.end.div_ceil(GRAIN);
    dirty.iter().flat_map(of).collect()
}

#[test]
fn all_disks_show_one_instant_and_what_changed_since_the_last() {
    let Some(mut world) = World::start() else {
        return;
    };
    for disk in [0, 1] {
        world.vm.write(disk, 1, 8 * MIB, 4096);
    }
    let mut first = world.take("aaaaaaaa1", None, 1);
    for disk in [0, 1] {
        world.vm.write(disk, 2, 8 * MIB, 4096);
        world.vm.write(disk, 2, 20 * MIB, 4096);
        let image = open(&first.export(disk).unwrap());
        assert_eq!(image.size(), SIZE);
        assert_eq!(
            [byte_at(&image, 8 * MIB), byte_at(&image, 20 * MIB)],
            [1, 0]
        );
        let data = image.next_data(0).unwrap().unwrap();
        assert_eq!(
            (data.start, data.end),
            (8 * MIB, 8 * MIB + GRAIN).min((data.start, data.end))
        );
        assert!(image.dirty().is_err(), "nothing was asked of what changed");
    }
    first.check().unwrap();
    first.release(true).unwrap();
    world.assert_clean();
    assert_eq!(world.bitmaps(), vec![vec![world.name(1)]; 2]);

    let mut second = world.take("aaaaaaaa2", Some(1), 2);
    for disk in [0, 1] {
        world.vm.write(disk, 3, 30 * MIB, 4096);
        let image = open(&second.export(disk).unwrap());
        assert_eq!(grains(&image), [8 * MIB / GRAIN, 20 * MIB / GRAIN]);
        assert_eq!(
            [byte_at(&image, 8 * MIB), byte_at(&image, 30 * MIB)],
            [2, 0]
        );
    }
    second.check().unwrap();
    second.release(true).unwrap();
    world.assert_clean();
    assert_eq!(world.bitmaps(), vec![vec![world.name(2)]; 2]);
}

#[test]
fn a_run_that_comes_to_nothing_loses_no_change() {
    let Some(mut world) = World::start() else {
        return;
    };
    world.take("run1", None, 1).release(true).unwrap();
    world.vm.write(0, 1, 3 * MIB, 4096);
    let mut failed = world.take("run2", Some(1), 2);
    world.vm.write(0, 2, 5 * MIB, 4096);
    failed.release(false).unwrap();
    assert_eq!(world.bitmaps(), vec![vec![world.name(1)]; 2]);

    // One that is killed leaves all behind; the next one sweeps it.
    let killed = world.take("run3", Some(1), 2);
    world.vm.write(0, 3, 7 * MIB, 4096);
    std::mem::forget(killed);
    let mut next = world.take("run4", Some(1), 2);
    let image = open(&next.export(0).unwrap());
    assert_eq!(grains(&image), [3, 5, 7].map(|mib| mib * MIB / GRAIN));
    assert_eq!(byte_at(&image, 7 * MIB), 3);
    next.release(true).unwrap();
    world.assert_clean();
}

#[test]
fn a_bitmap_is_only_trusted_if_it_has_seen_everything() {
    let Some(mut world) = World::start() else {
        return;
    };
    world.take("run1", None, 1).release(true).unwrap();
    world.vm.write(0, 1, 3 * MIB, 4096);
    world.vm.quit();

    // A clean end: what is in the image file is there again, what was in memory is not.
    world.vm = World::run(world.dir.path()).unwrap();
    let mut point = world.take("run2", Some(1), 2);
    assert_eq!(grains(&open(&point.export(0).unwrap())), [3 * MIB / GRAIN]);
    assert!(point.doubt(1).unwrap().contains("started anew"));
    point.release(true).unwrap();

    // Killed: a bitmap that is not yet in the file is gone.
    world.vm.write(0, 2, 9 * MIB, 4096);
    world.vm.kill();
    world.vm = World::run(world.dir.path()).unwrap();
    let mut point = world.take("run3", Some(2), 3);
    assert!(point.doubt(0).unwrap().contains("started anew"));
    point.release(true).unwrap();

    // One that is there does not have what was written last.
    world.vm.quit();
    world.vm = World::run(world.dir.path()).unwrap();
    world.vm.write(0, 3, 9 * MIB, 4096);
    world.vm.kill();
    world.vm = World::run(world.dir.path()).unwrap();
    let mut point = world.take("run4", Some(3), 4);
    assert!(point.doubt(0).unwrap().contains("inconsistent"));
    assert!(point.export(0).unwrap().changed.is_none());
    point.release(true).unwrap();
    assert_eq!(world.bitmaps(), vec![vec![world.name(4)]; 2], "begun anew");

    // Disabled by somebody, and enabled again: what was written in between is not in it.
    let which = json!({"node": "n0", "name": world.name(4)});
    let side = world.vm.side();
    side.execute("block-dirty-bitmap-disable", which, LONG)
        .unwrap();
    let mut point = world.take("run5", Some(4), 5);
    assert!(point.doubt(0).unwrap().contains("disabled"));
    point.release(false).unwrap();
    world.assert_clean();
}

#[test]
fn an_image_with_snapshots_of_its_own_keeps_no_bitmap() {
    let Some(mut world) = World::start() else {
        return;
    };
    world.vm.quit();
    let image = world.path(0);
    let snapshot = |args: &[&str]| {
        let done = Command::new("qemu-img")
            .arg("snapshot")
            .args(args)
            .arg(&image)
            .status();
        done.unwrap().success()
    };
    assert!(snapshot(&["-c", "before"]));
    world.vm = World::run(world.dir.path()).unwrap();
    world.take("run1", None, 1).release(true).unwrap();
    world.vm.quit();
    assert!(
        snapshot(&["-a", "before"]),
        "QEMU lets nobody roll back an image with bitmaps"
    );
}

#[test]
fn a_guest_that_overwrites_too_much_goes_on_and_the_point_in_time_ends() {
    let Some(mut world) = World::start() else {
        return;
    };
    // Copies of zeros take no space.
    world.vm.write(0, 7, 0, 50 * MIB);
    let space = world.space(64 * MIB);
    let wanted = world.wanted(None, 1);
    let monitor = world.vm.qmp_path();
    let mut point = QemuPoint::prepare(&monitor, "run1", &world.owner, &wanted, &space).unwrap();
    let transaction = point.transaction();
    world
        .vm
        .side()
        .execute("transaction", transaction, LONG)
        .unwrap();
    point.publish().unwrap();
    let image = open(&point.export(0).unwrap());
    for mib in 0..32 {
        world.vm.write(0, 1, mib * MIB, MIB);
    }
    // Nothing is read any more of what may not be as it was.
    let mut buf = rblocksync::buf::AlignedBuf::zeroed(4096);
    let deadline = std::time::Instant::now() + LONG;
    while image.read_at(&mut buf, 40 * MIB).is_ok() {
        assert!(std::time::Instant::now() < deadline, "it can still be read");
        world.vm.write(0, 1, 33 * MIB, 4096);
    }
    assert_eq!(point.check().unwrap_err().kind(), Kind::Space);
    world.vm.write(0, 1, 40 * MIB, MIB);
    point.release(false).unwrap();
    world.assert_clean();
}

#[test]
fn too_little_room_and_unknown_disks_are_refused_before_anything_is_done() {
    let Some(mut world) = World::start() else {
        return;
    };
    let monitor = world.vm.qmp_path();
    let mut wanted = world.wanted(None, 1);
    let refused = |wanted: &[Wanted], space: &ScratchSpace| {
        let point = QemuPoint::prepare(&monitor, "run1", &world.owner, wanted, space);
        point.err().expect("refused").kind()
    };
    assert_eq!(refused(&wanted, &world.space(20 * MIB)), Kind::Space);
    wanted[0].format = ImageFormat::Raw;
    assert_eq!(refused(&wanted, &world.space(256 * MIB)), Kind::NotFound);
    world.assert_clean();
    assert_eq!(world.bitmaps(), vec![Vec::<String>::new(); 2]);
}

#[test]
fn an_nbd_server_of_somebody_else_is_left_alone() {
    let Some(mut world) = World::start() else {
        return;
    };
    let address = json!({"type": "unix", "data": {"path": world.dir.path().join("other")}});
    let export = json!({"id": "other", "type": "nbd", "node-name": "n1", "name": "other"});
    let side = world.vm.side();
    side.execute("nbd-server-start", json!({"addr": address}), LONG)
        .unwrap();
    side.execute("block-export-add", export, LONG).unwrap();
    let monitor = world.vm.qmp_path();
    let (wanted, space) = (world.wanted(None, 1), world.space(256 * MIB));
    let point = QemuPoint::prepare(&monitor, "run1", &world.owner, &wanted, &space);
    let refused = point.err().unwrap();
    assert!(refused.advice().is_some_and(|a| a.contains("migration")));
    let other = Export {
        socket: world.dir.path().join("other"),
        name: "other".into(),
        changed: None,
    };
    assert_eq!(open(&other).size(), SIZE, "it is still there");
    let side = world.vm.side();
    side.execute("nbd-server-stop", json!({}), LONG).unwrap();
    world.assert_clean();
}

fn take(world: &World, since: Option<u64>, next: u64) -> PointInTime {
    let owner = OwnerTag::new(Uuid::new_v4());
    let formats = [ImageFormat::Qcow2, ImageFormat::Raw];
    let disks = formats.into_iter().enumerate();
    let request = Request {
        run: "run1",
        disks: disks
            .map(|(disk, format)| snapshot::Wanted {
                source: DiskSource::Path(world.path(disk)),
                format,
                since: since.map(|n| world.name(n)),
            })
            .collect(),
        owner: &owner,
        hold_max: LONG,
        scratch: Some(world.space(256 * MIB)),
        bitmaps: world.owner.clone(),
        bitmap_next: Some(world.name(next)),
    };
    snapshot::check(&Listing::default(), &request, &world.vm.runtime(false)).unwrap();
    snapshot::take(&request, world.vm.runtime(false)).unwrap()
}

#[test]
fn a_point_in_time_of_a_vm_may_be_qemus() {
    let Some(mut world) = World::start() else {
        return;
    };
    world.vm.write(0, 1, MIB, 4096);
    let mut point = take(&world, None, 1);
    assert_eq!(world.vm.status(), "running");
    world.vm.write(0, 2, MIB, 4096);
    let SnapshotKind::Export(export) = &point.disks[0].kind else {
        panic!("{:?}", point.disks[0].kind)
    };
    assert_eq!(byte_at(&open(export), MIB), 1);
    assert!(point.bitmap_of(&point.disks[0]).unwrap().persistent);
    assert!(point.changed_since(&point.disks[0]).is_none());
    point.still_valid().unwrap();
    point.keep_as_bases(1).unwrap();
    point.release().unwrap();
    let mut point = take(&world, Some(1), 2);
    let export = point.changed_since(&point.disks[0]).unwrap().unwrap();
    assert_eq!(grains(&open(&export)), [MIB / GRAIN]);
    point.release().unwrap();
    world.assert_clean();
    assert_eq!(world.bitmaps()[0], [world.name(1)], "it came to nothing");
    // QEMU ends while it is read: that is no point in time any more.
    let mut point = take(&world, Some(1), 2);
    world.vm.kill();
    assert!(point.still_valid().is_err());
    point.release().unwrap();
}
