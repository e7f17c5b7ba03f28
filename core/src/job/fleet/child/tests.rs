use super::super::outcome::Ending;
use super::*;
use std::cell::RefCell;

/// What a fake program does, as a shell script, and what came of it.
fn play(script: &str, grace: Duration, stop: &Stop, on: &dyn Fn(&Value)) -> (Outcome, Vec<Value>) {
    let runner = Runner {
        program: "/bin/sh".into(),
        grace,
        dry_run: false,
    };
    let member = Member {
        vm: "101".into(),
        host: "host2".into(),
        age_s: None,
        rpo_s: None,
        args: vec!["-c".into(), script.into(), "fake".into()],
    };
    let events = RefCell::new(Vec::new());
    let outcome = runner.run(&member, stop, &|event| {
        on(&event);
        // A flood is counted by its first events.
        if events.borrow().len() < 100 {
            events.borrow_mut().push(event);
        }
    });
    (outcome, events.into_inner())
}

const LONG: Duration = Duration::from_secs(60);
const SEALED: &str = r#"echo '{"event":"sealed","generation":"rbs7","disks":[{"summary":{"changed":5,"wire_out":3,"wire_in":1}}]}'"#;

fn simply(script: &str) -> (Outcome, Vec<Value>) {
    play(script, LONG, &Stop::new(), &|_| {})
}

fn failure(outcome: &Outcome) -> (u8, &str) {
    match &outcome.ending {
        Ending::Failed { code, why } => (*code, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn events_are_tagged_and_counted() {
    let script = format!("echo '{{\"event\":\"plan\",\"vm\":\"7\"}}'; echo plain; echo; {SEALED}");
    let (outcome, events) = simply(&script);
    assert!(outcome.is_done(), "{outcome:?}");
    assert_eq!((outcome.changed, outcome.wire), (5, 4));
    let names: Vec<_> = events
        .iter()
        .map(|e| e["event"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["plan", "output", "sealed"]);
    assert!(events
        .iter()
        .all(|e| e["vm"] == "101" && e["to"] == "host2"));
    assert_eq!(events[1]["text"], "plain");
}

#[test]
fn a_failure_keeps_its_code_and_its_words() {
    let script = r#"echo noise >&2; echo '{"event":"error","message":"VM 101 is busy","advice":null}'; exit 3"#;
    let (outcome, _) = simply(script);
    assert_eq!(failure(&outcome), (3, "VM 101 is busy"));
    let (outcome, _) = simply("echo one >&2; echo two >&2; exit 1");
    assert_eq!(failure(&outcome), (1, "exit code 1: one; two"));
}

#[test]
fn a_crash_is_a_failure_of_that_vm() {
    let (outcome, _) = simply(&format!("{SEALED}; echo oh >&2; kill -SEGV $$"));
    let (code, why) = failure(&outcome);
    assert_eq!(code, 1);
    assert_eq!(
        why,
        "its process was killed by signal 11: oh; generation rbs7 was sealed before"
    );
}

#[test]
fn an_end_without_a_generation_is_no_success() {
    let (outcome, _) = simply("exit 0");
    assert_eq!(failure(&outcome).0, 1);
}

#[test]
fn a_program_that_is_not_there_is_a_failure() {
    let runner = Runner {
        program: "/nonexistent/program".into(),
        grace: LONG,
        dry_run: false,
    };
    let member = Member {
        vm: "101".into(),
        host: "h".into(),
        age_s: None,
        rpo_s: None,
        args: Vec::new(),
    };
    let outcome = runner.run(&member, &Stop::new(), &|_| {});
    assert!(failure(&outcome)
        .1
        .contains("cannot start /nonexistent/program"));
}

#[test]
fn a_flood_is_read_and_not_kept() {
    // A line of 64 MiB, then 4 MiB of lines, and as much on stderr.
    let script = format!(
        "head -c 67108864 /dev/zero | tr '\\0' x; echo; yes | head -c 4194304; yes e | head -c 4194304 >&2; {SEALED}"
    );
    let (outcome, events) = simply(&script);
    assert!(outcome.is_done(), "{outcome:?}");
    assert_eq!(outcome.notes, ["1 lines were too long to read"]);
    assert_eq!(events[0]["text"], "y");
}

#[test]
fn a_hanging_process_is_told_to_stop_and_killed_after_the_grace() {
    // It says when it is ready for the signal, so the test does not guess.
    let script = "trap '' TERM; echo '{\"event\":\"ready\"}'; while :; do sleep 1000; done";
    let stop = Stop::new();
    let (outcome, _) = play(script, Duration::from_millis(300), &stop, &|_| {
        stop.stop_by_signal(15);
    });
    let (code, why) = failure(&outcome);
    assert_eq!(code, 1);
    assert!(why.starts_with("told to stop, it did not end"), "{why}");
}

#[test]
fn the_signal_is_passed_on_and_the_process_may_clean_up() {
    for (number, name) in [(2, "INT"), (15, "TERM"), (1, "HUP")] {
        // A background process keeps the shell's wait interruptible.
        let script = format!(
            "trap 'echo \"{{\\\"event\\\":\\\"cleaned\\\"}}\"; kill $!; exit {}' {name}; sleep 1000 & \
             echo '{{\"event\":\"ready\"}}'; wait",
            128 + number
        );
        let stop = Stop::new();
        let (outcome, events) = play(&script, LONG, &stop, &|_| stop.stop_by_signal(number));
        assert_eq!(failure(&outcome).0, u8::try_from(128 + number).unwrap());
        assert_eq!(events.last().unwrap()["event"], "cleaned");
    }
}

#[test]
fn a_pipe_that_stays_open_does_not_hold_us_up() {
    // The grandchild has the pipes for long after the end; it says who it is, so that it can be ended.
    let script = format!(
        "setsid sleep 1000 & echo \"{{\\\"event\\\":\\\"pid\\\",\\\"pid\\\":$!}}\"; {SEALED}"
    );
    let (outcome, events) = simply(&script);
    let pid = i32::try_from(events[0]["pid"].as_i64().unwrap()).unwrap();
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    assert!(outcome.is_done(), "{outcome:?}");
}

#[test]
fn the_process_ends_with_the_thread_that_runs_it() {
    // Started by a thread that ends at once. It sleeps for so long that only the signal can end it.
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "echo ready; exec sleep 1000"])
        .stdout(Stdio::piped());
    let started = std::thread::spawn(move || spawn_tied(apart(&mut command)).unwrap());
    let mut child = started.join().unwrap();
    // The thread is gone.
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(15));
}
