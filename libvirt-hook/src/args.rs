//! The command line of `virt-blocksync`.

#![allow(missing_docs)]

use crate::fleet::SelectionArgs;
use crate::source::PROGRAM;
use crate::whereabouts::ConnectArgs;
use clap::{Parser, Subcommand};
use rblocksync::cli::config::{ConfigArgs, ConfigFile, Program};
use rblocksync::cli::{OutputOptions, SshArgs, EXIT_CODES};
use rblocksync::job::SyncOptions;
use rblocksync::replica::{Maps, NameMap, NETWORK};
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
    one_run: &[],
};

/// Examples at the end of the help of verbs that this program has in a form of its own.
pub(crate) const EXAMPLES: [(&str, &str); 2] = [
    (
        "vm",
        "vm web01 --to host2 --dry-run  # the plan, and all that stands in its way\n\
         vm web01 --to host2\n\
         vm web01 --to host2 --pool images=fast --bridge br0=br1\n\
         vm web01 db01 --to host2 --rpo 15m\n\
         vm --all --exclude-vm test01 --to host2 --parallel 4",
    ),
    (
        "schedule add",
        "schedule add web web01 db01 --to host2 --every 15m --rpo 30m\n\
         schedule add night --all --to host3 --on-calendar 'Sat 03:00' --keep-within 28d",
    ),
];

/// Keep bootable replicas of libvirt's domains on other hosts, and move them, without shared storage
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
    pub libvirt: ConnectArgs,
    #[command(flatten)]
    pub file: ConfigFile,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Sync domains of this host to another host, each as a new generation there
    Vm(Box<VmArgs>),
    /// List the generations of replicas, here or on another host
    Generations(GenerationsArgs),
    /// How all replications stand that this host has a part in
    Status(StatusArgs),
    /// The same for Nagios and its like: exit code 0 if all is well, 1 after a failed run, 2 if a generation is too
    /// old, 3 if that cannot be told
    Check(CheckArgs),
    /// Write the status of all replications as one HTML file, to be looked at or printed
    Report(ReportArgs),
    /// Look for what is unfinished, broken or missing on this host
    Doctor(DoctorArgs),
    /// Make a key for the runs to another host that serves nothing but them there
    Setup(SetupArgs),
    /// Drop generations that are not to be kept, here or on another host
    Prune(PruneArgs),
    /// Keep a generation from being pruned
    Pin(PinArgs),
    /// Let a generation be pruned again
    Unpin(PinArgs),
    /// Make the replica on this host the domain, because its source is lost
    Failover(FailoverArgs),
    /// Boot a clone of a generation of a replica on this host, without any network, and remove it
    TestFailover(TestFailoverArgs),
    /// Read a generation again and compare it with what was sealed, here or on another host
    Verify(VerifyArgs),
    /// Run or check jobs: what is in /etc/virt-blocksync/jobs.d
    Job(JobArgs),
    /// Let domains be synced regularly, by systemd
    Schedule(ScheduleArgs<SelectionArgs>),
    /// Move a domain to another host that has, or gets, a replica of it
    Migrate(Box<MoveArgs>),
    /// Before this host starts its domains: ask the other hosts whether they have taken one over, and keep that off here
    BootCheck(BootArgs),
    /// Bring a domain back to the host that it was taken over from, or moved from
    Failback(Box<ReturnArgs>),
    /// Check or show the configuration: /etc/virt-blocksync/virt-blocksync.toml and the environment
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

/// How a domain is synced, whatever for.
#[derive(clap::Args)]
// The options that all front ends share are a group of this name already.
#[group(skip)]
pub struct SyncArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Put disks of pool SRC into pool DST there, or a disk, by its key (vda); DST may name a thin pool of a volume group
    /// (vms/thin) or be a directory. May be given more than once
    #[arg(long, value_name = "SRC=DST", value_parser = parse_map)]
    pub pool: Vec<(String, String)>,
    /// Put disks below directory SRC below directory DST there; may be given more than once
    #[arg(long, value_name = "/SRC/=/DST/", value_parser = parse_dirs)]
    pub path: Vec<(String, String)>,
    /// Network SRC is called DST there; may be given more than once
    #[arg(long, value_name = "SRC=DST", value_parser = parse_map)]
    pub network: Vec<(String, String)>,
    /// Bridge SRC is called DST there; may be given more than once
    #[arg(long, value_name = "SRC=DST", value_parser = parse_map)]
    pub bridge: Vec<(String, String)>,
    /// Name of the replica there, if not the same. It then has another UUID, too
    #[arg(long, value_name = "NAME")]
    pub target_name: Option<String>,
}

impl SyncArgs {
    /// How to sync.
    pub fn options(&self) -> SyncOptions {
        let map = [self.pool.clone(), self.path.clone()].concat();
        SyncOptions {
            maps: Maps {
                networks: self.networks(),
                ..Maps::default()
            },
            ..self.common.options(self.target_name.clone(), map)
        }
    }

    /// What networks and bridges are called there.
    pub fn networks(&self) -> NameMap {
        let network = |name: &str| format!("{NETWORK}{name}");
        let networks = self.network.iter();
        let networks = networks.map(|(from, to)| (network(from), network(to)));
        networks.chain(self.bridge.iter().cloned()).collect()
    }
}

fn parse_dirs(text: &str) -> std::result::Result<(String, String), String> {
    let (from, to) = parse_map(text)?;
    match from.starts_with('/') && to.starts_with('/') {
        true => Ok((from, to)),
        false => Err("write /SRC/=/DST/, both absolute".into()),
    }
}

#[derive(clap::Args)]
pub struct MoveArgs {
    /// Name of the domain
    #[arg(value_name = "DOMAIN")]
    pub vm: String,
    #[command(flatten)]
    pub sync: SyncArgs,
    #[command(flatten)]
    pub migrate: MigrateArgs,
    #[command(flatten)]
    pub undo: UndoArgs,
}

#[derive(clap::Args)]
pub struct BootArgs {
    /// libvirt does not run yet: its definitions are read from its files, and what must not start is kept off by the hook
    #[arg(long)]
    pub before_libvirt: bool,
    #[command(flatten)]
    pub check: BootCheckArgs,
}

#[derive(clap::Args)]
pub struct ReturnArgs {
    /// Name of the domain
    #[arg(value_name = "DOMAIN")]
    pub vm: String,
    #[command(flatten)]
    pub sync: SyncArgs,
    #[command(flatten)]
    pub failback: FailbackArgs,
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
