//! All that is told of one replication.

use super::facts::{Facts, Marks, Newest, Point, Replication};
use super::health::{states, State};
use super::map;
use super::page::{chip, ends, time, NOTHING};
use super::timeline;
use super::words::{ago, clip, minute, name, percent, span, TEXT_MAX};
use crate::cli::units::{human, human_time};
use crate::journal::{RunRecord, Side};
use maud::{html, Markup};
use std::time::Duration;

/// Generations that are listed, the newest and those that are pinned or were checked.
const GENERATIONS_MAX: usize = 8;
const MARKED_MAX: usize = 8;
/// Runs that are listed.
const RUNS_MAX: usize = 8;
/// Disks that are listed.
const DISKS_MAX: usize = 16;
/// Disks of which there is a map.
const MAPS_MAX: usize = 8;
/// Notes of a generation that are shown.
const NOTES_MAX: usize = 6;

/// One replication.
pub(super) fn card(replication: &Replication, id: &str, facts: &Facts) -> Markup {
    let states = states(replication, facts);
    let status = &replication.status;
    let newest = replication.generations.last();
    html! {
        article.card id=(id) aria-labelledby={ (id) "-h" } {
            header {
                h3 id={ (id) "-h" } { (ends(replication)) }
                p.chips { @for state in &states { (chip(*state)) } }
            }
            @if let (Some(rpo_s), Some(age_s)) = (replication.rpo_s, status.age_s(facts.now)) {
                @if !states.contains(&State::Over) { (meter(age_s, rpo_s)) }
            }
            dl {
                (fact("Newest generation", match newest {
                    Some(point) => html! { (point.name) ", " (time(point.taken_at, facts.now)) },
                    None => html! { "none" },
                }))
                @if let Some(point) = newest {
                    (fact("Consistency", html! { (point.consistency.to_string()) }))
                }
                (fact("Kept", match replication.generations.len() {
                    1 => html! { "1 generation" },
                    n => html! { (n) " generations" },
                }))
                (fact("Verified", verified(&replication.generations, facts)))
                (fact("Booted in a test", booted(&replication.generations, facts)))
                (fact("Role of this host", match status.standing {
                    Some(standing) => html! { (standing.role.to_string()) ", epoch " (standing.epoch) },
                    None => html! { "not known yet" },
                }))
                @if status.side == Side::Target && replication.source_vm != status.vm {
                    (fact("Id at its source", html! { (name(&replication.source_vm)) }))
                }
            }
            (timeline::draw(&replication.generations, &replication.runs, facts.now, replication.rpo_s))
            @if let Some(newest) = &replication.newest { (disks(newest)) }
            (generations(&replication.generations, facts))
            (runs(&replication.runs, facts))
        }
    }
}

fn fact(term: &str, value: Markup) -> Markup {
    html! { div { dt { (term) } dd { (value) } } }
}

/// When the newest generation that was read again was read, and what was found.
fn verified(points: &[Point], facts: &Facts) -> Markup {
    let found = points.iter().rev().find_map(|point| {
        let Marks {
            damaged,
            verified,
            partly,
            ..
        } = point.marks;
        let found = [
            (damaged, "damaged"),
            (verified, "as it was sealed"),
            (partly, "no damage in the part that was read"),
        ];
        let mut found = found.into_iter();
        found.find_map(|(at, what)| Some((point, at?, what)))
    });
    match found {
        Some((point, at, what)) => html! {
            (point.name) " " @if point.marks.damaged.is_some() { b { (what) } } @else { (what) } ", " (time(at, facts.now))
        },
        None => html! { "never, as far as is known here" },
    }
}

/// The newest generation that was seen to boot.
fn booted(points: &[Point], facts: &Facts) -> Markup {
    let found = points.iter().rev();
    let mut found = found.filter_map(|point| Some((point, point.marks.booted?)));
    match found.next() {
        Some((point, at)) => html! { (point.name) ", " (time(at, facts.now)) },
        None => html! { "never, as far as is known here" },
    }
}

/// The age against the limit.
fn meter(age_s: i64, rpo_s: u64) -> Markup {
    let age = age_s.max(0).unsigned_abs();
    let share = (age as f64 * 100.0 / rpo_s.max(1) as f64).min(100.0);
    let class = if age > rpo_s { "fill bad" } else { "fill" };
    html! {
        div.meter {
            div.track aria-hidden="true" { div class=(class) style=(format!("width:{share:.1}%")) {} }
            p { "Age " b { (span(age)) } " of " (span(rpo_s)) }
        }
    }
}

/// What was sent of each disk for the newest generation.
fn disks(newest: &Newest) -> Markup {
    let rest = newest.disks.len().saturating_sub(DISKS_MAX);
    html! {
        section.disks {
            h4 { "Changed in the last sync" }
            ul {
                @for (n, disk) in newest.disks.iter().take(DISKS_MAX).enumerate() {
                    @let share = disk.sent as f64 * 100.0 / disk.size.max(1) as f64;
                    li {
                        span.key title=(clip(&disk.volume, 200)) { (name(&disk.key)) }
                        span.track aria-hidden="true" {
                            span.fill style=(format!("width:{:.2}%", share.min(100.0))) {}
                        }
                        span.num { (human(disk.sent)) " of " (human(disk.size)) ", " (percent(disk.sent, disk.size)) }
                        @if let Some(map) = disk.map.as_ref().filter(|_| n < MAPS_MAX) { (map::draw(map)) }
                    }
                }
            }
            @if rest > 0 { p.note { "and " (rest) " more disks" } }
            @if !newest.excluded.is_empty() {
                @let keys: Vec<String> = newest.excluded.iter().take(DISKS_MAX).map(|k| name(k)).collect();
                p.note { b { "Not replicated: " } (keys.join(", ")) }
            }
            @for note in newest.notes.iter().take(NOTES_MAX) { p.note { (clip(note, TEXT_MAX)) } }
        }
    }
}

fn generations(points: &[Point], facts: &Facts) -> Markup {
    if points.is_empty() {
        return html! {};
    }
    let newest = points.iter().rev().take(GENERATIONS_MAX);
    let is_marked = |p: &&Point| {
        let Marks {
            verified,
            partly,
            damaged,
            booted,
            ..
        } = p.marks;
        p.marks.pinned || verified.or(partly).or(damaged).or(booted).is_some()
    };
    let older = points.iter().rev().skip(GENERATIONS_MAX);
    let marked = older.filter(is_marked).take(MARKED_MAX);
    let listed: Vec<&Point> = newest.chain(marked).collect();
    let rest = points.len() - listed.len();
    html! {
        details {
            summary { "Generations" }
            table role="table" {
                thead role="rowgroup" { tr role="row" {
                    th role="columnheader" scope="col" { "Name" }
                    th role="columnheader" scope="col" { "Taken" }
                    th role="columnheader" scope="col" { "Consistency" }
                    th.num role="columnheader" scope="col" { "Sent" }
                    th role="columnheader" scope="col" { "Marks" }
                } }
                tbody role="rowgroup" { @for point in &listed { tr role="row" {
                    th role="rowheader" scope="row" { (point.name) @if point.epoch > 1 { small { " epoch " (point.epoch) } } }
                    td role="cell" data-label="Taken" { (time(point.taken_at, facts.now)) }
                    td role="cell" data-label="Consistency" { (point.consistency.to_string()) }
                    td.num role="cell" data-label="Sent" { (human(point.sent)) }
                    td role="cell" data-label="Marks" { (marks(point)) }
                } } }
            }
            @if rest > 0 { p.note { "and " (rest) " older, not listed here" } }
        }
    }
}

fn marks(point: &Point) -> String {
    let mut words = Vec::new();
    if point.marks.pinned {
        words.push("pinned".to_owned());
    }
    if let Some(at) = point.marks.damaged {
        words.push(format!("found damaged {}", minute(at)));
    }
    if let Some(at) = point.marks.verified {
        words.push(format!("verified {}", minute(at)));
    }
    if let Some(at) = point.marks.partly {
        words.push(format!("verified in part {}", minute(at)));
    }
    if let Some(at) = point.marks.booted {
        words.push(format!("booted {}", minute(at)));
    }
    match words.is_empty() {
        true => NOTHING.to_owned(),
        false => words.join(", "),
    }
}

fn runs(runs: &[RunRecord], facts: &Facts) -> Markup {
    if runs.is_empty() {
        return html! {};
    }
    let rest = runs.len().saturating_sub(RUNS_MAX);
    html! {
        details {
            summary { "Last runs" }
            table role="table" {
                thead role="rowgroup" { tr role="row" {
                    th role="columnheader" scope="col" { "Began" }
                    th role="columnheader" scope="col" { "Result" }
                    th.num role="columnheader" scope="col" { "Took" }
                    th.num role="columnheader" scope="col" { "Changed" }
                    th.num role="columnheader" scope="col" { "Wire" }
                } }
                tbody role="rowgroup" { @for run in runs.iter().rev().take(RUNS_MAX) { tr role="row" {
                    th role="rowheader" scope="row" { (time(run.began_at, facts.now)) }
                    td role="cell" data-label="Result" { (result(run)) }
                    td.num role="cell" data-label="Took" { (took(run).unwrap_or_else(|| NOTHING.into())) }
                    td.num role="cell" data-label="Changed" { (bytes(run.changed)) }
                    td.num role="cell" data-label="Wire" { (bytes(run.wire)) }
                } } }
            }
            @if rest > 0 { p.note { "and at least " (rest) " earlier, not listed here" } }
        }
    }
}

fn result(run: &RunRecord) -> Markup {
    match (&run.error, run.generation) {
        (Some(error), _) => html! { b { "failed: " } (clip(error, TEXT_MAX)) },
        _ if run.running => html! { "running, step " (name(&run.state)) },
        _ if run.was_cut_off() => html! { b { "cut off" } " in its step " (name(&run.state)) },
        (None, Some(number)) => html! { "sealed rbs" (number) },
        (None, None) => html! { "done, nothing sealed" },
    }
}

/// How long a run took.
pub(super) fn took(run: &RunRecord) -> Option<String> {
    let seconds = run.ended_at?.duration_since(run.began_at).as_secs_f64();
    Some(human_time(Duration::from_secs_f64(seconds.max(0.0))))
}

fn bytes(amount: Option<u64>) -> String {
    amount.map_or_else(|| NOTHING.to_owned(), human)
}

/// The last run in a few words, for the table of all.
pub(super) fn last_run(replication: &Replication, facts: &Facts) -> String {
    let Some(run) = &replication.status.last else {
        return "none known".to_owned();
    };
    match (&run.error, run.ended_at) {
        (Some(_), _) => format!("failed {}", ago(run.began_at, facts.now)),
        (None, Some(_)) => format!("took {}", took(run).unwrap_or_default()),
        (None, None) if run.running => format!("in its step {}", name(&run.state)),
        (None, None) => format!("cut off {}", ago(run.began_at, facts.now)),
    }
}
