//! The guest is let go whatever happens to whom.

use crate::agent::{FakeAgent, Freeze};
use crate::vm::{launcher, take_disks, Vm, LONG, PROGRAM};
use rblocksync::error::Kind;
use rblocksync::lvm::OwnerTag;
use rblocksync::snapshot::{Consistency, PointInTime, VmRuntime, WatchdogLauncher};
use serde_json::{json, Value};
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use uuid::Uuid;

/// A watchdog that we drive by hand.
struct Watchdog {
    child: Child,
    reports: Lines<BufReader<ChildStdout>>,
}

impl Watchdog {
    /// Starts one and waits until the guest is held.
    fn hold(vm: &Vm, agent: bool, deadline: Duration, stdin: Stdio) -> Watchdog {
        let mut command = Command::new(PROGRAM);
        command.arg("watchdog").arg("--qmp").arg(vm.qmp_path());
        if agent {
            command.arg("--agent").arg(vm.agent_path());
        }
        let mut child = command
            .args(["--deadline-ms", &deadline.as_millis().to_string()])
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let reports = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut watchdog = Watchdog { child, reports };
        assert_eq!(watchdog.report()["found"]["was_running"], true);
        assert!(watchdog.report()["held"].is_object());
        watchdog
    }

    fn report(&mut self) -> Value {
        let line = self
            .reports
            .next()
            .expect("the watchdog has ended")
            .unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The reason for which it let the guest go; checks that this went well.
    fn released(&mut self) -> String {
        let report = self.report();
        let released = &report["released"];
        assert_eq!(released["outcome"]["problem"], Value::Null, "{report}");
        assert!(self.child.wait().unwrap().success());
        released["reason"].as_str().unwrap().to_owned()
    }
}

fn take(vm: VmRuntime, deadline: Duration) -> rblocksync::error::Result<PointInTime> {
    let owner = OwnerTag::new(Uuid::new_v4());
    take_disks("run1", &[], vm, &owner, deadline)
}

#[test]
fn freezes_stops_and_undoes_both_in_turn() {
    let Some(mut vm) = Vm::start(&[]) else { return };
    let agent = FakeAgent::listen(&vm.agent_path(), Freeze::Works);
    let mut watchdog = Watchdog::hold(&vm, true, LONG, Stdio::piped());
    assert_eq!(vm.status(), "paused");
    assert!(agent.frozen());
    watchdog
        .child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"T\n")
        .unwrap();
    assert_eq!(watchdog.released(), "asked");
    assert_eq!(vm.status(), "running");
    assert!(!agent.frozen());
}

#[test]
fn commands_are_run_while_the_guest_is_held() {
    let Some(mut vm) = Vm::start(&[]) else { return };
    let mut watchdog = Watchdog::hold(&vm, false, LONG, Stdio::piped());
    let mut stdin = watchdog.child.stdin.take().unwrap();
    let mut say = |line: &str| stdin.write_all(line.as_bytes()).unwrap();
    // In two pieces, and two in one.
    say("{\"execute\": \"query-status\",");
    say("\"arguments\": {}}\n{\"execute\": \"no-such\", \"arguments\": {}}\n");
    assert_eq!(watchdog.report()["answered"]["Ok"]["status"], "paused");
    let refused = watchdog.report()["answered"]["Err"].to_string();
    assert!(refused.contains("no-such"), "{refused}");
    say("T\n");
    assert_eq!(watchdog.released(), "asked");
    assert_eq!(vm.status(), "running");

    let mut watchdog = Watchdog::hold(&vm, false, LONG, Stdio::piped());
    let mut stdin = watchdog.child.stdin.take().unwrap();
    stdin.write_all(b"no command\n").unwrap();
    assert_eq!(watchdog.released(), "orphaned");
    assert_eq!(vm.status(), "running");
}

#[test]
fn a_driver_killed_with_9_does_not_leave_the_guest_held() {
    let Some(mut vm) = Vm::start(&[]) else { return };
    let agent = FakeAgent::listen(&vm.agent_path(), Freeze::Works);
    // All that ties a driver to its watchdog is the pipe it holds: any process will do.
    let mut driver = Command::new("sleep")
        .arg("1000")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (read, write) = std::io::pipe().unwrap();
    driver.kill().unwrap();
    driver.wait().unwrap();
    driver = Command::new("sleep")
        .arg("1000")
        .stdout(write)
        .spawn()
        .unwrap();
    let mut watchdog = Watchdog::hold(&vm, true, LONG, read.into());
    assert_eq!(vm.status(), "paused");
    driver.kill().unwrap();
    driver.wait().unwrap();
    assert_eq!(watchdog.released(), "orphaned");
    assert_eq!(vm.status(), "running");
    assert!(!agent.frozen());
}

#[test]
fn a_driver_that_hangs_does_not_leave_the_guest_held() {
    let Some(mut vm) = Vm::start(&[]) else { return };
    let agent = FakeAgent::listen(&vm.agent_path(), Freeze::Works);
    let deadline = Duration::from_millis(500);
    let mut watchdog = Watchdog::hold(&vm, true, deadline, Stdio::piped());
    assert_eq!(watchdog.released(), "deadline");
    assert_eq!(vm.status(), "running");
    assert!(!agent.frozen());
}

#[test]
fn told_to_end_it_lets_the_guest_go_first() {
    let Some(mut vm) = Vm::start(&[]) else { return };
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut watchdog = Watchdog::hold(&vm, false, LONG, Stdio::piped());
        let pid = rustix::process::Pid::from_child(&watchdog.child);
        assert_eq!(rustix::process::getsid(Some(pid)).unwrap(), pid);
        rustix::process::kill_process(pid, signal).unwrap();
        assert_eq!(watchdog.released(), "signal");
        assert_eq!(vm.status(), "running");
    }
}

#[test]
fn a_guest_its_user_had_paused_stays_paused() {
    let Some(mut vm) = Vm::start(&[]) else { return };
    let agent = FakeAgent::listen(&vm.agent_path(), Freeze::Works);
    vm.side().stop(LONG).unwrap();
    vm.take_events();
    let point = take(vm.runtime(true), LONG).unwrap();
    assert_eq!(point.consistency, Consistency::Crash);
    assert!(point.notes[0].contains("paused"), "{:?}", point.notes);
    assert_eq!(vm.status(), "paused");
    assert_eq!(vm.take_events(), Vec::<String>::new());
    assert_eq!(agent.commands(), Vec::<String>::new());
}

#[test]
fn the_consistency_is_told_and_why_it_is_not_better() {
    let cases = [
        (Freeze::Works, Consistency::Filesystem, ""),
        (Freeze::Refused, Consistency::Crash, "no freezing here"),
        (
            Freeze::TooSlow,
            Consistency::Crash,
            "did not answer in time",
        ),
    ];
    for (freeze, consistency, note) in cases {
        let Some(mut vm) = Vm::start(&[]) else { return };
        let agent = FakeAgent::listen(&vm.agent_path(), freeze);
        let point = take(vm.runtime(true), Duration::from_secs(4)).unwrap();
        assert_eq!(point.consistency, consistency);
        assert_eq!(point.notes.is_empty(), note.is_empty());
        assert!(point.notes.concat().contains(note), "{:?}", point.notes);
        assert_eq!(vm.status(), "running");
        assert_eq!(vm.take_events(), ["STOP", "RESUME"]);
        assert!(!agent.frozen());
        assert_eq!(
            agent.commands(),
            ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"]
        );
    }
}

#[test]
fn file_systems_somebody_else_froze_are_left_alone() {
    let Some(mut vm) = Vm::start(&[]) else { return };
    let agent = FakeAgent::listen(&vm.agent_path(), Freeze::Works);
    agent.set_frozen();
    let point = take(vm.runtime(true), LONG).unwrap();
    assert_eq!(point.consistency, Consistency::Crash);
    assert!(
        point.notes[0].contains("frozen already"),
        "{:?}",
        point.notes
    );
    assert!(agent.frozen());
    assert_eq!(vm.status(), "running");
}

#[test]
fn without_an_agent_it_is_crash_consistent() {
    let Some(mut vm) = Vm::start(&[]) else { return };
    let point = take(vm.runtime(false), LONG).unwrap();
    assert_eq!(
        (point.consistency, point.notes.len()),
        (Consistency::Crash, 0)
    );
    // Configured, but not there.
    let point = take(vm.runtime(true), LONG).unwrap();
    assert_eq!(point.consistency, Consistency::Crash);
    assert!(
        point.notes[0].contains("does not answer"),
        "{:?}",
        point.notes
    );
    assert_eq!(vm.status(), "running");
}

/// A launcher that runs `script` with the program in `$W` and the watchdog's arguments in `$@`.
fn script(vm: &Vm, script: &str) -> WatchdogLauncher {
    let file = vm.dir.path().join("launch");
    let text = format!("W='{PROGRAM}'\n{script}\n");
    std::fs::write(&file, text).unwrap();
    WatchdogLauncher {
        exe: "/bin/bash".into(),
        args: vec![file.into()],
    }
}

#[test]
fn a_watchdog_killed_with_9_is_stood_in_for() {
    let Some(mut vm) = Vm::start(&[]) else { return };
    let agent = FakeAgent::listen(&vm.agent_path(), Freeze::Works);
    let mut runtime = vm.runtime(true);
    // Kills it when it has said that the guest is held, without passing that on.
    let text = r#"
        exec 3<&0
        coproc DOG { exec "$W" watchdog "$@" <&3; }
        while IFS= read -r line <&"${DOG[0]}"; do
            case $line in *'"held":'*) kill -9 $DOG_PID; exit 0;; esac
            printf '%s\n' "$line"
        done"#;
    runtime.launcher = script(&vm, text);
    let error = take(runtime, LONG).unwrap_err();
    assert!(error.to_string().contains("watchdog has ended"), "{error}");
    assert_eq!(vm.take_events(), ["STOP", "RESUME"]);
    assert_eq!(vm.status(), "running");
    assert!(!agent.frozen());
}

#[test]
fn a_guest_that_somebody_else_resumes_gives_no_point_in_time() {
    let Some(mut vm) = Vm::start(&[]) else { return };
    let mut runtime = vm.runtime(false);
    let (ask, told) = (vm.dir.path().join("ask"), vm.dir.path().join("told"));
    for fifo in [&ask, &told] {
        assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
    }
    // Holds the report back until the guest was resumed from the side.
    let text = format!(
        r#"
        exec 3<&0
        coproc DOG {{ exec "$W" watchdog "$@" <&3; }}
        exec 4<&"${{DOG[0]}}"
        while IFS= read -r line <&4; do
            case $line in *'"held":'*) echo > '{}'; read -r < '{}';; esac
            printf '%s\n' "$line"
        done"#,
        ask.display(),
        told.display()
    );
    runtime.launcher = script(&vm, &text);
    let taken = std::thread::spawn(move || take(runtime, LONG).map(drop));
    std::fs::read(&ask).unwrap();
    assert_eq!(vm.status(), "paused");
    vm.side().cont(LONG).unwrap();
    vm.side().stop(LONG).unwrap();
    std::fs::write(&told, "\n").unwrap();
    let error = taken.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert!(error.to_string().contains("somebody else"), "{error}");
    assert_eq!(vm.status(), "running");
}

#[test]
fn a_qemu_that_dies_meanwhile_is_an_error_and_not_waited_for() {
    let Some(mut vm) = Vm::start(&[]) else { return };
    let mut watchdog = Watchdog::hold(&vm, false, LONG, Stdio::piped());
    vm.kill();
    watchdog.child.stdin.take();
    let report = watchdog.report();
    let problem = report["released"]["outcome"]["problem"].as_str().unwrap();
    assert!(problem.contains("nobody listens"), "{problem}");
    assert_eq!(watchdog.child.wait().unwrap().code(), Some(1));
}

#[test]
fn nothing_is_touched_when_there_is_nothing_to_hold() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = VmRuntime {
        state: None,
        qmp: Some(dir.path().join("gone")),
        manager: None,
        agent: None,
        stopped: Box::new(|| Ok(true)),
        launcher: launcher(),
    };
    let error = take(runtime, LONG).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");

    let Some(mut vm) = Vm::start(&[]) else { return };
    let mut runtime = vm.runtime(false);
    runtime.launcher.exe = dir.path().join("no-such-program");
    let error = take(runtime, LONG).unwrap_err();
    assert!(
        error.to_string().contains("cannot start the watchdog"),
        "{error}"
    );
    let mut runtime = vm.runtime(false);
    runtime.launcher.exe = "/bin/false".into();
    let error = take(runtime, LONG).unwrap_err();
    assert!(error.to_string().contains("watchdog has ended"), "{error}");
    assert_eq!(vm.take_events(), Vec::<String>::new());

    let said = vm.side().execute("query-version", json!({}), LONG).unwrap();
    assert!(said["qemu"]["major"].is_u64(), "QEMU is well");
    let wrong = Command::new(PROGRAM)
        .args(["watchdog", "--qmp"])
        .status()
        .unwrap();
    assert_eq!(wrong.code(), Some(2));
}
