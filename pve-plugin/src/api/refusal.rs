//! Proxmox VE's refusals as our errors: what class of failure it is, and what can be done about it.
//!
//! The HTTP status alone says little: most of what goes wrong comes as 500 with a sentence, and `pvesh` has nothing but
//! the sentence. So both ways end here, and the sentence decides.

use super::call::Call;
use rblocksync::cli::units::printable;
use rblocksync::error::{Error, Kind};
use std::collections::BTreeMap;

/// Longest sentence that is shown.
const SHOWN_MAX_CHARS: usize = 600;

/// What Proxmox VE said instead of an answer.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    /// The HTTP status, if there was one.
    pub(super) status: Option<u16>,
    /// What it says.
    pub(super) message: String,
    /// What is wrong with single parameters.
    pub(super) errors: BTreeMap<String, String>,
}

impl Refusal {
    /// The same as an error.
    pub(super) fn error(self, call: &Call) -> Error {
        let mut said = one_line(&self.message);
        for (name, why) in &self.errors {
            let sep = if said.is_empty() { "" } else { "; " };
            said = format!("{said}{sep}{}: {}", one_line(name), one_line(why));
        }
        if said.is_empty() {
            said = match self.status {
                Some(status) => format!("HTTP status {status}, and no reason"),
                None => "no reason was given".into(),
            };
        }
        let (kind, advice) = judge(self.status, &said);
        let error = Error::new(kind, format!("Proxmox VE refuses {call}")).because(said);
        match advice {
            Some(advice) => error.advise(advice),
            None => error,
        }
    }
}

/// The same for the sentence that a task ended with.
pub(super) fn judge_task(said: &str) -> (Kind, Option<String>) {
    judge(None, said)
}

fn judge(status: Option<u16>, said: &str) -> (Kind, Option<String>) {
    let has = |texts: &[&str]| texts.iter().any(|t| said.contains(t));
    if status == Some(401)
        || has(&[
            "No ticket",
            "no ticket",
            "Authentication failed",
            "authentication failure",
        ])
    {
        let advice = "the API token is missing, misspelt, removed or expired: \
                      see `pveum user token list USER` on the node";
        return (Kind::Permission, Some(advice.into()));
    }
    if let Some((path, privileges)) = permission_check(said) {
        let advice = format!(
            "the token needs {privileges} on {path}: `pveum acl modify {path} --tokens 'USER@REALM!ID' --roles ROLE`, \
             with a role that has it; of a token with privilege separation, the user needs it as well"
        );
        return (Kind::Permission, Some(advice));
    }
    if status == Some(403)
        || has(&[
            "Permission check failed",
            "only root can",
            "user != root@pam",
        ])
    {
        let advice = "docs/permissions.md tells what a token needs for this call";
        return (Kind::Permission, Some(advice.into()));
    }
    if has(&["no quorum", "not ready - no quorum", "not quorate"]) {
        return (Kind::Refused, Some(NO_QUORUM.into()));
    }
    if has(&[
        "is locked",
        "can't lock file",
        "got lock timeout",
        "cannot lock",
    ]) {
        let advice = "wait for what holds the lock: a backup, a migration, a snapshot";
        return (Kind::Busy, Some(advice.into()));
    }
    if has(&[
        "detected modified configuration",
        "file change by other user",
    ]) {
        let advice = "somebody changed the configuration meanwhile: look at it again";
        return (Kind::Busy, Some(advice.into()));
    }
    if has(&["does not exist", "no such ", "not found"]) && status != Some(400) {
        return (Kind::NotFound, None);
    }
    if has(&["already exists"]) {
        return (Kind::Refused, None);
    }
    if status == Some(400) || has(&["Parameter verification failed"]) {
        let advice = "this version of Proxmox VE and ours do not understand each other";
        return (Kind::Usage, Some(advice.into()));
    }
    match status {
        Some(501) => (
            Kind::Protocol,
            Some("this version of Proxmox VE does not know the call".into()),
        ),
        Some(595..=599) => (
            Kind::Remote,
            Some("the node that was asked cannot reach the one that it concerns".into()),
        ),
        Some(_) => (Kind::Remote, None),
        None => (Kind::Tool, None),
    }
}

/// What to do without a quorum.
pub(super) const NO_QUORUM: &str =
    "bring the other nodes of the cluster back, or see `pvecm status`: without a quorum its configuration is read-only";

/// Path and privileges of `Permission check failed (/vms/101, VM.Audit)`.
fn permission_check(said: &str) -> Option<(&str, &str)> {
    let (_, rest) = said.split_once("Permission check failed (")?;
    let (inside, _) = rest.split_once(')')?;
    let (path, privileges) = inside.split_once(',')?;
    let plain = |s: &str| {
        s.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/._-|, ".contains(&b))
    };
    (path.starts_with('/') && plain(path) && plain(privileges)).then(|| (path, privileges.trim()))
}

/// On one line, without control characters, and not endless.
pub(super) fn one_line(text: &str) -> String {
    let line = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    match line.char_indices().nth(SHOWN_MAX_CHARS) {
        Some((end, _)) => format!("{} ...", printable(&line[..end])),
        None => printable(&line),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::calls::VM_CONFIG;
    use super::*;

    fn told(status: Option<u16>, message: &str) -> Error {
        Refusal {
            status,
            message: message.into(),
            errors: BTreeMap::new(),
        }
        .error(&Call::new(&VM_CONFIG, &[&"pve1", &101]))
    }

    #[test]
    fn the_sentence_decides_with_and_without_a_status() {
        for (status, message, kind) in [
            (401, "No ticket", Kind::Permission),
            (401, "", Kind::Permission),
            (
                403,
                "Permission check failed (/vms/101, VM.Audit)",
                Kind::Permission,
            ),
            (
                500,
                "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist\n",
                Kind::NotFound,
            ),
            (500, "VM is locked (backup)", Kind::Busy),
            (500, "cluster not ready - no quorum?", Kind::Refused),
            (
                500,
                "unable to create VM 101 - VM 101 already exists on node 'pve2'",
                Kind::Refused,
            ),
            (400, "Parameter verification failed.", Kind::Usage),
            (501, "Method 'GET /x' not implemented", Kind::Protocol),
            (595, "No route to host", Kind::Remote),
            (
                500,
                "got no worker upid - start worker failed",
                Kind::Remote,
            ),
        ] {
            assert_eq!(told(Some(status), message).kind(), kind, "{message}");
        }
        assert_eq!(told(None, "VM is locked (backup)").kind(), Kind::Busy);
        assert_eq!(told(None, "something else").kind(), Kind::Tool);
    }

    #[test]
    fn the_missing_privilege_and_its_path_are_in_the_advice() {
        let e = told(Some(403), "Permission check failed (/vms/101, VM.Audit)");
        let advice = e.advice().unwrap();
        assert!(advice.contains("VM.Audit on /vms/101"), "{advice}");
        // What the other side says never becomes part of a command line to copy.
        let e = told(Some(403), "Permission check failed (/vms/$(id), VM.Audit)");
        assert!(!e.advice().unwrap().contains("$(id)"));
    }

    #[test]
    fn what_it_says_is_one_short_harmless_line() {
        let e = told(Some(500), &format!("a\nb\u{1b}[2J{}", "x".repeat(5000)));
        let text = e.to_string();
        assert!(text.contains("a; b") && text.len() < 1000, "{text}");
        assert!(!text.contains(char::is_control));
    }
}
