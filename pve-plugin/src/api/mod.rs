//! Proxmox VE's API: what the product asks of it, and the two ways to ask.
//!
//! On a node, `pvesh` does it without a token; from elsewhere, HTTPS with an API token. Both carry the same requests, and
//! there is one table of all that are made. There is no call that reads or writes a disk's bytes: those travel over SSH.
//!
//! * `calls`: the table; `call`: one request, and trait [`Transport`]
//! * `pve`: the typed calls, trait [`Pve`]; `types`, `settings`, `names`: what goes in and comes out; `lenient`: how Perl
//!   writes it
//! * `pvesh`, `rest`: the two ways; `refusal`: what both make of a refusal
//! * `task`: waiting for a task; `preflight`: what must be so before anything is changed

mod call;
mod calls;
mod lenient;
mod names;
pub mod preflight;
mod pve;
mod pvesh;
mod refusal;
mod rest;
mod settings;
mod task;
mod types;

pub use call::{Call, Transport};
pub use calls::{Method, Spec, CALLS};
pub use names::{Node, Upid};
pub use pve::Pve;
pub use pvesh::Pvesh;
pub use rest::{Address, Fingerprint, Limits, Rest, Token, Trust, VARIABLE as TOKEN_VARIABLE};
pub use settings::{Change, NewVm};
pub use task::{wait, TaskEnd};
pub use types::{
    Certificate, ClusterStatus, Guest, GuestType, HaResource, HaStatus, LogLine, NodeStatus,
    PendingSetting, Permissions, ReplicationJob, SnapshotEntry, StorageEntry, StorageStatus,
    TaskStatus, Version, VmSettings, VmStatus, Volume,
};
