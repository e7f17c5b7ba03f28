//! Bringing a replica so near to its running VM that the rest can be sent while the VM is off: one sync after the other,
//! each of them shorter than the one before, until the last one promises to be short enough.

use super::vm::{Sent, SyncOutcome};
use crate::cli::units::{human, human_time};
use crate::error::{Error, Kind, Result};
use crate::journal::State;
use std::time::Duration;

/// Rounds that take more than this of the one before are not shrinking.
const SHRINKS: f64 = 0.9;
/// So many rounds in a row that do not shrink are enough.
const STUCK_MAX: usize = 2;

/// When to stop, and when to give up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal {
    /// How long the last sync may be expected to take.
    pub downtime_max: Duration,
    /// Most rounds.
    pub rounds_max: u32,
}

/// One sync of the running VM.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Round {
    pub sent: Sent,
    /// All of it that the guest would have to wait for.
    pub took: Duration,
    /// How much of that was the transfer.
    pub transfer: Duration,
}

impl Round {
    pub fn of(outcome: &SyncOutcome) -> Round {
        let sum = |keep: fn(State) -> bool| -> Duration {
            let steps = outcome.steps.iter().filter(|(state, _)| keep(*state));
            steps.map(|(_, took)| *took).sum()
        };
        Round {
            sent: outcome.sent,
            // What comes before the VM stands still, and after the seal, nobody waits for.
            took: sum(|state| matches!(state, State::Snap | State::Transfer | State::Seal)),
            transfer: sum(|state| state == State::Transfer),
        }
    }

    /// How long it would take to send again as much as was sent now. The guest changes no more than that in the time that
    /// the round took, and nothing while it is off.
    pub fn predicted(&self) -> Duration {
        self.took
    }

    /// For people.
    pub fn told(&self) -> String {
        let rate = self.sent.wire as f64 / self.transfer.as_secs_f64().max(0.001);
        format!(
            "{} changed, {} on the wire at {}/s; what does not depend on it took {}",
            human(self.sent.changed),
            human(self.sent.wire),
            human(rate as u64),
            human_time(self.took.saturating_sub(self.transfer)),
        )
    }
}

/// What to do after a round.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another one.
    Again,
    /// The rest can be sent while the VM is off.
    Cut,
}

/// What to do after these `rounds`. Fails when it will not get better; the VM runs on then.
pub(super) fn next(rounds: &[Round], goal: &Goal, vm: &str) -> Result<Next> {
    let Some(last) = rounds.last() else {
        return Ok(Next::Again);
    };
    if last.predicted() <= goal.downtime_max {
        return Ok(Next::Cut);
    }
    let pairs = rounds.windows(2).rev();
    // The first one compares or sends everything, so it says nothing of those that follow.
    let stuck = pairs
        .take(rounds.len().saturating_sub(2))
        .take_while(|pair| {
            pair[1].predicted().as_secs_f64() > SHRINKS * pair[0].predicted().as_secs_f64()
        })
        .count();
    let give_up = |why: String| {
        Err(Error::new(
            Kind::Timeout,
            format!(
                "VM {vm} cannot be moved with less than {} of downtime: {why}, and the last sync is expected to take {} ({})",
                human_time(goal.downtime_max),
                human_time(last.predicted()),
                last.told()
            ),
        )
        .advise(
            "nothing was changed, and the VM runs on. Allow more with --max-downtime, or try again when its guest writes less",
        ))
    };
    if stuck >= STUCK_MAX {
        return give_up(format!(
            "the rounds do not get shorter after {}",
            rounds.len()
        ));
    }
    if rounds.len() >= goal.rounds_max as usize {
        return give_up(format!("{} rounds were not enough", rounds.len()));
    }
    Ok(Next::Again)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GOAL: Goal = Goal {
        downtime_max: Duration::from_secs(10),
        rounds_max: 6,
    };

    fn after(seconds: &[u64]) -> Result<Next> {
        let rounds: Vec<_> = seconds
            .iter()
            .map(|took| Round {
                sent: Sent::default(),
                took: Duration::from_secs(*took),
                transfer: Duration::from_secs(*took / 2),
            })
            .collect();
        next(&rounds, &GOAL, "101")
    }

    #[test]
    fn rounds_go_on_while_they_shrink() {
        assert_eq!(after(&[]).unwrap(), Next::Again);
        assert_eq!(after(&[600]).unwrap(), Next::Again);
        assert_eq!(after(&[600, 300]).unwrap(), Next::Again);
        assert_eq!(after(&[600, 300, 30]).unwrap(), Next::Again);
        assert_eq!(after(&[600, 300, 30, 10]).unwrap(), Next::Cut);
        assert_eq!(after(&[5]).unwrap(), Next::Cut);
    }

    #[test]
    fn rounds_that_do_not_shrink_are_given_up() {
        // What a first round took is no measure.
        assert_eq!(after(&[20, 40]).unwrap(), Next::Again);
        assert_eq!(after(&[20, 40, 39]).unwrap(), Next::Again);
        let error = after(&[20, 40, 39, 38]).unwrap_err();
        assert!(error.message().contains("do not get shorter"), "{error}");
        // One that was slow is none.
        assert_eq!(after(&[600, 40, 50, 30]).unwrap(), Next::Again);
        let error = after(&[600, 500, 400, 300, 200, 100]).unwrap_err();
        assert!(
            error.message().contains("6 rounds were not enough"),
            "{error}"
        );
        assert!(error.message().contains("1 min 40 s"), "{error}");
    }
}
