//! The fleet: many VMs in one run.
//!
//! Each VM is synced by a process of its own, the same executable with `--json`: one that crashes takes nobody along,
//! memory is that of one sync each, and a VM fails here in the same words as alone. What is here decides who is next
//! (`order`), runs so many at once (`run`), and listens to them (`child`). It knows nothing of VMs but their ids.

mod ages;
mod child;
mod expected;
mod lines;
mod order;
mod outcome;
mod run;

pub use ages::Ages;
pub use child::Runner;
pub use expected::{with_status, Expected};
pub use order::{is_first, next};
pub use outcome::{Ending, Outcome};
pub use run::{run, Told};

use std::ffi::OsString;

/// One VM that is to be synced to one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The VM's id: a plain word.
    pub vm: String,
    /// The host, as it was given.
    pub host: String,
    /// Seconds since the newest generation there was taken; `None` if there is none, or its age cannot be told.
    pub age_s: Option<u64>,
    /// How old the newest generation may be, in seconds.
    pub rpo_s: Option<u64>,
    /// What the program is told to sync it.
    pub args: Vec<OsString>,
}

/// How many are synced at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of all.
    pub parallel: usize,
    /// To one host.
    pub per_host: usize,
}
