//! `rblocksync --streams`: one link over several SSH connections, and what becomes of it when some of them
//! cannot be had or are lost.

#![allow(clippy::unwrap_used)]

use rustix::process::{kill_process, Pid, Signal};
use std::fs;
use std::path::Path;
use tests::cli::{
    all_ways, checksum, lanes, nobody_is_left, on, pair, server, sparse_image, Rblocksync, MIB,
};
use tests::sshd::{eventually, Sshd};

/// A source that takes two seconds at the rate of [`SLOW`], so that there is time for streams to join.
fn long_source(path: &Path) {
    sparse_image(path, 16 * MIB, &[(0, 16)], 3);
}

const SLOW: &str = "--truncate --compress off --bwlimit 8M --json";

fn logins(sshd: &Sshd) -> usize {
    sshd.log().matches("Accepted publickey").count()
}

#[test]
fn each_remote_end_gets_its_streams() {
    let sshd = server();
    let (_dir, src, dst) = pair();
    long_source(&src);
    for ((from, to), logins_due) in all_ways(&src, &dst).into_iter().zip([0, 4, 4, 8]) {
        fs::write(&dst, "").unwrap();
        let before = logins(&sshd);
        let run = Rblocksync::sync(&from, &to)
            .with(SLOW)
            .with("--streams 4")
            .over(&sshd);
        let summary = run.run().summary();
        assert_eq!(checksum(&src), checksum(&dst), "{from:?} {to:?}");
        assert_eq!(summary.bytes("changed"), 16 * MIB);
        assert_eq!(logins(&sshd) - before, logins_due, "{from:?} {to:?}");
        nobody_is_left(&sshd);
    }
}

#[test]
fn one_stream_is_one_connection() {
    let sshd = server();
    let (_dir, src, dst) = pair();
    let run = Rblocksync::sync(&src, on("h", &dst))
        .with("--truncate --streams 1")
        .over(&sshd);
    run.run().ok();
    assert_eq!(checksum(&src), checksum(&dst));
    assert_eq!(logins(&sshd), 1);
}

#[test]
fn a_short_sync_does_not_wait_for_streams() {
    let sshd = server();
    let (_dir, src, dst) = pair();
    for (from, to) in all_ways(&src, &dst) {
        fs::write(&dst, "").unwrap();
        let run = Rblocksync::sync(&from, &to)
            .with("--truncate --streams 16")
            .over(&sshd);
        let outcome = run.run().ok();
        assert!(!outcome.stdout.contains("note"), "{outcome:?}");
        assert_eq!(checksum(&src), checksum(&dst));
        nobody_is_left(&sshd);
    }
}

/// The second and all further connections go to a port where nobody answers.
#[test]
fn streams_that_cannot_be_had_are_told_and_done_without() {
    let sshd = server();
    let (dir, src, dst) = pair();
    long_source(&src);
    let once = dir.path().join("once");
    let config = fs::read_to_string(sshd.client_config()).unwrap();
    let first = format!(
        "Match exec \"! mkdir {}\"\n Port 1\n{config}",
        once.display()
    );
    fs::write(sshd.client_config(), first).unwrap();
    let run = Rblocksync::sync(&src, on("h", &dst))
        .with(SLOW)
        .with("--streams 3 --cipher config")
        .over(&sshd);
    let outcome = run.run().ok();
    assert!(
        outcome.stdout.contains("only 1 of 3 streams"),
        "{outcome:?}"
    );
    assert!(
        outcome.stdout.contains("refuses the connection"),
        "{outcome:?}"
    );
    assert_eq!(checksum(&src), checksum(&dst));
    nobody_is_left(&sshd);
}

#[test]
fn a_lost_stream_ends_the_sync_and_the_next_goes_on() {
    let sshd = server();
    let (_dir, src, dst) = pair();
    for (from, to) in all_ways(&src, &dst).into_iter().skip(1) {
        long_source(&src);
        fs::write(&dst, "").unwrap();
        let run = Rblocksync::sync(&from, &to)
            .with("--truncate --compress off --bwlimit 1M --streams 3 --json")
            .over(&sshd)
            .start();
        eventually("streams have joined", || lanes(&sshd).len() >= 2);
        // A moment later they are in use.
        let lines = || run.stdout().lines().count();
        let seen = lines();
        eventually("the sync goes on", || lines() > seen + 4);
        // The connection itself, as a cut cable would: what serves the lane's session there.
        for lane in lanes(&sshd) {
            let stat = fs::read_to_string(format!("/proc/{lane}/stat")).unwrap_or_default();
            let parent = stat.rsplit(") ").next().unwrap_or_default();
            let parent = parent.split(' ').nth(1).and_then(|pid| pid.parse().ok());
            if let Some(pid) = parent.and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let outcome = run.finish();
        assert_eq!(outcome.code, 1, "{outcome:?}");
        nobody_is_left(&sshd);
        let again = Rblocksync::sync(&from, &to).with("--truncate").over(&sshd);
        again.run().ok();
        assert_eq!(checksum(&src), checksum(&dst));
    }
}

#[test]
fn nonsense_is_refused() {
    let (_dir, src, dst) = pair();
    for bad in ["0", "17", "256", "-1", "many", ""] {
        let run = Rblocksync::sync(&src, &dst).with("--dry-run");
        let run = run.with(&format!("--streams={bad}")).run();
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains("from 1 to 16"), "{run:?}");
    }
}
