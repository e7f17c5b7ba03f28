//! What is read: chains, snapshots, names that are anything.

use crate::args;
use crate::tools::*;
use rblocksync::agent::BlockEnd;
use rblocksync::error::Kind;
use rblocksync::image::Image;
use rblocksync::qemu::{Qcow2Disk, ReadOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn overlay(path: &Path, base: &str, format: &str) {
    run(
        "qemu-img",
        args!["create", "-q", "-f", "qcow2", "-b", base, "-F", format, path],
    );
}

#[test]
fn a_chain_is_read_through_to_its_raw_base() {
    let dir = Dir::new();
    dir.raw("base.raw", 8 * MIB, &[(0, 2 * MIB)]);
    overlay(&dir.path("mid.qcow2"), "base.raw", "raw");
    guest(&dir.path("mid.qcow2"), QCOW2, "write -P 2 1M 1M");
    let top = dir.path("top.qcow2");
    // As Proxmox makes its overlays.
    let options = "extended_l2=on,cluster_size=128k";
    run(
        "qemu-img",
        args![
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            "mid.qcow2",
            "-F",
            "qcow2",
            "-o",
            options,
            &top
        ],
    );
    guest(&top, QCOW2, "write -P 3 4M 64k");
    guest(&top, QCOW2, "write -z 0 64k");
    for (name, format) in [("copy.qcow2", QCOW2), ("copy.raw", RAW)] {
        let copy = dir.path(name);
        sync((&top, QCOW2), (&copy, format)).unwrap();
        assert_equal((&top, QCOW2), (&copy, format));
        let info = run("qemu-img", args!["info", "-f", format.name(), &copy]);
        assert!(!info.contains("backing file"), "it stands alone: {info}");
    }
    // Writing into an overlay leaves what is behind it alone.
    let base = std::fs::read(dir.path("base.raw")).unwrap();
    let other = dir.raw("other.raw", 8 * MIB, &[(3 * MIB, MIB)]);
    sync((&other, RAW), (&top, QCOW2)).unwrap();
    assert_equal((&other, RAW), (&top, QCOW2));
    assert_eq!(std::fs::read(dir.path("base.raw")).unwrap(), base);
}

#[test]
fn names_are_data() {
    for name in [
        "a,b",
        "a:b",
        "a=b",
        "a b",
        "a\nb",
        "-a",
        "json:{}",
        "a,,file.filename=x",
        "\u{e4}%",
    ] {
        let dir = Dir::new();
        let base = dir.raw(&format!("{name}.base"), 4 * MIB, &[(0, MIB)]);
        let source = dir.path(name);
        overlay(&source, base.to_str().unwrap(), "raw");
        let target = dir.path(&format!("{name}.out"));
        sync((&source, QCOW2), (&target, QCOW2)).unwrap();
        sync((&source, QCOW2), (&target, QCOW2)).unwrap();
        assert_equal((&base, RAW), (&target, QCOW2));
    }
}

#[test]
fn a_name_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let dir = Dir::new();
    let source = dir.raw("a.raw", 4 * MIB, &[(0, MIB)]);
    let target = dir
        .path("x")
        .with_file_name(std::ffi::OsStr::from_bytes(b"\xff,\x80"));
    sync((&source, RAW), (&target, QCOW2)).unwrap();
    assert_equal((&source, RAW), (&target, QCOW2));
}

/// Another qemu-nbd that has the file open for writing, as a running VM would.
struct User(Child);

impl User {
    fn of(dir: &Dir, image: &Path) -> User {
        let socket = dir.path("user");
        let child = Command::new("qemu-nbd")
            .args(args!["--persistent", "-f", "qcow2", "-k", &socket, image])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let user = User(child);
        let until = Instant::now() + Duration::from_secs(20);
        while !socket.exists() {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        user
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn of_an_image_in_use_only_a_snapshot_is_read() {
    let dir = Dir::new();
    let image = dir.qcow2("a.qcow2", 8 * MIB, &[(0, 2 * MIB)]);
    let then = dir.path("then.raw");
    sync((&image, QCOW2), (&then, RAW)).unwrap();
    run("qemu-img", args!["snapshot", "-c", "before, it", &image]);
    guest(&image, QCOW2, "write -P 9 0 1M");
    let (_, opened) = BlockEnd::source(&image, QCOW2, false).unwrap();
    assert!(opened.note.unwrap().contains("internal snapshots"));

    let user = User::of(&dir, &image);
    let busy = BlockEnd::source(&image, QCOW2, false).err().unwrap();
    assert_eq!(busy.kind(), Kind::Busy, "{busy}");
    let busy = BlockEnd::target(&image, options(QCOW2)).err().unwrap();
    assert_eq!(busy.kind(), Kind::Busy, "{busy}");
    let read = ReadOptions {
        snapshot: Some("before, it".into()),
        ..ReadOptions::default()
    };
    let (disk, ..) = Qcow2Disk::source(&image, &read).unwrap();
    let mut found = vec![0; 8 * MIB as usize];
    disk.read_at(&mut found, 0).unwrap();
    assert!(found == std::fs::read(&then).unwrap(), "it is as it was");
    assert!(disk.write_at(&found[..4096], 0).is_err());
    let gone = ReadOptions {
        snapshot: Some("no such".into()),
        ..ReadOptions::default()
    };
    let missing = Qcow2Disk::source(&image, &gone).err().unwrap();
    assert!(missing.message().contains("find snapshot"), "{missing}");
    drop(user);
}

#[test]
fn while_it_is_written_nobody_else_gets_at_it() {
    let dir = Dir::new();
    let image = dir.qcow2("a.qcow2", 8 * MIB, &[]);
    let (end, _) = BlockEnd::target(&image, options(QCOW2)).unwrap();
    let busy = BlockEnd::target(&image, options(QCOW2)).err().unwrap();
    assert_eq!(busy.kind(), Kind::Busy, "{busy}");
    let raw = BlockEnd::target(&image, options(RAW)).err().unwrap();
    assert_eq!(raw.kind(), Kind::Busy, "{raw}");
    let mut qemu = Command::new("qemu-io");
    qemu.args(args!["-f", "qcow2", "-c", "write 0 4k", &image]);
    let out = qemu.output().unwrap();
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("lock"),
        "{out:?}"
    );
    drop(end);
    guest(&image, QCOW2, "write 0 4k");
}

#[test]
fn a_guest_that_writes_a_header_gains_nothing() {
    let dir = Dir::new();
    // The whole of the guest's disk is an image that names a file of the host.
    let trap = dir.path("trap.qcow2");
    overlay(&trap, "/etc/passwd", "raw");
    let raw = dir.path("a.raw");
    std::fs::copy(&trap, &raw).unwrap();
    let size = MIB;
    std::fs::File::options()
        .write(true)
        .open(&raw)
        .unwrap()
        .set_len(size)
        .unwrap();
    let (_, opened) = BlockEnd::source(&raw, RAW, false).unwrap();
    assert_eq!(opened.size, size);
    assert!(opened.note.unwrap().contains("taken for a raw one"));
    for (name, format) in [("b.raw", RAW), ("b.qcow2", QCOW2)] {
        let copy = dir.path(name);
        sync((&raw, RAW), (&copy, format)).unwrap();
        assert_equal((&raw, RAW), (&copy, format));
        // As a target it is what it was called, too.
        sync((&raw, RAW), (&copy, format)).unwrap();
        assert_equal((&raw, RAW), (&copy, format));
    }
    assert_eq!(
        std::fs::read(dir.path("b.raw")).unwrap(),
        std::fs::read(&raw).unwrap()
    );
}
