//! Where the libvirt is that a URI names, and how to get there.
//!
//! Disks are read where they are, and state, locks and the journal are kept there. So another host's libvirt is not connected
//! to from here: the program itself runs on that host, over SSH, and only `qemu+ssh` says how to log in there.

use rblocksync::error::{Error, Kind, Result};
use rblocksync::remote::HostSpec;

/// What libvirt's programs connect to as root, if nobody says anything.
const USUAL: &str = "qemu:///system";

/// Where a libvirt is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// On this host.
    Here,
    /// On another one, where root's connection is meant.
    There(HostSpec),
}

/// Options about libvirt.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConnectArgs {
    // Its brackets are for people, and no links.
    #[allow(rustdoc::broken_intra_doc_links)]
    /// libvirt of this host; or, before the verb, qemu+ssh://[USER@]HOST[:PORT]/system: run on that host, over SSH, what
    /// follows [default: what LIBVIRT_DEFAULT_URI says, or qemu:///system]
    #[arg(short, long, global = true, value_name = "URI")]
    pub connect: Option<String>,
}

/// The URI that holds: what was said, what the environment says, or the usual one.
pub fn uri(said: Option<&str>) -> String {
    let variable = || std::env::var("LIBVIRT_DEFAULT_URI").ok();
    said.map(str::to_owned)
        .or_else(|| variable().filter(|uri| !uri.is_empty()))
        .unwrap_or_else(|| USUAL.to_owned())
}

impl Whereabouts {
    /// Of this URI. Refuses those of other hosts that cannot be logged in on by SSH, and says what to use instead.
    pub fn of(uri: &str) -> Result<Whereabouts> {
        let refused = |why: &str| {
            Error::new(
                Kind::Usage,
                format!("cannot work with libvirt at {uri}: {why}"),
            )
            .advise("use qemu+ssh://[USER@]HOST[:PORT]/system, or run this on that host")
        };
        let Some((scheme, rest)) = uri.split_once("://") else {
            return Err(refused("it is not a URI"));
        };
        let (driver, transport) = match scheme.split_once('+') {
            Some((driver, transport)) => (driver, Some(transport)),
            None => (scheme, None),
        };
        if rest.starts_with('/') && matches!(transport, None | Some("unix")) {
            return Ok(Whereabouts::Here);
        }
        match transport {
            Some("ssh") if driver == "qemu" => {}
            Some("ssh") => return Err(refused("only QEMU's virtual machines are replicated")),
            other => {
                let by = other.unwrap_or("tls");
                let why = format!(
                    "by {by} only its libvirt can be reached, and the disks are read on the host itself"
                );
                return Err(refused(&why));
            }
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains('?') {
            return Err(refused(
                "parameters are for libvirt's own way through SSH; put keys and ports into ssh's configuration, or name one \
                 with --ssh-config",
            ));
        }
        if path != "system" {
            return Err(refused("only the system's virtual machines are replicated"));
        }
        if host.is_empty() {
            return Err(refused("it names no host"));
        }
        HostSpec::parse(&format!("ssh://{host}")).map(Whereabouts::There)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_this_host_is_here() {
        for uri in [
            "qemu:///system",
            "qemu:///session",
            "qemu+unix:///system?socket=/run/x",
            "test:///default",
        ] {
            assert_eq!(Whereabouts::of(uri).unwrap(), Whereabouts::Here, "{uri}");
        }
    }

    #[test]
    fn another_host_is_reached_by_ssh_alone() {
        for (uri, want) in [
            ("qemu+ssh://kvm1/system", "kvm1"),
            ("qemu+ssh://root@kvm1/system", "root@kvm1"),
            ("qemu+ssh://root@kvm1:2222/system", "ssh://root@kvm1:2222"),
            ("qemu+ssh://[fd00::1]:22/system", "ssh://[fd00::1]:22"),
        ] {
            let host = HostSpec::parse(want).unwrap();
            assert_eq!(
                Whereabouts::of(uri).unwrap(),
                Whereabouts::There(host),
                "{uri}"
            );
        }
        for (uri, why) in [
            ("qemu://kvm1/system", "by tls only its libvirt"),
            ("qemu+tls://kvm1/system", "by tls only its libvirt"),
            ("qemu+tcp://kvm1/system", "by tcp only its libvirt"),
            ("qemu+libssh2://kvm1/system", "by libssh2 only its libvirt"),
            ("qemu+ext:///system?command=x", "by ext only its libvirt"),
            ("xen+ssh://kvm1/system", "only QEMU's"),
            ("qemu+ssh://kvm1/session", "only the system's"),
            ("qemu+ssh://kvm1", "only the system's"),
            ("qemu+ssh://kvm1/system?keyfile=/x", "--ssh-config"),
            ("qemu+ssh:///system", "it names no host"),
            ("xen", "not a URI"),
        ] {
            let e = Whereabouts::of(uri).unwrap_err();
            assert_eq!(e.kind(), Kind::Usage, "{uri}");
            assert!(e.message().contains(why), "{uri}: {e}");
            assert!(e.advice().is_some_and(|a| a.contains("qemu+ssh://")), "{e}");
        }
        for uri in [
            "qemu+ssh://-oProxyCommand=x/system",
            "qemu+ssh://a b/system",
            "qemu+ssh://kvm1:0/system",
            "qemu+ssh://-l@kvm1/system",
        ] {
            assert_eq!(
                Whereabouts::of(uri).unwrap_err().kind(),
                Kind::Usage,
                "{uri}"
            );
        }
    }
}
