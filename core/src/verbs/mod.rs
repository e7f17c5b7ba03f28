//! Verbs that all front ends for VMs share: their options, what they do, and what they say.

mod check;
mod doctor;
mod metrics;
mod prune;
mod status;

pub use check::{check, CheckArgs};
pub use doctor::{doctor, DoctorArgs};
pub use prune::{pin, prune, PinArgs, Place, PruneArgs, RetentionArgs};
pub use status::{status, StatusArgs};
