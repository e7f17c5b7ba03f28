//! `pvesync`: replicas of Proxmox VE's virtual machines on other nodes.

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use pvesync::disks::Choice;
use pvesync::fleet::{self, Front, JobArgs, ScheduleArgs, SelectionArgs};
use pvesync::jobs_file::JobsDir;
use pvesync::node::PveTree;
use pvesync::source::{self, PROGRAM};
use pvesync::target::PveTarget;
use pvesync::vm_config::VmConfig;
use pvesync::volid::Vmid;
use pvesync::workstation::{self, ApiArgs, Output, RELAYED};
use rblocksync::cli::units::{human, parse_bytes, parse_time};
use rblocksync::cli::{
    exit_code, run_agent, EngineArgs, OutputOptions, Reporter, SshArgs, EXIT_CODES,
};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::image::ImageFormat;
use rblocksync::job::fleet::Expected;
use rblocksync::job::{
    self, Context, HostRequest, Patient, SourceDisk, SyncOptions, TargetService,
};
use rblocksync::remote::HostSpec;
use rblocksync::replica::{
    self, list_generations, state_dir, Boot, Generation, Layout, TargetPair,
};
use rblocksync::snapshot::watchdog;
use rblocksync::stop::{on_signals, Stop};
use rblocksync::verbs::{
    self, CheckArgs, DoctorArgs, FailoverArgs, FleetArgs, PinArgs, Place, PruneArgs, ReportArgs,
    RetentionArgs, StatusArgs, TestFailoverArgs, VerifyArgs,
};
use serde_json::json;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

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
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Subcommand)]
enum Verb {
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
    /// Boot a clone of a generation of a replica on this node, without any network, and remove it
    TestFailover(TestFailoverArgs),
    /// Read a generation again and compare it with what was sealed, here or on another host
    Verify(VerifyArgs),
    /// Run or check jobs: what is in /etc/pvesync/jobs.d
    Job(JobArgs),
    /// Let VMs be synced regularly, by systemd
    Schedule(ScheduleArgs),
}

#[derive(clap::Args)]
struct VmArgs {
    #[command(flatten)]
    selection: SelectionArgs,
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
    which: WhichDisks,
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
    #[command(flatten)]
    fleet: FleetArgs,
}

/// Which disks are replicated, besides those with data that are attached and on storages of this node alone.
#[derive(clap::Args)]
struct WhichDisks {
    /// Replicate volumes that are not attached to the VM (unused0), too
    #[arg(long)]
    include_unused: bool,
    /// Leave disks out that backups leave out (backup=0)
    #[arg(long)]
    skip_no_backup: bool,
    /// Replicate disks on shared storages, too: for a host that does not share them
    #[arg(long)]
    include_shared: bool,
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
        // What a workstation has started here: see `workstation`.
        Some(RELAYED) => {
            let words: Vec<OsString> = std::iter::once(PROGRAM.into()).chain(args).collect();
            parsed(Cli::command().get_matches_from(words), true)
        }
        _ => parsed(Cli::command().get_matches(), false),
    }
}

fn parsed(matches: ArgMatches, relayed: bool) -> ExitCode {
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => run(cli, &matches, relayed),
        Err(e) => e.exit(),
    }
}

fn run(cli: Cli, matches: &ArgMatches, relayed: bool) -> ExitCode {
    let reporter = Reporter::new(cli.output);
    let signals = on_signals().and_then(|stop| match relayed {
        true => workstation::obey_stdin(&stop).map(|()| stop),
        false => Ok(stop),
    });
    let stop = match signals {
        Ok(stop) => stop,
        Err(error) => {
            reporter.fail(PROGRAM, &error);
            return ExitCode::FAILURE;
        }
    };
    let result = match &cli.verb {
        verb if cli.api.api.is_some() => {
            return done_with(elsewhere(verb, &cli, &stop), &reporter, &stop)
        }
        Verb::Vm(args) => match args.selection.single() {
            Some(vmid) => vm(vmid, args, &cli, &reporter, &stop),
            None => {
                let without = &FLEETS_OWN;
                let done = front(
                    &cli,
                    (matches, &["vm"], without),
                    &reporter,
                    &stop,
                    |front| vms(args, front),
                );
                return done_with(done, &reporter, &stop);
            }
        },
        Verb::Job(args) => {
            let verb = match matches.subcommand() {
                Some((_, job)) => job.subcommand_name().unwrap_or_default(),
                None => "",
            };
            let without = &["dry_run", "json", "quiet", "progress"];
            let done = front(
                &cli,
                (matches, &["job", verb], without),
                &reporter,
                &stop,
                |front| fleet::job(args, front),
            );
            return done_with(done, &reporter, &stop);
        }
        Verb::Schedule(args) => front(&cli, (matches, &[], &[]), &reporter, &stop, |front| {
            fleet::schedule(args, front)
        }),
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
        Verb::Status(args) => verbs::status(args, &Layout::new(state_dir()), &reporter, &promised),
        Verb::Check(args) => return check(args),
        Verb::Report(args) => report(args, &reporter),
        Verb::Doctor(args) => doctor(args, &reporter),
        Verb::Prune(args) => at(&cli, &reporter, &stop, |place| verbs::prune(args, place)),
        Verb::Pin(args) => at(&cli, &reporter, &stop, |place| {
            verbs::pin(args, true, place)
        }),
        Verb::Unpin(args) => at(&cli, &reporter, &stop, |place| {
            verbs::pin(args, false, place)
        }),
    };
    done_with(result.map(|()| 0), &reporter, &stop)
}

/// Options of `vm` that are about several VMs, or about output: they are not passed on to the run of each.
const FLEETS_OWN: [&str; 11] = [
    "to",
    "all",
    "tag",
    "pool",
    "exclude_vm",
    "parallel",
    "per_host",
    "rpo",
    "json",
    "quiet",
    "progress",
];

/// The exit code, after an error has been told.
fn done_with(result: Result<u8>, reporter: &Reporter, stop: &Stop) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let error = match stop.is_stopped() && error.kind() != Kind::Cancelled {
                true => stop.error().because(error),
                false => error,
            };
            reporter.fail(PROGRAM, &error);
            ExitCode::from(exit_code(&error, stop))
        }
    }
}

/// Acts on several VMs. `given` says where their options are on the command line, and which are not passed on.
fn front<T>(
    cli: &Cli,
    given: (&ArgMatches, &[&str], &[&str]),
    reporter: &Reporter,
    stop: &Stop,
    act: impl FnOnce(&Front) -> Result<T>,
) -> Result<T> {
    let root = fleet::host_root();
    let (matches, path, without) = given;
    act(&Front {
        tree: PveTree::new(&root),
        root,
        layout: &Layout::new(state_dir()),
        reporter,
        quiet: cli.output.quiet,
        stop,
        options: fleet::passed_on(Cli::command(), path, matches, without),
        takes: &takes,
    })
}

/// Whether these words, after the program's name, are a command.
fn takes(words: &[OsString]) -> Result<()> {
    let program = std::iter::once(OsString::from(PROGRAM));
    match Cli::try_parse_from(program.chain(words.iter().cloned())) {
        Ok(_) => Ok(()),
        Err(e) => {
            let text = e.to_string();
            let why = text.lines().next().unwrap_or_default();
            Err(Error::new(Kind::Usage, why.trim_start_matches("error: ")))
        }
    }
}

/// What the jobs of this node promise.
fn promised() -> Result<Vec<Expected>> {
    let root = fleet::host_root();
    fleet::promised(&JobsDir::new(&root, &takes), &PveTree::new(&root))
}

/// Syncs several VMs.
fn vms(args: &VmArgs, front: &Front) -> Result<u8> {
    HostSpec::parse(&args.to)?;
    if args.target_vmid.is_some() {
        let what = "--target-vmid is for one VM, and several are meant";
        return Err(Error::new(Kind::Usage, what)
            .advise("sync that VM once by itself: its replica keeps its id"));
    }
    let how = (args.fleet.limits(), args.fleet.rpo);
    front.sync(&args.selection, &args.to, how, args.dry_run)
}

/// Runs the verb on the node that has the VM, and gives the exit code of that run.
fn elsewhere(verb: &Verb, cli: &Cli, stop: &Stop) -> Result<u8> {
    let Verb::Vm(args) = verb else {
        return Err(
            Error::new(Kind::Usage, "with --api there is only the verb vm")
                .advise("for the others, log in on the node"),
        );
    };
    let words = workstation::words_for_node(std::env::args_os())?;
    let (ssh, output) = (cli.ssh.options(stop), Output::inherited()?);
    let Some(vmid) = args.selection.single() else {
        return Err(
            Error::new(Kind::Usage, "with --api one VM is synced at a time")
                .advise("for more, log in on the node, or make a job there"),
        );
    };
    workstation::run(&cli.api, vmid, &words, &ssh, output, stop)
}

/// The disks of a VM of this node that can be replicated.
fn disks_with_keys(vm: &str) -> Result<Vec<SourceDisk>> {
    let vmid = vm.parse()?;
    Ok(source::resolve_with(&PveTree::new("/"), vmid, &Choice::everything())?.disks)
}

/// The line is the answer, whatever was said about output.
fn check(args: &CheckArgs) -> ExitCode {
    let (line, code) = verbs::check(args, &Layout::new(state_dir()), &promised);
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::from(code),
        // Nobody can read it: unknown.
        Err(_) => ExitCode::from(3),
    }
}

fn report(args: &ReportArgs, reporter: &Reporter) -> Result<()> {
    let layout = Layout::new(state_dir());
    let target = PveTarget::new(PveTree::new("/"), layout.clone());
    let writer = verbs::Writer {
        program: PROGRAM,
        layout: &layout,
        hypervisor: &target,
        name_of: &name_of,
        reporter,
    };
    verbs::report(args, &writer)
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

fn vm(vmid: Vmid, args: &VmArgs, cli: &Cli, reporter: &Reporter, stop: &Stop) -> Result<()> {
    let began = Instant::now();
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
    let options = SyncOptions {
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
    };
    let tree = PveTree::new("/");
    let look = || -> Result<_> {
        let choice = Choice {
            include_unused: args.which.include_unused,
            skip_no_backup: args.which.skip_no_backup,
            include_shared: args.which.include_shared,
            ..Choice::without(&args.exclude)
        };
        let vm = source::resolve_with(&tree, vmid, &choice)?;
        Ok((vm, source::runtime(&tree, vmid)?))
    };
    let (vm, runtime) = look().map_err(|e| match args.dry_run {
        true => e,
        false => job::note_failure(&context, &vmid.to_string(), e),
    })?;
    if let Some((key, _)) = options
        .formats
        .iter()
        .find(|(key, _)| !vm.disks.iter().any(|d| d.spec.key == *key))
    {
        let what = format!("--format {key}: no such disk is replicated");
        return Err(Error::new(Kind::Usage, what));
    }
    let synced = job::sync(&context, &vm, runtime, &options).map(drop);
    if let Some(rpo) = args.fleet.rpo {
        verbs::tell_slow(reporter, (&vm.id, &args.to), began.elapsed(), rpo);
    }
    synced
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
