//! `pvesync --api URL ... vm 101 ...` on a machine that is no node: asks the cluster which node has the VM, and runs
//! `pvesync` there over SSH.
//!
//! What stands before the verb is for this machine, the verb and all after it for the node: it goes there as data, word by
//! word. The program on the node is ours of this version, or is brought there for as long as it runs, as for every agent.
//!
//! How it runs there: [`elsewhere`].

use crate::api::{
    preflight, Address, ClusterStatus, Fingerprint, Limits, Node, Pve, Rest, Token, Trust,
    TOKEN_VARIABLE,
};
use crate::source::PROGRAM;
use crate::volid::Vmid;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::remote::{HostSpec, SshOptions};
use rblocksync::stop::Stop;
use rblocksync::verbs::elsewhere::{self, Output};
use std::ffi::OsString;
use std::path::PathBuf;

/// Proxmox VE's own user on its nodes; nobody else may do what has to be done there.
const USER: &str = "root";

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
    elsewhere::run(PROGRAM, &host, words, ssh, output, stop)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::NodeStatus;

    fn words(line: &str) -> Vec<String> {
        let line = std::iter::once(PROGRAM).chain(line.split(' '));
        let (words, _) = elsewhere::parted::<ApiArgs>(line.map(OsString::from)).unwrap();
        words
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
}
