//! The workflows, written once against the traits of [`crate::hypervisor`].

mod base;
mod doctor;
mod failover;
pub mod fleet;
mod mend;
mod messages;
mod predict;
mod retry;
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
pub use failover::{FailedOver, Failover, FailoverOptions, Fence, SourceState};
pub use mend::{mend, Mended};
pub use messages::{HostRequest, Position};
pub use roles_service::position;
pub use service::TargetService;
pub use status::{statuses, PairStatus, Verdict};
pub use sync::{ask, note_failure, sync};
pub use trial::{sweep_trials, TrialOptions, TrialRun};
pub use vm::{Context, SourceDisk, SourceVm, SyncOptions, SyncOutcome};
