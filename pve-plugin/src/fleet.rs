//! Many VMs of this node in one run: which ones are meant, and what each of their runs is told.

mod ids;
mod jobs;
mod pick;
mod schedules;

pub use ids::{IdList, Ids};
pub use jobs::{job, promised, JobArgs};
pub use pick::{pick, Chosen};
pub use schedules::{schedule, ScheduleArgs};

use crate::node::PveTree;
use crate::volid::Vmid;
use rblocksync::cli::Reporter;
use rblocksync::error::Result;
use rblocksync::job::fleet::{Limits, Runner};
use rblocksync::replica::Layout;
use rblocksync::stop::Stop;
use rblocksync::verbs::{self, Fleet, Picked, Task};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Where this host's file tree is: `/`, or what `RBLOCKSYNC_ROOT` names, for tests.
pub fn host_root() -> PathBuf {
    match std::env::var_os("RBLOCKSYNC_ROOT") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from("/"),
    }
}

/// Which VMs are meant. Any VM that one of them names is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct SelectionArgs {
    /// VMs: an id, or a list with ranges: 101,105-110. An id that is listed must exist; in a range those that do are
    /// taken
    #[arg(value_name = "VMID", required_unless_present_any = ["all", "tag", "pool"])]
    pub vms: Vec<IdList>,
    /// All VMs of this node, but templates and replicas
    #[arg(long)]
    pub all: bool,
    /// All of them with this tag; may be given more than once
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// All of them in this pool; may be given more than once
    #[arg(long, value_name = "POOL")]
    pub pool: Vec<String>,
    /// But not these
    #[arg(long, value_name = "VMID")]
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

/// What a front end gives to run a fleet.
pub struct Front<'a> {
    /// This node.
    pub tree: PveTree,
    /// Where its file tree is.
    pub root: PathBuf,
    /// Our state.
    pub layout: &'a Layout,
    /// Who is told.
    pub reporter: &'a Reporter,
    /// Whether nothing but errors is said.
    pub quiet: bool,
    /// Ends it early.
    pub stop: &'a Stop,
    /// Options for all that this run starts, as `--ssh-config`.
    pub options: Vec<OsString>,
    /// Tells whether the program takes these words.
    pub takes: &'a dyn Fn(&[OsString]) -> Result<()>,
}

impl Front<'_> {
    /// What a run of one VM is told.
    fn words(vm: Vmid, host: &str, options: &[OsString]) -> Vec<OsString> {
        let mut words: Vec<OsString> = ["--json", "vm"].map(Into::into).to_vec();
        words.push(vm.to_string().into());
        words.push(format!("--to={host}").into());
        words.extend_from_slice(options);
        words
    }

    /// The runs of VMs that were chosen, to some hosts.
    fn picked(
        &self,
        chosen: Chosen,
        hosts: &[String],
        rpo: Option<Duration>,
        options: &[OsString],
    ) -> Picked {
        let task = |vm: Vmid, host: &String| Task {
            vm: vm.to_string(),
            host: host.clone(),
            rpo,
            args: Front::words(vm, host, options),
        };
        let vms = chosen.vms.iter();
        Picked {
            tasks: vms
                .flat_map(|vm| hosts.iter().map(|host| task(*vm, host)))
                .collect(),
            failed: chosen
                .failed
                .into_iter()
                .map(|(vm, e)| (vm.to_string(), e))
                .collect(),
            left_out: chosen.left_out,
        }
    }

    fn run(&self, picked: Picked, limits: Limits, dry_run: bool) -> Result<u8> {
        verbs::fleet(
            picked,
            &Fleet {
                program: crate::source::PROGRAM,
                layout: self.layout,
                reporter: self.reporter,
                quiet: self.quiet,
                stop: self.stop,
                runner: Runner::this_executable(dry_run),
                limits,
            },
        )
    }

    /// Syncs all VMs of a selection to one host. Gives the exit code.
    pub fn sync(
        &self,
        selection: &SelectionArgs,
        host: &str,
        (limits, rpo): (Limits, Option<Duration>),
        dry_run: bool,
    ) -> Result<u8> {
        let chosen = pick(selection, &self.tree)?;
        let picked = self.picked(chosen, &[host.to_owned()], rpo, &self.options);
        self.run(picked, limits, dry_run)
    }
}
