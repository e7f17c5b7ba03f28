//! Several VMs at once: what is handed to [`rblocksync::verbs::jobs`].

use clap::ArgMatches;
use pvesync::args::{Cli, VmArgs};
use pvesync::fleet::{pick, SelectionArgs, JOBS};
use pvesync::node::PveTree;
use rblocksync::cli::Reporter;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::job::fleet::Expected;
use rblocksync::replica::{state_dir, Layout};
use rblocksync::stop::Stop;
use rblocksync::verbs::jobs::{self, host_root, JobFront};

/// Acts on several VMs, as the command line `matches` says.
pub fn front<T>(
    cli: &Cli,
    matches: &ArgMatches,
    reporter: &Reporter,
    stop: &Stop,
    act: impl FnOnce(&JobFront<SelectionArgs>) -> Result<T>,
) -> Result<T> {
    let root = host_root();
    let tree = PveTree::new(&root);
    act(&JobFront {
        kind: &JOBS,
        root,
        layout: &Layout::new(state_dir()),
        reporter,
        quiet: cli.output.quiet,
        stop,
        matches,
        pick: &|selection| pick(selection, &tree),
    })
}

/// What the jobs of this node promise.
pub fn promised() -> Result<Vec<Expected>> {
    let root = host_root();
    let tree = PveTree::new(&root);
    jobs::promised(&root, &JOBS, &|selection| pick(selection, &tree))
}

/// Syncs several VMs.
pub fn vms(args: &VmArgs, front: &JobFront<SelectionArgs>) -> Result<u8> {
    let common = &args.sync.common;
    if args.sync.target_vmid.is_some() || args.sync.target_name.is_some() {
        let what = "--target-vmid and --target-name are for one VM, and several are meant";
        return Err(Error::new(Kind::Usage, what)
            .advise("sync that VM once by itself: its replica keeps its id and name"));
    }
    front.sync(&args.selection, &common.to, &args.fleet, common.dry_run)
}
