//! Waiting for a task: only its end tells whether a call did what it was asked to.

use super::names::Upid;
use super::pve::Pve;
use super::refusal::{judge_task, one_line};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::stop::Stop;
use std::time::{Duration, Instant};

/// Between the first two looks; it doubles each time.
const LOOK_FIRST: Duration = Duration::from_millis(20);
/// Between two looks at most.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Between two looks at the stop flag.
const STOP_LOOK: Duration = Duration::from_millis(100);
/// Lines of the log that are shown with a failure.
const LOG_SHOWN: usize = 5;

/// How a task that did its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskEnd {
    /// Well.
    Done,
    /// Well, with that many warnings in its log.
    Warnings(u32),
}

/// Waits until the task has ended, at most until `deadline`.
///
/// Fails with [`Kind::Timeout`] then and with [`Kind::Cancelled`] if `stop` is set; in both cases the task goes on. If the
/// task failed, its own words are the reason, with the end of its log.
pub fn wait(
    pve: &(impl Pve + ?Sized),
    upid: &Upid,
    deadline: Instant,
    stop: &Stop,
) -> Result<TaskEnd> {
    let mut pause = LOOK_FIRST;
    loop {
        let status = pve.task_status(upid)?;
        if status.status == "stopped" {
            return ended(pve, upid, status.exitstatus.as_deref().unwrap_or(""));
        }
        if Instant::now() >= deadline {
            let what = format!("{} did not end in time", name(upid));
            return Err(Error::new(Kind::Timeout, what).advise(format!(
                "it goes on there: see `pvenode task status {upid}` on {}",
                upid.node()
            )));
        }
        let until = (Instant::now() + pause).min(deadline);
        while Instant::now() < until {
            stop.check()
                .map_err(|e| e.followed_by(format!("{} goes on", name(upid))))?;
            std::thread::sleep(
                until
                    .saturating_duration_since(Instant::now())
                    .min(STOP_LOOK),
            );
        }
        pause = (pause * 2).min(LOOK_MAX);
    }
}

fn ended(pve: &(impl Pve + ?Sized), upid: &Upid, exitstatus: &str) -> Result<TaskEnd> {
    if exitstatus == "OK" {
        return Ok(TaskEnd::Done);
    }
    if let Some(count) = exitstatus.strip_prefix("WARNINGS: ") {
        if let Ok(count) = count.trim().parse() {
            return Ok(TaskEnd::Warnings(count));
        }
    }
    let said = match one_line(exitstatus) {
        said if said.is_empty() => "it does not say how it ended".to_owned(),
        said => said,
    };
    let (kind, advice) = judge_task(&said);
    // The task ran on a node, so what went wrong there is no failure of a tool of ours.
    let kind = match kind {
        Kind::Tool => Kind::Remote,
        kind => kind,
    };
    let why = match last_words(pve, upid, &said) {
        Some(log) => format!("{said}; its log ends: {log}"),
        None => said,
    };
    let error = Error::new(kind, format!("{} failed", name(upid))).because(why);
    Err(match advice {
        Some(advice) => error.advise(advice),
        None => error,
    })
}

/// The end of the log, without what is known already. The log only explains: if it cannot be had, nothing is said.
fn last_words(pve: &(impl Pve + ?Sized), upid: &Upid, said: &str) -> Option<String> {
    let log = pve.task_log(upid).ok()?;
    let lines: Vec<String> = log
        .iter()
        .map(|line| one_line(&line.t))
        .filter(|t| !t.is_empty() && !t.contains(said) && !t.starts_with("TASK "))
        .collect();
    let tail = &lines[lines.len().saturating_sub(LOG_SHOWN)..];
    (!tail.is_empty()).then(|| tail.join("; "))
}

fn name(upid: &Upid) -> String {
    match upid.object.as_str() {
        "" => format!("the task {} on {}", upid.task, upid.node()),
        object => format!("the task {} of {object} on {}", upid.task, upid.node()),
    }
}
