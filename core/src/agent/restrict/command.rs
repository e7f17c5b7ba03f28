//! What a driver asks sshd to run, where sshd runs something else in its place and only tells us: `SSH_ORIGINAL_COMMAND`.
//!
//! No shell sees it. It is one of a few forms word for word, in characters that mean nothing to any shell, or refused.

use crate::agent::lanes::is_token;
use crate::error::{Error, Kind, Result};
use crate::wire::limits;
use std::path::Path;

/// Longest command that is looked at, in bytes.
const COMMAND_BYTES_MAX: usize = 4096;

/// The programs whose agents understand each other. A driver asks for each of them which version there is.
const FAMILY: [&str; 3] = ["rblocksync", "pvesync", "virt-blocksync"];

/// A command that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// Who are you?
    Id,
    /// Serve a driver.
    Serve,
    /// The same, and let streams with this token join.
    Lanes(&'a str),
    /// Join the agent with this token as its stream of that number.
    Join(&'a str, u8),
    /// Lead to this socket.
    Pour(&'a Path),
}

/// Reads a command, as the driver's ssh sends it, for the agent of `program`.
pub fn parse<'a>(program: &str, command: &'a str) -> Result<Asked<'a>> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_=/,.+ ".contains(&b);
    if command.len() > COMMAND_BYTES_MAX || !command.bytes().all(plain) {
        return Err(refused(program, command));
    }
    let words: Vec<&str> = command.split(' ').collect();
    match words.as_slice() {
        [asked, "agent", "--id"] if *asked == program || FAMILY.contains(asked) => Ok(Asked::Id),
        [asked, "agent", rest @ ..] if *asked == program => match rest {
            [] => Ok(Asked::Serve),
            ["--lanes", token] if is_token(token) => Ok(Asked::Lanes(token)),
            ["--join", token, number] if is_token(token) => {
                let number = number.parse().ok();
                let number = number.filter(|n| (1..=limits::LANES_MAX).contains(n));
                number
                    .map(|number| Asked::Join(token, number))
                    .ok_or_else(|| refused(program, command))
            }
            ["--pour", path] if is_plain_path(path) => Ok(Asked::Pour(Path::new(*path))),
            _ => Err(refused(program, command)),
        },
        _ => Err(refused(program, command)),
    }
}

/// An absolute path without anything that leads elsewhere.
fn is_plain_path(path: &str) -> bool {
    let parts = path.strip_prefix('/');
    parts.is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

fn refused(program: &str, command: &str) -> Error {
    let mut shown: String = command.escape_default().take(200).collect();
    if shown.is_empty() {
        shown = "a login".into();
    }
    Error::new(
        Kind::Refused,
        format!("this key serves only the agent of {program}, not \"{shown}\""),
    )
    .advise("use another key for anything else")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_driver_sends_is_served() {
        let token = "0123456789abcdef0123456789abcdef";
        let lanes = format!("pvesync agent --lanes {token}");
        let join = format!("pvesync agent --join {token} 15");
        for (command, want) in [
            ("pvesync agent --id", Asked::Id),
            ("virt-blocksync agent --id", Asked::Id),
            ("rblocksync agent --id", Asked::Id),
            ("pvesync agent", Asked::Serve),
            (lanes.as_str(), Asked::Lanes(token)),
            (join.as_str(), Asked::Join(token, 15)),
            (
                "pvesync agent --pour /run/qemu-server/101.migrate",
                Asked::Pour(Path::new("/run/qemu-server/101.migrate")),
            ),
        ] {
            assert_eq!(parse("pvesync", command).unwrap(), want, "{command}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for command in [
            "",
            " ",
            "sh",
            "uname -sm",
            "scp -t /etc",
            "internal-sftp",
            "pvesync",
            "pvesync agent ",
            " pvesync agent",
            "pvesync  agent",
            "pvesync\tagent",
            "pvesync agent\n",
            "pvesync agent\nsh",
            "pvesync agent\0",
            "pvesync agent;sh",
            "pvesync agent && sh",
            "pvesync agent | sh",
            "pvesync agent $(sh)",
            "pvesync agent `sh`",
            "pvesync agent > /etc/passwd",
            "pvesync agent 'a'",
            "pvesync agent \"a\"",
            "pvesync agent \\a",
            "pvesync agent *",
            "pvesync agent ~",
            "/tmp/pvesync agent",
            "./pvesync agent",
            "virt-blocksync agent",
            "rblocksync agent",
            "PATH=/tmp pvesync agent",
            "pvesync relayed vm 101",
            "pvesync agent --restrict /tmp/policy",
            "pvesync agent --lanes",
            "pvesync agent --lanes a/b",
            "pvesync agent --lanes a b",
            "pvesync agent --join abc 0",
            "pvesync agent --join abc 255",
            "pvesync agent --join abc -1",
            "pvesync agent --join abc 1 2",
            "pvesync agent --pour run/x",
            "pvesync agent --pour /run/../etc/x",
            "pvesync agent --pour /run//x",
            "pvesync agent --pour /",
            "pvesync agent -- --pour /run/x",
            "pvesync agent --id x",
            "p\u{f6}vesync agent",
        ] {
            let error = parse("pvesync", command).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{command:?}");
            assert!(!error.to_string().contains(char::is_control), "{command:?}");
        }
        let long = format!("pvesync agent --pour /{}", "x".repeat(5000));
        assert!(parse("pvesync", &long).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics_or_is_served_by_accident(text in "(pvesync agent)?.{0,60}") {
            if parse("pvesync", &text).is_ok() {
                prop_assert!(text.contains(" agent"));
                let means_something = |c: char| "\"'`$;&|<>()\\*?~#![]".contains(c);
                prop_assert!(!text.contains(means_something));
            }
        }
    }
}
