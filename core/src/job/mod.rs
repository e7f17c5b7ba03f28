//! The workflows, written once against the traits of [`crate::hypervisor`].

mod base;
mod converge;
mod doctor;
mod failback;
mod failover;
pub mod fleet;
mod handover;
mod mend;
mod messages;
mod migrate;
mod predict;
mod retry;
mod reverse_service;
mod roles_service;
mod service;
mod status;
mod sync;
mod tell;
mod track;
mod transfer;
mod trial;
mod vm;

pub use doctor::{examine, Needed, Patient};
pub use failback::failback;
pub use failover::{FailedOver, Failover, FailoverOptions, Fence, SourceState};
pub use handover::Health;
pub use mend::{mend, Mended};
pub use messages::{HostRequest, Position};
pub use migrate::{migrate, undo_migrate, Look, MigrateOptions, Migration, StopMode};
pub use roles_service::position;
pub use service::TargetService;
pub use status::{statuses, PairStatus, Verdict};
pub use sync::{ask, note_failure, sync};
pub use trial::{sweep_trials, TrialOptions, TrialRun};
pub use vm::{Context, Sent, SourceDisk, SourceVm, SyncOptions, SyncOutcome};
