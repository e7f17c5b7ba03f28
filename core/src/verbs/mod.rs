//! Verbs that all front ends for VMs share: their options, what they do, and what they say.

mod check;
mod doctor;
mod metrics;
mod place;
mod prune;
mod report;
mod status;
mod verify;

pub use check::{check, CheckArgs};
pub use doctor::{doctor, DoctorArgs};
pub use place::Place;
pub use prune::{pin, prune, PinArgs, PruneArgs, RetentionArgs};
pub use report::{report, ReportArgs, Writer};
pub use status::{status, StatusArgs};
pub use verify::{verify, DisksOf, VerifyArgs};
