//! Programs that are killed in the middle.

use crate::args;
use crate::tools::*;
use rblocksync::agent::BlockEnd;
use rblocksync::image::{Container, Image};
use rblocksync::qemu::Qcow2Disk;
use rblocksync::range::ByteRange;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The processes of this name that have this in their arguments.
fn processes(name: &str, argument: &Path) -> Vec<i32> {
    let argument = argument.to_str().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let program = line.split('\0').next().unwrap_or_default();
        if program.ends_with(name) && line.contains(argument) {
            found.push(pid);
        }
    }
    found
}

fn kill(pid: i32) {
    run("kill", ["-9", &pid.to_string()]);
}

#[test]
fn a_server_that_is_killed_is_told_and_the_next_sync_succeeds() {
    let dir = Dir::new();
    let source = dir.raw("a.raw", 64 * MIB, &[(0, 40 * MIB)]);
    let target = dir.qcow2("b.qcow2", 64 * MIB, &[]);
    let (disk, ..) = Qcow2Disk::target(&target, &options(QCOW2)).unwrap();
    let bytes = pattern(MIB, 5);
    for at in 0..8 {
        disk.write_at(&bytes, at * MIB).unwrap();
    }
    kill(processes("qemu-nbd", &target)[0]);
    let error = (0..8)
        .map(|at| disk.write_at(&bytes, at * MIB))
        .find_map(Result::err)
        .unwrap();
    assert!(error.message().contains("signal 9"), "{error}");
    let error = disk.close().unwrap_err();
    assert!(error.message().contains("signal 9"), "{error}");
    drop(disk);
    sync((&source, RAW), (&target, QCOW2)).unwrap();
    assert_equal((&source, RAW), (&target, QCOW2));
}

#[test]
fn a_sync_whose_server_is_killed_fails_clearly() {
    let dir = Dir::new();
    let source = dir.raw("a.raw", 64 * MIB, &[(0, 60 * MIB)]);
    let target = dir.qcow2("b.qcow2", 64 * MIB, &[]);
    let child = Command::new(env!("CARGO_BIN_EXE_rblocksync"))
        .args(args![
            "--target-format",
            "qcow2",
            "--bwlimit",
            "8M",
            &source,
            &target
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("it writes", || allocated(&target) > MIB);
    kill(processes("qemu-nbd", &target)[0]);
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.contains("qemu-nbd") && said.contains("signal 9"),
        "{said}"
    );
    sync((&source, RAW), (&target, QCOW2)).unwrap();
    assert_equal((&source, RAW), (&target, QCOW2));
}

#[test]
fn no_server_outlives_a_killed_run() {
    let dir = Dir::new();
    let source = dir.raw("a.raw", 64 * MIB, &[(0, 60 * MIB)]);
    let target = dir.qcow2("b.qcow2", 64 * MIB, &[]);
    let sockets = dir.path("tmp");
    std::fs::create_dir(&sockets).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rblocksync"))
        .args(args![
            "--target-format",
            "qcow2",
            "--bwlimit",
            "8M",
            &source,
            &target
        ])
        .env("TMPDIR", &sockets)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it writes", || allocated(&target) > MIB);
    child.kill().unwrap();
    child.wait().unwrap();
    until("the server ends", || {
        processes("qemu-nbd", &target).is_empty()
    });
    let left: Vec<PathBuf> = std::fs::read_dir(&sockets)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    sync((&source, RAW), (&target, QCOW2)).unwrap();
    assert_equal((&source, RAW), (&target, QCOW2));
}

#[test]
fn lost_clusters_are_freed() {
    let dir = Dir::new();
    let source = dir.raw("a.raw", 8 * MIB, &[(0, MIB)]);
    let target = dir.qcow2("b.qcow2", 8 * MIB, &[(0, 4 * MIB)]);
    // A second-level table is forgotten: its clusters belong to nobody.
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&target)
        .unwrap();
    let mut l1 = [0; 8];
    file.read_exact_at(&mut l1, 40).unwrap();
    file.write_all_at(&[0; 8], u64::from_be_bytes(l1)).unwrap();
    let check = Command::new("qemu-img")
        .args(args!["check", "-f", "qcow2", &target])
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(3), "{check:?}");
    sync((&source, RAW), (&target, QCOW2)).unwrap();
    assert_equal((&source, RAW), (&target, QCOW2));
}

#[test]
fn what_was_closed_is_over() {
    let dir = Dir::new();
    let target = dir.qcow2("b.qcow2", 8 * MIB, &[(0, MIB)]);
    let (disk, ..) = Qcow2Disk::target(&target, &options(QCOW2)).unwrap();
    disk.zero(ByteRange::new(0, MIB)).unwrap();
    disk.close().unwrap();
    assert!(processes("qemu-nbd", &target).is_empty());
    assert!(disk.read_at(&mut [0; 4096], 0).is_err());
    disk.close().unwrap();
    drop(disk);
    // A dropped end leaves no process either.
    let (end, _) = BlockEnd::source(&target, QCOW2, false).unwrap();
    assert_eq!(processes("qemu-nbd", &target).len(), 1);
    drop(end);
    assert!(processes("qemu-nbd", &target).is_empty());
}
