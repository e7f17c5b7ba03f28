//! Which generations stay.

use super::manifest::Generation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Which generations to keep: the newest some, and those of some time before the newest. Pinned ones stay in any
/// case, and so does the newest: it is what the next sync builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// So many of the newest; 0 counts as 1.
    pub keep: u32,
    /// And all that were taken within so many seconds of the newest. Not of now: a VM that is not synced any more
    /// keeps what it has.
    pub within_s: Option<u64>,
}

impl Retention {
    /// Splits `all`, oldest first, into those that go and those that stay.
    pub(super) fn split(
        self,
        all: Vec<Generation>,
        pinned: &BTreeSet<u64>,
    ) -> (Vec<Generation>, Vec<Generation>) {
        let Some(newest) = all.last().map(|g| g.taken_at) else {
            return (Vec::new(), Vec::new());
        };
        let first_kept = all.len().saturating_sub(self.keep.max(1) as usize);
        let stays = |index: usize, generation: &Generation| {
            // A clock that was set back must not keep a generation for ever: the distance counts, either way.
            let apart = newest.duration_since(generation.taken_at).unsigned_abs();
            index >= first_kept
                || pinned.contains(&generation.number)
                || self.within_s.is_some_and(|max| apart.as_secs() <= max)
        };
        let (mut go, mut stay) = (Vec::new(), Vec::new());
        for (index, generation) in all.into_iter().enumerate() {
            match stays(index, &generation) {
                true => stay.push(generation),
                false => go.push(generation),
            }
        }
        (go, stay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Consistency;
    use jiff::Timestamp;
    use uuid::Uuid;

    fn taken(number: u64, second: i64) -> Generation {
        Generation {
            state: None,
            version: Generation::VERSION,
            pair: Uuid::nil(),
            epoch: 1,
            number,
            parent: None,
            taken_at: Timestamp::new(second, 0).unwrap_or_default(),
            consistency: Consistency::Offline,
            notes: Vec::new(),
            disks: Vec::new(),
            excluded: Vec::new(),
            config: String::new(),
            described: None,
        }
    }

    fn going(times: &[i64], keep: u32, within_s: Option<u64>, pinned: &[u64]) -> Vec<u64> {
        let all = (1..).zip(times).map(|(n, t)| taken(n, *t)).collect();
        let pinned = pinned.iter().copied().collect();
        let (go, stay) = Retention { keep, within_s }.split(all, &pinned);
        assert_eq!(go.len() + stay.len(), times.len());
        go.iter().map(|g| g.number).collect()
    }

    #[test]
    fn the_newest_stay_and_what_is_pinned() {
        assert_eq!(going(&[1, 2, 3, 4], 2, None, &[]), [1, 2]);
        assert_eq!(going(&[1, 2, 3, 4], 2, None, &[1]), [2]);
        assert_eq!(going(&[1, 2], 0, None, &[]), [1]);
        assert_eq!(going(&[], 3, None, &[]), [0; 0]);
    }

    #[test]
    fn time_is_counted_from_the_newest() {
        let hour = 3600;
        let times = [0, 10 * hour, 20 * hour, 30 * hour];
        assert_eq!(going(&times, 1, Some(10 * 3600), &[]), [1, 2]);
        assert_eq!(going(&times, 3, Some(10 * 3600), &[]), [1]);
        assert_eq!(going(&times, 1, Some(0), &[]), [1, 2, 3]);
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nothing_for_ever() {
        assert_eq!(
            going(&[1_000_000, 1_000_900, 50, 60], 1, Some(100), &[]),
            [1, 2]
        );
    }
}
