//! Servers that answer what makes no sense, too much, or nothing.

use super::conformance::{node, vmid};
use super::server::{raw, Misdeed, Server};
use super::world::TOKEN;
use pvesync::api::{Pve, Trust};
use rblocksync::error::Kind;
use rblocksync::stop::Stop;
use std::time::Duration;

#[test]
fn an_answer_that_makes_no_sense_is_told() {
    let server = Server::start();
    let deep = format!("{{\"data\":{}", "[".repeat(100_000));
    for body in [
        "",
        "<html>",
        "{}",
        "[]",
        "{\"data\":null}",
        "{\"data\":[]}",
        "{\"data\":{\"version\":{}}}",
        "{\"data\":{\"version\":\"9\"}",
        &deep,
    ] {
        server.misbehave([Misdeed::Says(raw(200, "OK", "", body))]);
        let e = server.client().version().unwrap_err();
        assert_eq!(e.kind(), Kind::Protocol, "{e}");
        assert!(e.to_string().len() < 1000);
    }
    let task = |text: &str| {
        let body = format!("{{\"data\":\"{text}\"}}");
        server.misbehave([Misdeed::Says(raw(200, "OK", "", &body))]);
        server
            .client()
            .start(&node(), vmid(101))
            .unwrap_err()
            .kind()
    };
    assert_eq!(task("UPID:../../x:0:0:0:a:b:c:"), Kind::Protocol);
    assert_eq!(task("OK"), Kind::Protocol);
    // A node that would be an option of ssh.
    let guests = r#"{"data":[{"type":"qemu","vmid":101,"node":"-oProxyCommand=x"}]}"#;
    server.misbehave([Misdeed::Says(raw(200, "OK", "", guests))]);
    assert_eq!(server.client().guests().unwrap_err().kind(), Kind::Protocol);
}

#[test]
fn an_answer_without_end_is_cut_off() {
    let server = Server::start();
    let body = format!("{{\"data\":\"{}\"}}", "x".repeat(2 << 20));
    server.misbehave([Misdeed::Says(raw(200, "OK", "", &body))]);
    let e = server.client().version().unwrap_err();
    assert_eq!(e.kind(), Kind::Protocol);
    assert!(e.to_string().contains("longer than"), "{e}");
}

#[test]
fn a_redirect_is_not_followed() {
    let (server, other) = (Server::start(), Server::start());
    let location = format!("Location: {}/api2/json/version\r\n", other.address());
    server.misbehave([Misdeed::Says(raw(301, "Moved", &location, ""))]);
    let e = server.client().version().unwrap_err();
    assert_eq!(e.kind(), Kind::Protocol);
    assert!(e.to_string().contains("redirect"), "{e}");
    assert_eq!((server.requests(), other.requests()), (1, 0));
}

#[test]
fn a_server_that_hangs_is_given_up() {
    let server = Server::start();
    let trust = Trust::Fingerprint(server.fingerprint);
    let client = |time, stop: &Stop| server.client_within(TOKEN, &trust, time, stop);
    server.misbehave([Misdeed::Hangs]);
    let e = client(Duration::from_millis(300), &Stop::new())
        .version()
        .unwrap_err();
    assert_eq!(e.kind(), Kind::Timeout, "{e}");
    // What changes something may have been done: that is said.
    server.misbehave([Misdeed::Hangs]);
    let e = client(Duration::from_millis(300), &Stop::new())
        .start(&node(), vmid(101))
        .unwrap_err();
    assert!(e.to_string().contains("may have been done"), "{e}");
    // Long before its time, if the user wants no more.
    let stop = Stop::new();
    stop.stop();
    server.misbehave([Misdeed::Hangs]);
    let e = client(Duration::from_secs(600), &stop)
        .version()
        .unwrap_err();
    assert_eq!(e.kind(), Kind::Cancelled, "{e}");
}
