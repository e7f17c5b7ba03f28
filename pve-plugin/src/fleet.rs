//! Many VMs of this node in one run: which ones are meant, on the command line and in job files.

mod ids;
mod pick;

pub use ids::{IdList, Ids};
pub use pick::pick;

use crate::args::CONFIGURED;
use crate::source::PROGRAM;
use crate::volid::Vmid;
use clap::Args;
use rblocksync::verbs::jobs::{Fault, JobKind, Selection};
use rblocksync::verbs::schedule::Templates;
use serde::{Deserialize, Serialize};

/// The jobs of this program.
pub const JOBS: JobKind = JobKind {
    program: CONFIGURED,
    templates: &Templates {
        program: PROGRAM,
        job: include_str!("../../packaging/systemd/pvesync-job@.service"),
        notify: include_str!("../../packaging/systemd/pvesync-notify@.service"),
    },
    selection: SelectionArgs::augment_args,
    // A job may be about several VMs, each of which keeps its id.
    not_in_jobs: &["target-name", "target-vmid"],
};

/// Which VMs are meant. Any VM that one of them names is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectionArgs {
    /// VMs: an id, or a list with ranges: 101,105-110. An id that is listed must exist; in a range those that do are
    /// taken
    #[arg(value_name = "VMID", required_unless_present_any = ["all", "tag", "pool"])]
    #[serde(with = "ids::joined", skip_serializing_if = "Vec::is_empty")]
    pub vms: Vec<IdList>,
    /// All VMs of this node, but templates and replicas
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// All of them with this tag; may be given more than once
    #[arg(long, value_name = "TAG")]
    #[serde(rename = "tags", skip_serializing_if = "Vec::is_empty")]
    pub tag: Vec<String>,
    /// All of them in this pool; may be given more than once
    #[arg(long, value_name = "POOL")]
    #[serde(rename = "pools", skip_serializing_if = "Vec::is_empty")]
    pub pool: Vec<String>,
    /// But not these
    #[arg(long, value_name = "VMID")]
    #[serde(
        rename = "exclude_vms",
        with = "ids::joined",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub exclude_vm: Vec<IdList>,
}

impl SelectionArgs {
    /// The VM, if one is meant by its id, and nothing else.
    pub fn single(&self) -> Option<Vmid> {
        let alone =
            !self.all && self.tag.is_empty() && self.pool.is_empty() && self.exclude_vm.is_empty();
        match self.vms.as_slice() {
            [list] if alone => list.single(),
            _ => None,
        }
    }
}

impl Selection for SelectionArgs {
    const FIELDS: &'static [&'static str] = &["vms", "all", "tags", "pools", "exclude_vms"];

    fn check(&self) -> std::result::Result<(), Fault> {
        let lists = [("tags", &self.tag), ("pools", &self.pool)];
        if self.vms.is_empty() && !self.all && lists.iter().all(|(_, list)| list.is_empty()) {
            let why = "it names no VMs: vms, all, tags or pools";
            return Err(Fault::new("vms", why));
        }
        for (key, list) in lists {
            if list.iter().any(String::is_empty) {
                return Err(Fault::new(key, "one of them has no name"));
            }
        }
        Ok(())
    }
}
