//! The way to the API on a node itself: `pvesh`, as root. It needs no token and no certificate, and reaches the other
//! nodes of the cluster too.
//!
//! A call that starts a task does not return before the task has ended: `pvesh` prints the task's log, and its id at the
//! end. So its time limit is that of the task.

use super::call::{odd_answer, Call, Transport};
use super::calls::Method;
use super::names::Upid;
use super::refusal::Refusal;
use rblocksync::cmd::{Cmd, Tool};
use rblocksync::error::Result;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A question to another node goes over ssh.
const ASK_TIME: Duration = Duration::from_secs(60);
/// A shutdown waits for the guest; a task that takes longer than this hangs.
const TASK_TIME: Duration = Duration::from_secs(3600);

/// `pvesh` on this node.
#[derive(Debug, Clone, Default)]
pub struct Pvesh {
    program: Option<PathBuf>,
}

impl Pvesh {
    /// The one that is installed.
    pub fn new() -> Pvesh {
        Pvesh::default()
    }

    /// Another program in its place, for tests.
    pub fn stand_in(program: PathBuf) -> Pvesh {
        Pvesh {
            program: Some(program),
        }
    }
}

impl Transport for Pvesh {
    fn send(&self, call: &Call) -> Result<Value> {
        let (asking, limit) = match call.method() {
            Method::Get => (true, ASK_TIME),
            _ => (false, TASK_TIME),
        };
        let any_failure: Vec<i32> = (1..=255).collect();
        let output = Cmd::new(Tool::Pvesh)
            .stand_in(self.program.clone())
            .arg(call.method().pvesh())
            .arg(call.path())
            // Name and value are one word, so no value is taken for an option.
            .args(call.params().iter().map(|(n, v)| format!("--{n}={v}")))
            .args(["--output-format", "json"])
            .timeout(limit)
            .accept(&any_failure)
            .run()?;
        // A task that failed is told by its id as well, and then its end has the reason.
        let task = (!asking).then(|| task_id(&output.stdout)).flatten();
        if let Some(upid) = task {
            return Ok(Value::String(upid.to_string()));
        }
        if output.code != 0 {
            return Err(refusal(&output.stderr, output.code).error(call));
        }
        answer(&output.stdout).map_err(|e| odd_answer(call, e))
    }
}

/// The task's id is in the last line that is one, with or without quotes: the log comes before it.
fn task_id(stdout: &[u8]) -> Option<Upid> {
    let text = String::from_utf8_lossy(stdout);
    let ids = text
        .lines()
        .rev()
        .map(|line| line.trim().trim_matches('"'))
        .filter(|line| line.starts_with("UPID:"));
    ids.map(str::parse).find_map(Result::ok)
}

/// What was printed is the data; nothing is for null.
fn answer(stdout: &[u8]) -> std::result::Result<Value, serde_json::Error> {
    match stdout.trim_ascii() {
        [] => Ok(Value::Null),
        json => serde_json::from_slice(json),
    }
}

/// What `pvesh` said: a sentence, for bad parameters after a "400 Parameter verification failed." and followed by one
/// `name: why` each and the usage.
fn refusal(stderr: &str, code: i32) -> Refusal {
    let mut errors = BTreeMap::new();
    let mut parts = stderr.split("; ").filter(|p| !p.is_empty() && !is_usage(p));
    let message = match parts.next() {
        Some(first) => first.to_owned(),
        None => format!("pvesh failed with exit code {code}, and gives no reason"),
    };
    let status = message
        .get(..4)
        .filter(|s| s.ends_with(' '))
        .and_then(|s| s.trim().parse().ok())
        .filter(|status| (400..600).contains(status));
    if status == Some(400) {
        errors.extend(parts.filter_map(|part| {
            let (name, why) = part.split_once(": ")?;
            Some((name.to_owned(), why.to_owned()))
        }));
        return Refusal {
            status,
            message,
            errors,
        };
    }
    let rest: Vec<&str> = parts.collect();
    let message = match rest.is_empty() {
        true => message,
        false => format!("{message}; {}", rest.join("; ")),
    };
    Refusal {
        status,
        message,
        errors,
    }
}

fn is_usage(part: &str) -> bool {
    [
        "pvesh get ",
        "pvesh create ",
        "pvesh set ",
        "pvesh delete ",
        "USAGE:",
    ]
    .iter()
    .any(|u| part.starts_with(u))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_id_comes_after_the_log() {
        let upid = "UPID:pve1:0003E8A1:00BC614E:66F2A3B4:qmstart:101:root@pam:";
        for printed in [
            format!("{upid}\n"),
            format!("\"{upid}\"\n"),
            format!("generating cloud-init ISO\nWARN: x\n\"{upid}\"\n"),
            // A log may name other tasks, and be followed by something that is none.
            format!("UPID:other\n{upid}\nTASK ERROR: no\n"),
        ] {
            assert_eq!(task_id(printed.as_bytes()).unwrap().to_string(), upid);
        }
        assert!(task_id(b"UPID:x\nok").is_none());
        assert!(task_id(b"").is_none());
    }

    #[test]
    fn bad_parameters_are_told_apart_from_the_usage() {
        let said = "400 Parameter verification failed.; vmid: invalid format; pvesh create <api_path> [OPTIONS]";
        let refusal = refusal(said, 2);
        assert_eq!(refusal.status, Some(400));
        assert_eq!(refusal.errors["vmid"], "invalid format");
        assert_eq!(refusal.errors.len(), 1);
    }

    #[test]
    fn a_failure_without_a_word_is_told() {
        assert!(refusal("", 255).message.contains("255"));
        assert_eq!(
            refusal("VM is locked (backup)", 2).message,
            "VM is locked (backup)"
        );
    }
}
