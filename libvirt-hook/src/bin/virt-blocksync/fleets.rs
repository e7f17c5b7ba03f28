//! Several domains at once: what is handed to [`rblocksync::verbs::jobs`].

use crate::syncs::Us;
use clap::ArgMatches;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::job::fleet::Expected;
use rblocksync::verbs::jobs::{self, host_root, JobFront};
use std::sync::Arc;
use virt_blocksync::args::{Cli, VmArgs};
use virt_blocksync::fleet::{pick, SelectionArgs, JOBS};
use virt_blocksync::host::Host;

/// Acts on several domains, as the command line `matches` says.
pub fn front<T>(
    cli: &Cli,
    matches: &ArgMatches,
    us: &Us,
    act: impl FnOnce(&JobFront<SelectionArgs>) -> Result<T>,
) -> Result<T> {
    let place = us.place;
    act(&JobFront {
        kind: &JOBS,
        root: host_root(),
        layout: place.layout,
        reporter: place.reporter,
        quiet: cli.output.quiet,
        stop: place.stop,
        matches,
        pick: &|selection| pick(selection, us.host.as_ref()),
    })
}

/// What the jobs of this host promise.
pub fn promised(host: &Arc<dyn Host>) -> Result<Vec<Expected>> {
    jobs::promised(&host_root(), &JOBS, &|selection| {
        pick(selection, host.as_ref())
    })
}

/// Syncs several domains.
pub fn vms(args: &VmArgs, front: &JobFront<SelectionArgs>) -> Result<u8> {
    let sync = &args.sync;
    if sync.target_name.is_some() {
        let what = "--target-name is for one domain, and several are meant";
        return Err(Error::new(Kind::Usage, what)
            .advise("sync that domain once by itself: its replica keeps its name"));
    }
    let common = &sync.common;
    front.sync(&args.selection, &common.to, &args.fleet, common.dry_run)
}
