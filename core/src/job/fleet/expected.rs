//! Replications that there are to be, and how old they may become: what jobs promise, beside what the journal knows.

use super::Ages;
use crate::job::PairStatus;
use crate::journal::Side;

/// A VM that is to be replicated to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The VM's id.
    pub vm: String,
    /// The host, as it is named where it is said.
    pub host: String,
    /// How old the newest generation may be, in seconds.
    pub rpo_s: u64,
}

/// Each of them with its status, one that says that there is nothing where nothing was ever tried.
pub fn with_status(
    expected: &[Expected],
    found: &[PairStatus],
    ages: &Ages,
) -> Vec<(PairStatus, u64)> {
    let status = |e: &Expected| {
        let taken_at = ages.taken_at(&e.vm, &e.host);
        let mut of_vm = found
            .iter()
            .filter(|s| s.side == Side::Source && s.vm == e.vm);
        // The status has the name that the last run used.
        let known =
            of_vm.find(|s| s.peer == e.host || (taken_at.is_some() && s.taken_at == taken_at));
        known.cloned().unwrap_or_else(|| PairStatus {
            side: Side::Source,
            vm: e.vm.clone(),
            name: String::new(),
            peer: e.host.clone(),
            pair: None,
            standing: None,
            generation: None,
            taken_at: None,
            generations: None,
            booted: None,
            checked: None,
            last: None,
        })
    };
    expected.iter().map(|e| (status(e), e.rpo_s)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::job::Verdict;
    use jiff::Timestamp;

    #[test]
    fn what_was_never_tried_is_expected_all_the_same() {
        let expected = [Expected {
            vm: "101".into(),
            host: "host2".into(),
            rpo_s: 900,
        }];
        let of = |found: &[PairStatus]| with_status(&expected, found, &Ages::default());
        let (nothing, rpo_s) = of(&[]).remove(0);
        assert_eq!((nothing.peer.as_str(), rpo_s), ("host2", 900));
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(nothing.judge(rpo_s, now).0, Verdict::Critical);
        // A replica here of a VM with the same id is another thing.
        let mut other = nothing.clone();
        other.taken_at = Some(now);
        let found = of(&[PairStatus {
            side: Side::Target,
            ..other.clone()
        }]);
        assert_eq!(found[0].0.taken_at, None);
        assert_eq!(of(&[other])[0].0.taken_at, Some(now));
    }
}
