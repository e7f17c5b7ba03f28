//! Trying again when the connection is lost in the transfer.

use super::vm::Context;
use crate::bell::Bell;
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
    /// When the attempt under way began.
    began: Instant,
}

impl Patience {
    /// For `limit` from the loss of a good connection on.
    pub fn new(limit: Duration) -> Patience {
        Patience {
            limit,
            until: None,
            pause: PAUSES.0,
            began: Instant::now(),
        }
    }

    /// Whether there is to be another attempt after `error`; waits until it is time for it.
    pub fn wait(&mut self, error: &Error, context: &Context) -> Result<bool> {
        let Some(pause) = self.next(error.kind(), Instant::now()) else {
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
        let (bell, end) = (Bell::new()?, Instant::now() + pause);
        while Instant::now() < end {
            context.stop.check()?;
            bell.wait(LOOK_EVERY);
        }
        self.began = Instant::now();
        Ok(true)
    }

    /// The pause before the next attempt, if there is to be one after an error of this kind.
    fn next(&mut self, kind: Kind, now: Instant) -> Option<Duration> {
        // Busy: an agent of the lost connection has not noticed yet, and holds the replica.
        let is_worth_it = match self.until {
            None => kind == Kind::Remote,
            Some(_) => matches!(kind, Kind::Remote | Kind::Timeout | Kind::Busy),
        };
        if !is_worth_it {
            return None;
        }
        if now.saturating_duration_since(self.began) >= GOOD {
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
        let start = patience.began;
        let mut now = start;
        let mut pauses = Vec::new();
        while let Some(pause) = patience.next(Kind::Remote, now) {
            pauses.push(pause.as_secs());
            now += pause;
            patience.began = now;
        }
        assert_eq!(pauses, [1, 2, 4, 3]);
    }

    #[test]
    fn a_good_connection_renews_it() {
        let mut patience = Patience::new(seconds(3));
        let lost = patience.began + seconds(5);
        assert_eq!(patience.next(Kind::Remote, lost), Some(seconds(1)));
        patience.began = lost + seconds(1);
        let again = patience.began + GOOD;
        assert_eq!(patience.next(Kind::Remote, again), Some(seconds(1)));
    }

    #[test]
    fn other_errors_are_not_tried_again() {
        let mut patience = Patience::new(seconds(3));
        let now = patience.began;
        assert_eq!(patience.next(Kind::Busy, now), None);
        assert_eq!(patience.next(Kind::Digest, now), None);
        assert!(patience.next(Kind::Remote, now).is_some());
        assert!(patience.next(Kind::Busy, now).is_some());
        assert_eq!(patience.next(Kind::Space, now), None);
        let mut none = Patience::new(Duration::ZERO);
        assert_eq!(none.next(Kind::Remote, now), None);
    }
}
