//! One domain: synced, moved, or brought back.

use pvesync::guest as pve;
use rblocksync::cli::Reporter;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::job::{self, keeper, Context, Live, Migration, SourceVm};
use rblocksync::lock::Lock;
use rblocksync::remote::HostSpec;
use rblocksync::snapshot::{VmRuntime, WatchdogLauncher};
use rblocksync::verbs::{self, MigrateArgs, Place};
use std::sync::Arc;
use std::time::Instant;
use virt_blocksync::args::{SyncArgs, VmArgs};
use virt_blocksync::disks::Choice;
use virt_blocksync::fitness;
use virt_blocksync::host::Host;
use virt_blocksync::source::{self, PROGRAM};
use virt_blocksync::target::VirtTarget;

/// This host, in all its parts.
pub struct Us<'a> {
    pub place: &'a Place<'a>,
    pub target: &'a VirtTarget,
    pub host: &'a Arc<dyn Host>,
}

pub fn vm(name: &str, args: &VmArgs, us: &Us) -> Result<()> {
    let began = Instant::now();
    let (place, sync) = (us.place, &args.sync);
    let host = HostSpec::parse(&sync.common.to)?;
    let ssh = place.ssh.options(place.stop);
    let context = Context {
        layout: place.layout,
        host: &host,
        ssh: &ssh,
        reporter: place.reporter,
        stop: place.stop,
    };
    if !sync.common.dry_run && !args.print.print_config {
        settle(name, us)?;
    }
    let looked = look(us.host, name, sync);
    let (vm, runtime) =
        looked.map_err(|e| match sync.common.dry_run || e.kind() == Kind::Usage {
            true => e,
            false => job::note_failure(&context, name, e),
        })?;
    if args.print.print_config {
        let form = args.print.form(&context, PROGRAM)?;
        return print(sync, &vm, &form, place.reporter);
    }
    let options = sync.options();
    let synced = job::sync(&context, &vm, runtime, &options).map(drop);
    if let Some(rpo) = args.fleet.rpo {
        verbs::tell_slow(
            place.reporter,
            (&vm.id, &sync.common.to),
            began.elapsed(),
            rpo,
        );
    }
    synced
}

/// Shows what would be defined on the other host. The names of volumes are made up.
fn print(args: &SyncArgs, vm: &SourceVm, form: &str, reporter: &Reporter) -> Result<()> {
    let Some(described) = vm.described.as_deref().filter(|d| d.form != form) else {
        verbs::print_config(reporter, form, &vm.config, &[]);
        return Ok(());
    };
    if form != pve::FORM {
        let what =
            format!("the target has configurations of the form {form:?}, which is not known here");
        return Err(Error::new(Kind::Refused, what));
    }
    let guest = described.guest()?;
    let disks: Vec<_> = vm.disks.iter().map(|d| &d.spec).collect();
    let networks = args.networks();
    let vmid = args.target_name.as_deref().unwrap_or("100");
    let written = pve::sketch(guest, &disks, vmid, &networks)?;
    let left = [guest.unknown.clone(), written.left].concat();
    verbs::print_config(reporter, form, &written.text, &left);
    Ok(())
}

/// Merges what a move that was cut off has left over the disks of a domain.
fn settle(name: &str, us: &Us) -> Result<()> {
    if !us.target.is_laid_over(name)? {
        return Ok(());
    }
    let layout = us.place.layout;
    let _lock = Lock::take(&layout.vm_lock(name), &format!("VM {name}"))?;
    let notes = job::settle(layout, us.target, name)?;
    us.place.reporter.notes(&notes);
    Ok(())
}

/// What the domain is, and how to get at it.
fn look(host: &Arc<dyn Host>, name: &str, args: &SyncArgs) -> Result<(SourceVm, VmRuntime)> {
    let vm = source::resolve(host, name, &Choice::without(&args.common.exclude))?;
    args.common.check_formats(&vm)?;
    let runtime = source::runtime(host, name, &args.common.exclude)?;
    Ok((vm, runtime))
}

/// A domain of this host that goes, or comes back.
pub fn moving(
    (name, args): (&str, &SyncArgs),
    how: &MigrateArgs,
    us: &Us,
    act: impl FnOnce(&Migration) -> Result<()>,
) -> Result<()> {
    let place = us.place;
    let host = HostSpec::parse(&args.common.to)?;
    let ssh = place.ssh.options(place.stop);
    let launcher = WatchdogLauncher {
        args: vec![keeper::WORD.into(), us.host.uri().into()],
        ..WatchdogLauncher::this_executable()
    };
    act(&Migration {
        context: &Context {
            layout: place.layout,
            host: &host,
            ssh: &ssh,
            reporter: place.reporter,
            stop: place.stop,
        },
        program: PROGRAM,
        vm: name,
        roles: us.target,
        live: Some(Live {
            hypervisor: us.target,
            keeper: &launcher,
        }),
        look: &|| look(us.host, name, args),
        runtime: &|| source::runtime(us.host, name, &args.common.exclude),
        fitness: &|| fitness::check(us.host.as_ref(), name),
        sync: &args.options(),
        options: &how.get(),
    })
}
