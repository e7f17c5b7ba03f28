//! Many VMs in one run, for whoever started it: a line when one starts and when it ends, a report, an exit code.

use crate::cli::units::{human, human_time, parse_time, printable};
use crate::cli::{Reporter, EXIT_SOME_FAILED};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::job::fleet::{run, Ages, Ending, Limits, Member, Outcome, Runner, Told};
use crate::remote::HostSpec;
use crate::replica::Layout;
use crate::stop::Stop;
use serde_json::{json, Value};
use std::ffi::OsString;
use std::time::{Duration, Instant};

/// Ids that are named in one line.
const NAMED_MAX: usize = 20;

/// How to go about several VMs.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FleetArgs {
    /// VMs to sync at once, where there are several
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub parallel: u32,
    /// Of these, at most so many to one host [default: as many]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub per_host: Option<u32>,
    /// How old the newest generation may be: 15m. Who has used up most of it is synced first, and you are told when a
    /// run takes more than half of it
    #[arg(long, value_name = "TIME", value_parser = parse_rpo)]
    pub rpo: Option<Duration>,
}

impl FleetArgs {
    /// The same as numbers.
    pub fn limits(&self) -> Limits {
        let parallel = self.parallel.max(1);
        Limits {
            parallel: parallel as usize,
            per_host: self.per_host.unwrap_or(parallel).max(1) as usize,
        }
    }
}

/// Reads an RPO: a time span that is not nothing.
pub fn parse_rpo(text: &str) -> Result<Duration> {
    match parse_time(text)? {
        Duration::ZERO => Err(Error::new(
            Kind::Usage,
            "no replica can be younger than that",
        )),
        rpo => Ok(rpo),
    }
}

/// One VM that is to be synced.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its id.
    pub vm: String,
    /// To this host, as it was given.
    pub host: String,
    /// How old the newest generation there may be.
    pub rpo: Option<Duration>,
    /// What the program is told to sync it, with `--json`.
    pub args: Vec<OsString>,
}

/// Whom a selection has come to.
#[derive(Debug, Default)]
pub struct Picked {
    /// They are synced.
    pub tasks: Vec<Task>,
    /// Those of which it cannot be told whether they belong to it: failed before they have begun.
    pub failed: Vec<(String, Error)>,
    /// Those that do not belong to it, and why; for people.
    pub left_out: Vec<String>,
}

/// What runs a fleet, and who hears of it.
pub struct Fleet<'a> {
    /// The front end's program.
    pub program: &'static str,
    /// State on this host.
    pub layout: &'a Layout,
    /// Who is told.
    pub reporter: &'a Reporter,
    /// Whether the reporter says nothing but errors.
    pub quiet: bool,
    /// Ends it early.
    pub stop: &'a Stop,
    /// Syncs one.
    pub runner: Runner,
    /// How many at once.
    pub limits: Limits,
}

/// Syncs all that are picked. Gives the exit code: 0 if all is well, [`EXIT_SOME_FAILED`] if some failed, and if all did,
/// their own if they agree on one.
pub fn fleet(picked: Picked, fleet: &Fleet) -> Result<u8> {
    if picked.tasks.is_empty() && picked.failed.is_empty() {
        let error = Error::new(Kind::NotFound, "the selection comes to no VM of this host");
        return Err(match picked.left_out.is_empty() {
            true => error,
            false => error.because(format!("left out: {}", picked.left_out.join("; "))),
        });
    }
    let reporter = fleet.reporter;
    for why in &picked.left_out {
        reporter.say(
            format!("left out: {why}"),
            json!({"event": "left-out", "text": why}),
        );
    }
    let ages = match Ages::read(fleet.layout) {
        Ok(ages) => ages,
        // It only says who is first. Nobody goes without a sync for that.
        Err(e) => {
            reporter.note(&format!("ages are not known, so the order is by id: {e}"));
            Ages::default()
        }
    };
    let now = clock::now();
    let members: Vec<Member> = picked
        .tasks
        .into_iter()
        .map(|task| Member {
            age_s: ages.age_s(&task.vm, &name_of(&task.host), now),
            rpo_s: task.rpo.map(|rpo| rpo.as_secs()),
            vm: task.vm,
            host: task.host,
            args: task.args,
        })
        .collect();
    let began = Instant::now();
    let sync = |member: &Member| {
        fleet.runner.run(member, fleet.stop, &|event| {
            // In between its events are for machines only.
            if reporter.is_json() {
                reporter.say("", event);
            }
        })
    };
    let ended = run(members, fleet.limits, fleet.stop, &sync, &|told| {
        tell(reporter, told)
    });
    let rows: Vec<Row> = ended
        .into_iter()
        .map(|(member, outcome)| Row::of(member, outcome, began.elapsed()))
        .chain(picked.failed.into_iter().map(|(vm, e)| Row {
            vm,
            host: String::new(),
            outcome: Outcome::failed(crate::cli::exit_code(&e, &Stop::new()), e.to_string()),
            late: None,
        }))
        .collect();
    report(fleet, &rows, &picked.left_out, began.elapsed());
    Ok(judge(&rows, fleet.stop))
}

/// The name under which runs to a host are in the journal: without user and port.
fn name_of(host: &str) -> String {
    HostSpec::parse(host).map_or_else(|_| host.to_owned(), |spec| spec.host().to_owned())
}

/// One line of the report.
struct Row {
    vm: String,
    host: String,
    outcome: Outcome,
    /// The age of the newest generation and what it may be, where that is exceeded, in seconds.
    late: Option<(Option<u64>, u64)>,
}

impl Row {
    /// `since` is how long ago the ages were looked at.
    fn of(member: Member, outcome: Outcome, since: Duration) -> Row {
        let is_synced = outcome.is_done() || outcome.generation.is_some();
        let age = member.age_s.map(|age| age.saturating_add(since.as_secs()));
        let late = member
            .rpo_s
            .filter(|rpo| !is_synced && age.is_none_or(|age| age > *rpo))
            .map(|rpo| (age, rpo));
        Row {
            vm: member.vm,
            host: member.host,
            outcome,
            late,
        }
    }

    fn title(&self) -> String {
        title(&self.vm, &self.host)
    }

    fn text(&self) -> String {
        let outcome = &self.outcome;
        let mut text = format!("  {}: {}", self.title(), result(outcome));
        if let Some((age, rpo)) = self.late {
            let rpo = human_time(Duration::from_secs(rpo));
            text.push_str(&match age {
                Some(age) => format!(
                    "\n    late: its newest generation is {} old, and may be {rpo}",
                    human_time(Duration::from_secs(age))
                ),
                None => "\n    late: there is no generation, as far as is known here".to_owned(),
            });
        }
        for note in &outcome.notes {
            text.push_str(&format!("\n    note: {note}"));
        }
        text
    }

    fn event(&self) -> Value {
        let outcome = &self.outcome;
        let (state, code, why) = match &outcome.ending {
            Ending::Done => ("ok", 0, None),
            Ending::Failed { code, why } => ("failed", *code, Some(why.as_str())),
            Ending::NotStarted => ("not-started", 1, None),
        };
        json!({
            "vm": self.vm,
            "to": self.host,
            "state": state,
            "code": code,
            "why": why,
            "generation": outcome.generation,
            "changed": outcome.changed,
            "wire": outcome.wire,
            "seconds": outcome.took.as_secs_f64(),
            "late": self.late.is_some(),
            "notes": outcome.notes,
        })
    }
}

fn title(vm: &str, host: &str) -> String {
    match host {
        "" => format!("VM {vm}"),
        host => format!("VM {vm} to {}", printable(host)),
    }
}

fn result(outcome: &Outcome) -> String {
    let took = human_time(outcome.took);
    match (&outcome.ending, &outcome.generation) {
        (Ending::Done, Some(name)) => format!(
            "generation {name}, {} changed, {} on the wire, {took}",
            human(outcome.changed),
            human(outcome.wire)
        ),
        (Ending::Done, None) => format!(
            "would be synced, at most {} to read and send, {took}",
            human(outcome.changed)
        ),
        (Ending::Failed { why, .. }, _) => format!("failed: {why}"),
        (Ending::NotStarted, _) => "not started: stopped before".to_owned(),
    }
}

fn tell(reporter: &Reporter, told: Told) {
    match told {
        Told::Started(member) => {
            let age = match member.age_s {
                Some(age) => format!(
                    "newest generation {} old",
                    human_time(Duration::from_secs(age))
                ),
                None => "no generation yet".to_owned(),
            };
            reporter.say(
                format!("{}: started, {age}", title(&member.vm, &member.host)),
                json!({"event": "vm-started", "vm": member.vm, "to": member.host, "age_s": member.age_s}),
            );
        }
        Told::Ended(member, outcome) => {
            reporter.say(
                format!("{}: {}", title(&member.vm, &member.host), result(outcome)),
                json!({"event": "vm-ended", "vm": member.vm, "to": member.host, "ok": outcome.is_done()}),
            );
            warn_if_slow(reporter, member, outcome);
        }
    }
}

fn warn_if_slow(reporter: &Reporter, member: &Member, outcome: &Outcome) {
    if let Some(rpo) = member.rpo_s.map(Duration::from_secs) {
        tell_slow(reporter, (&member.vm, &member.host), outcome.took, rpo);
    }
}

/// Warns where a run took more than half of what may pass between two points in time: the next one cannot wait for it,
/// nor for others.
pub fn tell_slow(reporter: &Reporter, (vm, host): (&str, &str), took: Duration, rpo: Duration) {
    if took <= rpo / 2 {
        return;
    }
    reporter.say(
        format!(
            "  warning: {}: the run took {}, more than half of its RPO of {}",
            title(vm, host),
            human_time(took),
            human_time(rpo)
        ),
        json!({"event": "rpo", "vm": vm, "to": host, "seconds": took.as_secs_f64(), "rpo_s": rpo.as_secs()}),
    );
}

fn report(fleet: &Fleet, rows: &[Row], left_out: &[String], took: Duration) {
    let done = rows.iter().filter(|r| r.outcome.is_done()).count();
    let bad: Vec<&Row> = rows.iter().filter(|r| !r.outcome.is_done()).collect();
    let sum = |of: fn(&Outcome) -> u64| {
        let values = rows.iter().map(|r| of(&r.outcome));
        values.fold(0, u64::saturating_add)
    };
    let (changed, wire) = (sum(|o| o.changed), sum(|o| o.wire));
    let mut text: Vec<String> = rows.iter().map(Row::text).collect();
    let plural = if rows.len() == 1 { "run" } else { "runs" };
    text.insert(
        0,
        format!(
            "{} {plural}: {done} done, {} failed or not started; {} changed, {} on the wire, {}",
            rows.len(),
            bad.len(),
            human(changed),
            human(wire),
            human_time(took)
        ),
    );
    fleet.reporter.say(
        text.join("\n"),
        json!({
            "event": "fleet",
            "vms": rows.iter().map(Row::event).collect::<Vec<_>>(),
            "left_out": left_out,
            "done": done,
            "failed": bad.len(),
            "changed": changed,
            "wire": wire,
            "seconds": took.as_secs_f64(),
        }),
    );
    if bad.is_empty() {
        return;
    }
    if fleet.quiet {
        for row in &bad {
            let error = Error::new(
                Kind::Tool,
                format!("{}: {}", row.title(), result(&row.outcome)),
            );
            fleet.reporter.fail(fleet.program, &error);
        }
    }
    let mut named: Vec<&str> = bad.iter().map(|r| r.vm.as_str()).take(NAMED_MAX).collect();
    if bad.len() > NAMED_MAX {
        named.push("...");
    }
    let what = format!(
        "{} of {} failed or were not started: VM {}",
        bad.len(),
        rows.len(),
        named.join(", ")
    );
    let error = Error::new(Kind::Tool, what);
    fleet.reporter.fail(fleet.program, &error);
}

fn judge(rows: &[Row], stop: &Stop) -> u8 {
    let bad = || rows.iter().filter(|r| !r.outcome.is_done());
    if bad().count() == 0 {
        return 0;
    }
    if let Some(signal) = stop.signal() {
        return 128 + (signal & 0x7f) as u8;
    }
    if rows.iter().any(|r| r.outcome.is_done()) {
        return EXIT_SOME_FAILED;
    }
    let codes = bad().map(|r| match r.outcome.ending {
        // Those from 128 on mean that we were told to stop, and 5 that there were several.
        Ending::Failed {
            code: code @ 1..=4, ..
        } => code,
        _ => 1,
    });
    let mut codes: Vec<u8> = codes.collect();
    codes.dedup();
    match codes.as_slice() {
        [code] => *code,
        _ => 1,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "fleet/tests.rs"]
mod tests;
