//! The workflows, written once against the traits of [`crate::hypervisor`].

mod base;
mod doctor;
mod mend;
mod messages;
mod predict;
mod retry;
mod service;
mod status;
mod sync;
mod tell;
mod track;
mod transfer;
mod vm;

pub use doctor::{examine, Needed, Patient};
pub use mend::{mend, Mended};
pub use messages::HostRequest;
pub use service::TargetService;
pub use status::{statuses, PairStatus, Verdict};
pub use sync::{ask, note_failure, sync};
pub use vm::{Context, Sent, SourceDisk, SourceVm, SyncOptions, SyncOutcome};
