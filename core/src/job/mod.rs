//! The workflows, written once against the traits of [`crate::hypervisor`].

mod messages;
mod service;
mod sync;
mod transfer;

pub use messages::HostRequest;
pub use service::TargetService;
pub use sync::{generations_of, sync, verify_at, SourceDisk, SourceVm, SyncOptions, SyncOutcome};
