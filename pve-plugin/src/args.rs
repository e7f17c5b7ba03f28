//! The command line of `pvesync`.

#![allow(missing_docs)]

use crate::fleet::SelectionArgs;
use crate::source::PROGRAM;
use crate::volid::Vmid;
use crate::workstation::ApiArgs;
use clap::{Parser, Subcommand};
use rblocksync::cli::config::{ConfigArgs, ConfigFile, Program};
use rblocksync::cli::{OutputOptions, SshArgs, EXIT_CODES};
use rblocksync::verbs::jobs::{JobArgs, ScheduleArgs};
use rblocksync::verbs::{
    parse_map, BootCheckArgs, CheckArgs, DoctorArgs, FailbackArgs, FailoverArgs, FleetArgs,
    GenerationsArgs, MigrateArgs, PinArgs, PrintArgs, PruneArgs, ReportArgs, SetupArgs, StatusArgs,
    SyncArgs as CommonArgs, TestFailoverArgs, UndoArgs, VerifyArgs,
};

/// The program as its configuration file sees it.
pub const CONFIGURED: Program = Program {
    name: PROGRAM,
    command: crate::command,
    // Which VMs are meant.
    one_run: &["pool", "tag"],
};

/// Examples at the end of the help of verbs that only this program has, or has in a form of its own.
pub(crate) const EXAMPLES: [(&str, &str); 2] = [
    (
        "vm",
        "vm 101 --to host2 --dry-run    # the plan, and all that stands in its way\n\
         vm 101 --to host2\n\
         vm 101 --to host2 --storage local-lvm=fast --bridge vmbr0=vmbr1\n\
         vm 101,105-110 --to host2 --rpo 15m\n\
         vm --tag prod --exclude-vm 107 --to host2 --parallel 4",
    ),
    (
        "schedule add",
        "schedule add web 101,105-110 --to host2 --every 15m --rpo 30m\n\
         schedule add night --all --to host3 --on-calendar 'Sat 03:00' --keep-within 28d",
    ),
];

/// Keep bootable replicas of Proxmox VE's VMs on other nodes, without shared storage
#[derive(Parser)]
#[command(name = PROGRAM, version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
    #[command(flatten)]
    pub output: OutputOptions,
    #[command(flatten)]
    pub ssh: SshArgs,
    #[command(flatten)]
    pub api: ApiArgs,
    #[command(flatten)]
    pub file: ConfigFile,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Sync VMs of this node to another host, each as a new generation there
    Vm(Box<VmArgs>),
    /// List the generations of replicas, here or on another host
    Generations(GenerationsArgs),
    /// How all replications stand that this node has a part in
    Status(StatusArgs),
    /// The same for Nagios and its like: exit code 0 if all is well, 1 after a failed run, 2 if a generation is too
    /// old, 3 if that cannot be told
    Check(CheckArgs),
    /// Write the status of all replications as one HTML file, to be looked at or printed
    Report(ReportArgs),
    /// Look for what is unfinished, broken or missing on this node
    Doctor(DoctorArgs),
    /// Make a key for the runs to another host that serves nothing but them there
    Setup(SetupArgs),
    /// Drop generations that are not to be kept, here or on another host
    Prune(PruneArgs),
    /// Keep a generation from being pruned
    Pin(PinArgs),
    /// Let a generation be pruned again
    Unpin(PinArgs),
    /// Make the replica on this node the VM, because its source is lost
    Failover(FailoverArgs),
    /// Before this node starts its VMs: ask the hosts that keep their replicas whether they have taken one over, and keep it
    /// off if so. The unit pvesync-boot.service does this
    BootCheck(BootCheckArgs),
    /// Boot a clone of a generation of a replica on this node, without any network, and remove it
    TestFailover(TestFailoverArgs),
    /// Read a generation again and compare it with what was sealed, here or on another host
    Verify(VerifyArgs),
    /// Run or check jobs: what is in /etc/pvesync/jobs.d
    Job(JobArgs),
    /// Let VMs be synced regularly, by systemd
    Schedule(ScheduleArgs<SelectionArgs>),
    /// Move a VM to another host that has, or gets, a replica of it
    Migrate(Box<MoveArgs>),
    /// Bring a VM back to the host that it was taken over from, or moved from
    Failback(Box<ReturnArgs>),
    /// Check or show the configuration: /etc/pvesync/pvesync.toml and the environment
    Config(ConfigArgs),
}

#[derive(clap::Args)]
pub struct VmArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub sync: SyncArgs,
    #[command(flatten)]
    pub print: PrintArgs,
    #[command(flatten)]
    pub fleet: FleetArgs,
}

/// How a VM is synced, whatever for.
#[derive(clap::Args)]
// The options that all front ends share are a group of this name already.
#[group(skip)]
pub struct SyncArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Put disks of storage SRC on storage DST there; may be given more than once
    #[arg(long, value_name = "SRC=DST", value_parser = parse_map)]
    pub storage: Vec<(String, String)>,
    /// Attach network cards on bridge SRC to bridge DST there; may be given more than once. Kept until told otherwise
    #[arg(long, value_name = "SRC=DST", value_parser = parse_map)]
    pub bridge: Vec<(String, String)>,
    /// Type of the processor there: TYPE, or SRC=DST for a VM that has SRC here. Kept until told otherwise
    #[arg(long, value_name = "[SRC=]TYPE", value_parser = parse_cpu)]
    pub cpu: Vec<(Option<String>, String)>,
    /// Id of the replica there, if not the same
    #[arg(long, value_name = "VMID")]
    pub target_vmid: Option<Vmid>,
    /// Name of the replica on a libvirt host, if not the VM's own
    #[arg(long, value_name = "NAME", conflicts_with = "target_vmid")]
    pub target_name: Option<String>,
    #[command(flatten)]
    pub which: WhichDisks,
}

/// Which disks are replicated, besides those with data that are attached and on storages of this node alone.
#[derive(clap::Args)]
pub struct WhichDisks {
    /// Replicate volumes that are not attached to the VM (unused0), too
    #[arg(long)]
    pub include_unused: bool,
    /// Leave disks out that backups leave out (backup=0)
    #[arg(long)]
    pub skip_no_backup: bool,
    /// Replicate disks on shared storages, too: for a host that does not share them
    #[arg(long)]
    pub include_shared: bool,
}

#[derive(clap::Args)]
pub struct MoveArgs {
    /// Id of the VM
    pub vmid: Vmid,
    #[command(flatten)]
    pub sync: SyncArgs,
    #[command(flatten)]
    pub migrate: MigrateArgs,
    #[command(flatten)]
    pub undo: UndoArgs,
}

#[derive(clap::Args)]
pub struct ReturnArgs {
    /// Id of the VM
    pub vmid: Vmid,
    #[command(flatten)]
    pub sync: SyncArgs,
    #[command(flatten)]
    pub failback: FailbackArgs,
}

/// A name of a type has neither commas nor equals signs, which divide the settings of a processor.
fn parse_cpu(text: &str) -> std::result::Result<(Option<String>, String), String> {
    let (from, to) = match text.split_once('=') {
        Some((from, to)) => (Some(from), to),
        None => (None, text),
    };
    let is_name = |name: &str| !name.is_empty() && !name.contains([',', '=', '\n', ' ']);
    match is_name(to) && from.is_none_or(is_name) {
        true => Ok((from.map(str::to_owned), to.to_owned())),
        false => Err("write TYPE or SRC=DST".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
