//! `pvesync --api URL ... vm 101 ...` on a machine that is no node: asks the cluster which node has the VM, and runs
//! `pvesync` there over SSH.
//!
//! What stands before the verb is for this machine, the verb and all after it for the node: it goes there as data, word by
//! word. The program on the node is ours of this version, or is brought there for as long as it runs, as for every agent.
//!
//! There it runs as `pvesync relayed WORDS`. Its standard input is a line to us: a byte is the number of a signal that came
//! here, and its end means that we are gone. Either stops it, just as the signal would.

use crate::api::{
    preflight, Address, ClusterStatus, Fingerprint, Limits, Node, Pve, Rest, Token, Trust,
    TOKEN_VARIABLE,
};
use crate::source::PROGRAM;
use crate::volid::Vmid;
use rblocksync::cli::config::ConfigFile;
use rblocksync::cli::{OutputOptions, ProgressMode, SshArgs};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::remote::{agent_id, AgentPipe, AgentSpec, Ended, HostSpec, Remote, SshOptions};
use rblocksync::stop::Stop;
use rblocksync::wire::VERSION;
use rustix::process::Signal;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::Duration;

/// The verb, known to nobody but us, under which the program runs on the node.
pub const RELAYED: &str = "relayed";
/// Proxmox VE's own user on its nodes; nobody else may do what has to be done there.
const USER: &str = "root";
/// How often the stop flag is looked at.
const STOP_LOOK: Duration = Duration::from_millis(100);
/// From the end of its output to the end of the program.
const END_TIME: Duration = Duration::from_secs(30);

/// Options about the API; they stand before the verb.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "On a machine that is no node, before the verb")]
pub struct ApiArgs {
    /// Ask this cluster which node has the VM, and run there, over SSH, what follows: https://HOST[:8006]
    #[arg(long, value_name = "URL")]
    pub api: Option<Address>,
    /// File with the API token, USER@REALM!ID=SECRET [default: the environment's PVESYNC_API_TOKEN]
    #[arg(long, value_name = "FILE", requires = "api")]
    pub api_token_file: Option<PathBuf>,
    /// SHA-256 fingerprint of the API's certificate, as `pvenode cert info` shows it
    #[arg(long, value_name = "AA:BB:..", requires = "api", conflicts_with = "ca")]
    pub fingerprint: Option<Fingerprint>,
    /// PEM file of the CA that signed it: a copy of the cluster's /etc/pve/pve-root-ca.pem
    #[arg(long, value_name = "FILE", requires = "api")]
    pub ca: Option<PathBuf>,
    /// Reach this node so over SSH, instead of as root at its address in the cluster; may be given more than once
    #[arg(long, value_name = "NODE=HOST", requires = "api", value_parser = parse_node_host)]
    pub node_host: Vec<(Node, HostSpec)>,
}

fn parse_node_host(text: &str) -> std::result::Result<(Node, HostSpec), String> {
    let (node, host) = text.split_once('=').ok_or("write NODE=HOST")?;
    let node = Node::new(node).map_err(|e| e.to_string())?;
    Ok((node, HostSpec::parse(host).map_err(|e| e.to_string())?))
}

/// Parted at the verb: what is before it, and all words from there on.
#[derive(clap::Parser)]
#[command(disable_help_flag = true)]
struct Parted {
    #[command(flatten)]
    _api: ApiArgs,
    #[command(flatten)]
    output: OutputOptions,
    #[command(flatten)]
    _ssh: SshArgs,
    #[command(flatten)]
    _file: ConfigFile,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// The words of a command line (with the program's name in front) that are for the node: the verb and all that follows,
/// and options about output that stand before it.
pub fn words_for_node(line: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>> {
    let parted = <Parted as clap::Parser>::try_parse_from(line)
        .map_err(|e| Error::new(Kind::Usage, "cannot tell the verb").because(e.to_string()))?;
    let mut words: Vec<OsString> = Vec::new();
    let output = parted.output;
    words.extend(output.quiet.then(|| "--quiet".into()));
    words.extend(output.json.then(|| "--json".into()));
    words.extend(match output.progress {
        ProgressMode::Auto => None,
        ProgressMode::Always => Some(OsString::from("--progress=always")),
        ProgressMode::Never => Some(OsString::from("--progress=never")),
    });
    words.extend(parted.words);
    Ok(words)
}

/// Where the output on the node goes to.
pub struct Output {
    /// Its standard output.
    pub stdout: File,
    /// Its standard error.
    pub stderr: File,
}

impl Output {
    /// Ours.
    pub fn inherited() -> Result<Output> {
        let own = |fd: rustix::fd::BorrowedFd| {
            rustix::io::fcntl_dupfd_cloexec(fd, 3)
                .map(File::from)
                .map_err(|e| Error::io("cannot use standard output", e.into()))
        };
        Ok(Output {
            stdout: own(rustix::stdio::stdout())?,
            stderr: own(rustix::stdio::stderr())?,
        })
    }
}

/// Finds the VM's node and runs the words there. Gives the exit code of that run.
///
/// Fails if the VM cannot be found (`NotFound`, or `Refused` for a container), if the API or the node cannot be reached or
/// trusted, and if the run there ends by something else than itself.
pub fn run(
    api: &ApiArgs,
    vmid: Vmid,
    words: &[OsString],
    ssh: &SshOptions,
    output: Output,
    stop: &Stop,
) -> Result<u8> {
    let host = find(api, vmid, stop)?;
    Remote::during(&host, ssh, |remote| run_there(remote, words, output, stop))
}

/// The host that the VM's node is reached at.
fn find(api: &ApiArgs, vmid: Vmid, stop: &Stop) -> Result<HostSpec> {
    let Some(address) = &api.api else {
        return Err(Error::new(Kind::Usage, "--api is missing"));
    };
    let trust = match (&api.fingerprint, &api.ca) {
        (Some(fingerprint), _) => Trust::Fingerprint(*fingerprint),
        (None, Some(file)) => Trust::Ca(file.clone()),
        (None, None) => {
            return Err(Error::new(
                Kind::Usage,
                format!("nothing tells whether {address} is the right server"),
            )
            .advise(
                "give --fingerprint, as `pvenode cert info` shows it on the node, or --ca with a copy of the \
                 cluster's /etc/pve/pve-root-ca.pem",
            ))
        }
    };
    let variable = std::env::var_os(TOKEN_VARIABLE);
    let token = Token::find(api.api_token_file.as_deref(), variable.as_deref())?;
    let rest = Rest::new(address.clone(), token, &trust, Limits::default(), stop)?;
    let guests = rest.guests()?;
    let (_, node) = preflight::find_vm(&guests, vmid)?;
    let status = match rest.cluster_status() {
        Ok(status) => Some(status),
        // A token that may not know it still is enough if the node's name is one that ssh knows.
        Err(e) if e.kind() == Kind::Permission => None,
        Err(e) => return Err(e),
    };
    host_of(node, status.as_ref(), address, &api.node_host)
}

/// How to reach a node: as it was said; or, if it is the one that answered, at the API's address; or at the cluster's
/// address of it; or by its name.
fn host_of(
    node: &Node,
    status: Option<&ClusterStatus>,
    address: &Address,
    said: &[(Node, HostSpec)],
) -> Result<HostSpec> {
    if let Some((_, host)) = said.iter().find(|(name, _)| name == node) {
        return Ok(host.clone());
    }
    let known = status.and_then(|s| s.nodes.iter().find(|n| n.name == *node));
    let host = match known {
        Some(known) if known.local => address.host(),
        Some(known) => known.ip.as_deref().unwrap_or(node.as_str()),
        None => node.as_str(),
    };
    HostSpec::new(Some(USER), host, None)
        .map_err(|e| e.advise(format!("give --node-host {node}=HOST")))
}

fn run_there(remote: &Remote, words: &[OsString], output: Output, stop: &Stop) -> Result<u8> {
    let host = remote.host();
    let mut spec = AgentSpec::new(PROGRAM, agent_id(PROGRAM, VERSION.into()));
    spec.args = [OsStr::new(RELAYED)]
        .into_iter()
        .chain(words.iter().map(OsString::as_os_str))
        .map(OsStr::to_owned)
        .collect();
    let AgentPipe {
        stdin,
        stdout,
        handle,
    } = remote.start_echoing(&spec, output.stderr)?;
    let mut line = File::from(stdin);
    let (done, ended) = channel::<()>();
    let mut ours = output.stdout;
    let copier = std::thread::Builder::new()
        .name("output".into())
        .spawn(move || {
            let _done = done;
            copy(&mut File::from(stdout), &mut ours);
        })
        .map_err(|e| Error::io("cannot start a thread", e))?;
    let mut told = false;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(STOP_LOOK) {
        if stop.is_stopped() && !told {
            told = true;
            let signal = stop.signal().unwrap_or(Signal::TERM.as_raw());
            let byte = u8::try_from(signal).unwrap_or(Signal::TERM.as_raw() as u8);
            // If it is gone already, its end tells more.
            let _ = line.write_all(&[byte]);
        }
    }
    let _ = copier.join();
    let end = handle.finish(END_TIME);
    let code = match &end.how {
        Ended::Exited(status) => status.code().and_then(|code| u8::try_from(code).ok()),
        _ => None,
    };
    drop(line);
    code.ok_or_else(|| {
        let kind = match end.how {
            Ended::Running => Kind::Timeout,
            _ => Kind::Remote,
        };
        Error::new(kind, format!("{PROGRAM} on {host} did not end by itself"))
            .because(end.how.to_string())
            .advise(format!(
                "without us it stops; `{PROGRAM} status` there tells how it ended"
            ))
    })
}

/// Copies until the end. If nobody takes it any more it is dropped: the run there must not hang on it.
fn copy(from: &mut impl Read, to: &mut impl Write) {
    let mut chunk = vec![0; 64 << 10];
    let mut taken = true;
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return,
            Ok(n) => taken = taken && to.write_all(&chunk[..n]).is_ok(),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// On the node: lets what comes on standard input stop the run, like the signal that it stands for.
pub fn obey_stdin(stop: &Stop) -> Result<()> {
    let stop = stop.clone();
    std::thread::Builder::new()
        .name("line".into())
        .spawn(move || {
            if let Some(signal) = obey(&mut std::io::stdin(), &stop) {
                std::process::exit(128 + i32::from(signal));
            }
        })
        .map(drop)
        .map_err(|e| Error::io("cannot start a thread", e))
}

/// Until the line ends, or a second signal comes, which is returned: that one ends the process at once.
fn obey(line: &mut impl Read, stop: &Stop) -> Option<u8> {
    loop {
        let mut byte = [0];
        match line.read(&mut byte) {
            Ok(0) => break,
            Ok(_) if stop.is_stopped() => return Some(byte[0] & 0x7f),
            Ok(_) => stop.stop_by_signal(i32::from(byte[0] & 0x7f)),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // Whoever started this is gone, as when a terminal is closed.
    if !stop.is_stopped() {
        stop.stop_by_signal(Signal::HUP.as_raw());
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::NodeStatus;

    fn words(line: &str) -> Vec<String> {
        let line = std::iter::once(PROGRAM).chain(line.split(' '));
        words_for_node(line.map(OsString::from))
            .unwrap()
            .into_iter()
            .map(|w| w.into_string().unwrap())
            .collect()
    }

    #[test]
    fn the_verb_and_what_follows_go_to_the_node_as_they_are() {
        let api = "--api https://pve1 --fingerprint=";
        let fingerprint = Fingerprint::of(b"x");
        let before = format!("{api}{fingerprint} --ssh-config vm --config vm --api-token-file vm");
        for tail in [
            "vm 101 --to host2",
            "vm 101 --to host2 --ssh-config /root/x --dry-run -- --api",
            "vm 101 --to host2 --config /root/x",
            "vm 101 --to=h --storage a=b --json --quiet --help",
        ] {
            assert_eq!(words(&format!("{before} {tail}")).join(" "), tail);
        }
        assert_eq!(
            words(&format!("{before} -q --progress never --json vm 101")),
            ["--quiet", "--json", "--progress=never", "vm", "101"]
        );
    }

    #[test]
    fn a_node_is_reached_as_said_or_at_the_best_known_address() {
        let node = |name: &str| Node::new(name).unwrap();
        let entry = |name: &str, local, ip: Option<&str>| NodeStatus {
            name: node(name),
            local,
            online: true,
            ip: ip.map(str::to_owned),
        };
        let status = ClusterStatus {
            cluster: None,
            nodes: vec![
                entry("pve1", true, Some("10.0.0.1")),
                entry("pve2", false, Some("10.0.0.2")),
                entry("pve3", false, None),
                entry("pve4", false, Some("-oProxyCommand=x")),
            ],
        };
        let address: Address = "https://gate.example:8006".parse().unwrap();
        let said = [parse_node_host("pve5=admin@elsewhere").unwrap()];
        let host = |name: &str, status| host_of(&node(name), status, &address, &said);
        for (name, want) in [
            ("pve1", "root@gate.example"),
            ("pve2", "root@10.0.0.2"),
            ("pve3", "root@pve3"),
            ("pve5", "admin@elsewhere"),
            ("pve6", "root@pve6"),
        ] {
            assert_eq!(host(name, Some(&status)).unwrap().to_string(), want);
        }
        host("pve4", Some(&status)).unwrap_err();
        assert_eq!(host("pve2", None).unwrap().to_string(), "root@pve2");
    }

    #[test]
    fn a_byte_is_a_signal_and_the_end_a_hangup() {
        let stop = Stop::new();
        assert_eq!(obey(&mut &[2u8][..], &stop), None);
        assert_eq!(stop.signal(), Some(2));
        let stop = Stop::new();
        assert_eq!(obey(&mut &[][..], &stop), None);
        assert_eq!(stop.signal(), Some(1));
        let stop = Stop::new();
        assert_eq!(obey(&mut &[15u8, 2][..], &stop), Some(2));
        assert_eq!(stop.signal(), Some(15));
    }

    #[test]
    fn output_that_nobody_takes_is_dropped() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let data = vec![7; 200_000];
        let mut from = &data[..];
        copy(&mut from, &mut Closed);
        assert!(from.is_empty());
    }
}
