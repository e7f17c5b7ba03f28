//! `pvesync --api` as a program: its exit codes, and that nothing it prints holds the secret.

use super::server::Server;
use super::world::{SECRET, TOKEN};
use std::process::{Command, Output};

fn pvesync(words: &str, token: Option<&str>) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pvesync"));
    command
        .args(words.split(' '))
        .env_remove("PVESYNC_API_TOKEN");
    if let Some(token) = token {
        command.env("PVESYNC_API_TOKEN", token);
    }
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let said = [stdout, stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(!said.contains(SECRET), "{said}");
    (status.code().unwrap(), said)
}

#[test]
fn what_is_wrong_with_the_options_is_told() {
    let server = Server::start();
    let api = format!("--api {}", server.address());
    let fingerprint = format!("{api} --fingerprint {}", server.fingerprint);
    let vm = "vm 101 --to host2";
    for (words, token, code, want) in [
        (format!("--api http://pve1 {vm}"), None, 2, "https://"),
        (format!("{api} {vm}"), Some(TOKEN), 2, "--fingerprint"),
        (
            format!("{api} --fingerprint AA:BB {vm}"),
            Some(TOKEN),
            2,
            "not a fingerprint",
        ),
        (
            format!("{fingerprint} --ca x {vm}"),
            Some(TOKEN),
            2,
            "cannot be used with",
        ),
        (format!("--ca x {vm}"), Some(TOKEN), 2, "--api"),
        (format!("{fingerprint} {vm}"), None, 2, "no API token"),
        (
            format!("{fingerprint} {vm}"),
            Some(SECRET),
            2,
            "holds no API token",
        ),
        (
            format!("{fingerprint} status"),
            Some(TOKEN),
            2,
            "only the verb vm",
        ),
        (
            format!("{fingerprint} vm 102 --to h"),
            Some(TOKEN),
            3,
            "is a container",
        ),
        (
            format!("{fingerprint} vm 999 --to h"),
            Some(TOKEN),
            1,
            "no VM 999",
        ),
    ] {
        let (got, said) = pvesync(&words, token);
        assert_eq!(got, code, "{words}: {said}");
        assert!(said.contains(want), "{words}: {said}");
    }
    assert_eq!(server.requests(), 2);
}
