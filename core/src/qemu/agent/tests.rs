use super::*;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(100);

/// An agent whose part `script` plays: it gets the bytes of each request line and writes to the stream.
fn fake(
    dir: &tempfile::TempDir,
    script: impl FnOnce(&mut BufReader<UnixStream>) + Send + 'static,
) -> (PathBuf, std::thread::JoinHandle<()>) {
    let path = dir.path().join("qga");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        script(&mut BufReader::new(stream));
    });
    (path, thread)
}

fn hear(peer: &mut BufReader<UnixStream>) -> (Vec<u8>, Value) {
    let mut line = Vec::new();
    peer.read_until(b'\n', &mut line).unwrap();
    let start = line.iter().position(|b| *b == b'{').unwrap();
    let request = serde_json::from_slice(&line[start..]).unwrap();
    (line[..start].to_vec(), request)
}

fn say(peer: &mut BufReader<UnixStream>, bytes: &[u8]) {
    peer.get_mut().write_all(bytes).unwrap();
    peer.get_mut().write_all(b"\n").unwrap();
}

fn answer_sync(peer: &mut BufReader<UnixStream>) {
    let (before, request) = hear(peer);
    assert_eq!(before, [SENTINEL]);
    assert_eq!(request["execute"], "guest-sync-delimited");
    let mut reply = vec![SENTINEL];
    reply.extend_from_slice(format!("{{\"return\": {}}}", request["arguments"]["id"]).as_bytes());
    say(peer, &reply);
}

#[test]
fn a_freeze_and_a_thaw() {
    let dir = tempfile::tempdir().unwrap();
    let (path, peer) = fake(&dir, |peer| {
        // Left over by an earlier client, then another client's sync.
        say(peer, br#"{"return": {}}"#);
        say(peer, b"\xff{\"return\": 1}");
        answer_sync(peer);
        for (command, reply) in [
            ("guest-ping", r#"{"return": {}}"#),
            ("guest-fsfreeze-status", r#"{"return": "thawed"}"#),
            ("guest-fsfreeze-freeze", r#"{"return": 2}"#),
            ("guest-fsfreeze-status", r#"{"return": "frozen"}"#),
            ("guest-fsfreeze-thaw", r#"{"return": 2}"#),
            ("guest-fsfreeze-status", r#"{"return": 7}"#),
            (
                "guest-fsfreeze-freeze",
                r#"{"error": {"class": "GenericError", "desc": "failed to open /mnt"}}"#,
            ),
        ] {
            assert_eq!(hear(peer).1["execute"], command);
            say(peer, reply.as_bytes());
        }
    });
    let mut agent = GuestAgent::connect(&path, LONG).unwrap();
    agent.ping().unwrap();
    assert_eq!(agent.freeze_status().unwrap(), FreezeStatus::Thawed);
    assert_eq!(agent.freeze(LONG).unwrap(), 2);
    assert_eq!(agent.freeze_status().unwrap(), FreezeStatus::Frozen);
    agent.thaw(LONG).unwrap();
    assert_eq!(agent.freeze_status().unwrap_err().kind(), Kind::Protocol);
    let error = agent.freeze(LONG).unwrap_err();
    assert!(error.to_string().contains("failed to open /mnt"), "{error}");
    peer.join().unwrap();
}

#[test]
fn after_a_timeout_the_late_answer_is_not_taken_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (path, peer) = fake(&dir, |peer| {
        answer_sync(peer);
        assert_eq!(hear(peer).1["execute"], "guest-fsfreeze-freeze");
        // The freeze ends when the client has given up on it and sent its next request.
        let (_, sync) = hear(peer);
        say(peer, br#"{"return": 1}"#);
        say(peer, format!("\u{0}{{\"return\": {}}}", 0).as_bytes());
        let mut reply = vec![SENTINEL];
        reply.extend_from_slice(format!("{{\"return\": {}}}", sync["arguments"]["id"]).as_bytes());
        say(peer, &reply);
        assert_eq!(hear(peer).1["execute"], "guest-fsfreeze-thaw");
        say(peer, br#"{"return": 1}"#);
    });
    let mut agent = GuestAgent::connect(&path, LONG).unwrap();
    assert_eq!(agent.freeze(SHORT).unwrap_err().kind(), Kind::Timeout);
    agent.thaw(LONG).unwrap();
    peer.join().unwrap();
}

#[test]
fn a_guest_without_an_agent_is_not_waited_for_longer_than_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qga");
    let _listener = UnixListener::bind(&path).unwrap();
    let error = GuestAgent::connect(&path, SHORT).err().unwrap();
    assert_eq!(error.kind(), Kind::Timeout, "{error}");
}
