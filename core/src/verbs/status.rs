//! `status`: how all replications stand that this host has a part in.

use super::{metrics, Promised};
use crate::cli::units::{human_time, parse_time, printable};
use crate::cli::Reporter;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::job::fleet::{with_status, Ages};
use crate::job::{statuses, PairStatus, Verdict};
use crate::journal::Side;
use crate::replica::{Layout, Standing};
use jiff::Timestamp;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// What to tell.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Only of this VM
    vm: Option<String>,
    /// Tell also whether the newest generation is younger than this: 15m
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    max_age: Option<Duration>,
    /// Write it to FILE for Prometheus' node exporter (its name must end in .prom) instead of printing it
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
}

/// Prints the status, or writes it as metrics, with what jobs promise.
pub fn status(
    args: &StatusArgs,
    layout: &Layout,
    reporter: &Reporter,
    promised: Promised,
) -> Result<()> {
    let found = statuses(layout, args.vm.as_deref())?;
    let now = clock::now();
    if let Some(path) = &args.metrics {
        let mut promised = with_status(&promised()?, &found, &Ages::read(layout)?);
        promised.retain(|(status, _)| args.vm.as_ref().is_none_or(|vm| status.vm == *vm));
        return metrics::write(path, &found, &promised, now);
    }
    if found.is_empty() {
        return Err(Error::new(
            Kind::NotFound,
            "nothing of this kind is replicated from or to this host",
        )
        .advise("a first sync makes a replica: vm VM --to HOST"));
    }
    for status in &found {
        let judged = args.max_age.map(|max| status.judge(max.as_secs(), now));
        reporter.say(
            text(status, judged.as_ref().map(|j| j.0), now),
            json!({
                "event": "status",
                "status": status,
                "age_s": status.age_s(now),
                "rpo": judged.map(|(verdict, why)| json!({"verdict": verdict, "why": why})),
            }),
        );
    }
    Ok(())
}

fn text(status: &PairStatus, verdict: Option<Verdict>, now: Timestamp) -> String {
    let name = match status.name.as_str() {
        "" => String::new(),
        name => format!(" ({})", printable(name)),
    };
    let way = match status.side {
        Side::Source => "replicated to",
        Side::Target => "replica of a VM on",
    };
    let mut text = format!(
        "VM {}{name}, {way} {}: ",
        status.vm,
        printable(&status.peer)
    );
    text.push_str(&match (status.generation, status.age_s(now)) {
        (Some(number), Some(age)) => {
            let age = Duration::from_secs(age.max(0).unsigned_abs());
            format!("generation {number} of {} ago", human_time(age))
        }
        _ => "no generation yet".to_owned(),
    });
    if let Some(Standing { role, epoch }) = status.standing {
        text.push_str(&format!(", {role} in epoch {epoch}"));
    }
    if let Some(count) = status.generations {
        text.push_str(&format!(", {count} kept"));
    }
    if let Some((number, boot)) = &status.booted {
        text.push_str(&format!(", generation {number} booted {:.0}", boot.at));
    }
    if let Some((number, checked)) = &status.checked {
        match checked.whole {
            Some(whole) => text.push_str(&format!(", generation {number} verified {whole:.0}")),
            None if checked.damaged.is_empty() => text.push_str(&format!(
                ", generation {number} verified in part {:.0}",
                checked.at
            )),
            None => {}
        }
    }
    match verdict {
        None => {}
        Some(_) if status.damage().is_some() => {}
        Some(Verdict::Ok | Verdict::Warning) => text.push_str(", young enough"),
        Some(Verdict::Critical) => text.push_str(", too old"),
        Some(Verdict::Unknown) => text.push_str(", of the future: a clock was set back"),
    }
    if let Some(last) = &status.last {
        if last.running {
            text.push_str(&format!("\n  a run is in its step {}", last.state));
        }
    }
    if let Some(damage) = status.damage() {
        text.push_str(&format!(
            "\n  {}: do not boot it; 'verify' tells more",
            printable(&damage)
        ));
    }
    if let Some(problem) = status.last_problem() {
        text.push_str(&format!("\n  {}", printable(&problem)));
    }
    text
}
