//! `virt-blocksync`: replicas of libvirt's domains on other hosts.

mod away;
mod fleets;
mod syncs;

use clap::ArgMatches;
use libvirt_domain::guest::{ours, Put};
use rblocksync::cli::{config, ended, exit_code, run_agent, Reporter};
use rblocksync::error::Result;
use rblocksync::job::{keeper, Patient, SourceDisk, TargetService};
use rblocksync::replica::{state_dir, Generation, Layout};
use rblocksync::snapshot::DiskSource;
use rblocksync::stop::on_signals;
use rblocksync::verbs::elsewhere::{self, Output, RELAYED};
use rblocksync::verbs::{self, jobs, CheckArgs, DoctorArgs, Place, Promised, ReportArgs};
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use syncs::{moving, vm};
use virt_blocksync::args::{BootArgs, Cli, Verb, CONFIGURED};
use virt_blocksync::domain::Domain;
use virt_blocksync::hook;
use virt_blocksync::host::{Host, Libvirt, Stored};
use virt_blocksync::running;
use virt_blocksync::source::{self, PROGRAM};
use virt_blocksync::target::VirtTarget;
use virt_blocksync::work;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|a| a.to_str()) {
        // Before all else, as nothing may come between libvirtd and its answer.
        Some("hook") => ExitCode::from(hook::main(args, std::io::stdin())),
        Some("work") => work(),
        Some("agent") => {
            let layout = Layout::new(state_dir());
            let target = VirtTarget::new(host(None), layout.clone());
            let mut service = TargetService::new(layout, &target)
                .with_roles(&target)
                .with_live(&target);
            run_agent(PROGRAM, &args.collect::<Vec<_>>(), &mut service)
        }
        Some("watchdog") => {
            let code = running::watchdog_main(args);
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        Some(keeper::WORD) => {
            let uri = args.next().and_then(|uri| uri.into_string().ok());
            let layout = Layout::new(state_dir());
            let target = VirtTarget::new(host(uri.as_deref()), layout.clone());
            let code = keeper::keep(args, &layout, &target);
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        // What was told on another host, to be done here: see `elsewhere`.
        Some(RELAYED) => {
            let words: Vec<OsString> = std::iter::once(PROGRAM.into()).chain(args).collect();
            parsed(&words, true)
        }
        _ => parsed(&std::env::args_os().collect::<Vec<_>>(), false),
    }
}

fn parsed(line: &[OsString], relayed: bool) -> ExitCode {
    match verbs::parsed::<Cli>(&CONFIGURED, line) {
        Ok((cli, matches)) => run(cli, &matches, (line, relayed)),
        Err(code) => code,
    }
}

/// What the hook has left for a worker is looked at.
fn work() -> ExitCode {
    let stop = match on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("{PROGRAM}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let layout = Layout::new(state_dir());
    let done = work::connect("qemu:///system", work::PATIENCE, &stop)
        .and_then(|libvirt| work::work(&layout, &libvirt, work::PATIENCE, &stop));
    match done {
        Ok(said) => {
            said.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{PROGRAM}: {error}");
            ExitCode::from(exit_code(&error, &stop))
        }
    }
}

/// libvirt of this host. It is connected to when it is first asked something.
fn host(uri: Option<&str>) -> Arc<dyn Host> {
    Arc::new(Libvirt::new(uri))
}

fn run(cli: Cli, matches: &ArgMatches, (line, relayed): (&[OsString], bool)) -> ExitCode {
    let reporter = Reporter::new(cli.output);
    let stop = match elsewhere::stop_of(relayed) {
        Ok(stop) => stop,
        Err(error) => {
            reporter.fail(PROGRAM, &error);
            return ExitCode::FAILURE;
        }
    };
    // There, where somebody has sent us, it would go in a circle. A configuration is this machine's.
    if !relayed && !matches!(cli.verb, Verb::Config(_)) {
        let sent = away::host_and_words(&cli, matches, line).and_then(|found| {
            found.map_or(Ok(None), |(host, words)| {
                let ssh = cli.ssh.options(&stop);
                let output = Output::inherited()?;
                elsewhere::run(PROGRAM, &host, &words, &ssh, output, &stop).map(Some)
            })
        });
        match (sent, &cli.verb) {
            (Ok(None), _) => {}
            (Ok(Some(code)), _) => return ended(Ok(code), PROGRAM, &reporter, &stop),
            (Err(e), Verb::Check(_)) => {
                let (line, code) = verbs::unknown(&e);
                return verbs::answered(&line, code);
            }
            (Err(e), _) => return ended(Err(e), PROGRAM, &reporter, &stop),
        }
    }
    let layout = Layout::new(state_dir());
    let host = host(cli.libvirt.connect.as_deref());
    let target = VirtTarget::new(host.clone(), layout.clone());
    let place = Place {
        program: PROGRAM,
        layout: &layout,
        hypervisor: &target,
        ssh: &cli.ssh,
        reporter: &reporter,
        stop: &stop,
    };
    let us = syncs::Us {
        place: &place,
        target: &target,
        host: &host,
    };
    let promised = || fleets::promised(&host);
    let result = match &cli.verb {
        Verb::Vm(args) => match args.selection.single() {
            Some(name) => vm(name, args, &us),
            None => {
                let done = fleets::front(&cli, matches, &us, |front| fleets::vms(args, front));
                return ended(done, PROGRAM, &reporter, &stop);
            }
        },
        Verb::Job(args) => {
            let done = fleets::front(&cli, matches, &us, |front| jobs::job(args, front));
            return ended(done, PROGRAM, &reporter, &stop);
        }
        Verb::Schedule(args) => {
            fleets::front(&cli, matches, &us, |front| jobs::schedule(args, front))
        }
        Verb::Migrate(args) => moving((&args.vm, &args.sync), &args.migrate, &us, |migration| {
            verbs::migrate(&args.undo, migration)
        }),
        Verb::Failback(args) => {
            let how = args.failback.migrate();
            moving((&args.vm, &args.sync), how, &us, |migration| {
                verbs::failback(&args.failback, migration)
            })
        }
        Verb::BootCheck(args) => boot_check(args, &us),
        Verb::Generations(args) => verbs::generations(args, &place),
        Verb::Verify(args) => verbs::verify(args, &place, &|vm: &str| source::disks_of(&host, vm)),
        Verb::Failover(args) => verbs::failover(args, &place, &target, &name_of),
        Verb::TestFailover(args) => verbs::test_failover(args, &place, &target),
        Verb::Status(args) => verbs::status(args, &layout, &reporter, &promised),
        Verb::Check(args) => return check(args, &layout, &promised),
        Verb::Report(args) => report(args, &place, &promised),
        Verb::Doctor(args) => doctor(args, &us),
        Verb::Setup(args) => verbs::setup(args, &place),
        Verb::Config(args) => {
            config::config(args, &CONFIGURED, cli.file.config.as_deref(), &reporter)
        }
        Verb::Prune(args) => verbs::prune(args, &place),
        Verb::Pin(args) => verbs::pin(args, true, &place),
        Verb::Unpin(args) => verbs::pin(args, false, &place),
    };
    ended(result.map(|()| 0), PROGRAM, &reporter, &stop)
}

/// The line is the answer, whatever was said about output.
fn check(args: &CheckArgs, layout: &Layout, promised: Promised) -> ExitCode {
    let (line, code) = verbs::check(args, layout, promised);
    verbs::answered(&line, code)
}

fn boot_check(args: &BootArgs, us: &syncs::Us) -> Result<()> {
    let place = us.place;
    let identity_of = |config: &str| source::identity_of(config);
    match args.before_libvirt {
        false => verbs::boot_check(&args.check, place, us.target, &identity_of),
        true => {
            let host = Arc::new(Stored::default());
            let target = VirtTarget::new(host, place.layout.clone());
            verbs::boot_check(&args.check, place, &target, &identity_of)
        }
    }
}

fn report(args: &ReportArgs, place: &Place, promised: Promised) -> Result<()> {
    let writer = verbs::Writer {
        program: PROGRAM,
        layout: place.layout,
        hypervisor: place.hypervisor,
        name_of: &name_of,
        promised,
        reporter: place.reporter,
    };
    verbs::report(args, &writer)
}

fn doctor(args: &DoctorArgs, us: &syncs::Us) -> Result<()> {
    let disks = |vm: &str| -> Result<Vec<DiskSource>> {
        let disks: Vec<SourceDisk> = source::disks_of(us.host, vm)?;
        Ok(disks.into_iter().map(|disk| disk.source).collect())
    };
    let laid_over = |vm: &str| us.target.is_laid_over(vm);
    let patient = Patient {
        layout: us.place.layout,
        hypervisor: us.target,
        disks: &disks,
        needed: &source::NEEDED,
        trials: Some(us.target),
        laid_over: Some((us.target, &laid_over)),
    };
    verbs::doctor(args, &patient, us.place.reporter)
}

/// The domain's name in a generation.
fn name_of(generation: &Generation) -> Option<String> {
    let translated = ours(generation, &Put::default()).ok()?;
    Domain::parse(&translated.generation.config)
        .ok()
        .map(|domain| domain.name())
}
