//! Trying again when the connection is lost in the transfer.

use super::vm::Context;
use crate::cli::units::human_time;
use crate::error::{Error, Kind, Result};
use serde_json::json;
use std::time::{Duration, Instant};

/// The first pause before another attempt, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// A connection that held this long was a good one.
const GOOD: Duration = Duration::from_secs(60);
/// How often somebody's wish to stop is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long to go on trying.
pub(super) struct Patience {
    limit: Duration,
    until: Option<Instant>,
    pause: Duration,
}

impl Patience {
    /// For `limit` from the loss of a good connection on.
    pub fn new(limit: Duration) -> Patience {
        Patience {
            limit,
            until: None,
            pause: PAUSES.0,
        }
    }

    /// Whether there is to be another attempt after `error`, before which the transfer went on for `held`; waits until
    /// it is time for it.
    pub fn wait(&mut self, error: &Error, held: Duration, context: &Context) -> Result<bool> {
        let Some(pause) = self.next(error.kind(), held, Instant::now()) else {
            return Ok(false);
        };
        context.reporter.say(
            format!(
                "  note: the connection is lost: {}; trying again in {}",
                error.message(),
                human_time(pause)
            ),
            json!({"event": "connection-lost", "why": error.message(), "retry_in_s": pause.as_secs_f64()}),
        );
        let end = Instant::now() + pause;
        while Instant::now() < end {
            context.stop.check()?;
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(true)
    }

    /// The pause before the next attempt, if there is to be one after an error of this kind.
    fn next(&mut self, kind: Kind, held: Duration, now: Instant) -> Option<Duration> {
        // Busy: an agent of the lost connection has not noticed yet, and holds the replica.
        let is_worth_it = match self.until {
            None => kind == Kind::Remote,
            Some(_) => matches!(kind, Kind::Remote | Kind::Timeout | Kind::Busy),
        };
        if !is_worth_it {
            return None;
        }
        if held >= GOOD {
            self.until = None;
            self.pause = PAUSES.0;
        }
        let until = *self.until.get_or_insert(now + self.limit);
        let left = until.saturating_duration_since(now);
        if left.is_zero() {
            return None;
        }
        let pause = self.pause.min(left);
        self.pause = (2 * self.pause).min(PAUSES.1);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn pauses_grow_until_patience_ends() {
        let mut patience = Patience::new(seconds(10));
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        while let Some(pause) = patience.next(Kind::Remote, seconds(5), now) {
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(pauses, [1, 2, 4, 3]);
    }

    #[test]
    fn a_good_connection_renews_it() {
        let mut patience = Patience::new(seconds(3));
        let lost = Instant::now();
        let mut next = |held, after| patience.next(Kind::Remote, held, lost + seconds(after));
        assert_eq!(next(seconds(5), 0), Some(seconds(1)));
        assert_eq!(next(GOOD, 61), Some(seconds(1)));
        assert_eq!(next(Duration::ZERO, 62), Some(seconds(2)));
        assert_eq!(next(Duration::ZERO, 64), None, "three seconds are over");
    }

    #[test]
    fn other_errors_are_not_tried_again() {
        let mut patience = Patience::new(seconds(3));
        let now = Instant::now();
        let mut next = |kind| patience.next(kind, Duration::ZERO, now);
        assert_eq!(next(Kind::Busy), None);
        assert_eq!(next(Kind::Digest), None);
        assert!(next(Kind::Remote).is_some());
        assert!(next(Kind::Busy).is_some());
        assert_eq!(next(Kind::Space), None);
        let mut none = Patience::new(Duration::ZERO);
        assert_eq!(none.next(Kind::Remote, Duration::ZERO, now), None);
    }
}
