use super::*;
use std::os::unix::process::CommandExt;

fn sh(script: &str, timeout: Duration) -> Result<(Vec<u8>, String)> {
    execute(
        Path::new("/bin/sh"),
        &["-c".into(), script.into()],
        (timeout, &[3]),
        "sh",
        |stdout| read_limited(stdout, "sh"),
    )
    .map(|(stdout, stderr, _)| (stdout, stderr))
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn output_and_environment() {
    let script = "printf '%s %s %s' \"$LC_ALL\" \"$PATH\" \"$LVM_SUPPRESS_FD_WARNINGS\"; cat; echo ' oh ' >&2";
    let (stdout, stderr) = sh(script, LONG).unwrap();
    assert_eq!(
        String::from_utf8(stdout).unwrap(),
        "C /usr/sbin:/sbin:/usr/bin:/bin 1"
    );
    assert_eq!(stderr, "oh");
}

#[test]
fn failure_tells_code_and_stderr_and_classifies_it() {
    let cases = [
        ("  Logical volume pve/x in use.", Kind::Busy),
        (
            "device-mapper: message ioctl on p-d-tpool  failed: Device or resource busy",
            Kind::Busy,
        ),
        ("  Failed to find logical volume \"pve/x\"", Kind::NotFound),
        (
            "  Cannot create new thin volume, free space in thin pool pve/data reached threshold.",
            Kind::Space,
        ),
        ("Is another process using the image [x]?", Kind::Busy),
        ("something else", Kind::Tool),
    ];
    for (text, kind) in cases {
        let script = format!("cat >&2 <<'X'\n{text}\nX\nexit 5");
        let error = sh(&script, LONG).unwrap_err();
        assert_eq!(error.kind(), kind, "{text}");
        let shown = error.to_string();
        assert!(
            shown.contains("sh failed with exit code 5") && shown.contains(text.trim()),
            "{shown}"
        );
    }
}

#[test]
fn a_code_that_is_accepted_is_an_answer() {
    let run = |code: i32| {
        let script = format!("exit {code}");
        let args = ["-c".into(), script.into()];
        execute(Path::new("/bin/sh"), &args, (LONG, &[3]), "sh", |_| Ok(()))
    };
    assert_eq!(run(3).unwrap().2, 3);
    assert_eq!(run(0).unwrap().2, 0);
    assert_eq!(run(2).unwrap_err().kind(), Kind::Tool);
}

#[test]
fn a_program_that_hangs_is_ended_with_its_children() {
    // The shell and its child hang; the child holds our pipe too.
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let script = format!(
        "sleep 1000 & echo $$ $! > {0}.new && mv {0}.new {0}; wait",
        pids.display()
    );
    let started = Instant::now();
    let error = sh(&script, Duration::from_millis(500)).unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(started.elapsed() < TERM_GRACE, "SIGTERM must have done it");
    for pid in std::fs::read_to_string(&pids).unwrap().split_whitespace() {
        // The signal is sent; the kernel may still be taking the process down.
        while is_alive(pid) {
            assert!(started.elapsed() < LONG, "process {pid} is still there");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim();
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

#[test]
fn too_much_output_is_an_error_and_does_not_block() {
    let error = sh("exec cat /dev/zero", LONG).unwrap_err();
    assert!(error.to_string().contains("more than 16 MiB"), "{error}");
    let (_, stderr) = sh("head -c 1000000 /dev/zero | tr '\\0' x >&2", LONG).unwrap();
    assert_eq!(stderr.len(), STDERR_MAX_BYTES);
}

#[test]
fn a_consumer_that_gives_up_gives_the_error() {
    let error = execute(
        Path::new("/bin/sh"),
        &["-c".into(), "exec cat /dev/zero".into()],
        (LONG, &[]),
        "sh",
        |_| Err::<(), _>(Error::new(Kind::Protocol, "not what I like")),
    )
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
}

#[test]
fn a_missing_tool_names_its_package() {
    let error = Tool::ThinDump.path_in(&["/nonexistent"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "thin_dump is not installed (install the package thin-provisioning-tools)"
    );
}

#[test]
fn a_tool_is_not_taken_from_path_nor_if_it_is_not_executable() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lvs"), "#!/bin/sh\n").unwrap();
    let d = dir.path().to_str().unwrap();
    assert!(Tool::Lvs.path_in(&[d]).is_err());
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path().join("lvs"), mode).unwrap();
    assert_eq!(Tool::Lvs.path_in(&[d]).unwrap(), dir.path().join("lvs"));
}

#[test]
fn arguments_are_shown_so_that_one_can_see_where_they_end() {
    let cmd = Cmd::new(Tool::Lvs)
        .arg("--units")
        .args(["b", "a b", "", "x'y"]);
    assert_eq!(cmd.to_string(), r#"lvs --units b "a b" "" "x'y""#);
}

/// How often commands are run under fire, to meet the instant in which a child is still in our group.
const SHOTS: usize = 100;

/// What a signal to our process group interrupts is ours to end: a command that gives something back must not die of it.
#[test]
fn a_signal_to_our_group_ends_no_command() {
    const UNDER_FIRE: &str = "RBLOCKSYNC_TEST_UNDER_FIRE";
    if std::env::var_os(UNDER_FIRE).is_some() {
        let heard = std::sync::Arc::default();
        signal_hook::flag::register(signal_hook::consts::SIGTERM, heard).unwrap();
        println!("ready");
        for shot in 0..SHOTS {
            let done = Cmd::new(Tool::Getent).args(["ahosts", "127.0.0.1"]).run();
            done.unwrap_or_else(|e| panic!("command {shot}: {e}"));
        }
        return;
    }
    let mut test = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "cmd::tests::a_signal_to_our_group_ends_no_command",
        ])
        .arg("--nocapture")
        .env(UNDER_FIRE, "")
        .process_group(0)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let group = Pid::from_child(&test);
    let stdout = io::BufReader::new(test.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(stdout).map_while(|line| line.ok());
    assert!(lines.any(|line| line.ends_with("ready")));
    let rest = std::thread::spawn(move || lines.collect::<Vec<_>>());
    let ended = loop {
        if let Some(ended) = test.try_wait().unwrap() {
            break ended;
        }
        kill_process_group(group, Signal::TERM).unwrap();
        std::thread::yield_now();
    };
    assert!(ended.success(), "{ended}: {:?}", rest.join().unwrap());
}
