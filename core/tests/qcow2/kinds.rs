//! Every kind to every kind, the first time and again.

use crate::args;
use crate::tools::*;
use rblocksync::agent::BlockEnd;
use std::path::Path;

const SIZE: u64 = 24 * MIB;
const DATA: [(u64, u64); 3] = [(0, MIB), (5 * MIB + 4096, 3 * MIB), (SIZE - 8192, 8192)];

/// The first copy, then one of changes, then one of zeros.
fn follow(source: Disk, target: Disk) {
    let first = sync(source, target).unwrap();
    assert_eq!(first.size, SIZE);
    assert_eq!(first.changed, DATA.iter().map(|(_, len)| len).sum::<u64>());
    assert_equal(source, target);

    guest(source.0, source.1, "write -P 7 6M 12k");
    guest(source.0, source.1, "write -P 8 15M 4k");
    let again = sync(source, target).unwrap();
    assert_eq!((again.changed, again.zeroed), (16 * KIB, 0));
    assert_equal(source, target);

    let before = allocated(target.0);
    guest(source.0, source.1, "write -z -u 5M 4M");
    let zeroed = sync(source, target).unwrap();
    assert_eq!(zeroed.changed, 0);
    assert_equal(source, target);
    if target.1 == QCOW2 {
        let now = allocated(target.0);
        assert!(now + 2 * MIB < before, "{before} to {now}: not given back");
    }
    let nothing = sync(source, target).unwrap();
    assert_eq!((nothing.changed, nothing.zeroed), (0, 0));
}

#[test]
fn raw_to_qcow2() {
    let dir = Dir::new();
    let source = dir.raw("a.raw", SIZE, &DATA);
    follow((&source, RAW), (&dir.path("b.qcow2"), QCOW2));
}

#[test]
fn qcow2_to_raw() {
    let dir = Dir::new();
    let source = dir.qcow2("a.qcow2", SIZE, &DATA);
    follow((&source, QCOW2), (&dir.path("b.raw"), RAW));
}

#[test]
fn qcow2_to_qcow2() {
    let dir = Dir::new();
    let source = dir.qcow2("a.qcow2", SIZE, &DATA);
    follow((&source, QCOW2), (&dir.path("b.qcow2"), QCOW2));
}

#[test]
fn qcow2_to_a_device_and_back() {
    let dir = Dir::new();
    let source = dir.qcow2("a.qcow2", SIZE, &DATA);
    let backing = dir.raw("backing", SIZE, &[(MIB, MIB)]);
    let Some(device) = Loop::attach(&backing) else {
        eprintln!("skipped: no loop devices here");
        return;
    };
    let device = (Path::new(&device.0), RAW);
    sync((&source, QCOW2), device).unwrap();
    assert_equal((&source, QCOW2), device);
    let back = dir.path("c.qcow2");
    sync(device, (&back, QCOW2)).unwrap();
    assert_equal((&source, QCOW2), (&back, QCOW2));
}

struct Loop(String);

impl Loop {
    fn attach(file: &Path) -> Option<Loop> {
        let mut losetup = std::process::Command::new("losetup");
        let out = losetup
            .args(args!["--find", "--show", file])
            .output()
            .ok()?;
        let name = String::from_utf8(out.stdout).ok()?;
        out.status.success().then(|| Loop(name.trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup")
            .args(["-d", &self.0])
            .status();
    }
}

#[test]
fn bitmaps_of_a_target_stay_and_mark_what_was_written() {
    let dir = Dir::new();
    let source = dir.raw("a.raw", SIZE, &DATA);
    let target = dir.path("b.qcow2");
    sync((&source, RAW), (&target, QCOW2)).unwrap();
    run(
        "qemu-img",
        args!["bitmap", "--add", "-f", "qcow2", &target, "since"],
    );
    guest(&source, RAW, "write -P 9 10M 4k");
    sync((&source, RAW), (&target, QCOW2)).unwrap();
    let found = info(&target, QCOW2);
    assert!(
        found.contains(r#""name":"since""#) && !found.contains("in-use"),
        "{found}"
    );
    let read = rblocksync::qemu::ReadOptions {
        bitmap: Some("since".into()),
        ..Default::default()
    };
    let (disk, ..) = rblocksync::qemu::Qcow2Disk::source(&target, &read).unwrap();
    let dirty = disk.dirty().unwrap();
    let dirty: Vec<_> = dirty.iter().collect();
    assert_eq!(dirty.len(), 1, "{dirty:?}");
    assert_eq!((dirty[0].start, dirty[0].len()), (10 * MIB, 64 * KIB));
}

#[test]
fn a_target_follows_the_size_of_its_source() {
    let dir = Dir::new();
    let (raw, target) = (dir.path("a.raw"), dir.path("b.qcow2"));
    for size in [SIZE, 2 * SIZE, SIZE / 2] {
        dir.raw("a.raw", size, &[(0, MIB), (size - 4096, 4096)]);
        sync((&raw, RAW), (&target, QCOW2)).unwrap();
        assert_equal((&raw, RAW), (&target, QCOW2));
        assert!(info(&target, QCOW2).contains(&format!(r#""virtual-size":{size},"#)));
    }
}

#[test]
fn a_size_that_qcow2_cannot_have_is_refused() {
    let dir = Dir::new();
    let source = dir.raw("a.raw", 5000, &[(0, 5000)]);
    let target = dir.path("b.qcow2");
    let refused = sync((&source, RAW), (&target, QCOW2)).unwrap_err();
    assert!(refused.message().contains("multiples of 512"), "{refused}");
    assert!(!target.exists());
}

#[test]
fn a_dry_run_changes_nothing() {
    let dir = Dir::new();
    let source = dir.raw("a.raw", SIZE, &DATA);
    let target = dir.qcow2("b.qcow2", SIZE, &[(0, 64 * KIB)]);
    let before = std::fs::read(&target).unwrap();
    let said = rblocksync(
        &[&["--dry-run", "--target-format", "qcow2"]],
        &source,
        &target,
    );
    assert!(said.contains("would be sent"), "{said}");
    assert_eq!(std::fs::read(&target).unwrap(), before);
}

fn rblocksync(options: &[&[&str]], source: &Path, target: &Path) -> String {
    let options: Vec<&str> = options.concat();
    let args = options.iter().map(AsRef::as_ref);
    let args = args.chain([source.as_os_str(), target.as_os_str()]);
    run(env!("CARGO_BIN_EXE_rblocksync"), args)
}

#[test]
fn the_command_takes_formats_and_guesses_none() {
    let dir = Dir::new();
    let source = dir.qcow2("a.qcow2", SIZE, &DATA);
    let (qcow2, raw, same) = (dir.path("b.qcow2"), dir.path("b.raw"), dir.path("b"));
    let from: &[&str] = &["--truncate", "--source-format", "qcow2"];
    rblocksync(&[from, &["--target-format", "qcow2"]], &source, &qcow2);
    assert_equal((&source, QCOW2), (&qcow2, QCOW2));
    rblocksync(&[from], &source, &raw);
    assert_equal((&source, QCOW2), (&raw, RAW));
    rblocksync(&[&["--truncate"]], &source, &same);
    assert_eq!(
        std::fs::read(&source).unwrap(),
        std::fs::read(&same).unwrap()
    );
}

#[test]
fn a_target_that_was_begun_is_gone_on_with() {
    let dir = Dir::new();
    let source = dir.raw("a.raw", SIZE, &DATA);
    let target = dir.path("b.qcow2");
    let (mut end, opened) = BlockEnd::target(&target, options(QCOW2)).unwrap();
    assert!(opened.is_new && opened.size == 0);
    end.resize(SIZE).unwrap();
    drop(end);
    assert!(!target.exists(), "it has its name only when it is whole");
    let part = dir.path(".b.qcow2.rblocksync-part");
    guest(&part, QCOW2, "write -P 1 2M 1M");
    let done = sync((&source, RAW), (&target, QCOW2)).unwrap();
    assert_eq!(done.zeroed, MIB, "what was there was looked at");
    assert_equal((&source, RAW), (&target, QCOW2));
    // What is no image is made one.
    std::fs::remove_file(&target).unwrap();
    std::fs::write(&part, "left by something else").unwrap();
    sync((&source, RAW), (&target, QCOW2)).unwrap();
    assert_equal((&source, RAW), (&target, QCOW2));
}
