//! Targets that somebody else uses: `rblocksync` keeps off them.

#![allow(clippy::unwrap_used)]

use rustix::fs::{flock, FlockOperation};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use tempfile::tempdir;
use tests::cli::{
    all_ways, is_root, pair, refused_everywhere, server, sparse_image, Loop, Mount, Rblocksync, MIB,
};
use tests::sshd::{eventually, processes};

#[test]
fn a_target_in_use() {
    let ((dir, src, dst), sshd) = (pair(), server());
    let noted = [&*src, &*dst, dir.path()];
    let held = File::open(&dst).unwrap();
    flock(&held, FlockOperation::LockShared).unwrap();
    let words = &["dst is in use by another process that has locked it"];
    refused_everywhere(&sshd, (&src, &dst), "", 3, words, &noted);
    // Looking needs no lock.
    Rblocksync::sync(&src, &dst).with("--dry-run").run().ok();
    drop(held);

    let mut qemu = Qemu::holding(&dst, "file");
    let words = &["dst is in use by another process", "such as QEMU"];
    refused_everywhere(&sshd, (&src, &dst), "", 3, words, &noted);
    qemu.stop();

    if !is_root() {
        return;
    }
    let device = Loop::attach(&dst);
    let words = &["dst is in use by loop device", "hint: stop what uses it"];
    refused_everywhere(&sshd, (&src, &dst), "", 3, words, &noted);
    let link = dir.path().join("hard");
    fs::hard_link(&dst, &link).unwrap();
    refused_everywhere(
        &sshd,
        (&src, &link),
        "",
        3,
        &["in use by loop device"],
        &noted[..2],
    );

    let mut qemu = Qemu::holding(device.path(), "host_device");
    let words = &["is in use by another process", "such as QEMU"];
    refused_everywhere(&sshd, (&src, device.path()), "", 3, words, &noted[..2]);
    qemu.stop();
}

#[test]
fn a_mounted_target() {
    if !is_root() {
        return;
    }
    let (dir, sshd) = (tempdir().unwrap(), server());
    let mount = Mount::ext4(dir.path(), 16 * MIB);
    let src = sparse_image(dir.path().join("src"), 16 * MIB, &[(0, 16)], 1);
    let file = mount.dir().join("file");
    fs::write(&file, "content").unwrap();
    let where_it_is = format!("it is mounted on {}", mount.dir().display());
    let words = &["is in use", &*where_it_is, "hint: unmount it"];
    refused_everywhere(&sshd, (&src, mount.device()), "", 3, words, &[&src, &file]);
    // Reading and a dry run do no harm.
    let copy = dir.path().join("copy");
    Rblocksync::sync(mount.device(), &copy)
        .with("--truncate")
        .run()
        .ok();
    Rblocksync::sync(&src, mount.device())
        .with("--dry-run")
        .run()
        .ok();
    assert_eq!(fs::read(&file).unwrap(), b"content");
}

#[test]
fn two_runs_on_one_target() {
    let ((dir, src, dst), sshd) = (pair(), server());
    let other = sparse_image(dir.path().join("other"), 8 * MIB, &[(0, 8)], 3);
    for target in [dst, dir.path().join("new")] {
        let first = Rblocksync::sync(&src, &target)
            .with("--truncate --bwlimit 2M")
            .start();
        eventually("the first run holds the target", || locked(first.pid()));
        for (from, to) in all_ways(&other, &target) {
            let second = Rblocksync::sync(from, to)
                .with("--truncate")
                .over(&sshd)
                .run();
            second.refused(3, &["is in use by another process that has locked it"]);
        }
        first.finish().ok();
        assert_eq!(tests::cli::checksum(&src), tests::cli::checksum(&target));
    }
    if is_root() {
        let device = Loop::attach(&sparse_image(dir.path().join("backing"), 8 * MIB, &[], 4));
        let first = Rblocksync::sync(&src, &device).with("--bwlimit 2M").start();
        eventually("the first run holds the target", || locked(first.pid()));
        for (from, to) in all_ways(&other, device.path()) {
            let second = Rblocksync::sync(from, to).over(&sshd).run();
            second.refused(3, &["is in use"]);
        }
        first.finish().ok();
        assert_eq!(tests::cli::checksum(&src), tests::cli::checksum(&device));
    }
}

/// Whether a process holds a lock on a file.
fn locked(pid: rustix::process::Pid) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let pid = pid.to_string();
    locks
        .lines()
        .any(|line| line.split_whitespace().nth(4) == Some(&pid))
}

/// QEMU with an image as the disk of a machine that is never started.
struct Qemu(std::process::Child);

impl Qemu {
    fn holding(image: &Path, driver: &str) -> Qemu {
        let node = format!(
            r#"{{"driver":"{driver}","node-name":"d","filename":"{}"}}"#,
            image.display()
        );
        let child = Command::new("qemu-system-x86_64")
            .args([
                "-display",
                "none",
                "-nodefaults",
                "-S",
                "-accel",
                "tcg",
                "-m",
                "32",
            ])
            .args(["-blockdev", &node, "-device", "virtio-blk,drive=d"])
            .spawn()
            .expect("qemu-system-x86_64, package qemu-system-x86");
        let qemu = Qemu(child);
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(image).unwrap());
        eventually("QEMU has locked its image", || {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            locks
                .lines()
                .any(|l| l.contains("OFDLCK") && l.contains(&format!(":{inode} ")))
        });
        qemu
    }

    fn stop(&mut self) {
        let pid = self.0.id();
        let _ = self.0.kill();
        let _ = self.0.wait();
        assert!(!processes().contains_key(&pid));
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
