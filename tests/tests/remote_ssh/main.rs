//! SSH sessions and the agent bootstrap against a real sshd on loopback.

#![allow(clippy::unwrap_used)]

mod agents;
mod bootstrap;
mod commands;
mod connect;
mod driver;

use rblocksync::error::{Error, Kind};
use rblocksync::remote::{
    AgentPipe, AgentSpec, Cipher, Ended, HostSpec, Remote, RunLimits, SshOptions,
};
use rblocksync::stop::Stop;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tests::sshd::{eventually, processes, Sshd, ECHO_ID, HOST};

const ECHO_AGENT: &str = env!("CARGO_BIN_EXE_echo_agent");
const LONG: Duration = Duration::from_secs(30);
const NO_ARGS: [&str; 0] = [];

fn host() -> HostSpec {
    HostSpec::parse(HOST).unwrap()
}

fn options(sshd: &Sshd) -> SshOptions {
    SshOptions {
        config_file: Some(sshd.client_config()),
        idle_exit: Duration::from_secs(2),
        ..SshOptions::default()
    }
}

fn connect(sshd: &Sshd) -> Remote {
    Remote::connect(&host(), &options(sshd)).unwrap()
}

fn spec() -> AgentSpec {
    AgentSpec {
        local_binary: ECHO_AGENT.into(),
        ..AgentSpec::new("echo_agent", ECHO_ID)
    }
}

/// An agent that is a shell script, answering as `id`, and leaving `marker` behind when it is run.
fn script_agent(dir: &Path, id: &str, marker: &Path) -> AgentSpec {
    let local_binary = dir.join("script_agent");
    let script = format!("#!/bin/sh\ntouch {}\necho '{id}'\n", marker.display());
    fs::write(&local_binary, script).unwrap();
    AgentSpec {
        local_binary,
        ..AgentSpec::new("echo_agent", ECHO_ID)
    }
}

fn install_agent(sshd: &Sshd) {
    sshd.install("echo_agent", &fs::read(ECHO_AGENT).unwrap());
}

/// Sends `data` through the agent and checks that all of it comes back.
fn echo(pipe: AgentPipe, data: &[u8]) {
    let AgentPipe {
        stdin,
        stdout,
        handle,
    } = pipe;
    let (mut stdin, mut stdout) = (File::from(stdin), File::from(stdout));
    let back = thread::scope(|s| {
        s.spawn(move || stdin.write_all(data).unwrap());
        let mut back = Vec::new();
        stdout.read_to_end(&mut back).unwrap();
        back
    });
    assert!(
        back == data,
        "{} bytes of {} came back",
        back.len(),
        data.len()
    );
    let end = handle.finish(LONG);
    assert!(end.is_success(), "{end}");
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words.flat_map(u64::to_le_bytes).take(len).collect()
}

/// The upload directories below a cache directory.
fn uploads(cache: &Path) -> Vec<PathBuf> {
    let dir = fs::read_dir(cache.join("rblocksync"));
    dir.map_or(Vec::new(), |dir| {
        dir.map(|entry| entry.unwrap().path()).collect()
    })
}

fn running_from(dir: &Path) -> usize {
    let dir = dir.to_str().unwrap();
    processes()
        .values()
        .filter(|p| p.args.starts_with(dir))
        .count()
}

fn refused(result: Result<impl std::fmt::Debug, Error>, kind: Kind, words: &[&str]) {
    let e = result.unwrap_err();
    let text = e.to_string();
    assert_eq!(e.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "\"{word}\" is not in: {text}");
    }
    assert!(!text.contains(char::is_control), "{text:?}");
}
