//! The byte streams of agents, and how their end is explained.

use super::*;

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

/// Of an agent that has ended, output may still be on its way to a reader slower than it.
#[test]
fn a_slow_reader_gets_all_of_the_output() {
    let sshd = Sshd::start();
    let remote = connect(&sshd);
    let AgentPipe {
        stdin,
        stdout,
        handle,
    } = remote.start_agent(&spec()).unwrap();
    let dir = handle.uploaded().unwrap().parent().unwrap().to_owned();
    eventually("the agent runs", || running_from(&dir) == 1);
    // More than the pipe to us holds, less than the window of an SSH channel.
    let data = noise(1 << 20);
    File::from(stdin).write_all(&data).unwrap();
    eventually("the agent has ended", || running_from(&dir) == 0);
    assert_eq!(handle.finish(Duration::from_secs(1)).how, Ended::Running);
    let mut back = Vec::new();
    File::from(stdout).read_to_end(&mut back).unwrap();
    assert!(back == data, "{} bytes came back", back.len());
    remote.close().unwrap();
}

#[test]
fn the_end_of_an_agent_is_explained() {
    let sshd = Sshd::start();
    let remote = connect(&sshd);
    let AgentPipe {
        stdin,
        stdout,
        handle,
    } = remote.start_agent(&spec()).unwrap();
    let program = handle.uploaded().unwrap().to_owned();
    eventually("it runs", || running_from(&program) == 1);
    assert_eq!(
        handle.finish(Duration::from_millis(200)).how,
        Ended::Running
    );
    drop((stdin, stdout));
    eventually("it has ended", || running_from(&program) == 0);

    let mut failing = spec();
    failing.args = ["agent", "--fail", "no\x1b[2Jroom\nat all"]
        .map(OsString::from)
        .into();
    let end = remote.start_agent(&failing).unwrap().handle.finish(LONG);
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
    let program = program.to_str().unwrap();
    let agent = || {
        processes()
            .into_iter()
            .find(|(_, p)| p.args.starts_with(program))
    };
    eventually("the agent runs", || agent().is_some());
    let (pid, _) = agent().unwrap();
    let killed = remote.run(
        "sh",
        &["-c", "kill -9 \"$1\"", "sh", &pid.to_string()],
        None,
    );
    assert!(killed.unwrap().status.success());
    assert_eq!(pipe.handle.finish(LONG).how, Ended::Killed);
    remote.close().unwrap();
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
fn too_many_agents_are_explained() {
    let sshd = Sshd::start_with(&[], "MaxSessions 2");
    install_agent(&sshd);
    let remote = connect(&sshd);
    let _running = [(); 2].map(|()| remote.start_agent(&spec()).unwrap());
    refused(remote.start_agent(&spec()), Kind::Remote, &["MaxSessions"]);
}
