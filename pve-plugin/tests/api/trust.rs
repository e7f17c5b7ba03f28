//! Whether the server is the right one.

use super::server::Server;
use super::world::TOKEN;
use pvesync::api::{Fingerprint, Pve, Trust};
use rblocksync::error::Kind;
use std::path::PathBuf;

fn ca_file(server: &Server) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, &server.ca_pem).unwrap();
    (dir, file)
}

#[test]
fn another_fingerprint_is_refused_before_the_token_is_sent() {
    let server = Server::start();
    let other = Trust::Fingerprint(Fingerprint::of(b"another"));
    let e = server.client_with(TOKEN, &other).version().unwrap_err();
    assert_eq!(e.kind(), Kind::Refused, "{e}");
    assert!(
        e.to_string().contains(&server.fingerprint.to_string()),
        "{e}"
    );
    assert_eq!(server.requests(), 0);
}

#[test]
fn a_fingerprint_needs_no_name() {
    let server = Server::start_as("pve1.example");
    server.client().version().unwrap();
}

#[test]
fn the_ca_vouches_for_a_name() {
    let server = Server::start();
    let (_dir, file) = ca_file(&server);
    server
        .client_with(TOKEN, &Trust::Ca(file))
        .version()
        .unwrap();
}

#[test]
fn another_name_is_refused_with_the_ca() {
    let server = Server::start_as("pve1.example");
    let (_dir, file) = ca_file(&server);
    let e = server
        .client_with(TOKEN, &Trust::Ca(file))
        .version()
        .unwrap_err();
    assert_eq!(e.kind(), Kind::Refused, "{e}");
    assert!(
        e.advice()
            .unwrap()
            .contains("name that is in its certificate"),
        "{e}"
    );
    assert_eq!(server.requests(), 0);
}

#[test]
fn another_ca_is_refused() {
    let (server, other) = (Server::start(), Server::start());
    let (_dir, file) = ca_file(&other);
    let e = server
        .client_with(TOKEN, &Trust::Ca(file))
        .version()
        .unwrap_err();
    assert_eq!(e.kind(), Kind::Refused, "{e}");
    assert_eq!(server.requests(), 0);
}
