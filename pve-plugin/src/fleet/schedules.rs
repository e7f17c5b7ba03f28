//! `schedule add`, `list` and `remove`: a job file and the timer that runs it.

use super::ids::IdList;
use super::jobs::promises;
use super::{Front, SelectionArgs};
use crate::jobs_file::{Hosts, JobFile, JobsDir, Rate, TimeSpan};
use jiff::Timestamp;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::job::fleet::{with_status, Ages};
use rblocksync::job::{statuses, Verdict};
use rblocksync::verbs::schedule::{
    Calendar, HostSystemd, Schedules, Systemd, Templates, TimerState,
};
use rblocksync::verbs::FleetArgs;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// The units, as they are packaged.
const TEMPLATES: Templates = Templates {
    program: crate::source::PROGRAM,
    job: include_str!("../../../packaging/systemd/pvesync-job@.service"),
    notify: include_str!("../../../packaging/systemd/pvesync-notify@.service"),
};

/// What to do with schedules.
#[derive(Debug, clap::Args)]
pub struct ScheduleArgs {
    #[command(subcommand)]
    verb: ScheduleVerb,
}

#[derive(Debug, clap::Subcommand)]
enum ScheduleVerb {
    /// Let VMs be synced regularly: writes a job file and a systemd timer
    Add(Box<AddArgs>),
    /// All jobs: when they run next, what came of the last run, and how old their replicas are
    List,
    /// Take a schedule away, with its job file; replicas stay
    Remove {
        /// Name of the job
        name: String,
    },
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// Name of the job: letters, digits, - and _
    name: String,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Host to keep the replicas on; may be given more than once
    #[arg(long, value_name = "HOST", required = true)]
    to: Vec<String>,
    /// How often: 15m, 1h, 1d. A part of an hour or a day
    #[arg(long, value_name = "TIME", required_unless_present = "on_calendar")]
    every: Option<TimeSpan>,
    /// When, as systemd writes it: "Sat 03:00" (systemd.time(7))
    #[arg(long, value_name = "EVENT", conflicts_with = "every")]
    on_calendar: Option<Calendar>,
    /// Begin up to so much later, so that not all hosts begin at once [default: a tenth of --every, or 30s]
    #[arg(long, value_name = "TIME")]
    random_delay: Option<TimeSpan>,
    #[command(flatten)]
    fleet: FleetArgs,
    /// Generations to keep there
    #[arg(long, value_name = "N")]
    keep: Option<u32>,
    /// Keep also all taken within this time before the newest: 7d
    #[arg(long, value_name = "TIME")]
    keep_within: Option<TimeSpan>,
    /// Send at most this many bytes of data a second (K, M, G)
    #[arg(long, value_name = "RATE")]
    bwlimit: Option<Rate>,
    /// Put disks of storage SRC on storage DST there; may be given more than once
    #[arg(long, value_name = "SRC=DST", value_parser = parse_map)]
    storage: Vec<(String, String)>,
    /// Replace a job of this name that says something else
    #[arg(long)]
    replace: bool,
}

fn parse_map(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok((from.into(), to.into())),
        _ => Err("write SRC=DST".into()),
    }
}

/// Adds, lists or removes schedules of this host.
pub fn schedule(args: &ScheduleArgs, front: &Front) -> Result<()> {
    let executable =
        std::env::current_exe().map_err(|e| Error::io("cannot tell which program this is", e))?;
    let schedules = Schedules {
        root: front.root.clone(),
        templates: &TEMPLATES,
        executable,
        systemd: &HostSystemd as &dyn Systemd,
    };
    act(args, front, &schedules, &Calendar::check)
}

/// The same with any systemd; `check` tells whether that one understands an expression.
fn act(
    args: &ScheduleArgs,
    front: &Front,
    schedules: &Schedules,
    check: &dyn Fn(&Calendar) -> Result<()>,
) -> Result<()> {
    let jobs = JobsDir::new(&front.root, front.takes);
    match &args.verb {
        ScheduleVerb::Add(args) => add(args, front, (&jobs, schedules), check),
        ScheduleVerb::List => list(front, (&jobs, schedules)),
        ScheduleVerb::Remove { name } => remove(name, front, (&jobs, schedules)),
    }
}

impl AddArgs {
    fn job(&self, calendar: Calendar) -> Result<JobFile> {
        let mut storage = BTreeMap::new();
        for (from, to) in &self.storage {
            if storage
                .insert(from.clone(), to.clone())
                .is_some_and(|old| old != *to)
            {
                let what = format!("--storage {from} is given twice");
                return Err(Error::new(Kind::Usage, what));
            }
        }
        let rpo = self.fleet.rpo.map(|rpo| format!("{}s", rpo.as_secs()));
        Ok(JobFile {
            vms: IdList::join(&self.selection.vms),
            all: self.selection.all,
            tags: self.selection.tag.clone(),
            pools: self.selection.pool.clone(),
            exclude_vms: IdList::join(&self.selection.exclude_vm),
            to: Hosts::new(self.to.clone())?,
            schedule: Some(calendar),
            random_delay: self.random_delay.clone(),
            rpo: rpo.map(TimeSpan::try_from).transpose()?,
            parallel: Some(self.fleet.parallel),
            per_host: self.fleet.per_host,
            keep: self.keep,
            keep_within: self.keep_within.clone(),
            bwlimit: self.bwlimit.clone(),
            storage,
            ..JobFile::default()
        })
    }
}

fn add(
    args: &AddArgs,
    front: &Front,
    (jobs, schedules): (&JobsDir, &Schedules),
    check: &dyn Fn(&Calendar) -> Result<()>,
) -> Result<()> {
    let period = args.every.as_ref().map(TimeSpan::get);
    let calendar = match (&args.on_calendar, period) {
        (Some(calendar), _) => calendar.clone(),
        (None, Some(period)) => Calendar::every(period)?,
        (None, None) => return Err(Error::new(Kind::Usage, "it is not said when")),
    };
    check(&calendar)?;
    let delay = match &args.random_delay {
        Some(delay) => delay.get(),
        None => Calendar::delay(period),
    };
    let job = args.job(calendar.clone())?;
    // Before anything is written: a pool that is not there, a file tree that is no node's.
    let chosen = super::jobs::chosen(&job, &front.tree)?;
    let written = jobs.write(&args.name, &job, args.replace)?;
    schedules.add(&args.name, &calendar, delay).map_err(|e| {
        e.followed_by(format!(
            "the job file is written: {}; run the command again when that is put right",
            jobs.path(&args.name).display()
        ))
    })?;
    front.reporter.say(
        format!(
            "job {}: {} to {}, {} VMs now; {}",
            args.name,
            calendar,
            args.to.join(", "),
            chosen.vms.len(),
            jobs.path(&args.name).display()
        ),
        json!({
            "event": "schedule-added",
            "name": args.name,
            "schedule": calendar,
            "file": jobs.path(&args.name),
            "changed": written,
        }),
    );
    if chosen.vms.is_empty() {
        front.reporter.note("no VM is meant by it at present");
    }
    Ok(())
}

fn remove(name: &str, front: &Front, (jobs, schedules): (&JobsDir, &Schedules)) -> Result<()> {
    // The timer first: without its file a job would fail each time.
    let timer = schedules.remove(name)?;
    let file = jobs.remove(name)?;
    let text = match timer || file {
        true => format!("job {name} is gone; its replicas stay"),
        false => format!("there is no job {name}, so nothing was to be done"),
    };
    front.reporter.say(
        text,
        json!({"event": "schedule-removed", "name": name, "existed": timer || file}),
    );
    Ok(())
}

fn list(front: &Front, (jobs, schedules): (&JobsDir, &Schedules)) -> Result<()> {
    let mut names: BTreeSet<String> = jobs.names()?.into_iter().collect();
    let timers = schedules.timers()?;
    names.extend(timers.iter().cloned());
    if names.is_empty() {
        front
            .reporter
            .say("there are no jobs", json!({"event": "no-schedules"}));
    }
    let found = statuses(front.layout, None)?;
    let ages = Ages::read(front.layout)?;
    let now = Timestamp::now();
    let mut bad = Vec::new();
    for name in names {
        let job = jobs.load(&name);
        let state = match timers.contains(&name) {
            true => Some(schedules.state(&name)),
            false => None,
        };
        let mut text = match &job {
            Ok(job) => {
                let when = job.schedule.as_ref().map(Calendar::to_string);
                let when = when.unwrap_or_else(|| "no schedule".to_owned());
                format!("{name}: {when}, to {}", job.to.hosts().join(", "))
            }
            Err(e) => format!("{name}: {e}"),
        };
        match &state {
            Some(Ok(state)) => text.push_str(&format!("\n  {}", told(state))),
            Some(Err(e)) => {
                bad.push((name.clone(), e.kind()));
                text.push_str(&format!("\n  its timer cannot be asked about: {e}"));
            }
            None if job.as_ref().is_ok_and(|j| j.schedule.is_none()) => {}
            None => text.push_str("\n  it has no timer: nothing runs it"),
        }
        let promises = job.as_ref().map(|job| promises(job, &front.tree));
        let mut rpo = Vec::new();
        match promises {
            Ok(Ok(promises)) => {
                for (status, rpo_s) in with_status(&promises, &found, &ages) {
                    let (verdict, why) = status.judge(rpo_s, now);
                    if verdict != Verdict::Ok {
                        text.push_str(&format!("\n  VM {} to {}: {why}", status.vm, status.peer));
                    }
                    rpo.push(
                        json!({"vm": status.vm, "to": status.peer, "verdict": verdict, "why": why}),
                    );
                }
                if !rpo.is_empty() && rpo.iter().all(|r| r["verdict"] == "OK") {
                    text.push_str(&format!("\n  {} replicas, all within their RPO", rpo.len()));
                }
            }
            Ok(Err(e)) => {
                bad.push((name.clone(), e.kind()));
                text.push_str(&format!("\n  its VMs cannot be told: {e}"));
            }
            Err(e) => bad.push((name.clone(), e.kind())),
        }
        let timer = state.as_ref().and_then(|s| s.as_ref().ok());
        let fault = job.as_ref().err().map(ToString::to_string);
        let schedule = job.as_ref().ok().and_then(|j| j.schedule.clone());
        front.reporter.say(
            text,
            json!({
                "event": "schedule", "name": name, "schedule": schedule,
                "timer": timer, "rpo": rpo, "fault": fault,
            }),
        );
    }
    let Some((_, kind)) = bad.first() else {
        return Ok(());
    };
    let names: BTreeSet<&str> = bad.iter().map(|(name, _)| name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    Err(Error::new(
        *kind,
        format!("not in order: {}", names.join(", ")),
    ))
}

fn told(state: &TimerState) -> String {
    let time = |s: Option<i64>| match s.and_then(|s| Timestamp::new(s, 0).ok()) {
        Some(at) => at.to_string(),
        None => "never".to_owned(),
    };
    let mut text = match state.active {
        true => format!("next {}", time(state.next_s)),
        false => "its timer is not active".to_owned(),
    };
    if !state.enabled {
        text.push_str(", not enabled: gone after a restart of the host");
    }
    text.push_str(&format!(", last {}", time(state.last_s)));
    match (state.running, state.exit_code) {
        (true, _) => text.push_str(", runs now"),
        (false, Some(0)) => text.push_str(": well"),
        (false, Some(code)) => text.push_str(&format!(": {}, exit code {code}", state.result)),
        (false, None) => {}
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "schedules/tests.rs"]
mod tests;
