//! Removing what points in time have made in a QEMU, also those of runs that were killed. All of it is known by its
//! names, which begin with ours.

use super::blocks::{nodes, BlockNode, ANSWER_TIMEOUT};
use super::qmp::Qmp;
use crate::error::{Error, Kind, Result};
use crate::lock::private_dir;
use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde_json::{json, Value};
use std::path::Path;
use std::time::{Duration, Instant};

/// What the names begin with of all that is made for one run. Those of bitmaps that stay have the pair's id behind it.
pub(super) const PREFIX: &str = "rbs-";

/// What the name of a run's copy of a bitmap ends with.
const SINCE: &str = "-since";

/// How long a job may take to end, and how often it is looked at.
const JOB_PATIENCE: Duration = Duration::from_secs(30);
const JOB_POLL: Duration = Duration::from_millis(10);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct BlockJob {
    pub device: String,
    pub io_status: String,
}

#[derive(Debug, Deserialize)]
struct Job {
    id: String,
    status: String,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct BlockExport {
    id: String,
}

fn ask<T: DeserializeOwned>(qmp: &mut Qmp, query: &str) -> Result<T> {
    let answer = qmp.execute(query, json!({}), ANSWER_TIMEOUT)?;
    serde_json::from_value(answer)
        .map_err(|e| Error::new(Kind::Protocol, format!("QEMU answers {query} oddly")).because(e))
}

fn tell(qmp: &mut Qmp, command: &str, arguments: Value) -> Result<()> {
    qmp.execute(command, arguments, ANSWER_TIMEOUT).map(drop)
}

pub(super) fn block_jobs(qmp: &mut Qmp) -> Result<Vec<BlockJob>> {
    ask(qmp, "query-block-jobs")
}

/// Exports, jobs, nodes and copies of bitmaps of any run. The caller holds the VM's lock, so no other run is alive.
pub(super) fn sweep(qmp: &mut Qmp) -> Result<()> {
    let others_export = exports(qmp)?;
    jobs(qmp)?;
    let all = nodes(qmp)?;
    let ours = |node: &BlockNode| node.node_name.starts_with(PREFIX);
    if all.iter().any(ours) && !others_export {
        // A node of ours is made before the server is started and goes after it.
        stop_server(qmp)?;
    }
    for node in all.iter().filter(|node| !ours(node)) {
        bitmaps(qmp, node, |name| {
            name.starts_with(PREFIX) && name.ends_with(SINCE)
        })?;
    }
    // What lies above goes first.
    for above in [true, false] {
        for node in all
            .iter()
            .filter(|n| ours(n) && n.node_name.ends_with("-file") != above)
        {
            tell(qmp, "blockdev-del", json!({"node-name": node.node_name}))?;
        }
    }
    Ok(())
}

/// Ends our exports: from then on nothing can be read. Whether somebody else has one.
pub(super) fn exports(qmp: &mut Qmp) -> Result<bool> {
    let all: Vec<BlockExport> = ask(qmp, "query-block-exports")?;
    let mut others = false;
    for export in &all {
        if !export.id.starts_with(PREFIX) {
            others = true;
            continue;
        }
        tell(
            qmp,
            "block-export-del",
            json!({"id": export.id, "mode": "hard"}),
        )?;
    }
    let until = Instant::now() + JOB_PATIENCE;
    while ask::<Vec<BlockExport>>(qmp, "query-block-exports")?
        .iter()
        .any(|export| export.id.starts_with(PREFIX))
    {
        wait(until, "an export of ours does not end")?;
    }
    Ok(others)
}

/// Ends our jobs: from then on nothing is copied.
pub(super) fn jobs(qmp: &mut Qmp) -> Result<()> {
    for job in ask::<Vec<Job>>(qmp, "query-jobs")? {
        if job.id.starts_with(PREFIX) {
            match job.status.as_str() {
                "concluded" => tell(qmp, "job-dismiss", json!({"id": job.id}))?,
                "null" | "aborting" => {}
                _ => tell(qmp, "job-cancel", json!({"id": job.id}))?,
            }
        }
    }
    let until = Instant::now() + JOB_PATIENCE;
    loop {
        let left: Vec<Job> = ask(qmp, "query-jobs")?;
        let mut ours = left.iter().filter(|job| job.id.starts_with(PREFIX));
        let Some(job) = ours.next() else {
            return Ok(());
        };
        if job.status == "concluded" {
            tell(qmp, "job-dismiss", json!({"id": job.id}))?;
        }
        wait(until, "a job of ours does not end")?;
    }
}

/// Waits for the end of a job that is to be dismissed by hand.
pub(super) fn concluded(qmp: &mut Qmp, id: &str) -> Result<()> {
    let until = Instant::now() + JOB_PATIENCE;
    loop {
        let jobs: Vec<Job> = ask(qmp, "query-jobs")?;
        let Some(job) = jobs.into_iter().find(|job| job.id == id) else {
            return Err(Error::new(Kind::Tool, format!("QEMU lost its job {id}")));
        };
        if job.status == "concluded" {
            tell(qmp, "job-dismiss", json!({"id": id}))?;
            return match job.error {
                None => Ok(()),
                Some(e) => {
                    Err(Error::new(Kind::Tool, format!("QEMU's job {id} failed")).because(e))
                }
            };
        }
        wait(until, "a job of ours does not end")?;
    }
}

/// Removes the bitmaps of `node` whose names are to go.
pub(super) fn bitmaps(qmp: &mut Qmp, node: &BlockNode, goes: impl Fn(&str) -> bool) -> Result<()> {
    for bitmap in node.dirty_bitmaps.iter().filter(|b| goes(&b.name)) {
        let which = json!({"node": node.node_name, "name": bitmap.name});
        tell(qmp, "block-dirty-bitmap-remove", which)?;
    }
    Ok(())
}

fn stop_server(qmp: &mut Qmp) -> Result<()> {
    match tell(qmp, "nbd-server-stop", json!({})) {
        // It was not running.
        Err(e) if e.kind() == Kind::Tool => Ok(()),
        done => done,
    }
}

/// Makes `dir` if it is missing, and removes what dead runs have left in it. Not if a run of ours has `begun` there,
/// which did so itself.
pub fn sweep_scratch(dir: &Path, begun: bool) -> Result<()> {
    private_dir(dir)?;
    match begun {
        true => Ok(()),
        false => files(dir),
    }
}

/// Removes the directories of dead runs.
pub(super) fn files(dir: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("cannot clear {}", dir.display()), e);
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
        {
            std::fs::remove_dir_all(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

fn wait(until: Instant, what: &str) -> Result<()> {
    if Instant::now() >= until {
        return Err(Error::new(Kind::Timeout, what));
    }
    std::thread::sleep(JOB_POLL);
    Ok(())
}
