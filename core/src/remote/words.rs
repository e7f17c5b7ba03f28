//! What ssh says, turned into our errors: class, cause in ssh's own words, and what to do.

use super::HostSpec;
use crate::error::{Error, Kind};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How much of a log is read: the end is what matters.
const LOG_TAIL: u64 = 8 << 10;

/// Foreign text made fit for one line of an error message: no control characters, lines joined with "; ".
pub(super) fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split(['\n', '\r']).map(|line| {
        let line = line.replace('\t', " ");
        line.chars().filter(|c| !c.is_control()).collect::<String>()
    });
    let lines: Vec<String> = lines
        .map(|line| line.trim().to_owned())
        .filter(|line| line.bytes().any(|b| b != b'@'))
        .collect();
    lines.join("; ")
}

/// The end of a log file; empty if there is none.
pub(super) fn log_tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL)))?;
        let mut tail = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut tail)?;
        Ok(tail)
    };
    one_line(&read().unwrap_or_default())
}

/// Why no connection came about. `said` is what ssh wrote, on one line.
pub(super) fn connect_error(host: &HostSpec, said: &str) -> Error {
    let name = host.host();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let (kind, what, advice) = if has(&[
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "REVOKED HOST KEY",
    ]) {
        (
            Kind::Refused,
            format!("the host key of {host} is not the one known for it: this may be another machine, or an attack"),
            format!(
                "on {name}'s own console run 'ssh-keygen -lf' on /etc/ssh/ssh_host_*_key.pub and compare the \
                 fingerprint with the one named here; only if it is the same, forget the old key with \
                 'ssh-keygen -R' as ssh says"
            ),
        )
    } else if has(&["host key is known for", "Host key verification failed"]) {
        (
            Kind::Refused,
            format!("the host key of {host} is not known here"),
            format!(
                "run 'ssh {host}' once and compare the fingerprint, or take the key as it is with --accept-new-host-key"
            ),
        )
    } else if has(&[
        "Permission denied (",
        "Too many authentication failures",
        "No more authentication methods",
    ]) {
        (
            Kind::Permission,
            format!("{host} does not let us log in"),
            format!("a key without prompt is needed: load it into ssh-agent or install it with 'ssh-copy-id {host}'; 'ssh -o BatchMode=yes {host} true' must work"),
        )
    } else if has(&[
        "Bad owner or permissions",
        "Bad configuration option",
        "Can't open user config file",
        "configuration options",
    ]) {
        (
            Kind::Usage,
            format!("ssh does not accept its configuration for {host}"),
            "mend the named file".to_owned(),
        )
    } else if has(&["Bad SSH2 cipher spec"]) {
        (
            Kind::Usage,
            "ssh does not know this cipher".to_owned(),
            "'ssh -Q cipher' lists the ciphers there are".to_owned(),
        )
    } else if has(&["Could not resolve hostname"]) {
        (
            Kind::Remote,
            format!("the name {name} cannot be resolved"),
            "check the spelling, or give it a HostName in ~/.ssh/config".to_owned(),
        )
    } else if has(&["Connection refused"]) {
        (
            Kind::Remote,
            format!("{host} refuses the connection"),
            "check that its SSH server runs, and the port".to_owned(),
        )
    } else if has(&[
        "timed out",
        "No route to host",
        "Network is unreachable",
        "Host is down",
    ]) {
        (
            Kind::Remote,
            format!("{host} cannot be reached"),
            "check that it is up, and the network and firewall between".to_owned(),
        )
    } else {
        (
            Kind::Remote,
            format!("cannot connect to {host}"),
            format!("see what 'ssh -v -o BatchMode=yes {host} true' says"),
        )
    };
    let said = if said.is_empty() {
        "ssh gave no reason"
    } else {
        said
    };
    Error::new(kind, what).because(said).advise(advice)
}

/// Why a command could not be started, or its end not be learnt, over a connection that stands.
pub(super) fn session_error(host: &HostSpec, program: &str, e: openssh::Error) -> Error {
    let mut said = e.to_string();
    let mut next = std::error::Error::source(&e);
    while let Some(cause) = next {
        said.push_str(": ");
        said.push_str(&cause.to_string());
        next = cause.source();
    }
    let error = Error::new(Kind::Remote, format!("cannot run {program} on {host}"))
        .because(one_line(said.as_bytes()));
    if said.contains("refused by peer") || said.contains("request failed") {
        error.advise(
            "the server allows too few sessions a connection: see MaxSessions in its sshd_config",
        )
    } else {
        error
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_reach_the_terminal_raw() {
        assert_eq!(
            one_line(b"@@@@@@\r\n\r\n a\tb \x1b[2J\n\xffz\n"),
            "a b [2J; \u{fffd}z"
        );
        assert_eq!(one_line(b"\n"), "");
    }

    #[test]
    fn each_failure_has_its_class() {
        let host = HostSpec::parse("root@h").unwrap();
        for (said, kind) in [
            (
                "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!; Host key verification failed.",
                Kind::Refused,
            ),
            (
                "No ED25519 host key is known for h and you have requested strict checking.; Host key verification failed.",
                Kind::Refused,
            ),
            ("root@h: Permission denied (publickey).", Kind::Permission),
            ("ssh: connect to host h port 22: Permission denied", Kind::Remote),
            ("ssh: Could not resolve hostname h: Name or service not known", Kind::Remote),
            ("ssh: connect to host h port 22: Connection refused", Kind::Remote),
            ("ssh: connect to host h port 22: Connection timed out", Kind::Remote),
            ("/root/.ssh/config: line 1: Bad configuration option: x", Kind::Usage),
            ("command-line line 0: Bad SSH2 cipher spec 'x'.", Kind::Usage),
            ("", Kind::Remote),
        ] {
            let e = connect_error(&host, said);
            assert_eq!(e.kind(), kind, "{said}");
            assert!(e.message().contains(said), "{e}");
            assert!(e.advice().is_some());
        }
    }
}
