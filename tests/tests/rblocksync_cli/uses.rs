//! What rblocksync3 was used for, with the same words, and the options.

use super::*;
use serde_json::Value;

/// The summary event of a run with `--json`.
fn summary(run: &Run) -> Value {
    let events: Vec<Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = events.last().unwrap();
    assert_eq!(last["event"], "summary");
    last["summary"].clone()
}

#[test]
fn local_to_a_new_sparse_file_and_again() {
    let w = World::new();
    let src = w.image("src.img", 32 * MIB + 5 * LEAF + 17);
    let dst = w.path("new.img");
    run(&["--truncate".as_ref(), src.as_os_str(), dst.as_os_str()]).ok();
    same(&src, &dst);
    assert!(allocated(&dst) <= allocated(&src), "holes must stay holes");
    write(&src, 7 * MIB, &[9; 10]);
    write(&src, MIB, &[8; 4096]);
    let again = run(&["--json".as_ref(), src.as_os_str(), dst.as_os_str()]).ok();
    let summary = summary(&again);
    assert_eq!(summary["changed"], 2 * LEAF);
    assert_eq!(summary["target"]["written"], 2 * LEAF);
    same(&src, &dst);
}

#[test]
fn zeros_over_data_free_it() {
    let w = World::new();
    let (src, dst) = (w.image("src.img", 16 * MIB), w.image("dst.img", 16 * MIB));
    let before = allocated(&dst);
    write(&src, 0, &vec![0; MIB as usize]);
    run(&[&src, &dst]).ok();
    same(&src, &dst);
    assert_eq!(before - allocated(&dst), MIB);
}

#[test]
fn push_pull_and_between_two_remotes() {
    let w = World::new();
    let src = w.image("src.img", 20 * MIB);
    let (a, b, c) = (w.path("a.img"), w.path("b.img"), w.path("c.img"));
    let config = w.config();
    run(&["--truncate", &config, src.to_str().unwrap(), &w.remote(&a)]).ok();
    same(&src, &a);
    run(&["--truncate", &config, &w.remote(&a), b.to_str().unwrap()]).ok();
    same(&src, &b);
    run(&["--truncate", &config, &w.remote(&b), &w.remote(&c)]).ok();
    same(&src, &c);
    write(&src, 3 * MIB + 100, b"changed");
    let url = format!("ssh://{HOST}{}", a.display());
    let json = run(&[
        "--json",
        &config,
        "--hash",
        "sha256",
        "--verify",
        src.to_str().unwrap(),
        &url,
    ])
    .ok();
    assert_eq!(summary(&json)["changed"], LEAF);
    same(&src, &a);
}

#[test]
fn a_remote_device_onto_a_local_device_of_the_same_size() {
    let w = World::new();
    let (src, dst) = (w.image("src.img", 24 * MIB), w.path("dst.img"));
    File::create_new(&dst).unwrap().set_len(24 * MIB).unwrap();
    write(&dst, 2 * MIB, &[7; 8192]);
    let (from, to) = (Loop::over(&src, &[]), Loop::over(&dst, &[]));
    let remote = w.remote(&from.0);
    run(&[&w.config(), &remote, to.0.to_str().unwrap(), "--verify"]).ok();
    same(&from.0, &to.0);
    let again = run(&["--json", &w.config(), &remote, to.0.to_str().unwrap()]).ok();
    assert_eq!(summary(&again)["changed"], 0);
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let w = World::new();
    let (src, dst) = (w.image("src.img", 8 * MIB), w.image("dst.img", 8 * MIB));
    write(&src, 0, &[3; 5000]);
    let before = fs::read(&dst).unwrap();
    let told = run(&["--dry-run".as_ref(), src.as_os_str(), dst.as_os_str()]).ok();
    assert!(
        told.stdout.contains("8.0 KiB would be sent"),
        "{}",
        told.stdout
    );
    assert_eq!(fs::read(&dst).unwrap(), before);
    let new = w.path("new.img");
    run(&[
        "--dry-run".as_ref(),
        "--truncate".as_ref(),
        src.as_os_str(),
        new.as_os_str(),
    ])
    .ok();
    assert!(!new.exists());
}

#[test]
fn sizes_are_made_equal_or_the_common_part_is_synced() {
    let w = World::new();
    let (src, dst) = (w.image("src.img", 8 * MIB), w.image("dst.img", 9 * MIB));
    let tail = fs::read(&dst).unwrap()[8 * MIB as usize..].to_vec();
    write(&src, 4096, b"x");
    run(&["--ignore-size".as_ref(), src.as_os_str(), dst.as_os_str()]).ok();
    let now = fs::read(&dst).unwrap();
    assert_eq!(now[..8 * MIB as usize], fs::read(&src).unwrap());
    assert_eq!(now[8 * MIB as usize..], tail);
    run(&["--truncate".as_ref(), src.as_os_str(), dst.as_os_str()]).ok();
    same(&src, &dst);
}

#[test]
fn options_of_the_predecessor_keep_their_meaning() {
    let w = World::new();
    let (src, dst) = (w.image("src.img", 8 * MIB), w.image("dst.img", 8 * MIB));
    write(&src, 0, b"y");
    let quiet = run(&[
        "-q".as_ref(),
        "--block-size".as_ref(),
        "32".as_ref(),
        src.as_os_str(),
        dst.as_os_str(),
    ])
    .ok();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    same(&src, &dst);
    write(&src, 0, b"z");
    let json = run(&[
        "--json".as_ref(),
        "--block-size".as_ref(),
        "32".as_ref(),
        src.as_os_str(),
        dst.as_os_str(),
    ])
    .ok();
    assert_eq!(
        summary(&json)["changed"],
        32 * LEAF,
        "the block size is in units of 4 KiB"
    );
}

#[test]
fn any_name_will_do() {
    let w = World::new();
    let src = w.image("plain.img", 2 * MIB);
    for name in [
        "a b",
        "q'uo\"te",
        "semi;touch PWNED",
        "$(touch PWNED)",
        "new\nline",
        "-dash",
        "co:lon",
        "bs\\n",
        "*?[x]",
    ] {
        let dst = w.path(name);
        run(&[
            "--truncate",
            &w.config(),
            src.to_str().unwrap(),
            &w.remote(&dst),
        ])
        .ok();
        same(&src, &dst);
        let back = w.path(&format!("{name}.back"));
        run(&[
            "--truncate",
            &w.config(),
            &w.remote(&dst),
            back.to_str().unwrap(),
        ])
        .ok();
        same(&src, &back);
    }
    assert!(!Path::new("PWNED").exists());
    let names = fs::read_dir(w.dir.path()).unwrap().count();
    assert_eq!(names, 1 + 2 * 9, "no file under another name");
}

#[test]
fn progress_is_shown_where_it_was_asked_for() {
    let w = World::new();
    let (src, dst) = (w.image("src.img", 24 * MIB), w.path("dst.img"));
    let slow = ["--truncate", "--bwlimit", "8M", "--progress"];
    let args = |mode: &'static str| {
        let mut args: Vec<&OsStr> = slow.iter().map(OsStr::new).collect();
        args.extend([OsStr::new(mode), src.as_os_str(), dst.as_os_str()]);
        run(&args).ok().stderr
    };
    let live = args("always");
    for part in ["%", "ETA", "compared", "changed", "zero", "sent"] {
        assert!(live.contains(part), "no {part:?} in {live:?}");
    }
    fs::remove_file(&dst).unwrap();
    assert_eq!(args("never"), "");
}
