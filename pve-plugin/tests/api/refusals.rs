//! What Proxmox VE refuses, over both transports.

use super::conformance::{node, vmid};
use super::server::{raw, Misdeed, Server};
use super::shell::Shell;
use super::world::{DIGEST, SECRET, TOKEN};
use pvesync::api::{wait, Change, Pve, Trust, Upid};
use rblocksync::error::Kind;
use rblocksync::stop::Stop;
use std::time::{Duration, Instant};

#[test]
fn a_privilege_that_is_missing_is_named_with_its_path() {
    let server = Server::start();
    for privilege in ["VM.Audit", "Sys.Audit", "VM.PowerMgmt"] {
        server.world.revoke(privilege);
    }
    let pve = server.client();
    for (e, lacking) in [
        (
            pve.vm_config(&node(), vmid(101)).unwrap_err(),
            "VM.Audit on /vms/101",
        ),
        (pve.cluster_status().unwrap_err(), "Sys.Audit on /:"),
        (
            pve.start(&node(), vmid(101)).unwrap_err(),
            "VM.PowerMgmt on /vms/101",
        ),
    ] {
        assert_eq!(e.kind(), Kind::Permission);
        assert!(e.advice().unwrap().contains(lacking), "{e}");
    }
}

#[test]
fn a_token_that_is_none_or_has_expired_is_told() {
    let server = Server::start();
    let trust = Trust::Fingerprint(server.fingerprint);
    let other = TOKEN.replace('1', "9");
    let e = server.client_with(&other, &trust).version().unwrap_err();
    assert_eq!(e.kind(), Kind::Permission);
    assert!(e.advice().unwrap().contains("expired"), "{e}");
    for said in ["No ticket", "Authentication failed!", ""] {
        let answer = raw(401, said, "", r#"{"data":null}"#);
        server.misbehave([Misdeed::Says(answer)]);
        let e = server.client().version().unwrap_err();
        assert_eq!(e.kind(), Kind::Permission, "{e}");
    }
}

#[test]
fn the_secret_is_in_no_error_and_in_no_debug_output() {
    let server = Server::start();
    server.world.revoke("VM.Audit");
    let client = server.client();
    let e = client.vm_config(&node(), vmid(101)).unwrap_err();
    for text in [format!("{client:?}"), e.to_string(), format!("{e:?}")] {
        assert!(!text.contains(SECRET), "{text}");
    }
    // The header itself did carry it, or the call would have been refused for another reason.
    assert_eq!(server.world.violations(), [""; 0]);
}

#[test]
fn a_vm_that_does_not_exist_is_not_found() {
    let (server, shell) = (Server::start(), Shell::start());
    let (rest, pvesh) = (server.client(), shell.client());
    for pve in [&rest as &dyn Pve, &pvesh] {
        let e = pve.vm_status(&node(), vmid(999)).unwrap_err();
        assert_eq!(e.kind(), Kind::NotFound, "{e}");
        assert!(e.to_string().contains("/nodes/pve1/qemu/999"), "{e}");
    }
}

#[test]
fn a_bad_parameter_is_named() {
    let (server, shell) = (Server::start(), Shell::start());
    let (rest, pvesh) = (server.client(), shell.client());
    for pve in [&rest as &dyn Pve, &pvesh] {
        let change = Change::of(DIGEST).unwrap().set("nosuchkey", "1").unwrap();
        let e = pve.set_config(&node(), vmid(101), &change).unwrap_err();
        assert_eq!(e.kind(), Kind::Usage, "{e}");
        let want = "nosuchkey: property is not defined in schema";
        assert!(e.message().contains(want), "{e}");
    }
    assert_eq!(server.world.violations().len(), 1);
}

#[test]
fn a_status_line_alone_tells_the_reason() {
    let server = Server::start();
    let answer = raw(
        500,
        "cluster not ready - no quorum?",
        "",
        r#"{"data":null}"#,
    );
    server.misbehave([Misdeed::Says(answer)]);
    let e = server.client().start(&node(), vmid(101)).unwrap_err();
    assert_eq!(e.kind(), Kind::Refused);
    assert!(e.to_string().contains("no quorum"), "{e}");
}

#[test]
fn only_a_question_is_asked_again() {
    let server = Server::start();
    let unreachable = || Misdeed::Says(raw(595, "No route to host", "", ""));
    server.misbehave([unreachable(), Misdeed::HangsUp]);
    server.client().version().unwrap();
    assert_eq!(server.requests(), 3);
    server.misbehave([unreachable(), unreachable(), unreachable(), unreachable()]);
    let e = server.client().version().unwrap_err();
    assert_eq!(e.kind(), Kind::Remote);
    assert_eq!(server.requests(), 6);
    // The fourth is left for this one.
    server.client().stop(&node(), vmid(101)).unwrap_err();
    assert_eq!(server.requests(), 7);
    server.misbehave([Misdeed::HangsUp]);
    let e = server.client().stop(&node(), vmid(101)).unwrap_err();
    assert!(e.to_string().contains("may have been done"), "{e}");
    assert_eq!(server.requests(), 8);
}

#[test]
fn waiting_for_a_task_ends_at_the_deadline_and_when_stopped() {
    let server = Server::start();
    let pve = server.client();
    let upid = pve.start(&node(), vmid(101)).unwrap();
    let e = wait(&pve, &upid, Instant::now(), &Stop::new()).unwrap_err();
    assert_eq!(e.kind(), Kind::Timeout);
    let stop = Stop::new();
    stop.stop();
    let deadline = Instant::now() + Duration::from_secs(60);
    let e = wait(&pve, &upid, deadline, &stop).unwrap_err();
    assert_eq!(e.kind(), Kind::Cancelled);
    let unknown: Upid = upid
        .to_string()
        .replace("qmstart", "qmother")
        .parse()
        .unwrap();
    let e = wait(&pve, &unknown, deadline, &Stop::new()).unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound, "{e}");
}
