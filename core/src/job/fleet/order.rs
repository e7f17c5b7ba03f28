//! Who is next: pure functions of what is waiting and what runs.

use super::{Limits, Member};
use std::cmp::Ordering;

/// How two members stand to each other: `Less` is synced first.
///
/// Those without a generation come first: nothing protects them. Then those that are to be no older than so much, by how
/// much of that is used up; then the others, the oldest first. The ids make the order the same each time.
pub fn is_first(a: &Member, b: &Member) -> Ordering {
    rank(a)
        .cmp(&rank(b))
        .then_with(|| match (ratio(a), ratio(b)) {
            // a/b > c/d is a*d > c*b. Seconds have 64 bits, so the products fit.
            (Some((age_a, rpo_a)), Some((age_b, rpo_b))) => (age_b * rpo_a).cmp(&(age_a * rpo_b)),
            _ => Ordering::Equal,
        })
        .then_with(|| b.age_s.cmp(&a.age_s))
        // Numbers in their order as numbers: "99" before "101".
        .then_with(|| (a.vm.len(), &a.vm, &a.host).cmp(&(b.vm.len(), &b.vm, &b.host)))
}

fn rank(member: &Member) -> u8 {
    match (member.age_s, member.rpo_s) {
        (None, _) => 0,
        (Some(_), Some(_)) => 1,
        (Some(_), None) => 2,
    }
}

fn ratio(member: &Member) -> Option<(u128, u128)> {
    Some((member.age_s?.into(), member.rpo_s?.max(1).into()))
}

/// Which of those `waiting`, who are in their order, may start beside those `running`: the first whose host has room,
/// and who is not being synced already, to another host. `None` if one that runs must end first.
pub fn next(waiting: &[Member], running: &[&Member], limits: Limits) -> Option<usize> {
    if running.len() >= limits.parallel.max(1) {
        return None;
    }
    waiting.iter().position(|member| {
        let to_host = running.iter().filter(|r| r.host == member.host).count();
        // A VM has one lock: a second run on it would be refused.
        let itself = running.iter().any(|r| r.vm == member.vm);
        to_host < limits.per_host.max(1) && !itself
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(vm: &str, host: &str, age_s: Option<u64>, rpo_s: Option<u64>) -> Member {
        Member {
            vm: vm.into(),
            host: host.into(),
            age_s,
            rpo_s,
            args: Vec::new(),
        }
    }

    fn sorted(mut members: Vec<Member>) -> Vec<String> {
        members.sort_by(is_first);
        members.into_iter().map(|m| m.vm).collect()
    }

    #[test]
    fn the_most_overdue_is_first() {
        let members = vec![
            member("young", "h", Some(60), None),
            member("half", "h", Some(450), Some(900)),
            member("old", "h", Some(600), None),
            member("twice", "h", Some(1800), Some(900)),
            // Older than all others, and yet in time.
            member("week", "h", Some(86_400), Some(7 * 86_400)),
            member("110", "h", None, Some(900)),
            member("99", "h", None, None),
        ];
        assert_eq!(
            sorted(members),
            ["99", "110", "twice", "half", "week", "old", "young"]
        );
    }

    #[test]
    fn ages_that_would_overflow_are_compared() {
        let max = u64::MAX;
        let members = vec![
            member("a", "h", Some(max - 1), Some(max)),
            member("b", "h", Some(max), Some(max)),
            member("c", "h", Some(max), Some(0)),
        ];
        assert_eq!(sorted(members), ["c", "b", "a"]);
    }

    #[test]
    fn a_host_that_is_busy_does_not_hold_up_the_others() {
        let limits = Limits {
            parallel: 3,
            per_host: 1,
        };
        let waiting = [
            member("1", "h1", None, None),
            member("2", "h2", None, None),
            member("1", "h3", None, None),
        ];
        let other = member("9", "h1", None, None);
        assert_eq!(next(&waiting, &[&other], limits), Some(1));
        assert_eq!(next(&waiting[..1], &[&other], limits), None);
        let same = member("1", "h1", None, None);
        assert_eq!(next(&waiting[2..], &[&same], limits), None);
    }

    fn any_member() -> impl Strategy<Value = Member> {
        let age = prop_oneof![
            Just(None),
            (0..4u64).prop_map(Some),
            any::<u64>().prop_map(Some)
        ];
        let rpo = prop_oneof![
            Just(None),
            (0..4u64).prop_map(Some),
            any::<u64>().prop_map(Some)
        ];
        (100..130u32, 0..3u8, age, rpo)
            .prop_map(|(vm, host, age, rpo)| member(&vm.to_string(), &format!("h{host}"), age, rpo))
    }

    proptest! {
        /// `sort_by` may panic where this does not hold.
        #[test]
        fn the_order_is_total(a in any_member(), b in any_member(), c in any_member()) {
            prop_assert_eq!(is_first(&a, &b), is_first(&b, &a).reverse());
            if is_first(&a, &b).is_le() && is_first(&b, &c).is_le() {
                prop_assert!(is_first(&a, &c).is_le());
            }
        }

        /// Whatever ends first: all are run, none twice at once, never more than allowed, and nobody waits where there
        /// is room.
        #[test]
        fn everybody_is_run_within_the_limits(
            mut members in prop::collection::vec(any_member(), 0..40),
            parallel in 1..6usize,
            per_host in 1..4usize,
            ends in prop::collection::vec(any::<prop::sample::Index>(), 40),
        ) {
            let limits = Limits { parallel, per_host };
            members.sort_by(is_first);
            let count = members.len();
            let mut running: Vec<Member> = Vec::new();
            let mut ended = 0;
            let mut ends = ends.iter();
            while ended < count {
                while let Some(at) = next(&members, &running.iter().collect::<Vec<_>>(), limits) {
                    for passed in &members[..at] {
                        let to_host = running.iter().filter(|r| r.host == passed.host).count();
                        prop_assert!(to_host == per_host || running.iter().any(|r| r.vm == passed.vm));
                    }
                    running.push(members.remove(at));
                }
                prop_assert!(!running.is_empty() && running.len() <= parallel);
                for one in &running {
                    prop_assert!(running.iter().filter(|r| r.host == one.host).count() <= per_host);
                    prop_assert_eq!(running.iter().filter(|r| r.vm == one.vm).count(), 1);
                }
                let out = ends.next().unwrap().index(running.len());
                running.remove(out);
                ended += 1;
            }
            prop_assert!(members.is_empty());
        }
    }
}
