//! Whether another host is there at all, without logging in: for decisions that must not wait for its word.

use super::cipher::ask_config;
use super::master::host_arguments;
use super::{HostSpec, SshOptions};
use crate::cmd::{Cmd, Tool};
use crate::error::Result;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// Longest time that the resolution of a name may take.
const RESOLVE_TIME: Duration = Duration::from_secs(20);

/// What is known of a host from its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It is up: how that shows.
    Answers(String),
    /// Nothing comes back from it: what was tried. It may be down, or the network between.
    Silent(String),
    /// It could not be found out: why.
    Unknown(String),
}

/// Tries the port that ssh would connect to. Waits at most `limit` for each of the host's addresses.
pub fn reach(host: &HostSpec, options: &SshOptions, limit: Duration) -> Reach {
    let Some(config) = ask_config(host_arguments(host, options)) else {
        return Reach::Unknown(format!("ssh does not say how it would connect to {host}"));
    };
    let setting = |key: &str| {
        let value = |line: &str| Some(line.strip_prefix(key)?.strip_prefix(' ')?.to_owned());
        config.lines().find_map(value)
    };
    let is_set = |key: &str| setting(key).is_some_and(|value| value != "none");
    if is_set("proxyjump") || is_set("proxycommand") {
        return Reach::Unknown(format!("{host} is only reached through another host"));
    }
    let name = setting("hostname").unwrap_or_else(|| host.host().to_owned());
    let port = setting("port").and_then(|p| p.parse().ok()).unwrap_or(22);
    let addresses = match addresses_of(&name) {
        Ok(addresses) => addresses,
        Err(e) => return Reach::Unknown(format!("{name} has no address: {}", e.message())),
    };
    let mut silence = Vec::new();
    for address in addresses {
        let address = SocketAddr::new(address, port);
        match TcpStream::connect_timeout(&address, limit) {
            Ok(_) => return Reach::Answers(format!("{address} takes connections")),
            Err(e) => match e.kind() {
                ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {
                    return Reach::Answers(format!("{address} answers, by refusing the connection"))
                }
                ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::HostUnreachable => {
                    silence.push(format!("{address}: {e}"));
                }
                // It may be this host that has no network.
                _ => return Reach::Unknown(format!("{address} cannot be tried: {e}")),
            },
        }
    }
    match silence.is_empty() {
        true => Reach::Unknown(format!("{name} has no address")),
        false => Reach::Silent(silence.join("; ")),
    }
}

/// Asked of the host's own program: ours is linked statically, and could not load what a host resolves names with.
fn addresses_of(name: &str) -> Result<BTreeSet<IpAddr>> {
    if let Ok(address) = name.parse() {
        return Ok(BTreeSet::from([address]));
    }
    let found = Cmd::new(Tool::Getent)
        .args(["ahosts", name])
        .timeout(RESOLVE_TIME)
        // 2: it knows no such name.
        .accept(&[2])
        .run()?;
    let text = String::from_utf8_lossy(&found.stdout);
    let first = |line: &str| line.split_whitespace().next()?.parse().ok();
    Ok(text.lines().filter_map(first).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn tried(config: &str) -> Reach {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, config).unwrap();
        let options = SshOptions {
            config_file: Some(file.path().to_owned()),
            ..SshOptions::default()
        };
        let host = HostSpec::parse("somewhere").unwrap();
        reach(&host, &options, Duration::from_secs(5))
    }

    #[test]
    fn a_host_that_takes_or_refuses_connections_is_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = format!("Host somewhere\nHostname 127.0.0.1\nPort {port}\n");
        assert!(matches!(tried(&config), Reach::Answers(how) if how.contains("takes")));
        drop(listener);
        assert!(matches!(tried(&config), Reach::Answers(how) if how.contains("refusing")));
    }

    #[test]
    fn what_cannot_be_tried_is_not_taken_for_dead() {
        for config in [
            "Host somewhere\nHostname nowhere.invalid\n",
            "Host somewhere\nHostname 127.0.0.1\nProxyJump gate\n",
            "NoSuchOption yes\n",
        ] {
            assert!(matches!(tried(config), Reach::Unknown(_)), "{config}");
        }
    }
}
