//! `pvesync`: replicas of Proxmox VE's virtual machines on other nodes.

use clap::{Parser, Subcommand};
use pvesync::fitness;
use pvesync::node::PveTree;
use pvesync::source::{self, PROGRAM};
use pvesync::target::PveTarget;
use pvesync::vm_config::VmConfig;
use pvesync::volid::Vmid;
use rblocksync::cli::units::{human, parse_bytes, parse_time};
use rblocksync::cli::{
    exit_code, run_agent, EngineArgs, OutputOptions, Reporter, SshArgs, EXIT_CODES,
};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::image::ImageFormat;
use rblocksync::job::{
    self, Context, HostRequest, Migration, Patient, SourceDisk, SourceVm, SyncOptions,
    TargetService,
};
use rblocksync::remote::HostSpec;
use rblocksync::replica::{
    self, list_generations, state_dir, Boot, Generation, Layout, TargetPair,
};
use rblocksync::snapshot::{watchdog, VmRuntime};
use rblocksync::stop::{on_signals, Stop};
use rblocksync::verbs::{
    self, CheckArgs, DoctorArgs, FailbackArgs, FailoverArgs, MigrateArgs, PinArgs, Place,
    PruneArgs, RetentionArgs, StatusArgs, TestFailoverArgs, UndoArgs, VerifyArgs,
};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Keep bootable replicas of Proxmox VE's VMs on other nodes, without shared storage
#[derive(Parser)]
#[command(name = PROGRAM, version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    output: OutputOptions,
    #[command(flatten)]
    ssh: SshArgs,
}

#[derive(Subcommand)]
enum Verb {
    /// Sync one VM of this node to another host, as a new generation there
    Vm(VmArgs),
    /// List the generations of replicas, here or on another host
    Generations(GenerationsArgs),
    /// How all replications stand that this node has a part in
    Status(StatusArgs),
    /// The same for Nagios and its like: exit code 0 if all is well, 1 after a failed run, 2 if a generation is too
    /// old, 3 if that cannot be told
    Check(CheckArgs),
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
    /// Boot a clone of a generation of a replica on this node, without any network, and remove it
    TestFailover(TestFailoverArgs),
    /// Read a generation again and compare it with what was sealed, here or on another host
    Verify(VerifyArgs),
    /// Move a VM to another host that has, or gets, a replica of it
    Migrate(Box<MoveArgs>),
    /// Bring a VM back to the host that it was taken over from, or moved from
    Failback(Box<ReturnArgs>),
}

#[derive(clap::Args)]
struct VmArgs {
    /// Id of the VM
    vmid: Vmid,
    /// Host to keep the replica on: [USER@]HOST or ssh://[USER@]HOST[:PORT]
    #[arg(long, value_name = "HOST")]
    to: String,
    /// Put disks of storage SRC on storage DST there; may be given more than once
    #[arg(long, value_name = "SRC=DST", value_parser = parse_map)]
    storage: Vec<(String, String)>,
    /// Format of a disk there, by its key (scsi1=qcow2): raw or qcow2, on directory storages; by default what it is
    /// here. May be given more than once; counts when the disk is sent for the first time
    #[arg(long, value_name = "DISK=FORMAT", value_parser = parse_format)]
    format: Vec<(String, ImageFormat)>,
    /// Id of the replica there, if not the same
    #[arg(long, value_name = "VMID")]
    target_vmid: Option<Vmid>,
    /// Leave this disk out, by its key (scsi1); may be given more than once
    #[arg(long, value_name = "DISK")]
    exclude: Vec<String>,
    #[command(flatten)]
    retention: RetentionArgs,
    /// Disks to sync at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    jobs: u32,
    /// Where files cannot share blocks, overwrite the replica instead of keeping a second copy of it meanwhile: until
    /// the sync is done there is then no replica that boots
    #[arg(long)]
    in_place: bool,
    /// Keep no snapshot of what was sent. It keeps what the guest overwrites until the next sync, which without it
    /// has to compare everything
    #[arg(long)]
    no_base: bool,
    /// Directory in which QEMU may keep what the guest overwrites during the sync, where a disk can have no snapshot:
    /// a running VM's qcow2 files, and what is neither on LVM-thin nor on XFS or btrfs [default: with our state]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Most bytes of that. With more the sync is given up; the guest goes on [default: a quarter of what is free]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    scratch_max: Option<u64>,
    /// Tell what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    engine: EngineArgs,
    /// Longest time the guest may be held still for a snapshot, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=60))]
    hold_max: u64,
    /// How long to try again when the connection is lost in the transfer: 90s, 1h; 0s for not at all
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_time)]
    retry_for: Duration,
}

#[derive(clap::Args)]
struct MoveArgs {
    #[command(flatten)]
    vm: VmArgs,
    #[command(flatten)]
    migrate: MigrateArgs,
    #[command(flatten)]
    undo: UndoArgs,
}

#[derive(clap::Args)]
struct ReturnArgs {
    #[command(flatten)]
    vm: VmArgs,
    #[command(flatten)]
    failback: FailbackArgs,
}

#[derive(clap::Args)]
struct GenerationsArgs {
    /// Only of this VM
    vmid: Option<Vmid>,
    /// On this host instead of here
    #[arg(long, value_name = "HOST")]
    to: Option<String>,
}

fn parse_map(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok((from.into(), to.into())),
        _ => Err("write SRC=DST".into()),
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

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|a| a.to_str()) {
        Some("agent") => {
            let layout = Layout::new(state_dir());
            let target = PveTarget::new(PveTree::new("/"), layout.clone());
            let mut service = TargetService::new(layout, &target).with_roles(&target);
            run_agent(PROGRAM, &args.collect::<Vec<_>>(), &mut service)
        }
        Some("watchdog") => {
            let code = watchdog::main_from_args(args);
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        _ => run(Cli::parse()),
    }
}

fn run(cli: Cli) -> ExitCode {
    let reporter = Reporter::new(cli.output);
    let stop = match on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            reporter.fail(PROGRAM, &error);
            return ExitCode::FAILURE;
        }
    };
    let result = match &cli.verb {
        Verb::Vm(args) => vm(args, &cli, &reporter, &stop),
        Verb::Migrate(args) => moving(
            &args.vm,
            &args.migrate,
            &cli,
            &reporter,
            &stop,
            |migration| verbs::migrate(&args.undo, migration),
        ),
        Verb::Failback(args) => {
            let how = args.failback.migrate();
            moving(&args.vm, how, &cli, &reporter, &stop, |migration| {
                verbs::failback(&args.failback, migration)
            })
        }
        Verb::Generations(args) => at(&cli, &reporter, &stop, |place| generations(args, place)),
        Verb::Verify(args) => at(&cli, &reporter, &stop, |place| {
            verbs::verify(args, place, &disks_with_keys)
        }),
        Verb::Failover(args) => with_target(&cli, &reporter, &stop, |place, target| {
            verbs::failover(args, place, target, &name_of)
        }),
        Verb::TestFailover(args) => with_target(&cli, &reporter, &stop, |place, target| {
            verbs::test_failover(args, place, target)
        }),
        Verb::Status(args) => verbs::status(args, &Layout::new(state_dir()), &reporter),
        Verb::Check(args) => return check(args),
        Verb::Doctor(args) => doctor(args, &reporter),
        Verb::Prune(args) => at(&cli, &reporter, &stop, |place| verbs::prune(args, place)),
        Verb::Pin(args) => at(&cli, &reporter, &stop, |place| {
            verbs::pin(args, true, place)
        }),
        Verb::Unpin(args) => at(&cli, &reporter, &stop, |place| {
            verbs::pin(args, false, place)
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = match stop.is_stopped() && error.kind() != Kind::Cancelled {
                true => stop.error().because(error),
                false => error,
            };
            reporter.fail(PROGRAM, &error);
            ExitCode::from(exit_code(&error, &stop))
        }
    }
}

/// The disks of a VM of this node that can be replicated.
fn disks_with_keys(vm: &str) -> Result<Vec<SourceDisk>> {
    let vmid = vm.parse()?;
    Ok(source::resolve(&PveTree::new("/"), vmid, &[])?.disks)
}

/// The line is the answer, whatever was said about output.
fn check(args: &CheckArgs) -> ExitCode {
    let (line, code) = verbs::check(args, &Layout::new(state_dir()));
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::from(code),
        // Nobody can read it: unknown.
        Err(_) => ExitCode::from(3),
    }
}

fn doctor(args: &DoctorArgs, reporter: &Reporter) -> Result<()> {
    let layout = Layout::new(state_dir());
    let tree = PveTree::new("/");
    let target = PveTarget::new(tree.clone(), layout.clone());
    let disks = |vm: &str| source::disks_of(&tree, vm);
    let patient = Patient {
        layout: &layout,
        hypervisor: &target,
        disks: &disks,
        needed: &source::NEEDED,
        trials: Some(&target),
    };
    verbs::doctor(args, &patient, reporter)
}

fn at(
    cli: &Cli,
    reporter: &Reporter,
    stop: &Stop,
    act: impl FnOnce(&Place) -> Result<()>,
) -> Result<()> {
    with_target(cli, reporter, stop, |place, _| act(place))
}

fn with_target(
    cli: &Cli,
    reporter: &Reporter,
    stop: &Stop,
    act: impl FnOnce(&Place, &PveTarget) -> Result<()>,
) -> Result<()> {
    let layout = Layout::new(state_dir());
    let target = PveTarget::new(PveTree::new("/"), layout.clone());
    let place = Place {
        program: PROGRAM,
        layout: &layout,
        hypervisor: &target,
        ssh: &cli.ssh,
        reporter,
        stop,
    };
    act(&place, &target)
}

/// The VM's name in a generation.
fn name_of(generation: &Generation) -> Option<String> {
    let config = VmConfig::parse(&generation.config).ok()?;
    config.name().map(str::to_owned)
}

fn vm(args: &VmArgs, cli: &Cli, reporter: &Reporter, stop: &Stop) -> Result<()> {
    let host = HostSpec::parse(&args.to)?;
    let layout = Layout::new(state_dir());
    let ssh = cli.ssh.options(stop);
    let context = Context {
        layout: &layout,
        host: &host,
        ssh: &ssh,
        reporter,
        stop,
    };
    let options = sync_options(args);
    let tree = PveTree::new("/");
    let look = || look(&tree, args);
    let (vm, runtime) = look().map_err(|e| match args.dry_run || e.kind() == Kind::Usage {
        true => e,
        false => job::note_failure(&context, &args.vmid.to_string(), e),
    })?;
    job::sync(&context, &vm, runtime, &options).map(drop)
}

/// What the VM is, and how to get at it.
fn look(tree: &PveTree, args: &VmArgs) -> Result<(SourceVm, VmRuntime)> {
    let vm = source::resolve(tree, args.vmid, &args.exclude)?;
    let is_disk = |key: &String| vm.disks.iter().any(|d| d.spec.key == *key);
    if let Some((key, _)) = args.format.iter().find(|(key, _)| !is_disk(key)) {
        let what = format!("--format {key}: no such disk is replicated");
        return Err(Error::new(Kind::Usage, what));
    }
    Ok((vm, source::runtime(tree, args.vmid)?))
}

/// A VM of this node that goes, or comes back.
fn moving(
    args: &VmArgs,
    how: &MigrateArgs,
    cli: &Cli,
    reporter: &Reporter,
    stop: &Stop,
    act: impl FnOnce(&Migration) -> Result<()>,
) -> Result<()> {
    let host = HostSpec::parse(&args.to)?;
    let layout = Layout::new(state_dir());
    let ssh = cli.ssh.options(stop);
    let tree = PveTree::new("/");
    let target = PveTarget::new(tree.clone(), layout.clone());
    act(&Migration {
        context: &Context {
            layout: &layout,
            host: &host,
            ssh: &ssh,
            reporter,
            stop,
        },
        program: PROGRAM,
        vm: &args.vmid.to_string(),
        roles: &target,
        look: &|| look(&tree, args),
        fitness: &|| fitness::check(&tree, args.vmid),
        sync: &sync_options(args),
        options: &how.get(),
    })
}

fn sync_options(args: &VmArgs) -> SyncOptions {
    SyncOptions {
        target_vm: args.target_vmid.map(|id| id.to_string()),
        storage_map: args.storage.clone(),
        formats: args.format.clone(),
        retention: args.retention.get(),
        jobs: args.jobs as usize,
        in_place: args.in_place,
        keep_base: !args.no_base,
        scratch: args.scratch.clone(),
        scratch_bytes_max: args.scratch_max,
        dry_run: args.dry_run,
        tuning: args.engine.tuning(),
        streams: args.engine.streams,
        direct: args.engine.direct,
        hold_max: Duration::from_secs(args.hold_max),
        retry_for: args.retry_for,
    }
}

fn generations(args: &GenerationsArgs, place: &Place) -> Result<()> {
    let vm = args.vmid.map(|id| id.to_string());
    let found: Vec<(TargetPair, Vec<Generation>)> = match &args.to {
        None => list_generations(place.layout, vm.as_deref())?,
        Some(host) => place.ask(host, &HostRequest::Generations(vm.clone()))?,
    };
    if found.is_empty() && args.to.is_none() {
        if let Some(vm) = &vm {
            if tell_sent(place, vm)? {
                return Ok(());
            }
        }
    }
    if found.is_empty() {
        return Err(match vm {
            Some(vm) => Error::new(Kind::NotFound, format!("there is no replica of VM {vm}")),
            None => Error::new(Kind::NotFound, "there are no replicas"),
        });
    }
    for (pair, generations) in &found {
        tell(place, pair, generations, args.to.is_none());
    }
    Ok(())
}

/// What this node knows of the generations that it has sent. False if there are none.
fn tell_sent(place: &Place, vm: &str) -> Result<bool> {
    let sent = replica::sent(place.layout, vm)?;
    for (pair, generations) in &sent {
        place.reporter.say(
            format!("VM {vm}, as it was last sent to {}:", pair.target_name),
            json!({"event": "sent", "pair": pair}),
        );
        let newest = generations.last().map(|g| g.number);
        tell_generations(place.reporter, generations, newest, &|_| None);
    }
    Ok(!sent.is_empty())
}

/// Only of a replica `here` it is known whether its generations were seen to boot.
fn tell(place: &Place, pair: &TargetPair, generations: &[Generation], here: bool) {
    let reporter = place.reporter;
    reporter.say(
        format!(
            "VM {} of {}, here {}:",
            pair.vm, pair.source_name, pair.target_vm
        ),
        json!({"event": "replica", "pair": pair}),
    );
    tell_generations(reporter, generations, pair.head, &|number| {
        let boot = here.then(|| replica::boot_of(place.layout, pair.pair, number));
        boot?.ok()?
    });
}

fn tell_generations(
    reporter: &Reporter,
    generations: &[Generation],
    head: Option<u64>,
    boot_of: &dyn Fn(u64) -> Option<Boot>,
) {
    for generation in generations {
        let changed: u64 = generation.disks.iter().map(|d| d.changed).sum();
        let head = match head == Some(generation.number) {
            true => ", head",
            false => "",
        };
        let mut text = format!(
            "  {}  {:.0}  {}  {} sent{head}",
            generation.name(),
            generation.taken_at,
            generation.consistency,
            human(changed)
        );
        let boot = boot_of(generation.number);
        if let Some(boot) = &boot {
            text.push_str(&format!(", booted {:.0} ({})", boot.at, boot.sign));
        }
        for disk in &generation.disks {
            text.push_str(&format!(
                "\n    {}: {} {} {}",
                disk.key,
                disk.target,
                human(disk.size),
                disk.digest
            ));
        }
        reporter.say(
            text,
            json!({"event": "generation", "generation": generation, "boot": boot}),
        );
    }
}
