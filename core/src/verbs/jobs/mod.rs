//! Jobs: which VMs are replicated where, when and how, and the verbs `job` and `schedule`. What a front end adds is how it
//! names VMs, and which ones a selection comes to on its host.

mod fields;
mod file;
mod job;
mod options;
mod schedules;

pub use fields::{Hosts, Rate, TimeSpan};
pub use file::{Job, JobsDir, Plan};
pub use job::{job, promised, JobArgs};
pub use options::{JobKind, Options, NOT_IN_JOBS};
pub use schedules::{schedule, ScheduleArgs};

use crate::cli::Reporter;
use crate::error::{Error, Result};
use crate::job::fleet::{Limits, Runner};
use crate::remote::HostSpec;
use crate::replica::Layout;
use crate::stop::Stop;
use crate::verbs::{fleet, passed_on, Fleet, FleetArgs, Picked, Task};
use clap::ArgMatches;
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Options of `vm` that are about several VMs: they are not passed on to the run of each.
const OF_SEVERAL: [&str; 4] = ["to", "parallel", "per_host", "rpo"];
/// Options about output, which is this process's.
const OF_OUTPUT: [&str; 3] = ["json", "quiet", "progress"];

/// Where this host's file tree is: `/`, or what `RBLOCKSYNC_ROOT` names, for tests.
pub fn host_root() -> PathBuf {
    match std::env::var_os("RBLOCKSYNC_ROOT") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from("/"),
    }
}

/// Which VMs are meant, in a front end's words: on the command line and in job files. In those it denies unknown fields.
pub trait Selection: clap::Args + Serialize + DeserializeOwned + Clone + Default {
    /// Names of its fields in job files.
    const FIELDS: &'static [&'static str];

    /// Says what is wrong with it, whatever there is on the host.
    fn check(&self) -> std::result::Result<(), Fault>;
}

/// What is wrong with a field of a job.
#[derive(Debug)]
pub struct Fault {
    key: String,
    why: String,
}

impl Fault {
    /// Of this field, for this reason.
    pub fn new(key: impl Into<String>, why: impl Into<String>) -> Fault {
        Fault {
            key: key.into(),
            why: why.into(),
        }
    }
}

/// What a selection has come to on this host.
#[derive(Debug, Default)]
pub struct Chosen {
    /// VMs to be synced.
    pub vms: Vec<String>,
    /// Those that may belong to it, but cannot be read.
    pub failed: Vec<(String, Error)>,
    /// Who is not among them, and why; a line for each reason.
    pub left_out: Vec<String>,
}

/// What a front end gives to run a fleet.
pub struct JobFront<'a, S> {
    /// What its jobs are like.
    pub kind: &'a JobKind,
    /// Where the host's file tree is.
    pub root: PathBuf,
    /// Our state.
    pub layout: &'a Layout,
    /// Who is told.
    pub reporter: &'a Reporter,
    /// Whether nothing but errors is said.
    pub quiet: bool,
    /// Ends it early.
    pub stop: &'a Stop,
    /// The command line that was given.
    pub matches: &'a ArgMatches,
    /// Finds the VMs of a selection.
    pub pick: &'a dyn Fn(&S) -> Result<Chosen>,
}

impl<S: Selection> JobFront<'_, S> {
    /// Syncs all VMs of a selection to one host, with the options of `vm` that were given. Gives the exit code.
    pub fn sync(&self, selection: &S, host: &str, how: &FleetArgs, dry_run: bool) -> Result<u8> {
        HostSpec::parse(host)?;
        let selecting = self.kind.selecting();
        let mut without: Vec<&str> = selecting.iter().map(String::as_str).collect();
        without.extend(OF_SEVERAL);
        let options = self.given(&["vm"], &without);
        let chosen = (self.pick)(selection)?;
        let picked = picked(chosen, &[host.to_owned()], how.rpo, &options);
        self.run(picked, how.limits(), dry_run)
    }

    /// The options that were given to a verb and are passed on.
    fn given(&self, path: &[&str], without: &[&str]) -> Vec<OsString> {
        let without = [without, &OF_OUTPUT].concat();
        passed_on((self.kind.program.command)(), path, self.matches, &without)
    }

    fn run(&self, picked: Picked, limits: Limits, dry_run: bool) -> Result<u8> {
        fleet(
            picked,
            &Fleet {
                program: self.kind.program.name,
                layout: self.layout,
                reporter: self.reporter,
                quiet: self.quiet,
                stop: self.stop,
                runner: Runner::this_executable(dry_run),
                limits,
            },
        )
    }

    fn jobs(&self) -> JobsDir<'_, S> {
        JobsDir::new(&self.root, self.kind)
    }
}

/// The runs of VMs that were chosen, to some hosts.
fn picked(chosen: Chosen, hosts: &[String], rpo: Option<Duration>, options: &[OsString]) -> Picked {
    let task = |vm: &String, host: &String| Task {
        vm: vm.clone(),
        host: host.clone(),
        rpo,
        args: words(vm, host, options),
    };
    Picked {
        tasks: chosen
            .vms
            .iter()
            .flat_map(|vm| hosts.iter().map(|host| task(vm, host)))
            .collect(),
        failed: chosen.failed,
        left_out: chosen.left_out,
    }
}

/// What a run of one VM is told. A name may look like an option.
fn words(vm: &str, host: &str, options: &[OsString]) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["--json", "vm"].map(Into::into).to_vec();
    words.push(format!("--to={host}").into());
    words.extend_from_slice(options);
    words.extend(["--".into(), vm.into()]);
    words
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
