//! `pvesync --api`: the VM's node is found through an API, and the run there goes through a real SSH server.

#![allow(clippy::unwrap_used)]

#[path = "../../../pve-plugin/tests/api/schema.rs"]
#[allow(dead_code)]
mod schema;
#[path = "../../../pve-plugin/tests/api/server.rs"]
#[allow(dead_code)]
mod server;
#[path = "../../../pve-plugin/tests/api/world.rs"]
#[allow(dead_code)]
mod world;

use pvesync::volid::Vmid;
use pvesync::workstation::{self, ApiArgs};
use rblocksync::error::{Kind, Result};
use rblocksync::remote::{agent_id, HostSpec, SshOptions};
use rblocksync::stop::Stop;
use rblocksync::verbs::elsewhere::Output;
use rblocksync::wire::VERSION;
use server::Server;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use tests::sshd::Sshd;

/// Stands in for `pvesync` on the node: tells its arguments one a line, and ends as they say.
const PROGRAM: &str = r#"#!/bin/sh
case "$1 $2" in
"agent --id") echo "ID"; exit 0;;
esac
for word; do printf '<%s>\n' "$word"; done
echo complaint >&2
case "$2" in
wait)
    echo ready
    echo "byte" $(od -An -tu1 -N1)
    exit 130;;
kill) kill -9 $$;;
esac
exit 3
"#;

struct Place {
    server: Server,
    sshd: Sshd,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let sshd = Sshd::start();
        let id = agent_id("pvesync", VERSION.into());
        sshd.install("pvesync", PROGRAM.replace("ID", &id).as_bytes());
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        fs::write(&token, world::TOKEN).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        Place {
            server: Server::start(),
            sshd,
            dir,
        }
    }

    fn api(&self) -> ApiArgs {
        let node = pvesync::api::Node::new("pve1").unwrap();
        ApiArgs {
            api: Some(self.server.address()),
            api_token_file: Some(self.dir.path().join("token")),
            fingerprint: Some(self.server.fingerprint),
            ca: None,
            // Without a user, who may not be root here.
            node_host: vec![(node, HostSpec::parse("node-of-the-test").unwrap())],
        }
    }

    /// Runs words for a VM; the result, what came on standard error, and standard output as it comes.
    fn run<T>(
        &self,
        vmid: u32,
        words: &[&OsStr],
        stop: &Stop,
        watch: impl FnOnce(PipeReader) -> T,
    ) -> (Result<u8>, String, T) {
        let said = self.dir.path().join("stderr");
        let (reader, writer) = std::io::pipe().unwrap();
        let output = Output {
            stdout: File::from(OwnedFd::from(writer)),
            stderr: File::create(&said).unwrap(),
        };
        let words: Vec<OsString> = words.iter().map(|w| (*w).to_owned()).collect();
        let ssh = SshOptions {
            config_file: Some(self.sshd.client_config()),
            stop: stop.clone(),
            ..SshOptions::default()
        };
        let api = self.api();
        let vmid = Vmid::new(vmid).unwrap();
        std::thread::scope(|scope| {
            let run = scope.spawn(move || workstation::run(&api, vmid, &words, &ssh, output, stop));
            let watched = watch(reader);
            let ended = run.join().unwrap();
            (ended, fs::read_to_string(&said).unwrap(), watched)
        })
    }
}

fn all(mut reader: PipeReader) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Waits until the program on the node says that it is at it, does that, and gives what it says then.
fn when_ready(act: impl FnOnce()) -> impl FnOnce(PipeReader) -> String {
    |reader| {
        let mut lines = BufReader::new(reader).lines().map(|l| l.unwrap());
        assert!(lines.any(|l| l == "ready"));
        act();
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn the_words_arrive_as_they_are_and_the_exit_code_comes_back() {
    let place = Place::new();
    let odd = [
        "vm",
        "101",
        "--to",
        "a b",
        "$(id)",
        "'\"`;&|>\\",
        "",
        "*",
        "-x",
        "line\nbreak",
    ];
    let mut words: Vec<&OsStr> = odd.iter().map(OsStr::new).collect();
    words.push(OsStr::from_bytes(b"\xff"));
    let (ended, said, printed) = place.run(101, &words, &Stop::new(), all);
    assert_eq!(ended.unwrap(), 3);
    assert_eq!(said, "complaint\n");
    let mut want = b"<relayed>\n".to_vec();
    for word in words {
        want.extend([b"<", word.as_bytes(), b">\n"].concat());
    }
    assert_eq!(
        String::from_utf8_lossy(&printed),
        String::from_utf8_lossy(&want)
    );
    assert_eq!(place.server.world.violations(), [""; 0]);
}

#[test]
fn a_signal_here_is_told_there_and_that_run_ends_by_itself() {
    let place = Place::new();
    let stop = Stop::new();
    let act = || stop.stop_by_signal(2);
    let words = [OsStr::new("wait")];
    let (ended, _, rest) = place.run(101, &words, &stop, when_ready(act));
    assert_eq!(rest, "byte 2");
    assert_eq!(ended.unwrap(), 130);
}

#[test]
fn a_run_that_is_killed_or_cut_off_is_an_error() {
    let place = Place::new();
    let words = [OsStr::new("kill")];
    let (ended, _, _) = place.run(101, &words, &Stop::new(), all);
    let e = ended.unwrap_err();
    assert_eq!(e.kind(), Kind::Remote, "{e}");
    let cut = || place.sshd.kill_sessions();
    let words = [OsStr::new("wait")];
    let (ended, _, _) = place.run(101, &words, &Stop::new(), when_ready(cut));
    let e = ended.unwrap_err();
    assert!(e.to_string().contains("connection was lost"), "{e}");
}

#[test]
fn what_is_no_vm_is_told_before_anybody_logs_in() {
    let place = Place::new();
    for (vmid, kind) in [(102, Kind::Refused), (999, Kind::NotFound)] {
        let (ended, ..) = place.run(vmid, &[OsStr::new("vm")], &Stop::new(), all);
        assert_eq!(ended.unwrap_err().kind(), kind);
    }
    assert!(
        !place.sshd.log().contains("Accepted"),
        "{}",
        place.sshd.log()
    );
}

#[test]
fn a_token_that_may_not_see_the_nodes_still_finds_the_vm() {
    let place = Place::new();
    place.server.world.revoke("Sys.Audit");
    let (ended, ..) = place.run(101, &[OsStr::new("vm")], &Stop::new(), all);
    assert_eq!(ended.unwrap(), 3);
}
