//! `rblocksync` between hosts, through a real SSH server: push, pull and remote to remote.

#![allow(clippy::unwrap_used)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::{tempdir, TempDir};
use tests::cli::{
    allocated, binary, checksum, is_root, on, scribble, server, sparse_image, Loop, Rblocksync,
    Untouched, MIB, ODD_NAMES,
};
use tests::sshd::{processes, Sshd};

fn source(dir: &TempDir) -> PathBuf {
    let data = [(0, 3), (20, 9), (60, 4)];
    sparse_image(dir.path().join("src"), 64 * MIB, &data, 1)
}

#[track_caller]
fn assert_equal(a: impl AsRef<Path>, b: impl AsRef<Path>) {
    assert_eq!(checksum(a), checksum(b), "contents differ");
}

#[test]
fn push_pull_and_remote_to_remote_in_all_spellings() {
    let (sshd, dir) = (server(), tempdir().unwrap());
    let src = source(&dir);
    let user = whoami();
    let port = sshd.port();
    for (i, (from, to)) in [
        (String::new(), "host2:".to_owned()),
        ("host1:".to_owned(), String::new()),
        ("host1:".to_owned(), "host2:".to_owned()),
        (format!("{user}@host1:"), format!("{user}@host2:")),
        (format!("ssh://{user}@127.0.0.1:{port}"), String::new()),
        (String::new(), format!("ssh://127.0.0.1:{port}")),
        (format!("ssh://host1:{port}"), "ssh://host1".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let dst = dir.path().join(format!("dst{i}"));
        let (from, to) = (
            format!("{from}{}", src.display()),
            format!("{to}{}", dst.display()),
        );
        let sync = || Rblocksync::sync(&from, &to).over(&sshd);
        let first = sync()
            .with("--truncate --json --verify --compress off")
            .run()
            .summary();
        assert_equal(&src, &dst);
        assert!(allocated(&dst) <= allocated(&src) + 65536, "{from} {to}");
        assert_eq!(first.bytes("target.written"), 16 * MIB, "{from} {to}");
        assert_eq!(first.bytes("target.verified"), 16 * MIB, "{from} {to}");
        let wire = first.wire();
        assert!(
            (16 * MIB..16 * MIB + 10_000).contains(&wire),
            "{wire} bytes"
        );

        scribble(&dst, 21 * MIB, 100, 5);
        scribble(&dst, 40 * MIB, 5000, 5);
        let dry = sync().with("--dry-run --json").run().summary();
        let wet = sync().with("--json").run().summary();
        assert_equal(&src, &dst);
        for summary in [dry, wet] {
            assert_eq!(summary.bytes("changed"), 4096, "{from} {to}");
            assert_eq!(summary.bytes("zeroed"), 8192, "{from} {to}");
        }
        let same = sync().run().ok();
        assert!(
            same.stdout
                .contains(": 0 B sent, 0 B zeroed; 16.0 MiB compared"),
            "{same:?}"
        );
    }
    assert!(
        !sshd.cache().join("rblocksync").exists(),
        "the installed program was used"
    );
}

/// What the README of rblocksync3 shows, with devices: same words, same meaning.
#[test]
fn the_uses_of_old_work_with_devices() {
    if !is_root() {
        return;
    }
    let (sshd, dir) = (server(), tempdir().unwrap());
    let path = |name: &str| dir.path().join(name);
    let device = Loop::attach(&source(&dir));
    let others =
        ["b", "c"].map(|name| Loop::attach(&sparse_image(path(name), 64 * MIB, &[(0, 64)], 9)));
    let image = path("image");
    for (src, dst, options) in [
        (on("root@host1", &device), others[0].path().into(), ""),
        (
            on("root@host1", &device),
            OsString::from(&image),
            "--truncate",
        ),
        (
            on("root@host1", &others[0]),
            on("root@host2", &others[1]),
            "",
        ),
        (
            others[1].path().into(),
            others[0].path().into(),
            "--block-size 8",
        ),
    ] {
        Rblocksync::sync(&src, &dst)
            .with(options)
            .over(&sshd)
            .run()
            .ok();
    }
    for dst in [others[0].path(), others[1].path(), &image] {
        assert_equal(&device, dst);
    }
    assert!(allocated(&image) <= 16 * MIB + 65536);
}

#[test]
fn options_reach_the_other_end() {
    let (sshd, dir) = (server(), tempdir().unwrap());
    let src = source(&dir);
    let dst = dir.path().join("dst");
    let pull = |options: &str| {
        Rblocksync::sync(on("host1", &src), &dst)
            .with(&format!("--json {options}"))
            .over(&sshd)
            .run()
    };
    let limited = pull("--truncate --bwlimit 10M --hash sha256");
    assert!(limited.took > Duration::from_millis(1300), "{limited:?}");
    let digest = limited.summary().0["digest"].clone();
    assert_equal(&src, &dst);
    assert_eq!(pull("--hash sha256").summary().0["digest"], digest);
    scribble(&dst, 20 * MIB, 1, 5);
    assert_eq!(pull("--block-size 64").summary().bytes("changed"), 262_144);
    sparse_image(&dst, 70 * MIB, &[(0, 70)], 6);
    let part = pull("--ignore-size").summary();
    assert_eq!(part.bytes("size"), 64 * MIB);
    assert_eq!(fs::metadata(&dst).unwrap().len(), 70 * MIB);
}

/// Paths and names travel as data, whatever is in them.
#[test]
fn names_are_data_there_too() {
    let (sshd, dir) = (server(), tempdir().unwrap());
    let src = sparse_image(dir.path().join("src"), MIB, &[(0, 1)], 1);
    let more: [&[u8]; 3] = [b"-rf", b"vm:1.img", b"\\"];
    for name in ODD_NAMES.into_iter().chain(more) {
        let there = dir.path().join(OsStr::from_bytes(name));
        let back = dir.path().join("back");
        for (src, dst) in [
            (src.clone().into_os_string(), on("host1", &there)),
            (on("host1", &there), back.clone().into_os_string()),
        ] {
            Rblocksync::sync(src, dst)
                .with("--truncate")
                .over(&sshd)
                .run()
                .ok();
        }
        assert_equal(&src, &back);
        fs::remove_file(&back).unwrap();
        fs::remove_file(&there).unwrap();
        // And in messages, on one line.
        Rblocksync::sync(on("host1", &there), &back)
            .with("--truncate")
            .over(&sshd)
            .run()
            .refused(1, &["host1: ", "No such file"]);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_host_without_the_program_is_lent_it() {
    let (sshd, dir) = (Sshd::start(), tempdir().unwrap());
    let src = source(&dir);
    let dst = dir.path().join("dst");
    for (from, to) in [
        (src.clone().into_os_string(), on("host1", &dst)),
        (on("host1", &dst), dir.path().join("back").into_os_string()),
        (on("host1", &src), on("host2", dir.path().join("far"))),
    ] {
        Rblocksync::sync(from, to)
            .with("--truncate")
            .over(&sshd)
            .run()
            .ok();
    }
    for name in ["dst", "back", "far"] {
        assert_equal(&src, dir.path().join(name));
    }
    nothing_is_left(&sshd);
}

/// An installed program of another release or protocol is left alone: ours is lent to the host.
#[test]
fn another_version_on_the_path_is_not_used() {
    let dir = tempdir().unwrap();
    let src = source(&dir);
    let id = std::process::Command::new(binary())
        .args(["agent", "--id"])
        .output()
        .unwrap();
    let id = String::from_utf8(id.stdout).unwrap();
    for (i, other) in [
        id.replace("protocol ", "protocol 9"),
        id.replace(env!("CARGO_PKG_VERSION"), "99.0.0"),
        "usage: something else".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let sshd = Sshd::start();
        let marker = dir.path().join("was used");
        let fake = format!(
            "#!/bin/sh\n[ \"$2\" = --id ] && {{ echo '{}'; exit; }}\ntouch '{}'\n",
            other.trim(),
            marker.display()
        );
        sshd.install("rblocksync", fake.as_bytes());
        let dst = dir.path().join(format!("dst{i}"));
        let run = Rblocksync::sync(&src, on("host1", &dst))
            .with("--truncate")
            .over(&sshd);
        run.run().ok();
        assert_equal(&src, &dst);
        assert!(!marker.exists(), "{other} was used");
        nothing_is_left(&sshd);
    }
}

/// Something that passes for our program, and then does not speak as it should.
#[test]
fn an_impostor_on_the_path_is_refused() {
    let (sshd, dir) = (Sshd::start(), tempdir().unwrap());
    let src = source(&dir);
    let dst = sparse_image(dir.path().join("dst"), 64 * MIB, &[(0, 1)], 2);
    let untouched = Untouched::note([&src, &dst]);
    let hello = |version: &str| format!(r"\016\000\000\000\001\211rblock\012{version}x");
    for (speaks, code, words) in [
        (
            "echo 'Welcome to host1'; cat >/dev/null".to_owned(),
            1,
            "does not speak this protocol",
        ),
        (
            format!("printf '{}'; cat >/dev/null", hello(r"\007\000\011\000")),
            1,
            "speaks protocol versions 7 to 9",
        ),
        ("exit 7".to_owned(), 1, "exit code 7"),
        (
            "echo oops >&2; exit 1".to_owned(),
            1,
            "its last words: oops",
        ),
        ("kill -9 $$".to_owned(), 1, "killed by a signal"),
        (
            format!(
                "printf '{}'; cat >/dev/null; exit 0",
                hello(r"\001\000\377\000") + r"\001\000\000\000\167"
            ),
            1,
            "unknown type 0x77",
        ),
    ] {
        let id = std::process::Command::new(binary())
            .args(["agent", "--id"])
            .output()
            .unwrap();
        let fake = format!(
            "#!/bin/sh\n[ \"$2\" = --id ] && {{ echo '{}'; exit; }}\n{speaks}\n",
            String::from_utf8(id.stdout).unwrap().trim(),
        );
        sshd.install("rblocksync", fake.as_bytes());
        for (from, to) in [
            (src.clone().into_os_string(), on("host1", &dst)),
            (on("host1", &src), dst.clone().into_os_string()),
        ] {
            let run = Rblocksync::sync(from, to).over(&sshd).run();
            assert!(run.took < Duration::from_secs(20), "{run:?}");
            run.refused(code, &["host1", words]);
        }
    }
    untouched.check();
}

/// No upload, no process, no connection.
fn nothing_is_left(sshd: &Sshd) {
    let uploads = fs::read_dir(sshd.cache().join("rblocksync")).unwrap();
    assert_eq!(uploads.count(), 0);
    let cache = sshd.cache();
    let running = processes();
    let left = running
        .values()
        .find(|p| p.args.contains(cache.to_str().unwrap()));
    assert!(left.is_none(), "{}", left.unwrap().args);
}

fn whoami() -> String {
    let out = std::process::Command::new("id")
        .arg("-un")
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}
