//! Which host to reach: parsing and checking of what a user may write as a host.
//!
//! A host ends up as an argument of `ssh`, and may pass through a user's `ProxyCommand`, that is through
//! a shell. Whatever could be taken as an option there, or mean something to a shell, is refused here.

use crate::error::{Error, Kind, Result};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Longest host or user name taken; DNS ends at 253.
const MAX_NAME: usize = 255;

/// A host to reach over SSH: a name or alias from the user's ssh configuration, or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostSpec {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

impl HostSpec {
    /// Checks the parts and joins them. An IPv6 address comes without brackets.
    pub fn new(user: Option<&str>, host: &str, port: Option<u16>) -> Result<HostSpec> {
        let bad = |why: &str| {
            let shown = user.map_or_else(|| host.to_owned(), |user| format!("{user}@{host}"));
            bad_host(&shown, why)
        };
        if let Some(user) = user {
            check_user(user).map_err(bad)?;
        }
        check_host(host).map_err(bad)?;
        if port == Some(0) {
            return Err(bad("0 is not a port"));
        }
        Ok(HostSpec {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
        })
    }

    /// Reads `host`, `user@host`, `[v6]`, `[v6]:port` and `ssh://user@host:port`.
    pub fn parse(text: &str) -> Result<HostSpec> {
        let bad = |why: &str| bad_host(text, why);
        let (rest, url) = match text.strip_prefix("ssh://") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let (host, port) = if let Some(inner) = rest.strip_prefix('[') {
            let (host, after) = inner
                .split_once(']')
                .ok_or_else(|| bad("the closing bracket is missing"))?;
            if !is_ipv6(host) {
                return Err(bad("there is no IPv6 address between the brackets"));
            }
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(bad("only a colon and a port may follow the bracket")),
            }
        } else if is_ipv6(rest) && !url {
            (rest, None)
        } else {
            match rest.rsplit_once(':') {
                Some((host, port)) if url => (host, Some(port)),
                Some((host, port)) => {
                    return Err(bad("a colon has no place in a host name")
                        .advise(format!("with a port, write ssh://{host}:{port}")))
                }
                None => (rest, None),
            }
        };
        let port = match port {
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(
                port.parse()
                    .map_err(|_| bad("the port is not a number from 1 to 65535"))?,
            ),
            Some(_) => return Err(bad("the port is not a number from 1 to 65535")),
            None => None,
        };
        HostSpec::new(user, host, port)
    }

    /// The user to log in as, if given.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The name, alias or address; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, if given.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl FromStr for HostSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<HostSpec> {
        HostSpec::parse(text)
    }
}

/// The shortest form that [`HostSpec::parse`] reads back as the same host.
impl fmt::Display for HostSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port.is_some() {
            f.write_str("ssh://")?;
        }
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

fn bad_host(shown: &str, why: &str) -> Error {
    // Quoted and escaped: what is refused for its control characters must not reach a terminal.
    Error::new(
        Kind::Usage,
        format!("\"{}\" is not a host: {why}", shown.escape_default()),
    )
}

fn is_ipv6(text: &str) -> bool {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let zone_ok = zone.is_none_or(|zone| !zone.is_empty() && zone.bytes().all(is_name_byte));
    zone_ok && address.parse::<Ipv6Addr>().is_ok()
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')
}

fn check_host(host: &str) -> std::result::Result<(), &'static str> {
    if host.is_empty() {
        return Err("the name is empty");
    }
    if host.len() > MAX_NAME {
        return Err("the name is too long");
    }
    if host.starts_with('-') {
        return Err("it starts with a dash, which ssh would take for an option");
    }
    if !host.bytes().all(is_name_byte) && !is_ipv6(host) {
        return Err("only letters, digits, '.', '-' and '_' may stand in a host name");
    }
    Ok(())
}

/// The characters which OpenSSH 9.6 and later refuse in a user name, and a few more.
fn check_user(user: &str) -> std::result::Result<(), &'static str> {
    if user.is_empty() {
        return Err("the user name is empty");
    }
    if user.len() > MAX_NAME {
        return Err("the user name is too long");
    }
    if user.starts_with('-') {
        return Err("the user name starts with a dash, which ssh would take for an option");
    }
    if user.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("there is white space or a control character in the user name");
    }
    if user.contains(|c| "'\"`$;&<>|(){}[]*?!#~%:/".contains(c)) || user.ends_with('\\') {
        return Err("there is a character in the user name that means something to a shell");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(user: Option<&str>, host: &str, port: Option<u16>) -> HostSpec {
        HostSpec::new(user, host, port).unwrap()
    }

    #[test]
    fn reads_the_usual_forms() {
        for (text, want) in [
            ("pve2", spec(None, "pve2", None)),
            ("root@pve2.lan", spec(Some("root"), "pve2.lan", None)),
            ("ssh://pve2", spec(None, "pve2", None)),
            ("ssh://a@b:2222", spec(Some("a"), "b", Some(2222))),
            (
                "me@corp.example@h",
                spec(Some("me@corp.example"), "h", None),
            ),
            ("10.0.0.1", spec(None, "10.0.0.1", None)),
            ("::1", spec(None, "::1", None)),
            ("fe80::1%eth0", spec(None, "fe80::1%eth0", None)),
            ("[2001:db8::1]", spec(None, "2001:db8::1", None)),
            ("[::1]:22", spec(None, "::1", Some(22))),
            ("root@[::1]:22", spec(Some("root"), "::1", Some(22))),
            ("ssh://root@[::1]:22", spec(Some("root"), "::1", Some(22))),
        ] {
            assert_eq!(HostSpec::parse(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn refuses_what_could_be_an_option_or_a_command() {
        for text in [
            "",
            "@",
            "@h",
            "u@",
            "-oProxyCommand=touch /tmp/x",
            "-l",
            "u@-oProxyCommand=x",
            "-oProxyCommand=x@h",
            "a b",
            "a\tb",
            "a\nb",
            "a\0b",
            "h\u{1b}[2J",
            "h;id",
            "$(id)",
            "`id`",
            "a|b",
            "u;id@h",
            "u$x@h",
            "u x@h",
            "h/x",
            "h:22",
            "h:",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[h]:22",
            "[-l]:22",
            "::1%",
            "::1%$(id)",
            "ssh://",
            "ssh://h:",
            "ssh://h:0",
            "ssh://h:65536",
            "ssh://h:+22",
            "ssh://h:22/x",
            "ssh://-oProxyCommand=x:22",
            "ssh://::1",
            "h\u{f6}st",
        ] {
            let e = HostSpec::parse(text).unwrap_err();
            assert_eq!(e.kind(), Kind::Usage, "{text:?}");
            assert!(!e.to_string().contains(char::is_control), "{text:?}");
        }
        assert!(HostSpec::parse(&"h".repeat(256)).is_err());
    }

    #[test]
    fn a_port_after_a_plain_name_gets_the_right_form_as_advice() {
        let e = HostSpec::parse("pve2:2222").unwrap_err();
        assert!(e.to_string().contains("ssh://pve2:2222"), "{e}");
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_harmless(text in ".{0,40}") {
            if let Ok(spec) = HostSpec::parse(&text) {
                prop_assert!(!spec.host().starts_with('-'));
                prop_assert!(!spec.host().contains(|c: char| c.is_whitespace() || c.is_control()));
                prop_assert_eq!(HostSpec::parse(&spec.to_string()).unwrap(), spec);
            }
        }

        #[test]
        fn display_reads_back(
            user in proptest::option::of("[a-z][a-z0-9@._-]{0,8}"),
            host in "[a-z0-9][a-z0-9._-]{0,12}|[0-9a-f]{1,4}::[0-9a-f]{1,4}",
            port in proptest::option::of(1u16..),
        ) {
            let spec = HostSpec::new(user.as_deref(), &host, port).unwrap();
            prop_assert_eq!(HostSpec::parse(&spec.to_string()).unwrap(), spec);
        }
    }
}
