//! Finding the agent on the other host, or bringing it there and taking it away again.

use super::*;

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
