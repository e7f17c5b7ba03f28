//! `pvesync`: replicas of Proxmox VE's virtual machines on other nodes.

mod fleets;
mod syncs;

use clap::ArgMatches;
use fleets::{front, promised, vms};
use pvesync::args::{Cli, Verb, CONFIGURED};
use pvesync::disks::Choice;
use pvesync::guest::ours;
use pvesync::node::PveTree;
use pvesync::source::{self, PROGRAM};
use pvesync::target::PveTarget;
use pvesync::vm_config::VmConfig;
use pvesync::workstation::{self, ApiArgs};
use rblocksync::cli::{config, ended, run_agent, Reporter};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::job::{keeper, Patient, SourceDisk, TargetService};
use rblocksync::replica::{state_dir, Generation, Layout};
use rblocksync::snapshot::watchdog;
use rblocksync::stop::Stop;
use rblocksync::verbs::elsewhere::{self, Output, RELAYED};
use rblocksync::verbs::{self, jobs, CheckArgs, DoctorArgs, Place, ReportArgs};
use std::ffi::OsString;
use std::process::ExitCode;
use syncs::{moving, vm};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|a| a.to_str()) {
        Some("agent") => {
            let layout = Layout::new(state_dir());
            let target = PveTarget::new(PveTree::new("/"), layout.clone());
            let mut service = TargetService::new(layout, &target)
                .with_roles(&target)
                .with_live(&target);
            run_agent(PROGRAM, &args.collect::<Vec<_>>(), &mut service)
        }
        Some("watchdog") => {
            let code = watchdog::main_from_args(args);
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        Some(keeper::WORD) => {
            let layout = Layout::new(state_dir());
            let target = PveTarget::new(PveTree::new("/"), layout.clone());
            let code = keeper::keep(args, &layout, &target);
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        // What a workstation has started here: see `elsewhere`.
        Some(RELAYED) => {
            let words: Vec<OsString> = std::iter::once(PROGRAM.into()).chain(args).collect();
            parsed(&words, true)
        }
        _ => parsed(&std::env::args_os().collect::<Vec<_>>(), false),
    }
}

fn parsed(line: &[OsString], relayed: bool) -> ExitCode {
    match verbs::parsed::<Cli>(&CONFIGURED, line) {
        Ok((cli, matches)) => run(cli, &matches, relayed),
        Err(code) => code,
    }
}

fn run(cli: Cli, matches: &ArgMatches, relayed: bool) -> ExitCode {
    let reporter = Reporter::new(cli.output);
    let stop = match elsewhere::stop_of(relayed) {
        Ok(stop) => stop,
        Err(error) => {
            reporter.fail(PROGRAM, &error);
            return ExitCode::FAILURE;
        }
    };
    let result = match &cli.verb {
        // On the node, where a workstation has sent us, it would go in a circle.
        verb if cli.api.api.is_some() && !relayed => {
            return ended(on_node(verb, &cli, &stop), PROGRAM, &reporter, &stop)
        }
        Verb::Vm(args) => match args.selection.single() {
            Some(vmid) => vm(vmid, args, &cli, &reporter, &stop),
            None => {
                let done = front(&cli, matches, &reporter, &stop, |front| vms(args, front));
                return ended(done, PROGRAM, &reporter, &stop);
            }
        },
        Verb::Job(args) => {
            let done = front(&cli, matches, &reporter, &stop, |front| {
                jobs::job(args, front)
            });
            return ended(done, PROGRAM, &reporter, &stop);
        }
        Verb::Schedule(args) => front(&cli, matches, &reporter, &stop, |front| {
            jobs::schedule(args, front)
        }),
        Verb::Migrate(args) => moving(
            (args.vmid, &args.sync),
            &args.migrate,
            &cli,
            &reporter,
            &stop,
            |migration| verbs::migrate(&args.undo, migration),
        ),
        Verb::Failback(args) => {
            let how = args.failback.migrate();
            moving(
                (args.vmid, &args.sync),
                how,
                &cli,
                &reporter,
                &stop,
                |migration| verbs::failback(&args.failback, migration),
            )
        }
        Verb::Generations(args) => at(&cli, &reporter, &stop, |place| {
            verbs::generations(args, place)
        }),
        Verb::Verify(args) => at(&cli, &reporter, &stop, |place| {
            verbs::verify(args, place, &disks_with_keys)
        }),
        Verb::Failover(args) => with_target(&cli, &reporter, &stop, |place, target| {
            verbs::failover(args, place, target, &name_of)
        }),
        Verb::BootCheck(args) => with_target(&cli, &reporter, &stop, |place, target| {
            verbs::boot_check(args, place, target, &source::identity_of)
        }),
        Verb::TestFailover(args) => with_target(&cli, &reporter, &stop, |place, target| {
            verbs::test_failover(args, place, target)
        }),
        Verb::Status(args) => verbs::status(args, &Layout::new(state_dir()), &reporter, &promised),
        Verb::Check(args) => return check(args),
        Verb::Report(args) => report(args, &reporter),
        Verb::Doctor(args) => doctor(args, &reporter),
        Verb::Setup(args) => at(&cli, &reporter, &stop, |place| verbs::setup(args, place)),
        Verb::Config(args) => {
            config::config(args, &CONFIGURED, cli.file.config.as_deref(), &reporter)
        }
        Verb::Prune(args) => at(&cli, &reporter, &stop, |place| verbs::prune(args, place)),
        Verb::Pin(args) => at(&cli, &reporter, &stop, |place| {
            verbs::pin(args, true, place)
        }),
        Verb::Unpin(args) => at(&cli, &reporter, &stop, |place| {
            verbs::pin(args, false, place)
        }),
    };
    ended(result.map(|()| 0), PROGRAM, &reporter, &stop)
}

/// Runs the verb on the node that has the VM, and gives the exit code of that run.
fn on_node(verb: &Verb, cli: &Cli, stop: &Stop) -> Result<u8> {
    let Verb::Vm(args) = verb else {
        return Err(
            Error::new(Kind::Usage, "with --api there is only the verb vm")
                .advise("for the others, log in on the node"),
        );
    };
    let (words, _) = elsewhere::parted::<ApiArgs>(std::env::args_os())?;
    let ssh = cli.ssh.options(stop);
    let output = Output::inherited()?;
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
    verbs::answered(&line, code)
}

fn report(args: &ReportArgs, reporter: &Reporter) -> Result<()> {
    let layout = Layout::new(state_dir());
    let target = PveTarget::new(PveTree::new("/"), layout.clone());
    let writer = verbs::Writer {
        program: PROGRAM,
        layout: &layout,
        hypervisor: &target,
        name_of: &name_of,
        promised: &promised,
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
        laid_over: None,
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
    let translated = ours(generation, &[]).ok()?;
    let config = VmConfig::parse(&translated.generation.config).ok()?;
    config.name().map(str::to_owned)
}
