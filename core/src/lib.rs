//! The library behind `rblocksync`, `pvesync` and `virt-blocksync`.
//!
//! ARCHITECTURE.md at the top of the repository tells how the modules fit together.

pub mod agent;
pub mod bell;
pub mod buf;
pub mod cli;
mod clock;
pub mod cmd;
mod crash;
pub mod digest;
pub mod driver;
pub mod error;
pub mod files;
pub mod fingerprint;
pub mod guest;
pub mod holders;
pub mod hostlog;
pub mod hypervisor;
pub mod image;
pub mod job;
pub mod journal;
pub mod lock;
pub mod lvm;
pub mod nbd;
pub mod qemu;
pub mod range;
pub mod remote;
pub mod replica;
pub mod runbook;
pub mod snapshot;
pub mod stop;
pub mod sync;
mod sys;
pub mod thin;
pub mod trusted_file;
pub mod verbs;
pub mod wire;
