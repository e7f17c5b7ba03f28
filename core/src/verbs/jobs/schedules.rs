//! `schedule add`, `list` and `remove`: a job file and the timer that runs it.

use super::job::promises;
use super::{Hosts, Job, JobFront, JobsDir, Options, Plan, Selection, TimeSpan};
use crate::error::{Error, Kind, Result};
use crate::job::fleet::{with_status, Ages};
use crate::job::{statuses, Verdict};
use crate::remote::is_brought;
use crate::verbs::schedule::{Calendar, HostSystemd, Schedules, Systemd, TimerState};
use crate::verbs::FleetArgs;
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;

/// What to do with schedules.
#[derive(Debug, clap::Args)]
pub struct ScheduleArgs<S: clap::Args> {
    #[command(subcommand)]
    verb: ScheduleVerb<S>,
}

#[derive(Debug, clap::Subcommand)]
enum ScheduleVerb<S: clap::Args> {
    /// Let VMs be synced regularly: writes a job file and a systemd timer
    Add(Box<AddArgs<S>>),
    /// All jobs: when they run next, what came of the last run, and how old their replicas are
    List,
    /// Take a schedule away, with its job file; replicas stay
    Remove {
        /// Name of the job
        name: String,
    },
}

#[derive(Debug, clap::Args)]
struct AddArgs<S: clap::Args> {
    /// Name of the job: letters, digits, - and _
    name: String,
    #[command(flatten)]
    selection: S,
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
    /// Replace a job of this name that says something else
    #[arg(long)]
    replace: bool,
}

/// Adds, lists or removes schedules of this host.
pub fn schedule<S: Selection>(args: &ScheduleArgs<S>, front: &JobFront<S>) -> Result<()> {
    let executable =
        std::env::current_exe().map_err(|e| Error::io("cannot tell which program this is", e))?;
    if matches!(args.verb, ScheduleVerb::Add(_)) && is_brought(&executable) {
        let what = format!(
            "{} was brought here for this run, and goes with it",
            executable.display()
        );
        return Err(Error::new(Kind::Refused, what)
            .advise("a timer needs a program that stays: install the package on this host"));
    }
    let schedules = Schedules {
        root: front.root.clone(),
        templates: front.kind.templates,
        executable,
        systemd: &HostSystemd as &dyn Systemd,
    };
    act(args, front, &schedules, &Calendar::check)
}

/// The same with any systemd; `check` tells whether that one understands an expression.
fn act<S: Selection>(
    args: &ScheduleArgs<S>,
    front: &JobFront<S>,
    schedules: &Schedules,
    check: &dyn Fn(&Calendar) -> Result<()>,
) -> Result<()> {
    let jobs = front.jobs();
    match &args.verb {
        ScheduleVerb::Add(args) => add(args, front, (&jobs, schedules), check),
        ScheduleVerb::List => list(front, (&jobs, schedules)),
        ScheduleVerb::Remove { name } => remove(name, front, (&jobs, schedules)),
    }
}

impl<S: Selection> AddArgs<S> {
    fn job(&self, calendar: Calendar, options: Options) -> Result<Job<S>> {
        let rpo = self.fleet.rpo.map(|rpo| format!("{}s", rpo.as_secs()));
        Ok(Job {
            selection: self.selection.clone(),
            plan: Plan {
                to: Hosts::new(self.to.clone())?,
                schedule: Some(calendar),
                random_delay: self.random_delay.clone(),
                rpo: rpo.map(TimeSpan::try_from).transpose()?,
                parallel: Some(self.fleet.parallel),
                per_host: self.fleet.per_host,
            },
            options,
        })
    }
}

fn add<S: Selection>(
    args: &AddArgs<S>,
    front: &JobFront<S>,
    (jobs, schedules): (&JobsDir<S>, &Schedules),
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
    let options = Options::given(front.kind, front.matches)?;
    let job = args.job(calendar.clone(), options)?;
    // Before anything is written: a selection that cannot be carried out here.
    let chosen = (front.pick)(&job.selection)?;
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

fn remove<S: Selection>(
    name: &str,
    front: &JobFront<S>,
    (jobs, schedules): (&JobsDir<S>, &Schedules),
) -> Result<()> {
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

fn list<S: Selection>(
    front: &JobFront<S>,
    (jobs, schedules): (&JobsDir<S>, &Schedules),
) -> Result<()> {
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
                let when = job.plan.schedule.as_ref().map(Calendar::to_string);
                let when = when.unwrap_or_else(|| "no schedule".to_owned());
                format!("{name}: {when}, to {}", job.plan.to.hosts().join(", "))
            }
            Err(e) => format!("{name}: {e}"),
        };
        match &state {
            Some(Ok(state)) => text.push_str(&format!("\n  {}", told(state))),
            Some(Err(e)) => {
                bad.push((name.clone(), e.kind()));
                text.push_str(&format!("\n  its timer cannot be asked about: {e}"));
            }
            None if job.as_ref().is_ok_and(|j| j.plan.schedule.is_none()) => {}
            None => text.push_str("\n  it has no timer: nothing runs it"),
        }
        let promises = job.as_ref().map(|job| promises(job, front.pick));
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
        let schedule = job.as_ref().ok().and_then(|j| j.plan.schedule.clone());
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
mod tests;
