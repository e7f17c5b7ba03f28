use super::*;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(100);
const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#;

/// A monitor whose part `script` plays on the first connection.
fn fake(
    dir: &tempfile::TempDir,
    script: impl FnOnce(&mut BufReader<UnixStream>) + Send + 'static,
) -> (std::path::PathBuf, JoinHandle<()>) {
    let path = dir.path().join("qmp");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        script(&mut BufReader::new(stream));
    });
    (path, thread)
}

fn say(peer: &mut BufReader<UnixStream>, line: &str) {
    peer.get_mut().write_all(line.as_bytes()).unwrap();
    peer.get_mut().write_all(b"\r\n").unwrap();
}

/// Reads one request and returns its command and id.
fn hear(peer: &mut BufReader<UnixStream>) -> (String, u64) {
    let mut line = String::new();
    peer.read_line(&mut line).unwrap();
    let request: Value = serde_json::from_str(&line).unwrap();
    let command = request["execute"].as_str().unwrap().to_owned();
    (command, request["id"].as_u64().unwrap())
}

fn greet(peer: &mut BufReader<UnixStream>) {
    say(peer, GREETING);
    let (command, id) = hear(peer);
    assert_eq!(command, "qmp_capabilities");
    say(peer, &format!(r#"{{"return": {{}}, "id": {id}}}"#));
}

#[test]
fn replies_are_told_from_events_and_late_replies() {
    let dir = tempfile::tempdir().unwrap();
    let (path, peer) = fake(&dir, |peer| {
        greet(peer);
        let (_, late) = hear(peer);
        let (command, id) = hear(peer);
        assert_eq!(command, "query-status");
        say(peer, r#"{"event": "STOP", "timestamp": {}}"#);
        say(peer, &format!(r#"{{"return": "late", "id": {late}}}"#));
        say(peer, r#"{"event": "RESUME", "timestamp": {}}"#);
        say(
            peer,
            &format!(r#"{{"return": {{"running": true, "status": "running"}}, "id": {id}}}"#),
        );
        let (_, id) = hear(peer);
        say(
            peer,
            &format!(r#"{{"error": {{"class": "GenericError", "desc": "no way"}}, "id": {id}}}"#),
        );
    });
    let mut qmp = Qmp::connect(&path, LONG).unwrap();
    let timeout = qmp.stop(SHORT).unwrap_err();
    assert_eq!(timeout.kind(), Kind::Timeout);
    let state = qmp.status(LONG).unwrap();
    assert_eq!((state.running, state.status.as_str()), (true, "running"));
    assert_eq!(qmp.take_events(), ["STOP", "RESUME"]);
    assert!(qmp.take_events().is_empty());
    let error = qmp.cont(LONG).unwrap_err();
    assert_eq!(error.kind(), Kind::Tool);
    assert!(
        error.to_string().contains("refused cont: no way"),
        "{error}"
    );
    let gone = qmp.status(LONG).unwrap_err();
    assert!(gone.to_string().contains("lost the connection"), "{gone}");
    peer.join().unwrap();
}

#[test]
fn a_socket_that_is_no_monitor() {
    for line in ["hello", "{}", r#"{"QMP2": 1}"#] {
        let dir = tempfile::tempdir().unwrap();
        let (path, _peer) = fake(&dir, move |peer| say(peer, line));
        let error = Qmp::connect(&path, LONG).err().unwrap();
        assert_eq!(error.kind(), Kind::Protocol, "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let (path, _peer) = fake(&dir, |peer| {
        // Until the client has had enough and hangs up.
        while peer.get_mut().write_all(&[b'x'; 65536]).is_ok() {}
    });
    let error = Qmp::connect(&path, LONG).err().unwrap();
    assert!(error.to_string().contains("endless line"), "{error}");
}

#[test]
fn a_busy_monitor_is_busy_and_a_missing_one_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp");
    let listener = UnixListener::bind(&path).unwrap();
    let error = Qmp::connect(&path, SHORT).err().unwrap();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    // Fill the queue, so that even connecting would block.
    let mut queue = Vec::new();
    while queue.len() < 10_000 {
        match LineSocket::connect(&path, Instant::now()) {
            Ok(socket) => queue.push(socket),
            Err(e) => {
                assert_eq!(e.kind(), Kind::Busy);
                break;
            }
        }
    }
    assert_eq!(Qmp::connect(&path, SHORT).err().unwrap().kind(), Kind::Busy);
    drop(listener);
    assert!(Qmp::connect(&path, SHORT).is_err());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        Qmp::connect(&path, SHORT).err().unwrap().kind(),
        Kind::NotFound
    );
}

/// A real QEMU without a guest; ended when dropped.
struct Vm(Child);

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_qemu() {
    let program = Path::new("/usr/bin/qemu-system-x86_64");
    if !program.exists() {
        println!("skipped: {} is not installed", program.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp");
    let child = Command::new(program)
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg",
            "-m",
            "16",
            "-S",
            "-nodefaults",
        ])
        .args(["-display", "none", "-qmp"])
        .arg(format!("unix:{},server=on,wait=off", path.display()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let vm = Vm(child);
    let deadline = Instant::now() + LONG;
    let mut qmp = loop {
        match Qmp::connect(&path, LONG) {
            // It is still starting.
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            done => break done.unwrap(),
        }
    };
    assert_eq!(qmp.status(LONG).unwrap().status, "prelaunch");
    assert_eq!(Qmp::connect(&path, SHORT).err().unwrap().kind(), Kind::Busy);
    qmp.stop(LONG).unwrap();
    qmp.cont(LONG).unwrap();
    assert!(qmp.status(LONG).unwrap().running);
    qmp.stop(LONG).unwrap();
    assert_eq!(qmp.status(LONG).unwrap().status, "paused");
    assert_eq!(qmp.take_events(), ["RESUME", "STOP"]);
    let error = qmp
        .execute("no-such-command", json!({"a": 1}), LONG)
        .unwrap_err();
    assert!(error.to_string().contains("no-such-command"), "{error}");
    let names = qmp.execute("query-named-block-nodes", json!({"flat": true}), LONG);
    assert_eq!(names.unwrap(), json!([]));
    drop(qmp);
    assert!(
        !Qmp::connect(&path, LONG)
            .unwrap()
            .status(LONG)
            .unwrap()
            .running
    );
    drop(vm);
    assert!(Qmp::connect(&path, SHORT).is_err());
}
