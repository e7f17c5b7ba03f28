//! The map of a thin volume, and the metadata snapshot it is read from.

use crate::{lv, owner, pool, sh};
use rblocksync::agent::BlockEnd;
use rblocksync::error::Kind;
use rblocksync::image::ImageFormat;
use rblocksync::lvm::{self, LvKind, SnapshotOptions};
use rblocksync::range::{ByteRange, RangeSet};
use rblocksync::thin;
use std::os::unix::fs::FileExt;
use std::path::Path;

const CHUNK: u64 = 65536;
const NOTE: &str = "/var/lib/rblocksync/thin-pve-data.held";

fn chunks(name: &str) -> Vec<(u64, u64)> {
    let volume = lvm::get(&lv(name)).expect("there");
    let set = thin::mapped(&volume).expect("mapped");
    set.iter()
        .map(|r| (r.start / CHUNK, r.end / CHUNK))
        .collect()
}

fn held_root() -> Option<u64> {
    lvm::pool(&pool())
        .expect("a pool")
        .status
        .expect("active")
        .held_root
}

fn create(name: &str) {
    lvm::create_thin(&pool(), name, 64 << 20, &[owner().tag().clone()]).expect("created");
}

fn remove(names: &[&str]) {
    for name in names {
        lvm::remove(&lv(name), &owner()).expect("removed");
    }
}

pub fn what_is_mapped_is_what_was_written() {
    create("map");
    assert_eq!(chunks("map"), []);
    sh(
        "dd if=/dev/zero of=/dev/pve/map bs=64k count=3 seek=1 oflag=direct status=none
        dd if=/dev/urandom of=/dev/pve/map bs=512 count=1 seek=12800 oflag=direct status=none
        dd if=/dev/urandom of=/dev/pve/map bs=64k count=1 seek=1023 oflag=direct status=none",
    );
    let written = [(1, 4), (100, 101), (1023, 1024)];
    assert_eq!(chunks("map"), written);
    let options = SnapshotOptions {
        read_only: true,
        skip_activation: true,
        tags: vec![owner().tag().clone()],
        ..SnapshotOptions::default()
    };
    lvm::snapshot(&lv("map"), "map-snap", &options).expect("snapshot");
    sh("blkdiscard -o 65536 -l 65536 /dev/pve/map
        dd if=/dev/urandom of=/dev/pve/map bs=64k count=2 seek=500 oflag=direct status=none");
    assert_eq!(
        chunks("map"),
        [(2, 4), (100, 101), (500, 502), (1023, 1024)]
    );
    assert_eq!(chunks("map-snap"), written, "though it is not active");

    let options = SnapshotOptions {
        read_only: true,
        skip_activation: true,
        tags: vec![owner().tag().clone()],
        ..SnapshotOptions::default()
    };
    lvm::snapshot(&lv("map"), "map-later", &options).expect("snapshot");
    let get = |name| lvm::get(&lv(name)).expect("there");
    let changed = thin::changed(&get("map-snap"), &get("map-later")).expect("compared");
    let wanted: RangeSet = [(1, 2), (500, 502)]
        .iter()
        .map(|(from, to)| ByteRange::new(from * CHUNK, to * CHUNK))
        .collect();
    assert_eq!(changed, wanted, "a chunk is gone, and two came");
    let same = thin::changed(&get("map-later"), &get("map-later")).expect("compared");
    assert!(same.is_empty());
    lvm::remove(&lv("map-later"), &owner()).expect("removed");

    // All of it scattered: more lines than a pipe holds.
    let disk = std::fs::File::options()
        .write(true)
        .open("/dev/pve/map")
        .expect("opened");
    for chunk in (0..1024).step_by(2) {
        disk.write_all_at(&[1], chunk * CHUNK).expect("written");
    }
    disk.sync_all().expect("synced");
    drop(disk);
    let odd = [3, 501, 1023];
    let set = thin::mapped(&lvm::get(&lv("map")).expect("there")).expect("mapped");
    assert_eq!(set.total(), (512 + odd.len() as u64) * CHUNK);
    for chunk in (0..1024).filter(|c| c % 2 == 0 || odd.contains(c)) {
        let range = ByteRange::new(chunk * CHUNK, (chunk + 1) * CHUNK);
        assert_eq!(set.within(range).next(), Some(range));
    }
    remove(&["map", "map-snap"]);
    assert_eq!(held_root(), None);

    sh("lvcreate -qq -y -L 8m -n ext pve
        dd if=/dev/urandom of=/dev/pve/ext bs=1M count=8 oflag=direct status=none
        lvchange -qq -an pve/ext; lvchange -qq -pr pve/ext
        lvcreate -qq -y -kn -n over-ext --type thin --thinpool pve/data pve/ext");
    let over = lvm::get(&lv("over-ext")).expect("there");
    assert_eq!(over.kind, LvKind::Thin);
    let error = thin::mapped(&over).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    // Its snapshot shows the same, and has an origin in the pool.
    sh("lvcreate -qq -s -kn -n over-snap pve/over-ext");
    let error = thin::mapped(&lvm::get(&lv("over-snap")).expect("there")).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    sh("lvremove -qq -y pve/over-ext");
    let orphan = lvm::get(&lv("over-snap")).expect("there");
    let error = thin::mapped(&orphan).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{orphan:?}: {error}");
    sh("lvremove -qq -y pve/over-snap pve/ext");
    let error = thin::mapped(&lvm::get(&pool()).expect("there")).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage, "{error}");
}

pub fn a_metadata_snapshot_of_others_is_respected() {
    create("map");
    sh("dmsetup message pve-data-tpool 0 reserve_metadata_snap");
    let root = held_root();
    assert!(root.is_some());
    let error = thin::mapped(&lvm::get(&lv("map")).expect("there")).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert_eq!(held_root(), root, "still theirs");
    let (_, opened) = BlockEnd::source(Path::new("/dev/pve/map"), ImageFormat::Raw, true)
        .expect("it can be read");
    let note = opened.note.expect("and it is told how");
    assert!(note.contains("all of pve/map is read"), "{note}");

    // It is waited for, though.
    let waiting = std::thread::spawn(|| chunks("map"));
    sh("dmsetup message pve-data-tpool 0 release_metadata_snap");
    assert_eq!(waiting.join().expect("mapped"), []);
    assert_eq!(held_root(), None);
    assert!(!std::path::Path::new(NOTE).exists());

    // A device that is not there fails without leaving the reservation behind.
    let mut gone = lvm::get(&lv("map")).expect("there");
    remove(&["map"]);
    gone.thin_id = Some(0x00ab_cdef);
    let error = thin::mapped(&gone).unwrap_err();
    assert!(error.to_string().contains("is not in it"), "{error}");
    assert_eq!(held_root(), None);
}

pub fn a_metadata_snapshot_a_killed_run_left_is_released() {
    create("map");
    // As a run leaves it that was killed right after it had reserved.
    sh("dmsetup message pve-data-tpool 0 reserve_metadata_snap");
    let root = held_root().expect("held");
    sh(&format!(
        "mkdir -p -m 700 /var/lib/rblocksync; echo {root} > {NOTE}"
    ));
    assert_eq!(chunks("map"), []);
    assert_eq!(held_root(), None);
    assert!(!std::path::Path::new(NOTE).exists());

    // A note from long ago does not make what others hold now ours.
    sh("dmsetup message pve-data-tpool 0 reserve_metadata_snap");
    let root = held_root().expect("held");
    sh(&format!("echo {} > {NOTE}", root + 1));
    let error = thin::mapped(&lvm::get(&lv("map")).expect("there")).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert_eq!(held_root(), Some(root));
    sh("dmsetup message pve-data-tpool 0 release_metadata_snap");
    remove(&["map"]);
}
