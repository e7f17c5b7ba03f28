//! In which state a replication is: one word that is told first, and what is true besides.

use super::facts::{Facts, Replication};
use crate::job::Verdict;
use crate::journal::Side;
use crate::replica::Role;

/// One thing that is true of a replication. Ordered by what is told first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// Nobody knows which side may run the VM.
    Held,
    /// There is no generation.
    Never,
    /// The newest generation is older than it may be.
    Late,
    /// It cannot be told how old it is: a clock was set back.
    Clock,
    /// The replica was read again, and is not what was sealed.
    Damaged,
    /// The last run failed.
    Failed,
    /// The last run neither ended nor goes on.
    CutOff,
    /// A run goes on.
    Running,
    /// All is well.
    Ok,
    /// The roles were changed: nothing is sent any more.
    Over,
}

impl State {
    /// All of them, in their order.
    pub(super) const ALL: [State; 10] = [
        State::Held,
        State::Never,
        State::Late,
        State::Clock,
        State::Damaged,
        State::Failed,
        State::CutOff,
        State::Running,
        State::Ok,
        State::Over,
    ];

    /// What people call it.
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Held => "held",
            State::Never => "never",
            State::Late => "late",
            State::Clock => "clock",
            State::Damaged => "damaged",
            State::Failed => "failed",
            State::CutOff => "cut off",
            State::Running => "running",
            State::Ok => "OK",
            State::Over => "roles changed",
        }
    }

    /// What it means, for the end of the page.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            State::Held => "which side may run the VM is not known: somebody has to decide",
            State::Never => "no generation has been sealed yet",
            State::Late => "the newest generation is older than the limit",
            State::Clock => "the newest generation is of the future: a clock was set back",
            State::Damaged => "a generation was read again, and is not what was sealed",
            State::Failed => "the last run ended with an error",
            State::CutOff => "the last run did not end, and its process is gone",
            State::Running => "a run goes on, as this page is written",
            State::Ok => "the newest generation is young enough and the last run was fine",
            State::Over => "the VM was moved or taken over: nothing is to be sent this way",
        }
    }

    /// Whether somebody has to do something about it.
    pub(super) fn is_problem(self) -> bool {
        !matches!(self, State::Running | State::Ok | State::Over)
    }

    /// How it is shown: its icon and its colours go by this name.
    pub(super) fn class(self) -> &'static str {
        match self {
            State::Held | State::Never | State::Late | State::Damaged => "bad",
            State::Clock | State::Failed | State::CutOff => "warn",
            State::Running => "busy",
            State::Ok => "good",
            State::Over => "calm",
        }
    }
}

/// What is true of one, the first of it being told first. There is always one.
pub(super) fn states(replication: &Replication, facts: &Facts) -> Vec<State> {
    let status = &replication.status;
    let usual = match status.side {
        Side::Source => Role::Primary,
        Side::Target => Role::Replica,
    };
    match status.standing.map(|s| s.role) {
        Some(Role::Held) => return vec![State::Held],
        Some(role) if role != usual => return vec![State::Over],
        _ => {}
    }
    let mut found = Vec::new();
    // Without a limit nothing is too old.
    let age_s_max = replication.rpo_s.unwrap_or(u64::MAX);
    let is_running = status.last.as_ref().is_some_and(|run| run.running);
    if status.damage().is_some() {
        found.push(State::Damaged);
    }
    match status.judge_age(age_s_max, facts.now).0 {
        // The first sync takes its time.
        Verdict::Critical if status.taken_at.is_none() && is_running => {}
        Verdict::Critical if status.taken_at.is_none() => found.push(State::Never),
        Verdict::Critical => found.push(State::Late),
        Verdict::Unknown => found.push(State::Clock),
        Verdict::Ok | Verdict::Warning => {}
    }
    if let Some(last) = &status.last {
        if last.error.is_some() {
            found.push(State::Failed);
        } else if last.was_cut_off() {
            found.push(State::CutOff);
        } else if is_running {
            found.push(State::Running);
        }
    }
    if found.is_empty() {
        found.push(State::Ok);
    }
    found.sort();
    found
}
