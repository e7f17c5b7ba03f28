//! Requests that `rblocksync` must refuse: with an error that names the thing, the documented exit code,
//! and nothing changed.

#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use tempfile::tempdir;
use tests::cli::{
    all_ways, is_root, on, pair, rblocksync, refused_everywhere, resize, server, sparse_image,
    Loop, Mount, Outcome, Rblocksync, Untouched, MIB,
};
use tests::sshd::Sshd;

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
    resize(&dst, 9 * MIB);
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
    let words = &["for writing", "it is read-only"];
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
    resize(&src, 16 * MIB);
    let run = Rblocksync::sync(&src, &dst)
        .with("--truncate --json")
        .run()
        .summary();
    assert!(run.bytes("changed") < 16 * MIB, "nothing was taken up");
    assert_eq!(tests::cli::checksum(&src), tests::cli::checksum(&dst));
    assert!(!part.exists());
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
        let args = ["--".into(), src.clone().into(), on(bad, &dst)];
        rblocksync(args).run().refused(2, &[]);
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
