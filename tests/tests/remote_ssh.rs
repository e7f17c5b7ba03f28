//! SSH sessions and the agent bootstrap against a real sshd on loopback.

#![allow(clippy::unwrap_used)]

use rblocksync::error::{Error, Kind};
use rblocksync::remote::{AgentPipe, AgentSpec, Ended, HostSpec, Remote, RunLimits, SshOptions};
use rblocksync::stop::Stop;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tests::sshd::{eventually, processes, Sshd, ECHO_ID, HOST};

const ECHO_AGENT: &str = env!("CARGO_BIN_EXE_echo_agent");
const LONG: Duration = Duration::from_secs(30);
const NO_ARGS: [&str; 0] = [];

fn host() -> HostSpec {
    HostSpec::parse(HOST).unwrap()
}

fn options(sshd: &Sshd) -> SshOptions {
    SshOptions {
        config_file: Some(sshd.client_config()),
        idle_exit: Duration::from_secs(1),
        ..SshOptions::default()
    }
}

fn connect(sshd: &Sshd) -> Remote {
    Remote::connect(&host(), &options(sshd)).unwrap()
}

fn spec() -> AgentSpec {
    AgentSpec {
        local_binary: ECHO_AGENT.into(),
        ..AgentSpec::new("echo_agent", ECHO_ID)
    }
}

/// An agent that is a shell script, answering as `id`, and leaving `marker` behind when it is run.
fn script_agent(dir: &Path, id: &str, marker: &Path) -> AgentSpec {
    let local_binary = dir.join("script_agent");
    let script = format!("#!/bin/sh\ntouch {}\necho '{id}'\n", marker.display());
    fs::write(&local_binary, script).unwrap();
    AgentSpec {
        local_binary,
        ..AgentSpec::new("echo_agent", ECHO_ID)
    }
}

fn install_agent(sshd: &Sshd) {
    sshd.install("echo_agent", &fs::read(ECHO_AGENT).unwrap());
}

/// Sends `data` through the agent and checks that all of it comes back.
fn echo(pipe: AgentPipe, data: &[u8]) {
    let AgentPipe {
        stdin,
        stdout,
        handle,
    } = pipe;
    let (mut stdin, mut stdout) = (File::from(stdin), File::from(stdout));
    let back = thread::scope(|s| {
        s.spawn(move || stdin.write_all(data).unwrap());
        let mut back = Vec::new();
        stdout.read_to_end(&mut back).unwrap();
        back
    });
    assert!(
        back == data,
        "{} bytes of {} came back",
        back.len(),
        data.len()
    );
    let end = handle.finish(LONG);
    assert!(end.is_success(), "{end}");
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words.flat_map(u64::to_le_bytes).take(len).collect()
}

/// The upload directories below a cache directory.
fn uploads(cache: &Path) -> Vec<PathBuf> {
    let dir = fs::read_dir(cache.join("rblocksync"));
    dir.map_or(Vec::new(), |dir| {
        dir.map(|entry| entry.unwrap().path()).collect()
    })
}

fn running_from(dir: &Path) -> usize {
    let dir = dir.to_str().unwrap();
    processes()
        .values()
        .filter(|p| p.args.starts_with(dir))
        .count()
}

fn refused(result: Result<impl std::fmt::Debug, Error>, kind: Kind, words: &[&str]) {
    let e = result.unwrap_err();
    let text = e.to_string();
    assert_eq!(e.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "\"{word}\" is not in: {text}");
    }
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[test]
fn the_installed_agent_is_used_when_it_is_ours() {
    let sshd = Sshd::start();
    install_agent(&sshd);
    let remote = connect(&sshd);
    let pipe = remote.start_agent(&spec()).unwrap();
    assert_eq!(pipe.handle.uploaded(), None);
    echo(pipe, b"hello");
    assert!(uploads(&sshd.cache()).is_empty());
    remote.close().unwrap();
}

#[test]
fn a_missing_agent_is_uploaded_privately_and_removed_by_close() {
    let sshd = Sshd::start();
    let remote = connect(&sshd);
    let pipe = remote.start_agent(&spec()).unwrap();
    let program = pipe.handle.uploaded().unwrap().to_owned();
    let dir = program.parent().unwrap().to_owned();
    assert_eq!(uploads(&sshd.cache()), std::slice::from_ref(&dir));
    for (path, mode) in [
        (dir.parent().unwrap(), 0o700),
        (&dir, 0o700),
        (&program, 0o500),
    ] {
        let found = fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(found, mode, "{} has mode {found:o}", path.display());
    }
    assert!(fs::read(&program).unwrap() == fs::read(ECHO_AGENT).unwrap());
    echo(pipe, b"hello");
    remote.close().unwrap();
    assert!(!dir.exists());
}

#[test]
fn a_dropped_connection_cleans_up_as_well() {
    let sshd = Sshd::start();
    let remote = connect(&sshd);
    let pipe = remote.start_agent(&spec()).unwrap();
    let dir = pipe.handle.uploaded().unwrap().parent().unwrap().to_owned();
    eventually("the agent runs", || running_from(&dir) == 1);
    drop(remote);
    assert!(!dir.exists());
    let end = pipe.handle.finish(LONG);
    assert_eq!(
        end.how,
        Ended::ConnectionLost("closed by us".to_owned()),
        "{end}"
    );
}

#[test]
fn an_agent_of_another_version_is_not_used() {
    let sshd = Sshd::start();
    sshd.install("echo_agent", b"#!/bin/sh\necho echo_agent 2 protocol 1\n");
    let remote = connect(&sshd);
    let pipe = remote.start_agent(&spec()).unwrap();
    assert!(pipe.handle.uploaded().is_some());
    echo(pipe, b"hello");
    remote.close().unwrap();
}

#[test]
fn a_program_that_arrives_damaged_is_never_run() {
    let local = tempfile::tempdir().unwrap();
    let marker = local.path().join("was run");
    let agent = script_agent(local.path(), ECHO_ID, &local.path().join("was\\ run"));
    for (tool, fake) in [
        ("head", "#!/bin/sh\n/usr/bin/head \"$@\"\necho\n"),
        ("sha256sum", "#!/bin/sh\necho 0000 -\n"),
    ] {
        let sshd = Sshd::start();
        sshd.install(tool, fake.as_bytes());
        let remote = connect(&sshd);
        refused(
            remote.start_agent(&agent),
            Kind::Digest,
            &["not what was sent", "SHA-256 here"],
        );
        assert!(!marker.exists());
        eventually("the directory is gone", || {
            uploads(&sshd.cache()).is_empty()
        });
        remote.close().unwrap();
    }
    // The marker does tell: undamaged, the same agent is run.
    let sshd = Sshd::start();
    let remote = connect(&sshd);
    remote.start_agent(&agent).unwrap();
    assert!(marker.exists());
}

#[test]
fn a_host_of_another_kind_is_told_to_install_the_package() {
    let sshd = Sshd::start();
    sshd.install("uname", b"#!/bin/sh\necho Linux riscv64\n");
    let remote = connect(&sshd);
    refused(
        remote.start_agent(&spec()),
        Kind::NotFound,
        &[
            "Linux riscv64",
            std::env::consts::ARCH,
            "install this version of the package echo_agent",
        ],
    );
    assert!(uploads(&sshd.cache()).is_empty());
}

#[test]
fn a_program_that_cannot_start_there_is_explained() {
    let local = tempfile::tempdir().unwrap();
    let mut agent = spec();
    // As on a host without our C library: an interpreter that is not there.
    agent.local_binary = local.path().join("agent");
    fs::write(&agent.local_binary, "#!/nonexistent/ld.so\n").unwrap();
    let sshd = Sshd::start();
    let remote = connect(&sshd);
    refused(
        remote.start_agent(&agent),
        Kind::Remote,
        &["does not start there", "statically linked"],
    );
    assert!(uploads(&sshd.cache()).is_empty());

    let agent = script_agent(
        local.path(),
        "echo_agent 7 protocol 1",
        &local.path().join("m"),
    );
    refused(
        remote.start_agent(&agent),
        Kind::Protocol,
        &["echo_agent 7 protocol 1", ECHO_ID],
    );
    assert!(uploads(&sshd.cache()).is_empty());
    // The connection is still good.
    echo(remote.start_agent(&spec()).unwrap(), b"hello");
}

#[test]
fn a_cache_that_cannot_hold_programs_is_replaced_by_the_temporary_directory() {
    let tmp = tempfile::tempdir().unwrap();
    let env = [("TMPDIR", tmp.path().to_str().unwrap())];
    let blocked = [env[0], ("XDG_CACHE_HOME", "/dev/null/cache")];
    let noexec = Sshd::start_with(&env, "");
    // Stands for a noexec mount, which takes privileges to make: in the cache nothing becomes executable.
    let chmod = b"#!/bin/sh\ncase $2 in */cache/*/probe) ;; *) exec /bin/chmod \"$@\" ;; esac\n";
    noexec.install("chmod", chmod);
    for sshd in [Sshd::start_with(&blocked, ""), noexec] {
        let remote = connect(&sshd);
        let pipe = remote.start_agent(&spec()).unwrap();
        let dir = pipe.handle.uploaded().unwrap().parent().unwrap().to_owned();
        assert_eq!(dir.parent(), Some(tmp.path()));
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o700);
        echo(pipe, b"hello");
        remote.close().unwrap();
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }
}

#[test]
fn leftovers_of_crashed_hosts_are_cleared_and_those_in_use_are_not() {
    let sshd = Sshd::start();
    let own = sshd.cache().join("rblocksync");
    fs::create_dir(&own).unwrap();
    let node = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    // No process has an id this high: it is above the kernel's limit.
    let dead = format!("4194305 {node}");
    let alive = format!("{} {node}", std::process::id());
    for (name, keeper, old) in [
        ("agent.dead", Some(dead.as_str()), true),
        ("agent.bare", None, true),
        ("agent.alive", Some(alive.as_str()), true),
        ("agent.elsewhere", Some("4194305 another-host\n"), true),
        ("agent.young", Some(dead.as_str()), false),
        ("other", None, true),
    ] {
        let dir = own.join(name);
        fs::create_dir(&dir).unwrap();
        if let Some(keeper) = keeper {
            fs::write(dir.join("keeper"), keeper).unwrap();
        }
        if old {
            let two_days = Duration::from_secs(2 * 86400);
            let time = std::time::SystemTime::now() - two_days;
            File::open(&dir).unwrap().set_modified(time).unwrap();
        }
    }
    let remote = connect(&sshd);
    remote.start_agent(&spec()).unwrap();
    remote.close().unwrap();
    let mut left: Vec<_> = fs::read_dir(&own)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(
        left,
        ["agent.alive", "agent.elsewhere", "agent.young", "other"]
    );
}

#[test]
fn two_agents_share_one_upload_and_echo_megabytes() {
    let sshd = Sshd::start();
    let remote = connect(&sshd);
    let data = noise(8 << 20);
    thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| echo(remote.start_agent(&spec()).unwrap(), &data));
        }
    });
    assert_eq!(uploads(&sshd.cache()).len(), 1);
    remote.close().unwrap();
    assert!(uploads(&sshd.cache()).is_empty());
}

#[test]
fn the_end_of_an_agent_is_explained() {
    let sshd = Sshd::start();
    install_agent(&sshd);
    let remote = connect(&sshd);
    let AgentPipe {
        stdin,
        stdout,
        handle,
    } = remote.start_agent(&spec()).unwrap();
    assert_eq!(
        handle.finish(Duration::from_millis(200)).how,
        Ended::Running
    );
    drop((stdin, stdout));

    let mut agent = spec();
    agent.args = ["agent", "--fail", "no\x1b[2Jroom\nat all"]
        .map(OsString::from)
        .into();
    let end = remote.start_agent(&agent).unwrap().handle.finish(LONG);
    refused(
        end.into_result(),
        Kind::Remote,
        &[
            "echo_agent agent on fixture",
            "exit code 3",
            "last words: no[2Jroom; at all",
        ],
    );

    // Killed there, while the connection stands.
    let pipe = remote.start_agent(&spec()).unwrap();
    let program = sshd.bin().join("echo_agent");
    eventually("the agent runs", || {
        running_from(&PathBuf::from("echo_agent agent")) == 1
    });
    let killed = remote
        .run("pkill", &["-KILL", "-f", "^echo_agent agent"], None)
        .unwrap();
    assert!(killed.status.success(), "{killed:?} {}", program.display());
    assert_eq!(pipe.handle.finish(LONG).how, Ended::Killed);
    remote.close().unwrap();
}

#[test]
fn arguments_arrive_as_they_are() {
    let sshd = Sshd::start();
    install_agent(&sshd);
    let remote = connect(&sshd);
    let hostile: &[&[u8]] = &[
        b"show",
        b"",
        b" ",
        b"a b",
        b"'",
        b"\"",
        b"it's \"so\"",
        b";id",
        b"$(id)",
        b"`id`",
        b"$HOME",
        b"${HOME}",
        b"a\nb",
        b"\n",
        b"-rf",
        b"--",
        b"*",
        b"~",
        b"~root",
        b"!!",
        b"\\",
        b"\\n",
        b"a\\",
        b"&",
        b"|",
        b"<",
        b">",
        b"#",
        b"{a,b}",
        b"[a]",
        b"%s",
        b"=",
        b"A=b",
        b"\t",
        b"\r",
        b"\x01\x7f",
        b"\xff\xfe",
        "\u{e4}\u{1f600}".as_bytes(),
    ];
    let args: Vec<&OsStr> = hostile.iter().map(|arg| OsStr::from_bytes(arg)).collect();
    let out = remote.run("echo_agent", &args, None).unwrap();
    assert!(out.status.success(), "{out:?}");
    let mut want = hostile[1..].join(&b'\0');
    want.push(0);
    assert_eq!(
        out.stdout.escape_ascii().to_string(),
        want.escape_ascii().to_string()
    );
    refused(
        remote.run("echo_agent", &["a\0b"], None),
        Kind::Usage,
        &["NUL"],
    );
    refused(remote.run("A=b", &["id"], None), Kind::Usage, &["A=b"]);
}

#[test]
fn commands_are_bounded_and_their_status_is_a_result() {
    let sshd = Sshd::start();
    let remote = connect(&sshd);
    let out = remote
        .run("sh", &["-c", "echo out; echo err >&2; exit 3"], None)
        .unwrap();
    assert_eq!(
        (out.status.code(), &*out.stdout, out.stderr_line()),
        (Some(3), &b"out\n"[..], "err".into())
    );
    let missing = remote.run("no-such-program", &NO_ARGS, None).unwrap();
    assert_eq!(missing.status.code(), Some(127));

    let data = noise(3 << 20);
    let out = remote.run("cat", &NO_ARGS, Some(&data)).unwrap();
    assert!(out.stdout == data);
    // A command that does not read what it is given.
    let out = remote.run("true", &NO_ARGS, Some(&data)).unwrap();
    assert!(out.status.success() && out.stdout.is_empty());

    let limits = RunLimits {
        time: Duration::from_millis(500),
        stdout: 1000,
    };
    let begin = Instant::now();
    refused(
        remote.run_with("sleep", &["60"], None, limits),
        Kind::Timeout,
        &["sleep on fixture"],
    );
    refused(
        remote.run_with("cat", &["/dev/zero"], None, limits),
        Kind::Remote,
        &["more than 1000 bytes"],
    );
    assert!(begin.elapsed() < Duration::from_secs(20));
    // `sleep` is still there; closing does not wait for it.
    remote.close().unwrap();
    assert!(begin.elapsed() < LONG);
}

#[test]
fn a_stop_ends_the_waiting_but_not_the_cleaning_up() {
    let sshd = Sshd::start();
    let stop = Stop::new();
    let options = SshOptions {
        stop: stop.clone(),
        ..options(&sshd)
    };
    let remote = Remote::connect(&host(), &options).unwrap();
    let pipe = remote.start_agent(&spec()).unwrap();
    let begin = Instant::now();
    thread::scope(|s| {
        let waiting = s.spawn(|| remote.run("sleep", &["60"], None));
        sshd.wait_for_log("id 1");
        stop.stop();
        refused(waiting.join().unwrap(), Kind::Cancelled, &[]);
    });
    drop(pipe);
    remote.close().unwrap();
    assert!(uploads(&sshd.cache()).is_empty());
    assert!(begin.elapsed() < LONG);
    refused(Remote::connect(&host(), &options), Kind::Cancelled, &[]);
}

#[test]
fn an_unknown_host_key_is_refused_or_taken_on_request() {
    let sshd = Sshd::start();
    fs::write(sshd.known_hosts(), "").unwrap();
    refused(
        Remote::connect(&host(), &options(&sshd)),
        Kind::Refused,
        &["is not known here", "ssh fixture", "--accept-new-host-key"],
    );
    let accept = SshOptions {
        accept_new_host_key: true,
        ..options(&sshd)
    };
    Remote::connect(&host(), &accept).unwrap().close().unwrap();
    // Now it is known.
    connect(&sshd).close().unwrap();
}

#[test]
fn a_changed_host_key_is_refused_always() {
    let mut sshd = Sshd::start();
    connect(&sshd).close().unwrap();
    sshd.change_host_key();
    for accept_new_host_key in [false, true] {
        let options = SshOptions {
            accept_new_host_key,
            ..options(&sshd)
        };
        refused(
            Remote::connect(&host(), &options),
            Kind::Refused,
            &[
                "is not the one known for it",
                "SHA256:",
                "ssh-keygen -lf",
                "ssh-keygen -R",
            ],
        );
    }
}

#[test]
fn a_key_that_does_not_open_is_a_matter_of_permission() {
    let sshd = Sshd::start();
    let keys = sshd.client_config().with_file_name("authorized_keys");
    fs::write(keys, "").unwrap();
    refused(
        Remote::connect(&host(), &options(&sshd)),
        Kind::Permission,
        &["does not let us log in", "publickey", "ssh-copy-id"],
    );
}

#[test]
fn unreachable_hosts_are_told_apart() {
    let mut sshd = Sshd::start();
    let port = sshd.port();
    sshd.stop();
    refused(
        Remote::connect(&host(), &options(&sshd)),
        Kind::Remote,
        &["refuses the connection", "Connection refused"],
    );
    let none = SshOptions {
        config_file: Some("/dev/null".into()),
        connect_timeout: Duration::from_secs(1),
        ..SshOptions::default()
    };
    let nowhere = HostSpec::parse("no-such-host.invalid").unwrap();
    refused(
        Remote::connect(&nowhere, &none),
        Kind::Remote,
        &["cannot be resolved", "no-such-host.invalid"],
    );

    // Something listens there, but never says a word.
    let _mute = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let begin = Instant::now();
    let there = HostSpec::new(None, "127.0.0.1", Some(port)).unwrap();
    refused(
        Remote::connect(&there, &none),
        Kind::Remote,
        &["cannot be reached", "timed out"],
    );
    assert!(begin.elapsed() < LONG);

    let bad = sshd.client_config();
    fs::write(&bad, "NoSuchOption yes\n").unwrap();
    refused(
        Remote::connect(&host(), &options(&sshd)),
        Kind::Usage,
        &["nosuchoption"],
    );
}

#[test]
fn a_cut_connection_is_explained_and_leaves_nothing() {
    let sshd = Sshd::start();
    let remote = connect(&sshd);
    let AgentPipe {
        stdin,
        stdout,
        handle,
    } = remote.start_agent(&spec()).unwrap();
    let dir = handle.uploaded().unwrap().parent().unwrap().to_owned();
    eventually("the agent runs", || running_from(&dir) == 1);
    let begin = Instant::now();
    sshd.kill_sessions();
    let mut rest = Vec::new();
    File::from(stdout).read_to_end(&mut rest).unwrap();
    assert!(File::from(stdin).write_all(&noise(1 << 20)).is_err());
    let end = handle.finish(LONG);
    assert!(matches!(end.how, Ended::ConnectionLost(_)), "{end}");
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    refused(
        remote.run("true", &NO_ARGS, None),
        Kind::Remote,
        &["the SSH connection was lost"],
    );
    eventually("the agent there has ended", || running_from(&dir) == 0);
    eventually("the directory there is gone", || !dir.exists());
    // Its keeper ended as it should, but there is no connection left over which to learn that.
    refused(
        remote.close(),
        Kind::Remote,
        &["cannot tell whether", "was removed"],
    );
}

#[test]
fn a_waiting_master_does_not_count_as_idle() {
    let sshd = Sshd::start();
    let remote = connect(&sshd);
    // Three times `idle_exit`.
    thread::sleep(Duration::from_secs(3));
    assert!(remote.run("true", &NO_ARGS, None).unwrap().status.success());
    remote.close().unwrap();
}

#[test]
fn too_many_agents_are_explained() {
    let sshd = Sshd::start_with(&[], "MaxSessions 2");
    install_agent(&sshd);
    let remote = connect(&sshd);
    let _running = [(); 2].map(|()| remote.start_agent(&spec()).unwrap());
    refused(remote.start_agent(&spec()), Kind::Remote, &["MaxSessions"]);
}

#[test]
fn a_talkative_login_shell_is_found_out() {
    let sshd = Sshd::start_with(
        &[],
        "ForceCommand echo Welcome; eval \"$SSH_ORIGINAL_COMMAND\"",
    );
    let remote = connect(&sshd);
    refused(
        remote.start_agent(&spec()),
        Kind::Protocol,
        &["Welcome", "start-up files"],
    );
    install_agent(&sshd);
    refused(
        remote.start_agent(&spec()),
        Kind::Protocol,
        &["Welcome", "start-up files"],
    );
    eventually("no directory is left", || uploads(&sshd.cache()).is_empty());
}

#[test]
fn a_jump_host_of_the_users_configuration_is_used() {
    let (outer, inner) = (Sshd::start(), Sshd::start());
    let config = fs::read_to_string(inner.client_config()).unwrap();
    let both = format!(
        "Host outer\n Port {}\n IdentityFile {}\n UserKnownHostsFile {}\nHost fixture\n ProxyJump outer\n{config}",
        outer.port(),
        outer.client_config().with_file_name("user_key").display(),
        outer.known_hosts().display(),
    );
    // The first value counts, and the known hosts of both are needed.
    let keys = fs::read_to_string(outer.known_hosts()).unwrap()
        + &fs::read_to_string(inner.known_hosts()).unwrap();
    fs::write(outer.known_hosts(), keys).unwrap();
    fs::write(inner.client_config(), both).unwrap();
    let remote = connect(&inner);
    echo(remote.start_agent(&spec()).unwrap(), &noise(1 << 20));
    assert!(outer.log().contains("Accepted publickey"));
    let proxies: Vec<_> = processes()
        .into_values()
        .filter(|p| p.args.contains("-W [127.0.0.1]"))
        .collect();
    let ours = processes()[&std::process::id()].group;
    assert!(!proxies.is_empty() && proxies.iter().all(|p| p.group != ours));
    remote.close().unwrap();
}

const DRIVER: &str = "REMOTE_SSH_TEST_DRIVER_CONFIG";

/// Not a test by itself: the process that the next one kills.
#[test]
#[ignore = "is run by the test below, in a process of its own"]
fn driver() {
    let Some(config) = std::env::var_os(DRIVER) else {
        return;
    };
    let options = SshOptions {
        config_file: Some(config.into()),
        idle_exit: Duration::from_secs(1),
        ..SshOptions::default()
    };
    let remote = Remote::connect(&host(), &options).unwrap();
    let pipe = remote.start_agent(&spec()).unwrap();
    println!(
        "DIR {}",
        pipe.handle.uploaded().unwrap().parent().unwrap().display()
    );
    let mut word = String::new();
    std::io::stdin().read_line(&mut word).unwrap();
    drop(pipe);
    remote.close().unwrap();
}

#[test]
fn a_killed_driver_leaves_nothing_and_a_live_one_keeps_out_of_the_way_of_ctrl_c() {
    let sshd = Sshd::start();
    for kill in [true, false] {
        let runtime_dir = tempfile::tempdir().unwrap();
        fs::set_permissions(runtime_dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mut driver = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "driver", "--nocapture"])
            .env(DRIVER, sshd.client_config())
            .env("XDG_RUNTIME_DIR", runtime_dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut lines =
            std::io::BufRead::lines(std::io::BufReader::new(driver.stdout.take().unwrap()));
        let dir = lines.find_map(|line| {
            line.unwrap()
                .split_once("DIR ")
                .map(|(_, dir)| PathBuf::from(dir))
        });
        let dir = dir.unwrap();
        assert!(dir.exists());

        let master =
            |p: &tests::sshd::Process| p.args.contains(runtime_dir.path().to_str().unwrap());
        let all = processes();
        let masters: Vec<_> = all.values().filter(|p| master(p)).collect();
        assert_eq!(masters.len(), 1);
        let own = &all[&driver.id()];
        assert!(masters[0].group != own.group && masters[0].session != own.session);
        let control: Vec<_> = fs::read_dir(runtime_dir.path())
            .unwrap()
            .map(|e| e.unwrap())
            .collect();
        assert_eq!(control.len(), 1);
        assert_eq!(control[0].metadata().unwrap().mode() & 0o7777, 0o700);

        if kill {
            driver.kill().unwrap();
            driver.wait().unwrap();
        } else {
            driver.stdin.take().unwrap().write_all(b"go\n").unwrap();
            assert!(driver.wait().unwrap().success());
            assert_eq!(fs::read_dir(runtime_dir.path()).unwrap().count(), 0);
            assert!(!dir.exists());
        }
        eventually("the master is gone", || !processes().values().any(master));
        eventually("the agent is gone", || running_from(&dir) == 0);
        eventually("the upload is gone", || !dir.exists());
    }
}
