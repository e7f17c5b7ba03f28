//! Verbs that all front ends for VMs share: their options, what they do, and what they say.

mod boot_check;
mod check;
mod doctor;
pub mod elsewhere;
mod examples;
mod failback;
mod failover;
mod fleet;
mod generations;
pub mod jobs;
mod metrics;
mod migrate;
mod passing;
mod place;
mod print_config;
mod prune;
mod report;
pub mod schedule;
mod setup;
mod status;
mod sync;
mod test_failover;
mod verify;

pub use boot_check::{boot_check, BootCheckArgs};
pub use check::{answered, check, parsed, unknown, CheckArgs};
pub use doctor::{doctor, DoctorArgs};
pub use examples::with_examples;
pub use failback::{failback, FailbackArgs};
pub use failover::{failover, FailoverArgs};
pub use fleet::{fleet, tell_slow, Fleet, FleetArgs, Picked, Task};
pub use generations::{generations, GenerationsArgs};
pub use metrics::metric_names;
pub use migrate::{migrate, MigrateArgs, UndoArgs};
pub use passing::passed_on;
pub use place::Place;
pub use print_config::{print_config, PrintArgs, TargetKind};
pub use prune::{pin, prune, PinArgs, PruneArgs, RetentionArgs};
pub use report::{report, ReportArgs, Writer};
pub use setup::{setup, SetupArgs};
pub use status::{status, StatusArgs};
pub use sync::{parse_map, SyncArgs};
pub use test_failover::{test_failover, TestFailoverArgs};
pub use verify::{verify, DisksOf, VerifyArgs};

use crate::error::Result;
use crate::job::fleet::Expected;

/// Finds what the jobs of this host promise: which VMs are replicated where, and how old that may become.
pub type Promised<'a> = &'a dyn Fn() -> Result<Vec<Expected>>;
