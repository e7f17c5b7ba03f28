//! The command line.

use clap::{Parser, Subcommand};
use pvesync::fleet::{JobArgs, ScheduleArgs, SelectionArgs};
use pvesync::source::PROGRAM;
use pvesync::volid::Vmid;
use pvesync::workstation::ApiArgs;
use rblocksync::cli::units::{parse_bytes, parse_time};
use rblocksync::cli::{EngineArgs, OutputOptions, SshArgs, EXIT_CODES};
use rblocksync::image::ImageFormat;
use rblocksync::verbs::{
    BootCheckArgs, CheckArgs, DoctorArgs, FailbackArgs, FailoverArgs, FleetArgs, MigrateArgs,
    PinArgs, PruneArgs, ReportArgs, RetentionArgs, StatusArgs, TestFailoverArgs, UndoArgs,
    VerifyArgs,
};
use std::path::PathBuf;
use std::time::Duration;

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
    Schedule(ScheduleArgs),
    /// Move a VM to another host that has, or gets, a replica of it
    Migrate(Box<MoveArgs>),
    /// Bring a VM back to the host that it was taken over from, or moved from
    Failback(Box<ReturnArgs>),
}

#[derive(clap::Args)]
pub struct VmArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub sync: SyncArgs,
    #[command(flatten)]
    pub fleet: FleetArgs,
}

/// How a VM is synced, whatever for.
#[derive(clap::Args)]
pub struct SyncArgs {
    /// Host to keep the replica on: [USER@]HOST or ssh://[USER@]HOST[:PORT]
    #[arg(long, value_name = "HOST")]
    pub to: String,
    /// Put disks of storage SRC on storage DST there; may be given more than once
    #[arg(long, value_name = "SRC=DST", value_parser = parse_map)]
    pub storage: Vec<(String, String)>,
    /// Attach network cards on bridge SRC to bridge DST there; may be given more than once. Kept until told otherwise
    #[arg(long, value_name = "SRC=DST", value_parser = parse_map)]
    pub bridge: Vec<(String, String)>,
    /// Type of the processor there: TYPE, or SRC=DST for a VM that has SRC here. Kept until told otherwise
    #[arg(long, value_name = "[SRC=]TYPE", value_parser = parse_cpu)]
    pub cpu: Vec<(Option<String>, String)>,
    /// Format of a disk there, by its key (scsi1=qcow2): raw or qcow2, on directory storages; by default what it is
    /// here. May be given more than once; counts when the disk is sent for the first time
    #[arg(long, value_name = "DISK=FORMAT", value_parser = parse_format)]
    pub format: Vec<(String, ImageFormat)>,
    /// Id of the replica there, if not the same
    #[arg(long, value_name = "VMID")]
    pub target_vmid: Option<Vmid>,
    /// Leave this disk out, by its key (scsi1); may be given more than once
    #[arg(long, value_name = "DISK")]
    pub exclude: Vec<String>,
    #[command(flatten)]
    pub which: WhichDisks,
    #[command(flatten)]
    pub retention: RetentionArgs,
    /// Disks to sync at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub jobs: u32,
    /// Where files cannot share blocks, overwrite the replica instead of keeping a second copy of it meanwhile: until
    /// the sync is done there is then no replica that boots
    #[arg(long)]
    pub in_place: bool,
    /// Keep no snapshot of what was sent. It keeps what the guest overwrites until the next sync, which without it
    /// has to compare everything
    #[arg(long)]
    pub no_base: bool,
    /// Directory in which QEMU may keep what the guest overwrites during the sync, where a disk can have no snapshot:
    /// a running VM's qcow2 files, and what is neither on LVM-thin nor on XFS or btrfs [default: with our state]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Most bytes of that. With more the sync is given up; the guest goes on [default: a quarter of what is free]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub scratch_max: Option<u64>,
    /// Tell what would be done; change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Longest time the guest may be held still for a snapshot, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub hold_max: u64,
    /// How long to try again when the connection is lost in the transfer: 90s, 1h; 0s for not at all
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_time)]
    pub retry_for: Duration,
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

#[derive(clap::Args)]
pub struct GenerationsArgs {
    /// Only of this VM
    pub vmid: Option<Vmid>,
    /// On this host instead of here
    #[arg(long, value_name = "HOST")]
    pub to: Option<String>,
}

fn parse_map(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok((from.into(), to.into())),
        _ => Err("write SRC=DST".into()),
    }
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

fn parse_format(text: &str) -> std::result::Result<(String, ImageFormat), String> {
    match text
        .split_once('=')
        .map(|(key, format)| (key, format.parse()))
    {
        Some((key, Ok(format))) if !key.is_empty() => Ok((key.into(), format)),
        _ => Err("write DISK=raw or DISK=qcow2".into()),
    }
}
