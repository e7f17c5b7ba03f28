//! `rblocksync SRC DST` on this host: files and loop devices, in all pairings.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tempfile::tempdir;
use tests::cli::{
    allocated, checksum, is_root, scribble, sparse_image, stamp, Loop, Mount, Rblocksync, MIB,
    ODD_NAMES,
};

/// Bytes of metadata and rounding that a file system may add to a file's data.
const SLACK: u64 = 128 << 10;

#[track_caller]
fn assert_equal(a: impl AsRef<Path>, b: impl AsRef<Path>) {
    assert_eq!(checksum(a), checksum(b), "contents differ");
}

#[test]
fn a_new_file_is_as_sparse_as_its_source_and_only_changes_follow() {
    let dir = tempdir().unwrap();
    let src = sparse_image(
        dir.path().join("src"),
        300 * MIB + 777,
        &[(0, 3), (100, 40), (300, 1)],
        1,
    );
    let dst = dir.path().join("dst");
    let first = Rblocksync::sync(&src, &dst)
        .with("--truncate --json")
        .run()
        .summary();
    assert_equal(&src, &dst);
    assert!(allocated(&dst) <= allocated(&src) + SLACK);
    assert_eq!(first.bytes("changed"), 43 * MIB + 777);
    assert_eq!(first.bytes("target.written"), 43 * MIB + 777);
    assert_eq!(first.bytes("size"), 300 * MIB + 777);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(names.len(), 2, "{names:?}");

    let second = Rblocksync::sync(&src, &dst).with("--json").run().summary();
    assert_eq!((second.bytes("changed"), second.bytes("zeroed")), (0, 0));
    assert!(second.wire() < 6000, "{} bytes", second.wire());

    // Three leaves: one whole, one in which a byte changes, and the short one at the end.
    scribble(&src, 101 * MIB, 4096, 77);
    scribble(&src, 120 * MIB + 5000, 1, 78);
    scribble(&src, 300 * MIB + 770, 7, 79);
    let third = Rblocksync::sync(&src, &dst).with("--json").run().summary();
    assert_equal(&src, &dst);
    assert_eq!(third.bytes("changed"), 2 * 4096 + 777);
    assert_eq!(third.bytes("target.written"), 2 * 4096 + 777);
}

#[test]
fn zeros_over_data_are_freed() {
    let dir = tempdir().unwrap();
    let src = sparse_image(dir.path().join("src"), 64 * MIB, &[(10, 10)], 1);
    let dst = sparse_image(dir.path().join("dst"), 64 * MIB, &[(0, 64)], 2);
    // On the source: holes, zeros that take space, and zeros inside of segments that hold data.
    let zeros = vec![0; 4 * MIB as usize];
    let file = File::options().write(true).open(&src).unwrap();
    file.write_all_at(&zeros, 30 * MIB).unwrap();
    file.write_all_at(&zeros[..40960], 12 * MIB + 8192).unwrap();
    let summary = Rblocksync::sync(&src, &dst).with("--json").run().summary();
    assert_equal(&src, &dst);
    assert!(
        allocated(&dst) <= 10 * MIB - 40960 + SLACK,
        "{} bytes",
        allocated(&dst)
    );
    assert_eq!(summary.bytes("zeroed"), 54 * MIB + 40960);
    let again = Rblocksync::sync(&src, &dst).with("--json").run().summary();
    assert_eq!((again.bytes("changed"), again.bytes("zeroed")), (0, 0));
}

#[test]
fn odd_sizes_and_the_empty_file() {
    let dir = tempdir().unwrap();
    for (i, size) in [0, 1, 511, 4095, 4097, MIB - 1, MIB + 1, 3 * MIB + 513]
        .into_iter()
        .enumerate()
    {
        let src = dir.path().join(format!("src{i}"));
        std::fs::write(&src, stamp(size as usize, i as u64)).unwrap();
        let dst = dir.path().join(format!("dst{i}"));
        Rblocksync::sync(&src, &dst).with("--truncate").run().ok();
        assert_equal(&src, &dst);
        Rblocksync::sync(&src, &dst).run().ok();
        // Onto what is larger and what is smaller.
        for other in [size + 5000, size / 2] {
            std::fs::write(&dst, stamp(other as usize, 99)).unwrap();
            Rblocksync::sync(&src, &dst).with("--truncate").run().ok();
            assert_equal(&src, &dst);
        }
    }
}

/// What an interrupted run left is taken up, whatever its size, also by an empty source.
#[test]
fn the_rest_of_an_earlier_run_is_used_and_never_shows_through() {
    let dir = tempdir().unwrap();
    let part = dir.path().join(".dst.rblocksync-part");
    let dst = dir.path().join("dst");
    for size in [0, 8 * MIB] {
        let src = sparse_image(dir.path().join("src"), size, &[(0, size / MIB)], 1);
        sparse_image(&part, 20 * MIB, &[(0, 4), (7, 12)], 1);
        let summary = Rblocksync::sync(&src, &dst)
            .with("--truncate --json")
            .run()
            .summary();
        assert_equal(&src, &dst);
        assert!(!part.exists());
        assert_eq!(summary.bytes("changed"), size.min(3 * MIB));
        std::fs::remove_file(&dst).unwrap();
    }
}

#[test]
fn devices_and_files_in_all_pairings() {
    if !is_root() {
        return;
    }
    let dir = tempdir().unwrap();
    // Not a multiple of 4 KiB: 513 sectors past a mebibyte's end.
    let size = 33 * MIB + 513 * 512;
    let path = |name: &str| dir.path().join(name);
    let src = sparse_image(path("src"), size, &[(0, 2), (9, 4), (30, 4)], 1);
    let old = sparse_image(path("old"), size, &[(1, 30), (33, 1)], 2);
    let other = sparse_image(path("other"), size, &[], 3);
    let (old_device, other_device) = (Loop::attach(&old), Loop::attach(&other));

    // A file onto a device: its zeros are made, and only where something else was.
    let summary = Rblocksync::sync(&src, &old_device)
        .with("--json --verify")
        .run()
        .summary();
    assert_equal(&src, &old_device);
    assert_eq!(summary.bytes("changed"), 9 * MIB + 513 * 512);
    // It had 1..31: all of that but 1, 9..13 and 30, which are data on the source as well.
    assert_eq!(summary.bytes("zeroed"), 24 * MIB);
    let again = Rblocksync::sync(&src, &old_device)
        .with("--json")
        .run()
        .summary();
    assert_eq!((again.bytes("changed"), again.bytes("zeroed")), (0, 0));
    assert!(again.wire() < 5000);

    // A device onto a device: zeros of the source take no space on a target that can do without.
    Rblocksync::sync(&old_device, &other_device).run().ok();
    assert_equal(&src, &other_device);
    assert!(allocated(&other) <= allocated(&src) + SLACK);

    // A device to a new file.
    let new = path("new");
    Rblocksync::sync(&other_device, &new)
        .with("--truncate")
        .run()
        .ok();
    assert_equal(&src, &new);
    assert!(allocated(&new) <= allocated(&src) + SLACK);
}

/// `--ignore-size` may end anywhere in a device's last block; what follows stays as it is.
#[test]
fn ignore_size_syncs_the_part_that_both_have() {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let short = 5 * MIB + 905;
    let src = sparse_image(path("short"), short, &[(0, 6)], 1);
    let long = sparse_image(path("long"), 8 * MIB, &[(0, 8)], 2);
    let tail = stamp(MIB as usize, 2 + 5);
    let tail_of = |path: &Path| {
        let mut bytes = vec![0; MIB as usize - 905];
        File::open(path)
            .unwrap()
            .read_exact_at(&mut bytes, short)
            .unwrap();
        bytes
    };
    let head_is_equal = |a: &Path, b: &Path| {
        let mut heads = [vec![0; short as usize], vec![0; short as usize]];
        for (head, path) in heads.iter_mut().zip([a, b]) {
            File::open(path).unwrap().read_exact_at(head, 0).unwrap();
        }
        heads[0] == heads[1]
    };
    Rblocksync::sync(&src, &long)
        .with("--ignore-size")
        .run()
        .ok();
    assert!(head_is_equal(&src, &long));
    assert!(tail_of(&long) == tail[905..]);
    if is_root() {
        let device = Loop::attach(&sparse_image(path("backing"), 8 * MIB, &[(0, 8)], 2));
        for options in ["--ignore-size", "--ignore-size --dry-run --verify"] {
            Rblocksync::sync(&src, &device).with(options).run().ok();
        }
        assert!(head_is_equal(&src, device.path()));
        assert!(tail_of(device.path()) == tail[905..]);
        // A hole that ends within the block.
        let hole = sparse_image(path("hole"), short, &[], 1);
        Rblocksync::sync(&hole, &device)
            .with("--ignore-size")
            .run()
            .ok();
        assert!(head_is_equal(&hole, device.path()));
        assert!(tail_of(device.path()) == tail[905..]);
        // And from the device to the shorter file.
        scribble(&device, 0, 8 * MIB as usize, 5);
        Rblocksync::sync(&device, &src)
            .with("--ignore-size")
            .run()
            .ok();
        assert!(head_is_equal(&src, device.path()));
    }
}

#[test]
fn names_are_data() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempdir().unwrap();
    sparse_image(dir.path().join("src"), 2 * MIB, &[(0, 2)], 1);
    let more: [&[u8]; 5] = [b"agent", b"watchdog", b"~", b"./vm:1.img", b"./-x"];
    for name in ODD_NAMES.into_iter().chain(more) {
        let name = std::ffi::OsStr::from_bytes(name);
        for (src, dst) in [("src".as_ref(), name), (name, "back".as_ref())] {
            Rblocksync::sync(src, dst)
                .with("--truncate -q")
                .within(dir.path())
                .run()
                .ok();
        }
        assert_equal(dir.path().join("src"), dir.path().join("back"));
        std::fs::remove_file(dir.path().join("back")).unwrap();
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    // A name that looks like an option must follow `--`.
    tests::cli::rblocksync(["--truncate", "-q", "--", "src", "-y"])
        .within(dir.path())
        .run()
        .ok();
    let names = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names, 2, "only src and -y may be there");
}

/// Where the file system can do that, a new copy takes no space; and it is a copy of its own.
#[test]
fn a_new_copy_begins_as_a_clone() {
    if !is_root() {
        eprintln!("skipped: not root");
        return;
    }
    let dir = tempdir().unwrap();
    let mount = Mount::xfs(dir.path(), 400 * MIB);
    let (src, dst) = (mount.dir().join("src"), mount.dir().join("dst"));
    sparse_image(&src, 100 * MIB, &[(3, 40)], 1);
    let free = || {
        let stat = rustix::fs::statvfs(mount.dir()).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let before = free();
    let run = Rblocksync::sync(&src, &dst).with("--truncate --json");
    let summary = run.run().summary();
    assert_eq!(summary.bytes("target.written"), 0);
    assert!(before - free() < 4 * MIB, "{} bytes", before - free());
    assert_eq!(checksum(&src), checksum(&dst));
    assert_eq!(allocated(&src), allocated(&dst));

    scribble(&src, 10 * MIB, 5000, 7);
    assert_ne!(checksum(&src), checksum(&dst));
    Rblocksync::sync(&src, &dst).run().ok();
    assert_eq!(checksum(&src), checksum(&dst));
    let other = mount.dir().join("other");
    let dry = Rblocksync::sync(&src, &other).with("--truncate --dry-run");
    dry.run().ok();
    assert!(!other.exists());
    // Elsewhere there is nothing to share.
    let far = dir.path().join("far");
    Rblocksync::sync(&src, &far).with("--truncate").run().ok();
    assert_eq!(checksum(&src), checksum(&far));
}
