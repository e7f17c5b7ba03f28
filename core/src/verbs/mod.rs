//! Verbs that all front ends for VMs share: their options, what they do, and what they say.

mod check;
mod doctor;
mod failback;
mod failover;
mod metrics;
mod migrate;
mod place;
mod prune;
mod status;
mod test_failover;
mod verify;

pub use check::{check, CheckArgs};
pub use doctor::{doctor, DoctorArgs};
pub use failback::{failback, FailbackArgs};
pub use failover::{failover, FailoverArgs};
pub use migrate::{migrate, MigrateArgs, UndoArgs};
pub use place::Place;
pub use prune::{pin, prune, PinArgs, PruneArgs, RetentionArgs};
pub use status::{status, StatusArgs};
pub use test_failover::{test_failover, TestFailoverArgs};
pub use verify::{verify, DisksOf, VerifyArgs};
