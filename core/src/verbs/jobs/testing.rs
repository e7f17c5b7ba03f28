//! A program with jobs, for tests.

use super::{Chosen, Fault, JobArgs, JobKind, ScheduleArgs, Selection};
use crate::cli::config::Program;
use crate::cli::{OutputOptions, SshArgs};
use crate::error::{Error, Kind, Result};
use crate::verbs::schedule::Templates;
use crate::verbs::{parse_map, FleetArgs, PrintArgs, SyncArgs};
use clap::{Args, CommandFactory, Parser, Subcommand};
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Parser)]
#[command(name = "prog")]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
    #[command(flatten)]
    pub output: OutputOptions,
    #[command(flatten)]
    pub ssh: SshArgs,
}

#[derive(Subcommand)]
pub enum Verb {
    Vm(Box<VmArgs>),
    Job(JobArgs),
    Schedule(ScheduleArgs<Names>),
}

#[derive(clap::Args)]
#[allow(dead_code)]
pub struct VmArgs {
    #[command(flatten)]
    pub selection: Names,
    #[command(flatten)]
    pub sync: SyncArgs,
    #[command(flatten)]
    pub print: PrintArgs,
    #[command(flatten)]
    pub fleet: FleetArgs,
    #[arg(long, value_parser = parse_map)]
    pub storage: Vec<(String, String)>,
    #[arg(long)]
    pub target_name: Option<String>,
}

/// VMs have names here. One that is called `none` cannot be told.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Names {
    #[arg(required_unless_present = "all")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vms: Vec<String>,
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

impl Selection for Names {
    const FIELDS: &'static [&'static str] = &["vms", "all"];

    fn check(&self) -> std::result::Result<(), Fault> {
        match self.vms.is_empty() && !self.all {
            true => Err(Fault::new("vms", "it names no VMs")),
            false => Ok(()),
        }
    }
}

pub fn pick(selection: &Names) -> Result<Chosen> {
    if selection.vms.iter().any(|vm| vm == "none") {
        return Err(Error::new(Kind::NotFound, "there is no none"));
    }
    Ok(Chosen {
        vms: selection.vms.clone(),
        ..Chosen::default()
    })
}

fn command() -> clap::Command {
    KIND.lend(Cli::command())
}

pub const KIND: JobKind = JobKind {
    program: Program {
        name: "prog",
        command,
        one_run: &[],
    },
    templates: &Templates {
        program: "prog",
        job: "[Service]\nExecStart=/usr/bin/prog job run %i\n",
        notify: "[Service]\nExecStart=/bin/true %i\n",
    },
    selection: Names::augment_args,
    not_in_jobs: &["target-name"],
};

/// A directory for jobs below `root`, which is root's alone.
pub fn make_dir(root: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let jobs = root.join("etc/prog/jobs.d");
    std::fs::create_dir_all(&jobs).unwrap();
    for dir in [jobs.parent().unwrap(), &jobs] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn the_command_line_is_sound() {
    command().debug_assert();
}
