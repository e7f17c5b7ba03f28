//! One VM: synced, moved, or brought back.

use crate::args::{Cli, SyncArgs, VmArgs};
use pvesync::disks::Choice;
use pvesync::fitness;
use pvesync::node::PveTree;
use pvesync::source::{self, PROGRAM};
use pvesync::target::PveTarget;
use pvesync::volid::Vmid;
use rblocksync::cli::Reporter;
use rblocksync::error::{Kind, Result};
use rblocksync::job::{self, keeper, Context, Live, Migration, SourceVm, SyncOptions};
use rblocksync::remote::HostSpec;
use rblocksync::replica::{state_dir, Layout};
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
    let synced = job::sync(&context, &vm, runtime, &sync_options(sync)).map(drop);
    if let Some(rpo) = args.fleet.rpo {
        verbs::tell_slow(reporter, (&vm.id, &sync.common.to), began.elapsed(), rpo);
    }
    synced
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
        sync: &sync_options(args),
        options: &how.get(),
    })
}

fn sync_options(args: &SyncArgs) -> SyncOptions {
    let target_vm = args.target_vmid.map(|id| id.to_string());
    args.common.options(target_vm, args.storage.clone())
}
