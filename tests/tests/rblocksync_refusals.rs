//! Requests that `rblocksync` must refuse: with an error that names the thing, the documented exit code,
//! and nothing changed.

#![allow(clippy::unwrap_used)]

use rustix::fs::{flock, FlockOperation};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::{tempdir, TempDir};
use tests::cli::{binary, is_root, sparse_image, Loop, Mount, Outcome, Rblocksync, Untouched, MIB};
use tests::sshd::{eventually, processes, Sshd};

/// Directory, source and target of 8 MiB each, different.
fn pair() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempdir().unwrap();
    let src = sparse_image(dir.path().join("src"), 8 * MIB, &[(0, 8)], 1);
    let dst = sparse_image(dir.path().join("dst"), 8 * MIB, &[(0, 8)], 2);
    (dir, src, dst)
}

fn server() -> Sshd {
    let sshd = Sshd::start();
    std::os::unix::fs::symlink(binary(), sshd.bin().join("rblocksync")).unwrap();
    sshd
}

fn on(host: &str, path: impl AsRef<Path>) -> OsString {
    let mut text = OsString::from(format!("{host}:"));
    text.push(path.as_ref());
    text
}

/// The four ways to sync two paths, with a server for those that need one.
fn all_ways(src: &Path, dst: &Path) -> [(OsString, OsString); 4] {
    let (near_src, near_dst) = (src.as_os_str().to_owned(), dst.as_os_str().to_owned());
    let (far_src, far_dst) = (on("h1", src), on("h2", dst));
    [
        (near_src.clone(), near_dst.clone()),
        (near_src, far_dst.clone()),
        (far_src.clone(), near_dst),
        (far_src, far_dst),
    ]
}

/// Refused in all four ways, and after each all of `noted` is as before.
#[track_caller]
fn refused_everywhere(
    sshd: &Sshd,
    (src, dst): (&Path, &Path),
    options: &str,
    code: i32,
    words: &[&str],
    noted: &[&Path],
) {
    let untouched = Untouched::note(noted);
    for (from, to) in all_ways(src, dst) {
        let run = Rblocksync::sync(from, to).with(options).over(sshd).run();
        assert!(run.took < Duration::from_secs(20), "{run:?}");
        run.refused(code, words);
        untouched.check();
    }
}

#[test]
fn missing_things() {
    let ((dir, src, dst), sshd) = (pair(), server());
    let missing = dir.path().join("missing");
    let noted = [&*src, &*dst, &*missing, dir.path()];
    let to_dst = (&*missing, &*dst);
    for options in ["", "--truncate", "--dry-run", "--truncate --dry-run"] {
        let words = &["cannot open", "missing", "No such file"];
        refused_everywhere(&sshd, to_dst, options, 1, words, &noted);
    }
    let new = (&*missing, &*dir.path().join("new"));
    let words = &["missing", "No such file"];
    refused_everywhere(&sshd, new, "--truncate", 1, words, &noted);
    for options in ["", "--dry-run", "--ignore-size"] {
        let words = &["missing does not exist", "hint: use --truncate"];
        refused_everywhere(&sshd, (&src, &missing), options, 1, words, &noted);
    }
    let below = dir.path().join("none/new");
    for options in ["--truncate", "--truncate --dry-run"] {
        let words = &["none", "No such file"];
        refused_everywhere(&sshd, (&src, &below), options, 1, words, &noted);
    }
    let dangling = dir.path().join("dangling");
    std::os::unix::fs::symlink(dir.path().join("nothing"), &dangling).unwrap();
    let words = &["dangling is a link to something that is missing"];
    let noted = [&*src, dir.path()];
    refused_everywhere(&sshd, (&src, &dangling), "--truncate", 1, words, &noted);
}

#[test]
fn the_same_thing_twice() {
    let ((dir, src, _), sshd) = (pair(), server());
    let (hard, soft) = (dir.path().join("hard"), dir.path().join("soft"));
    fs::hard_link(&src, &hard).unwrap();
    std::os::unix::fs::symlink(&src, &soft).unwrap();
    let noted = [&*src, dir.path()];
    for other in [&src, &hard, &soft, &dir.path().join(".").join("src")] {
        for options in ["", "--truncate", "--dry-run"] {
            let words = &["src and ", "are the same"];
            refused_everywhere(&sshd, (&src, other), options, 2, words, &noted);
        }
    }
    if !is_root() {
        return;
    }
    let device = Loop::attach(&src);
    let second = Loop::attach(&src);
    let node = dir.path().join("node");
    let numbers = fs::metadata(&device).unwrap();
    let numbers = std::os::unix::fs::MetadataExt::rdev(&numbers);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &node,
        rustix::fs::FileType::BlockDevice,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        numbers,
    )
    .unwrap();
    for other in [device.path(), second.path(), &node] {
        let words = &["are the same"];
        refused_everywhere(&sshd, (device.path(), other), "", 2, words, &noted[..1]);
        // A device and the file that it shows.
        refused_everywhere(&sshd, (&src, other), "", 2, words, &noted[..1]);
    }
}

#[test]
fn sizes_that_differ() {
    let ((dir, src, dst), sshd) = (pair(), server());
    File::options()
        .write(true)
        .open(&dst)
        .unwrap()
        .set_len(9 * MIB)
        .unwrap();
    let noted = [&*src, &*dst, dir.path()];
    let words = &[
        "sizes differ",
        "8388608 bytes",
        "9437184",
        "hint: --truncate",
    ];
    for options in ["", "--dry-run"] {
        refused_everywhere(&sshd, (&src, &dst), options, 3, words, &noted);
    }
    if is_root() {
        let device = Loop::attach(&dst);
        let words = &["sizes differ", "cannot be truncated"];
        for options in ["--truncate", "--truncate --dry-run"] {
            refused_everywhere(&sshd, (&src, device.path()), options, 3, words, &noted);
        }
    }
}

#[test]
fn what_is_no_image() {
    let ((dir, src, dst), sshd) = (pair(), server());
    let fifo = dir.path().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let noted = [&*src, &*dst, dir.path()];
    for (thing, what) in [
        (dir.path(), "a directory"),
        (&*fifo, "a FIFO"),
        (Path::new("/dev/null"), "a character device"),
        (&*socket, "a socket"),
    ] {
        let words = &[what, "neither a file nor a block device"];
        for options in ["", "--truncate", "--dry-run"] {
            refused_everywhere(&sshd, (thing, &dst), options, 2, words, &noted);
            refused_everywhere(&sshd, (&src, thing), options, 2, words, &noted);
        }
    }
}

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
fn a_target_that_cannot_be_written() {
    if !is_root() {
        return;
    }
    let (dir, sshd) = (tempdir().unwrap(), server());
    let mount = Mount::ext4(dir.path(), 32 * MIB);
    let src = sparse_image(dir.path().join("src"), 4 * MIB, &[(0, 4)], 1);
    let dst = sparse_image(mount.dir().join("dst"), 4 * MIB, &[(0, 4)], 2);
    let new = mount.dir().join("new");
    let noted = [&*src, &*dst, mount.dir()];

    let immutable = |flag: &str| {
        let set = Command::new("chattr").arg(flag).arg(&dst).status().unwrap();
        assert!(set.success());
    };
    immutable("+i");
    let words = &["cannot open", "dst for writing", "not permitted"];
    refused_everywhere(&sshd, (&src, &dst), "", 1, words, &noted);
    immutable("-i");

    mount.make_read_only();
    let words = &["dst for writing", "Read-only file system"];
    refused_everywhere(&sshd, (&src, &dst), "", 1, words, &noted);
    let words = &["cannot create", "new", "Read-only file system"];
    refused_everywhere(&sshd, (&src, &new), "--truncate", 1, words, &noted);

    let backing = sparse_image(dir.path().join("backing"), 4 * MIB, &[(0, 4)], 3);
    let device = Loop::read_only(&backing);
    let words = &["for writing", "ermi"];
    refused_everywhere(
        &sshd,
        (&src, device.path()),
        "",
        1,
        words,
        &[&src, &backing],
    );
}

/// The file grows as a hole and runs out of space on the way. What was there before is lost to the extent
/// that it was overwritten; a file that was to be made does not appear.
#[test]
fn a_target_that_fills_up() {
    if !is_root() {
        return;
    }
    let (dir, sshd) = (tempdir().unwrap(), server());
    let mount = Mount::ext4(dir.path(), 32 * MIB);
    let src = sparse_image(dir.path().join("src"), 64 * MIB, &[(0, 64)], 1);
    let dst = mount.dir().join("dst");
    let untouched = Untouched::note([&src, &dst]);
    for (from, to) in all_ways(&src, &dst) {
        let run = Rblocksync::sync(from, to)
            .with("--truncate")
            .over(&sshd)
            .run();
        run.refused(1, &["dst", "No space left on device"]);
        untouched.check();
    }
    // With room, the next run goes on with what is there.
    let part = mount.dir().join(".dst.rblocksync-part");
    assert!(part.exists());
    File::options()
        .write(true)
        .open(&src)
        .unwrap()
        .set_len(16 * MIB)
        .unwrap();
    let run = Rblocksync::sync(&src, &dst)
        .with("--truncate --json")
        .run()
        .summary();
    assert!(run.bytes("changed") < 16 * MIB, "nothing was taken up");
    assert_eq!(tests::cli::checksum(&src), tests::cli::checksum(&dst));
    assert!(!part.exists());
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

#[test]
fn hosts_that_do_not_let_us_in() {
    let ((_dir, src, dst), mut sshd) = (pair(), server());
    let untouched = Untouched::note([&src, &dst]);
    let both = |sshd: &Sshd| -> Vec<Outcome> {
        [
            (src.clone().into(), on("h1", &dst)),
            (on("h1", &src), dst.clone().into()),
        ]
        .into_iter()
        .map(|(from, to): (OsString, OsString)| Rblocksync::sync(from, to).over(sshd).run())
        .collect()
    };
    sshd.change_host_key();
    for run in both(&sshd) {
        run.refused(3, &["the host key of h1 is not the one known for it"]);
    }
    fs::write(sshd.known_hosts(), "").unwrap();
    for run in both(&sshd) {
        run.refused(
            3,
            &["the host key of h1 is not known", "--accept-new-host-key"],
        );
    }
    let accepted = Rblocksync::sync(&src, on("h1", &dst)).with("--dry-run --accept-new-host-key");
    assert_eq!(accepted.over(&sshd).run().code, 0);
    fs::write(sshd.client_config().with_file_name("authorized_keys"), "").unwrap();
    for run in both(&sshd) {
        run.refused(1, &["h1 does not let us log in"]);
    }
    sshd.stop();
    for run in both(&sshd) {
        run.refused(1, &["h1", "Connection refused"]);
    }
    for run in [
        Rblocksync::sync(&src, on("no-such-host.invalid", &dst)).run(),
        Rblocksync::sync(on("no-such-host.invalid", &src), &dst).run(),
    ] {
        run.refused(1, &["no-such-host.invalid"]);
    }
    for bad in ["-oProxyCommand=touch x", "a b", "$(touch x)", "h;touch x"] {
        Rblocksync::sync(&src, on(bad, &dst)).run().refused(2, &[]);
    }
    untouched.check();
}

/// A local name that reads as a host is refused, rather than taken for either.
#[test]
fn a_colon_in_a_local_name() {
    let (dir, src, _) = pair();
    let name = "vm:1.img";
    fs::copy(&src, dir.path().join(name)).unwrap();
    let untouched = Untouched::note([dir.path().join(name), src.clone()]);
    for (from, to) in [("src", name), (name, "src")] {
        let run = Rblocksync::sync(from, to).within(dir.path()).run();
        run.refused(2, &["vm:1.img is the name of a local file", "write ./NAME"]);
    }
    untouched.check();
    let run = Rblocksync::sync("src", "./vm:1.img")
        .within(dir.path())
        .run();
    run.ok();
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
