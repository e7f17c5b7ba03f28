//! Commands on the other host: their arguments, limits and results.

use super::*;

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
