//! One VM: synced, moved, or brought back.

use libvirt_domain::guest as libvirt;
use pvesync::args::{Cli, SyncArgs, VmArgs};
use pvesync::disks::Choice;
use pvesync::fitness;
use pvesync::node::PveTree;
use pvesync::renamed::cpu_type;
use pvesync::source::{self, PROGRAM};
use pvesync::target::PveTarget;
use pvesync::volid::Vmid;
use rblocksync::cli::Reporter;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::job::{self, keeper, Context, Live, Migration, SourceVm, SyncOptions};
use rblocksync::remote::HostSpec;
use rblocksync::replica::{state_dir, Layout, Maps};
use rblocksync::snapshot::VmRuntime;
use rblocksync::stop::Stop;
use rblocksync::verbs::{self, MigrateArgs};
use std::time::Instant;

pub fn vm(vmid: Vmid, args: &VmArgs, cli: &Cli, reporter: &Reporter, stop: &Stop) -> Result<()> {
    let began = Instant::now();
    let sync = &args.sync;
    let host = HostSpec::parse(&sync.common.to)?;
    let layout = Layout::new(state_dir());
    let ssh = cli.ssh.options(stop);
    let context = Context {
        layout: &layout,
        host: &host,
        ssh: &ssh,
        reporter,
        stop,
    };
    let tree = PveTree::new("/");
    let (vm, runtime) = look(&tree, vmid, sync).map_err(|e| {
        match sync.common.dry_run || e.kind() == Kind::Usage {
            true => e,
            false => job::note_failure(&context, &vmid.to_string(), e),
        }
    })?;
    if args.print.print_config {
        let form = args.print.form(&context, PROGRAM)?;
        return print(&tree, vmid, sync, &vm, &form, reporter);
    }
    let options = sync_options(sync, &cpu_of(&tree, vmid, sync)?);
    let synced = job::sync(&context, &vm, runtime, &options).map(drop);
    if let Some(rpo) = args.fleet.rpo {
        verbs::tell_slow(reporter, (&vm.id, &sync.common.to), began.elapsed(), rpo);
    }
    synced
}

/// Shows what would be defined on the other host. The names of volumes are made up.
fn print(
    tree: &PveTree,
    vmid: Vmid,
    args: &SyncArgs,
    vm: &SourceVm,
    form: &str,
    reporter: &Reporter,
) -> Result<()> {
    let Some(described) = vm.described.as_deref().filter(|d| d.form != form) else {
        let text = tree.vm_config(vmid)?.to_string();
        verbs::print_config(reporter, form, &text, &[]);
        return Ok(());
    };
    if form != libvirt::FORM {
        let what =
            format!("the target has configurations of the form {form:?}, which is not known here");
        return Err(Error::new(Kind::Refused, what));
    }
    let mut guest = described.guest()?.clone();
    if let Some(name) = &args.target_name {
        guest.name = Some(name.clone());
    }
    // Whether it has KVM is for the target to say; most have.
    let mut put = libvirt::Put {
        kvm: true,
        ..libvirt::Put::default()
    };
    for disk in &vm.disks {
        let named = disk
            .spec
            .volume
            .rsplit(['/', ':'])
            .next()
            .unwrap_or_default();
        let stem = named.split('.').next().unwrap_or_default();
        let format = disk.spec.format;
        let volume = libvirt::Volume {
            path: format!("/var/lib/libvirt/images/{stem}.{format}").into(),
            is_block: false,
            format,
        };
        put.volumes.insert(disk.spec.key.clone(), volume);
    }
    let written = libvirt::write(&guest, &put)?;
    let left = [guest.unknown, written.left].concat();
    verbs::print_config(reporter, form, &written.domain.to_string(), &left);
    Ok(())
}

/// What the VM is, and how to get at it.
fn look(tree: &PveTree, vmid: Vmid, args: &SyncArgs) -> Result<(SourceVm, VmRuntime)> {
    let choice = Choice {
        include_unused: args.which.include_unused,
        skip_no_backup: args.which.skip_no_backup,
        include_shared: args.which.include_shared,
        ..Choice::without(&args.common.exclude)
    };
    let vm = source::resolve_with(tree, vmid, &choice)?;
    args.common.check_formats(&vm)?;
    Ok((vm, source::runtime(tree, vmid)?))
}

/// The type of the VM's processor, if it is needed.
fn cpu_of(tree: &PveTree, vmid: Vmid, args: &SyncArgs) -> Result<String> {
    match args.cpu.is_empty() {
        true => Ok(String::new()),
        false => Ok(cpu_type(&tree.vm_config(vmid)?).to_owned()),
    }
}

/// A VM of this node that goes, or comes back.
pub fn moving(
    (vmid, args): (Vmid, &SyncArgs),
    how: &MigrateArgs,
    cli: &Cli,
    reporter: &Reporter,
    stop: &Stop,
    act: impl FnOnce(&Migration) -> Result<()>,
) -> Result<()> {
    let host = HostSpec::parse(&args.common.to)?;
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
        vm: &vmid.to_string(),
        roles: &target,
        live: Some(Live {
            hypervisor: &target,
            keeper: &keeper::launcher(),
        }),
        look: &|| look(&tree, vmid, args),
        runtime: &|| source::runtime(&tree, vmid),
        fitness: &|| fitness::check(&tree, vmid),
        sync: &sync_options(args, &cpu_of(&tree, vmid, args)?),
        options: &how.get(),
    })
}

/// `cpu_here` is the type of the VM's processor: what is to be another one whatever it is here.
fn sync_options(args: &SyncArgs, cpu_here: &str) -> SyncOptions {
    let cpu = |(from, to): &(Option<String>, String)| {
        let from = from.as_deref().unwrap_or(cpu_here);
        (from.to_owned(), to.clone())
    };
    let id = args.target_vmid.map(|id| id.to_string());
    let target_vm = id.or_else(|| args.target_name.clone());
    SyncOptions {
        maps: Maps {
            networks: args.bridge.clone(),
            cpus: args.cpu.iter().map(cpu).collect(),
        },
        ..args.common.options(target_vm, args.storage.clone())
    }
}
