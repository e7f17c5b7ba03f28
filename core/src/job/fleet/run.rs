//! Runs the members of a fleet, so many at once.

use super::outcome::{Ending, Outcome};
use super::{is_first, next, Limits, Member};
use crate::stop::Stop;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::channel;
use std::sync::Arc;
use std::thread;

/// What happens to a member.
pub enum Told<'a> {
    /// It is its turn.
    Started(&'a Member),
    /// It has ended.
    Ended(&'a Member, &'a Outcome),
}

/// Runs all of them by `sync`, the most urgent first, and tells of it. Each runs in a thread of its own, which lives as
/// long as `sync` takes. When `stop` is set nobody is started any more; `sync` has to end then by itself.
///
/// Gives all back with their outcomes, in the order in which they ended.
pub fn run(
    mut members: Vec<Member>,
    limits: Limits,
    stop: &Stop,
    sync: &(dyn Fn(&Member) -> Outcome + Sync),
    tell: &dyn Fn(Told),
) -> Vec<(Member, Outcome)> {
    members.sort_by(is_first);
    let mut running: Vec<Arc<Member>> = Vec::new();
    let mut all = Vec::with_capacity(members.len());
    thread::scope(|scope| {
        let (ends, ended) = channel::<(Arc<Member>, Outcome)>();
        loop {
            while !stop.is_stopped() {
                let busy: Vec<&Member> = running.iter().map(AsRef::as_ref).collect();
                let Some(at) = next(&members, &busy, limits) else {
                    break;
                };
                let member = Arc::new(members.remove(at));
                running.push(Arc::clone(&member));
                tell(Told::Started(&member));
                let (in_thread, end) = (Arc::clone(&member), ends.clone());
                let begun = thread::Builder::new()
                    .name(format!("vm-{}", member.vm))
                    .spawn_scoped(scope, move || {
                        let outcome = catch_unwind(AssertUnwindSafe(|| sync(&in_thread)));
                        let outcome =
                            outcome.unwrap_or_else(|_| Outcome::failed(1, "what ran it panicked"));
                        // Fails only if nobody waits for it any more.
                        let _ = end.send((in_thread, outcome));
                    });
                if let Err(e) = begun {
                    let outcome = Outcome::failed(1, format!("cannot start a thread: {e}"));
                    let _ = ends.send((member, outcome));
                }
            }
            // Where nobody runs, nobody can be waiting for a place, unless all is to end.
            if running.is_empty() {
                break;
            }
            let Ok((member, outcome)) = ended.recv() else {
                break;
            };
            running.retain(|r| !Arc::ptr_eq(r, &member));
            tell(Told::Ended(&member, &outcome));
            all.push((Member::clone(&member), outcome));
        }
    });
    let not_started = |member| (member, Outcome::of(Ending::NotStarted));
    all.extend(members.into_iter().map(not_started));
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "run/tests.rs"]
mod tests;
