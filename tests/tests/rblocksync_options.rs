//! The options of `rblocksync`, and what it prints.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::{tempdir, TempDir};
use tests::cli::{
    all_ways, binary, checksum, rblocksync, resize, scribble, server, shown_on, sparse_image,
    terminal, Rblocksync, Untouched, MIB,
};

/// A source of 16 MiB with 12 MiB of data, and a target that differs in one leaf and has data of its own.
fn pair() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempdir().unwrap();
    let data = [(0, 8), (12, 4)];
    let src = sparse_image(dir.path().join("src"), 16 * MIB, &data, 1);
    let dst = sparse_image(dir.path().join("dst"), 16 * MIB, &data, 1);
    scribble(&dst, 3 * MIB + 100, 1, 7);
    scribble(&dst, 10 * MIB, MIB as usize, 8);
    (dir, src, dst)
}

#[test]
fn a_dry_run_tells_what_the_run_then_does() {
    let (dir, src, dst) = pair();
    let untouched = Untouched::note([&src, &dst, &dir.path().to_owned()]);
    let told = Rblocksync::sync(&src, &dst).with("--dry-run").run().ok();
    assert!(
        told.stdout
            .starts_with("dry run: 4.0 KiB would be sent, 1.0 MiB would become zeros;"),
        "{told:?}"
    );
    let dry = Rblocksync::sync(&src, &dst).with("--dry-run --json").run();
    assert_eq!(dry.events()[0]["dry_run"], true);
    let dry = dry.summary();
    untouched.check();
    let wet = Rblocksync::sync(&src, &dst).with("--json").run().summary();
    for figure in ["changed", "zeroed", "compared", "size"] {
        assert_eq!(dry.bytes(figure), wet.bytes(figure), "{figure}");
    }
    assert_eq!((wet.bytes("changed"), wet.bytes("zeroed")), (4096, MIB));
    let none = Rblocksync::sync(&src, &dst).with("--dry-run").run().ok();
    assert!(
        none.stdout.starts_with("dry run: no differences;"),
        "{none:?}"
    );
}

/// Also where the target would be made, or would change its size.
#[test]
fn a_dry_run_with_truncate_makes_nothing() {
    let (dir, src, dst) = pair();
    let new = dir.path().join("new");
    resize(&dst, 9 * MIB);
    let untouched = Untouched::note([&src, &dst, &new, &dir.path().to_owned()]);
    for (target, changed) in [(&new, 12 * MIB), (&dst, 4 * MIB + 4096)] {
        let summary = Rblocksync::sync(&src, target)
            .with("--dry-run --truncate --json")
            .run()
            .summary();
        assert_eq!(summary.bytes("changed"), changed, "{}", target.display());
    }
    untouched.check();
    Rblocksync::sync(&src, dir.path().join("none/new"))
        .with("--dry-run --truncate")
        .run()
        .refused(1, &["none", "No such file"]);
}

#[test]
fn the_block_size_is_the_unit_of_change() {
    for (blocks, changed) in [
        ("1", 4096),
        ("3", 3 * 4096),
        ("16", 65536),
        ("1024", 4 * MIB),
    ] {
        let (_dir, src, dst) = pair();
        let summary = Rblocksync::sync(&src, &dst)
            .with(&format!("--json --block-size {blocks}"))
            .run()
            .summary();
        assert_eq!(checksum(&src), checksum(&dst));
        assert_eq!(summary.bytes("changed"), changed, "{blocks} blocks");
    }
    for bad in ["0", "4097", "x", "-1"] {
        let (_dir, src, dst) = pair();
        let untouched = Untouched::note([&src, &dst]);
        let run = Rblocksync::sync(&src, &dst)
            .with(&format!("--block-size={bad}"))
            .run();
        assert_eq!(run.code, 2, "{run:?}");
        untouched.check();
    }
}

#[test]
fn the_other_hash_finds_the_same_and_verify_reads_all_that_was_written() {
    let (_dir, src, dst) = pair();
    let summary = Rblocksync::sync(&src, &dst)
        .with("--json --hash sha256 --verify")
        .run()
        .summary();
    assert_eq!(checksum(&src), checksum(&dst));
    assert_eq!(summary.bytes("changed"), 4096);
    // Whole segments are read back.
    assert_eq!(summary.bytes("target.verified"), MIB);
    assert_eq!(summary.0["digest"].as_str().unwrap().len(), 64);
    let again = |hash: &str| {
        let options = format!("--json --hash {hash}");
        Rblocksync::sync(&src, &dst)
            .with(&options)
            .run()
            .summary()
            .0["digest"]
            .clone()
    };
    assert_eq!(again("sha256"), summary.0["digest"]);
    assert_ne!(again("blake3"), summary.0["digest"]);
}

#[test]
fn the_rate_limit_holds() {
    let (_dir, src, dst) = pair();
    std::fs::remove_file(&dst).unwrap();
    let run = Rblocksync::sync(&src, &dst)
        .with("--truncate --bwlimit 6M")
        .run();
    assert_eq!(checksum(&src), checksum(&dst));
    // 12 MiB at 6 MiB/s; the last segment may be on its way a little early.
    let time = Duration::from_millis(1700)..Duration::from_secs(20);
    assert!(time.contains(&run.took), "{run:?}");
    for bad in ["0", "fast", "-3", "1Q"] {
        let run = Rblocksync::sync(&src, &dst)
            .with(&format!("--bwlimit={bad}"))
            .run();
        assert_eq!(run.code, 2, "--bwlimit {bad}: {run:?}");
    }
}

#[test]
fn quiet_says_nothing_but_errors() {
    let (dir, src, dst) = pair();
    for options in ["-q", "--quiet --progress always", "-q --dry-run"] {
        let run = Rblocksync::sync(&src, &dst).with(options).run().ok();
        assert_eq!(run.stdout, "", "{options}");
    }
    Rblocksync::sync(dir.path().join("missing"), &dst)
        .with("-q")
        .run()
        .refused(1, &["missing", "No such file"]);
}

#[test]
fn the_summary_is_one_line() {
    let (_dir, src, dst) = pair();
    let run = Rblocksync::sync(&src, &dst).run().ok();
    assert!(
        run.stdout
            .starts_with("16.0 MiB in sync: 4.0 KiB sent, 1.0 MiB zeroed; 12.0 MiB compared, ")
            && run.stdout.lines().count() == 1,
        "{run:?}"
    );
}

#[test]
fn json_events_have_the_documented_form() {
    let (dir, src, _) = pair();
    let dst = dir.path().join("new");
    let run = Rblocksync::sync(&src, &dst)
        .with("--truncate --json --bwlimit 5M")
        .run()
        .ok();
    let events = run.events();
    let (last, progress) = events.split_last().unwrap();
    assert!(
        !progress.is_empty(),
        "a run of seconds tells of its progress"
    );
    let mut position = 0;
    for event in progress {
        assert_eq!(event["event"], "progress");
        assert_eq!(event["name"], dst.to_str().unwrap());
        assert_eq!(event["total"], 16 * MIB);
        for key in ["compared", "changed", "zeroed", "sent"] {
            assert!(event[key].is_u64(), "{key} in {event}");
        }
        let now = event["position"].as_u64().unwrap();
        assert!(now >= position && now <= 16 * MIB);
        position = now;
    }
    assert!(position > 0);
    assert_eq!(last["event"], "summary");
    assert_eq!(last["dry_run"], false);
    assert_eq!(last["source"], src.to_str().unwrap());
    assert_eq!(last["target"], dst.to_str().unwrap());
    assert!(last["seconds"].as_f64().unwrap() > 1.0);
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(
        keys(&last["summary"]),
        [
            "changed", "compared", "digest", "size", "source", "target", "wire_in", "wire_out",
            "zeroed"
        ]
    );
    let side = ["read", "verified", "written", "zeroed"];
    assert_eq!(keys(&last["summary"]["source"]), side);
    assert_eq!(keys(&last["summary"]["target"]), side);

    let failed = Rblocksync::sync(dir.path().join("no\nne"), &dst)
        .with("--json")
        .run();
    assert_eq!(failed.code, 1);
    let events = failed.events();
    assert_eq!(events.len(), 1, "{failed:?}");
    assert_eq!(events[0]["event"], "error");
    assert_eq!(events[0]["kind"], "not-found");
    let message = events[0]["message"].as_str().unwrap();
    assert!(message.contains("no\nne"), "{message}");
    assert!(events[0].as_object().unwrap().contains_key("advice"));
}

#[test]
fn progress_is_shown_as_asked() {
    let (dir, src, _) = pair();
    let dst = dir.path().join("new");
    let run = |options: &str| {
        let run = Rblocksync::sync(&src, &dst)
            .with(&format!("--truncate --bwlimit 8M {options}"))
            .run();
        assert_eq!(run.code, 0, "{run:?}");
        std::fs::remove_file(&dst).unwrap();
        run
    };
    assert_eq!(run("--progress never").stderr, "");
    // A pipe gets a line every ten seconds, which these runs do not take.
    assert_eq!(run("--progress auto").stderr, "");
    let shown = run("--progress always").stderr;
    for word in ["new [", "% ", "ETA", "compared 0 B changed ", "sent "] {
        assert!(shown.contains(word), "no {word:?} in {shown:?}");
    }
}

#[test]
fn a_pipe_gets_plain_lines() {
    let (dir, src, _) = pair();
    let run = Rblocksync::sync(&src, dir.path().join("new"))
        .with("--truncate --bwlimit 1M")
        .run();
    assert_eq!(run.code, 0);
    let line = run.stderr.lines().next().unwrap_or_default();
    assert!(
        line.contains("new: ")
            && line.contains("%, ")
            && line.contains("/s, compared 0 B changed "),
        "{run:?}"
    );
    assert!(!run.stderr.contains('\x1b'), "{run:?}");
}

#[test]
fn a_terminal_gets_a_live_line() {
    let (dir, src, _) = pair();
    let (theirs, ours) = terminal(None);
    let mut child = Command::new(binary())
        .args(["--truncate", "--bwlimit", "8M"])
        .args([&src, &dir.path().join("new")])
        .env("TERM", "xterm")
        .stdout(Stdio::piped())
        .stderr(theirs)
        .spawn()
        .unwrap();
    let reader = shown_on(ours);
    assert!(child.wait().unwrap().success());
    // The command holds the terminal's other end as long as it lives: here it has gone.
    let shown = reader.join().unwrap();
    assert!(shown.contains("ETA") && shown.contains('\r'), "{shown:?}");
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let (_dir, src, dst) = pair();
    let untouched = Untouched::note([&src, &dst]);
    for args in [
        vec![],
        vec!["only-one"],
        vec!["a", "b", "c"],
        vec!["--no-such-option", "a", "b"],
        vec!["--truncate", "--ignore-size", "a", "b"],
        vec!["--hash", "md5", "a", "b"],
        vec!["--progress", "sometimes", "a", "b"],
    ] {
        let run = rblocksync(&args).run();
        assert!(run.code == 2 && run.stderr.contains("--help"), "{run:?}");
    }
    for (src, dst, words) in [("", "b", "empty path"), ("host:", "b", "names no path")] {
        Rblocksync::sync(src, dst).run().refused(2, &[words]);
    }
    untouched.check();
    let help = rblocksync(["--help"]).run().ok();
    for word in ["--truncate", "Exit codes:", "Examples:", "129, 130, 143"] {
        assert!(help.stdout.contains(word), "{word}");
    }
    assert!(rblocksync(["-V"])
        .run()
        .ok()
        .stdout
        .starts_with("rblocksync "));
}

#[test]
fn direct_io_gives_the_same_result_everywhere() {
    let sshd = server();
    let (_dir, src, dst) = pair();
    // Its end is not a multiple of what direct I/O can do.
    resize(&src, 16 * MIB + 4096 + 100);
    scribble(&src, 16 * MIB + 4000, 190, 3);
    for (from, to) in all_ways(&src, &dst) {
        for _ in 0..2 {
            let run = Rblocksync::sync(&from, &to)
                .with("--truncate --direct --verify")
                .over(&sshd);
            run.run().ok();
            assert_eq!(checksum(&src), checksum(&dst));
            scribble(&dst, 16 * MIB + 4090, 100, 4);
            scribble(&dst, 3 * MIB, 100_000, 5);
        }
        fs::remove_file(&dst).unwrap();
    }
}
