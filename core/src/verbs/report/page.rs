//! The page: what to do now first, then all replications at a glance, then each of them.

use super::advice::Problem;
use super::card::{card, last_run};
use super::facts::{Facts, Limit, Replication};
use super::health::{states, State};
use super::stores::Store;
use super::words::{ago, clip, minute, name, span, TEXT_MAX};
use crate::cli::units::human;
use crate::error::Error;
use crate::journal::Side;
use jiff::Timestamp;
use maud::{html, Markup, PreEscaped, DOCTYPE};

/// Problems that are told one by one.
const PROBLEMS_MAX: usize = 60;
/// Replications in the table of all.
const ROWS_MAX: usize = 2000;
/// Replications that are told in full. With the bounds of each of them this bounds the page.
const CARDS_MAX: usize = 100;
/// Stores and notes that are shown.
const STORES_MAX: usize = 40;

/// Stands where there is no value.
pub(super) const NOTHING: &str = "\u{2013}";

const STYLE: &str = include_str!("page.css");
/// Tells how old the page is. The page needs it for nothing else.
const SCRIPT: &str = include_str!("page.js");
/// Its digest, in the form that browsers compare. Nothing else is ever run, whatever a name may hold.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; \
    script-src 'sha256-qf48xf7p/g/Dd+JAiGNniN4fRLjHD6gWPyD2baFCH9o='";

/// The whole page.
pub(super) fn render(facts: &Facts, problems: &[Problem]) -> String {
    let mut order: Vec<(State, &Replication)> = facts
        .found
        .replications
        .iter()
        .map(|r| (states(r, facts).remove(0), r))
        .collect();
    // Ids are numbers on most hypervisors: 9 comes before 101.
    order.sort_by_key(|(state, r)| {
        let vm = &r.status.vm;
        (*state, vm.len(), vm.clone(), r.status.peer.clone())
    });
    let body = html! {
        (head_line(&facts.host, facts.now))
        main id="main" {
            (verdict(facts, &order))
            (to_do(problems))
            @if !order.is_empty() {
                (overview(facts, &order))
                (stores(&facts.found.stores, &facts.found.notes))
                (details(facts, &order))
                (legend())
            }
        }
        (foot_line(facts.limit))
    };
    frame(&facts.host, body)
}

/// The page that takes the place of one that is not true any more.
pub(super) fn failure(host: &str, now: Timestamp, error: &Error) -> String {
    let body = html! {
        (head_line(host, now))
        main id="main" {
            section.verdict {
                p.big { "The state of this host cannot be read." }
                p { (clip(&error.message(), TEXT_MAX)) }
                @if let Some(advice) = error.advice() { p { (clip(advice, TEXT_MAX)) } }
                p { "Whether the replicas are well is not known." }
            }
        }
        (foot_line(Limit::None))
    };
    frame(host, body)
}

fn frame(host: &str, body: Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                // Without it browsers ask the server for one.
                link rel="icon" href="data:,";
                title { "Replication on " (name(host)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (icons())
                (body)
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

fn head_line(host: &str, now: Timestamp) -> Markup {
    html! {
        header.top {
            p.eyebrow { "Replication" }
            h1 { (name(host)) }
            p.written { "As of " time id="written" datetime=(now.to_string()) { (minute(now)) " UTC" } }
            p id="stale" hidden {}
        }
    }
}

fn foot_line(limit: Limit) -> Markup {
    html! {
        footer.bottom {
            p {
                @match limit {
                    Limit::All(rpo_s) => { "A newest generation may be " (span(rpo_s)) " old. " }
                    Limit::Jobs => { "A newest generation may be as old as the rpo of its job says; where there is none, none is called late (--rpo). " }
                    Limit::None => { "No limit was given for the age of a newest generation, so none is called late (--rpo). " }
                }
                "All times are UTC, by the clocks of the hosts that took them. rblocksync " (env!("CARGO_PKG_VERSION")) "."
            }
        }
    }
}

/// The answer to the one question, and how many there are of each state.
fn verdict(facts: &Facts, order: &[(State, &Replication)]) -> Markup {
    let all = order.len();
    let bad = order.iter().filter(|(state, _)| state.is_problem()).count();
    let said = match (all, bad, facts.limit) {
        (0, _, _) => "Nothing is replicated from or to this host yet.".to_owned(),
        (1, 0, Limit::All(rpo_s)) => {
            format!("The one replication is younger than {}.", span(rpo_s))
        }
        (n, 0, Limit::All(rpo_s)) => {
            format!("All {n} replications are younger than {}.", span(rpo_s))
        }
        (1, 0, Limit::Jobs) => "The one replication is as young as it is to be.".to_owned(),
        (n, 0, Limit::Jobs) => format!("All {n} replications are as young as they are to be."),
        (1, 0, Limit::None) => "The last run was fine.".to_owned(),
        (n, 0, Limit::None) => format!("The last runs of all {n} replications were fine."),
        (n, 1, _) => format!("1 of {n} replications needs you."),
        (n, bad, _) => format!("{bad} of {n} replications need you."),
    };
    let counted = State::ALL.iter().filter_map(|state| {
        let count = order.iter().filter(|(s, _)| s == state).count();
        (count > 0).then_some((*state, count))
    });
    html! {
        section.verdict aria-label="Summary" {
            p.big { (said) }
            @if all == 0 {
                p { "A first sync makes a replica: " code { (facts.program) " vm VMID --to HOST" } }
            } @else {
                ul.counts { @for (state, count) in counted {
                    li { b { (count) } " " (chip(state)) }
                } }
            }
        }
    }
}

fn to_do(problems: &[Problem]) -> Markup {
    let rest = problems.len().saturating_sub(PROBLEMS_MAX);
    if problems.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="todo" {
            h2 id="todo" { "What to do now" }
            ol.todo {
                @for problem in problems.iter().take(PROBLEMS_MAX) { li class=(problem.state.class()) {
                    h3 {
                        (problem.title)
                        @if problem.is_store { " " (mark(problem.state, "filling up")) } @else { " " (chip(problem.state)) }
                    }
                    p { (problem.text) }
                    @for (host, command) in &problem.commands {
                        p.command { span.where { "on " (host) } code { (command) } }
                    }
                    p.note { "Runbook: docs/runbooks/" (problem.runbook.0) ".md, \u{201c}" (problem.runbook.1) "\u{201d}" }
                } }
            }
            @if rest > 0 { p.note { "and " (rest) " more that are not told here" } }
        }
    }
}

fn overview(facts: &Facts, order: &[(State, &Replication)]) -> Markup {
    let rest = order.len().saturating_sub(ROWS_MAX);
    html! {
        section aria-labelledby="all" {
            h2 id="all" { "All replications" }
            table.all role="table" {
                thead role="rowgroup" { tr role="row" {
                    th role="columnheader" scope="col" { "VM" }
                    th role="columnheader" scope="col" { "State" }
                    th.num role="columnheader" scope="col" { "Age" }
                    th.num role="columnheader" scope="col" { "Kept" }
                    th role="columnheader" scope="col" { "Last run" }
                    th role="columnheader" scope="col" { "Role here" }
                } }
                tbody role="rowgroup" { @for (n, (_, r)) in order.iter().take(ROWS_MAX).enumerate() { tr role="row" {
                    th role="rowheader" scope="row" {
                        @if n < CARDS_MAX { a href={ "#r" (n) } { (ends(r)) } } @else { (ends(r)) }
                    }
                    td role="cell" data-label="State" { @for state in states(r, facts) { (chip(state)) " " } }
                    td.num role="cell" data-label="Age" { (age(r, facts)) }
                    td.num role="cell" data-label="Kept" { (r.generations.len()) }
                    td role="cell" data-label="Last run" { (last_run(r, facts)) }
                    td role="cell" data-label="Role here" { (role(r)) }
                } } }
            }
            @if rest > 0 { p.note { "and " (rest) " more that are not listed here" } }
        }
    }
}

fn age(replication: &Replication, facts: &Facts) -> String {
    match replication.status.age_s(facts.now) {
        Some(age) => span(age.max(0).unsigned_abs()),
        None => NOTHING.to_owned(),
    }
}

fn role(replication: &Replication) -> String {
    match replication.status.standing {
        Some(standing) => format!("{}, epoch {}", standing.role, standing.epoch),
        None => NOTHING.to_owned(),
    }
}

fn stores(stores: &[Store], notes: &[String]) -> Markup {
    if stores.is_empty() && notes.is_empty() {
        return html! {};
    }
    let rest = stores.len().saturating_sub(STORES_MAX);
    html! {
        section aria-labelledby="stores" {
            h2 id="stores" { "Room for replicas on this host" }
            ul.stores { @for store in stores.iter().take(STORES_MAX) {
                @let class = match store.percent() {
                    Some(p) if p >= 95.0 => "fill bad",
                    Some(p) if p >= 85.0 => "fill warn",
                    _ => "fill",
                };
                li {
                    p { b { (clip(&store.name, 120)) } " " span.muted { (store.kind) ", " (human(store.size)) } }
                    div.track aria-hidden="true" {
                        div class=(class) style=(format!("width:{:.1}%", store.percent().unwrap_or(0.0).clamp(0.0, 100.0))) {}
                    }
                    p.num {
                        @match store.data_percent {
                            Some(percent) => { (format!("{percent:.0} % of data in use")) }
                            None => { "how full it is, is not known" }
                        }
                        @if let Some(percent) = store.metadata_percent { (format!(", {percent:.0} % of metadata")) }
                    }
                }
            } }
            @if rest > 0 { p.note { "and " (rest) " more" } }
            @for note in notes.iter().take(STORES_MAX) { p.note { "Not known: " (clip(note, TEXT_MAX)) } }
        }
    }
}

fn details(facts: &Facts, order: &[(State, &Replication)]) -> Markup {
    let rest = order.len().saturating_sub(CARDS_MAX);
    html! {
        section aria-labelledby="each" {
            h2 id="each" { "Each replication" }
            div.cards { @for (n, (_, r)) in order.iter().take(CARDS_MAX).enumerate() {
                (card(r, &format!("r{n}"), facts))
            } }
            @if rest > 0 {
                p.note { "and " (rest) " more, which are in the table above and are told in full by: "
                    code { (facts.program) " generations VMID" } }
            }
        }
    }
}

/// How to read it.
fn legend() -> Markup {
    html! {
        section.legend aria-labelledby="legend" {
            h2 id="legend" { "How to read this page" }
            dl { @for state in State::ALL {
                div { dt { (chip(state)) } dd { (state.meaning()) } }
            } }
            p {
                "On a line of time each bar is a generation. It is the higher the more was sent for it, by orders of magnitude. "
                (sign("M8 1v14", html! { circle.solid cx="8" cy="5" r="4" {} })) " the file systems were frozen; "
                (sign("M8 1v14", html! { circle.hollow cx="8" cy="5" r="3.5" {} })) " as after a power cut; "
                (sign("M8 1v14", html! { rect.solid x="4.5" y="1.5" width="7" height="7" {} })) " the VM was off; "
                (sign("", html! { path.pin d="M4 5h8l-4 6z" {} })) " pinned; "
                (sign("", html! { path.checked d="M4 8l3 3 6-7" {} })) " verified, or booted in a test; "
                (sign("", html! { path.cross d="M5 5l6 6M11 5l-6 6" {} })) " a run failed. "
                "The shaded end is as long as the limit: the last bar is to be in it."
            }
            p {
                "The strip of a disk goes from its first byte to its last. "
                (sign("M1 8h14", html! { path.data d="M4 8h8v6h-8z" {} })) " below the line: there is data; "
                (sign("M1 8h14", html! { path.changed d="M4 8h8v-6h-8z" {} })) " above it: changed in the last sync. "
                "The higher, the more of that part."
            }
        }
    }
}

fn sign(line: &str, shape: Markup) -> Markup {
    html! {
        svg.sign width="16" height="16" aria-hidden="true" {
            @if !line.is_empty() { path.stem d=(line) {} }
            (shape)
        }
    }
}

/// "VM 101 web01 to host2".
pub(super) fn ends(replication: &Replication) -> Markup {
    let status = &replication.status;
    let way = match status.side {
        Side::Source => "to",
        Side::Target => "from",
    };
    html! {
        span.vm { "VM " (name(&status.vm)) @if !status.name.is_empty() { " " b { (name(&status.name)) } } }
        " " span.peer { (way) " " (name(&status.peer)) }
    }
}

/// A state as a word with an icon. The colour only comes besides.
pub(super) fn chip(state: State) -> Markup {
    mark(state, state.word())
}

fn mark(state: State, word: &str) -> Markup {
    html! {
        span class={ "chip " (state.class()) } {
            // The template's macro has no way to write the element "use", which is a word of the language.
            svg width="14" height="14" aria-hidden="true" { (PreEscaped(format!("<use href=\"#i-{}\"/>", state.class()))) }
            (word)
        }
    }
}

/// A point in time as its distance, with the exact one besides.
pub(super) fn time(at: Timestamp, now: Timestamp) -> Markup {
    html! {
        time datetime=(at.to_string()) { (ago(at, now)) } " " span.muted { (minute(at)) }
    }
}

/// Drawn once and used wherever a state is shown.
fn icons() -> Markup {
    let shapes = [
        ("bad", "M7 1.2 13.4 12.6H.6zM7 5v3.6M7 10.4v.4"),
        (
            "warn",
            "M7 1a6 6 0 1 1 0 12A6 6 0 0 1 7 1zM7 3.8v4M7 9.8v.4",
        ),
        ("busy", "M12.6 5.2A6 6 0 1 0 13 7.5M13 2v3.4H9.6"),
        (
            "good",
            "M7 1a6 6 0 1 1 0 12A6 6 0 0 1 7 1zM4.2 7.2l2 2 3.6-4.2",
        ),
        ("calm", "M7 1a6 6 0 1 1 0 12A6 6 0 0 1 7 1zM4.2 7h5.6"),
    ];
    html! {
        svg.defs width="0" height="0" aria-hidden="true" {
            @for (class, path) in shapes {
                symbol id={ "i-" (class) } viewBox="0 0 14 14" {
                    path d=(path) fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" {}
                }
            }
        }
    }
}
