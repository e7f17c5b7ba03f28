//! `migrate`: moves a VM to the host that keeps its replica.

use super::failover::{parse_command, Words};
use crate::cli::units::parse_time;
use crate::error::{Error, Kind, Result};
use crate::job::{self, Health, MigrateOptions, Migration, StopMode};
use std::time::Duration;

/// How to migrate, besides how to sync.
#[derive(Debug, Clone, clap::Args)]
pub struct MigrateArgs {
    /// Syncs are repeated while the VM runs until the last one, for which it is off, is expected to take no longer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    max_downtime: Duration,
    /// How the VM is ended here: its guest shuts down, or it is switched off as by a power cut
    #[arg(long, value_enum, value_name = "HOW", default_value = "shutdown")]
    stop: StopMode,
    /// How long its guest may take to shut down; then the VM stays here
    #[arg(long, value_name = "TIME", default_value = "3m", value_parser = parse_time)]
    shutdown_timeout: Duration,
    /// Its guest is not shut down, and goes on there with its memory. It runs until almost all is there if both hosts can do
    /// that (libvirt, with disks that are files); else, or with --live=pause, it is paused while its memory is sent
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "auto",
        conflicts_with = "no_start"
    )]
    live: Option<LiveMode>,
    /// How long the guest may be paused at the most for that; then it goes on here
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    pause_max: Duration,
    /// Most syncs of the running VM before it is given up
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds_max: u32,
    /// Program, by its absolute path, with arguments, that is run on this host with VMID and HOST in its environment, and
    /// exits with 0 if the VM does well there. No shell reads it. Besides, the guest's agent has to answer, if there is one
    #[arg(long, value_name = "COMMAND", value_parser = parse_command)]
    health_command: Option<Words>,
    /// How long to wait for that
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_time)]
    health_timeout: Duration,
    /// Do not start it there
    #[arg(long)]
    no_start: bool,
}

/// How a guest is moved with its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LiveMode {
    /// Without being held still, where that is possible
    Auto,
    /// Paused
    Pause,
}

/// Taking a VM back that is about to go.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct UndoArgs {
    /// Take the VM back that a migration which was cut off has given up, once the other host has confirmed that it will
    /// not take it over
    #[arg(long)]
    undo: bool,
    /// With --undo: do not ask the other host, which will never run the VM again. To be confirmed by the VM's id
    #[arg(long, value_name = "VM", requires = "undo")]
    target_lost: Option<String>,
}

impl MigrateArgs {
    /// What was asked for.
    pub fn get(&self) -> MigrateOptions {
        MigrateOptions {
            downtime_max: self.max_downtime,
            stop: self.stop,
            shutdown_timeout: self.shutdown_timeout,
            live: self.live.is_some(),
            pause: self.live == Some(LiveMode::Pause),
            pause_max: self.pause_max,
            rounds_max: self.rounds_max,
            health: Health {
                command: self
                    .health_command
                    .clone()
                    .map(|Words(program, arguments)| (program, arguments)),
                timeout: self.health_timeout,
            },
            no_start: self.no_start,
        }
    }
}

/// What cannot be told beforehand is not to be done instead.
pub(super) fn refuse_dry_run(migration: &Migration, what: &str) -> Result<()> {
    match migration.sync.dry_run {
        true => Err(Error::new(Kind::Usage, format!("{what} has no dry run"))
            .advise("'status' on both hosts tells how they stand")),
        false => Ok(()),
    }
}

/// Moves the VM, or takes it back.
pub fn migrate(undo: &UndoArgs, migration: &Migration) -> Result<()> {
    if !undo.undo {
        return job::migrate(migration);
    }
    refuse_dry_run(migration, "--undo")?;
    match &undo.target_lost {
        Some(named) if named != migration.vm => Err(Error::new(
            Kind::Usage,
            format!("--target-lost names {named}, and not VM {}", migration.vm),
        )),
        lost => job::undo_migrate(migration, lost.is_some()),
    }
}
