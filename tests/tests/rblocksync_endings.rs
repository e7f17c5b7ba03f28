//! Runs of `rblocksync` that end before their time: signals, killed processes, cut connections, images
//! that change. Each ends within seconds and says why, leaves nobody behind, and the next run converges.

#![allow(clippy::unwrap_used)]

use rustix::process::{kill_process, Pid, Signal};
use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};
use tests::cli::{
    agents, all_ways, checksum, connections, nobody_is_left, on, pair, resize, server,
    sparse_image, Outcome, Rblocksync, Running, Untouched, MIB,
};
use tests::sshd::{eventually, Sshd};

/// How long a run may go on after what ends it.
const SOON: Duration = Duration::from_secs(10);

/// Starts a sync that takes seconds and waits until data flows.
fn under_way(from: impl Into<OsString>, to: impl Into<OsString>, sshd: &Sshd) -> Running {
    under_way_at("1M", from, to, sshd)
}

fn under_way_at(
    rate: &str,
    from: impl Into<OsString>,
    to: impl Into<OsString>,
    sshd: &Sshd,
) -> Running {
    let run = Rblocksync::sync(from.into(), to.into())
        .with(&format!("--truncate --json --bwlimit {rate}"))
        .over(sshd)
        .start();
    eventually("data flows", || {
        let seen = run.stdout();
        assert!(!seen.contains("\"summary\""), "over too soon: {seen}");
        seen.lines().any(|line| {
            serde_json::from_str::<serde_json::Value>(line)
                .is_ok_and(|event| event["sent"].as_u64().is_some_and(|sent| sent > 0))
        })
    });
    run
}

/// Waits for the end of a run, which must come soon.
#[track_caller]
fn ends_soon(run: Running) -> Outcome {
    let began = Instant::now();
    let outcome = run.finish();
    assert!(
        began.elapsed() < SOON,
        "{:?}: {outcome:#?}",
        began.elapsed()
    );
    outcome
}

/// The same request again succeeds.
#[track_caller]
fn converges((src, dst): (&Path, &Path), from: &OsString, to: &OsString, sshd: &Sshd) {
    let again = Rblocksync::sync(from, to).with("--truncate").over(sshd);
    again.run().ok();
    assert_eq!(checksum(src), checksum(dst));
}

#[test]
fn signals_end_a_run_with_their_code() {
    let sshd = server();
    let signals = [
        (Signal::INT, 130),
        (Signal::TERM, 143),
        (Signal::HUP, 129),
        (Signal::INT, 130),
    ];
    let (_dir, src, dst) = pair();
    for ((from, to), (signal, code)) in all_ways(&src, &dst).into_iter().zip(signals) {
        sparse_image(&dst, 8 * MIB, &[(0, 8)], 2);
        let run = under_way(&from, &to, &sshd);
        run.signal(signal);
        let outcome = ends_soon(run);
        outcome.refused(code, &["stopped by signal"]);
        nobody_is_left(&sshd);
        converges((&src, &dst), &from, &to, &sshd);
    }
}

/// A file that was to be made does not appear half-made, and what was sent of it is not sent again.
#[test]
fn an_interrupted_new_file_is_taken_up_later() {
    let sshd = server();
    let (dir, src, _) = pair();
    let new = dir.path().join("new");
    for (from, to) in all_ways(&src, &new) {
        let run = under_way(&from, &to, &sshd);
        run.signal(Signal::TERM);
        ends_soon(run).refused(143, &["stopped by signal 15"]);
        assert!(!new.exists());
        let again = Rblocksync::sync(&from, &to)
            .with("--truncate --json")
            .over(&sshd);
        let summary = again.run().summary();
        assert!(summary.bytes("changed") < 8 * MIB, "all was sent again");
        assert_eq!(checksum(&src), checksum(&new));
        fs::remove_file(&new).unwrap();
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "src and dst");
}

/// A signal before there is a connection: here to a port where nobody answers.
#[test]
fn a_signal_ends_the_waiting_for_a_host() {
    let (_dir, src, dst) = pair();
    let untouched = Untouched::note([&src, &dst]);
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let to = format!("ssh://127.0.0.1:{port}{}", dst.display());
    let run = Rblocksync::sync(&src, to).start();
    let connection = mute.accept().unwrap();
    run.signal(Signal::INT);
    ends_soon(run).refused(130, &["stopped by signal 2"]);
    drop(connection);
    untouched.check();
}

fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn a_killed_agent_is_reported() {
    let sshd = server();
    let (_dir, src, dst) = pair();
    for (from, to) in all_ways(&src, &dst).into_iter().skip(1) {
        sparse_image(&dst, 8 * MIB, &[(0, 8)], 2);
        let run = under_way(&from, &to, &sshd);
        let victim = agents(&sshd)[0];
        kill(victim, Signal::KILL);
        ends_soon(run).refused(
            1,
            &[
                "ended the connection; the rblocksync agent on h",
                "was killed by a signal",
                "hint: ",
            ],
        );
        nobody_is_left(&sshd);
        converges((&src, &dst), &from, &to, &sshd);
    }
}

#[test]
fn a_cut_connection_is_reported() {
    let sshd = server();
    let (_dir, src, dst) = pair();
    for (from, to) in all_ways(&src, &dst).into_iter().skip(1) {
        sparse_image(&dst, 8 * MIB, &[(0, 8)], 2);
        let run = under_way(&from, &to, &sshd);
        sshd.kill_sessions();
        ends_soon(run).refused(1, &["the SSH connection was lost"]);
        nobody_is_left(&sshd);
        converges((&src, &dst), &from, &to, &sshd);
    }
}

#[test]
fn a_killed_driver_leaves_nobody_behind() {
    let sshd = server();
    let (_dir, src, dst) = pair();
    for (from, to) in all_ways(&src, &dst).into_iter().skip(1) {
        sparse_image(&dst, 8 * MIB, &[(0, 8)], 2);
        let run = under_way(&from, &to, &sshd);
        assert!(!agents(&sshd).is_empty() && !connections(&sshd).is_empty());
        run.signal(Signal::KILL);
        assert_eq!(run.finish().code, 1009);
        let began = Instant::now();
        eventually("all agents have ended", || agents(&sshd).is_empty());
        assert!(began.elapsed() < SOON, "agents took {:?}", began.elapsed());
        nobody_is_left(&sshd);
        converges((&src, &dst), &from, &to, &sshd);
    }
}

/// An agent that hangs, but whose connection stands.
#[test]
fn an_agent_that_falls_silent_is_given_up() {
    let sshd = server();
    let (_dir, src, dst) = pair();
    let run = under_way(&src, on("h1", &dst), &sshd);
    let agent = agents(&sshd)[0];
    kill(agent, Signal::STOP);
    let outcome = run.finish();
    kill(agent, Signal::CONT);
    // Half a minute of silence, and what is granted for an orderly end.
    assert!(outcome.took < Duration::from_secs(60), "{outcome:#?}");
    outcome.refused(1, &["lost h1: nothing heard for 30s"]);
    nobody_is_left(&sshd);
    converges((&src, &dst), &src.clone().into(), &on("h1", &dst), &sshd);
}

/// The source is more than what is read ahead, so the change comes before all of it was read.
#[test]
fn a_source_that_changes_is_an_error() {
    let sshd = server();
    let (dir, src, dst) = pair();
    let size = 96 * MIB;
    let with = |src: &Path, ways: usize, change: &dyn Fn(), words: &str| {
        for (from, to) in all_ways(src, &dst).into_iter().take(ways) {
            sparse_image(src, size, &[(0, 96)], 1);
            sparse_image(&dst, 8 * MIB, &[(0, 8)], 2);
            let run = under_way_at("24M", &from, &to, &sshd);
            change();
            run.finish().refused(1, &["src", words]);
        }
    };
    // Shorter while it was read, or at its end if what was left to read looked like a hole.
    with(&src, 3, &|| resize(&src, MIB), "while it was");
    let words = "it had 100663296 bytes and now has 100663297";
    with(&src, 3, &|| resize(&src, size + 1), words);
    let replace = || {
        let other = dir.path().join("other");
        fs::copy(&src, &other).unwrap();
        fs::rename(other, &src).unwrap();
    };
    with(&src, 1, &replace, "another file has taken its place");
    let remove = || fs::remove_file(&src).unwrap();
    with(&src, 1, &remove, "vanished while it was in use");
    nobody_is_left(&sshd);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "dst alone");
}

/// A target that is replaced on the way has not become what was asked for.
#[test]
fn a_target_that_is_replaced_is_an_error() {
    let sshd = server();
    let (dir, src, dst) = pair();
    for (from, to) in all_ways(&src, &dst).into_iter().take(3) {
        let run = under_way(&from, &to, &sshd);
        let other = sparse_image(dir.path().join("other"), 8 * MIB, &[(0, 8)], 5);
        let untouched = Untouched::note([&other]);
        fs::rename(&dst, dir.path().join("moved")).unwrap();
        fs::rename(&other, &dst).unwrap();
        run.finish()
            .refused(1, &["another file has taken its place"]);
        fs::rename(&dst, &other).unwrap();
        untouched.check();
        fs::rename(&other, &dst).unwrap();
    }
    nobody_is_left(&sshd);
}
