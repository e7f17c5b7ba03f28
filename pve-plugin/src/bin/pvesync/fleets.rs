//! Several VMs at once: what is handed to [`pvesync::fleet`].

use clap::{ArgMatches, CommandFactory, Parser};
use pvesync::args::{Cli, VmArgs};
use pvesync::fleet::{self, Front};
use pvesync::jobs_file::JobsDir;
use pvesync::node::PveTree;
use pvesync::source::PROGRAM;
use rblocksync::cli::Reporter;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::job::fleet::Expected;
use rblocksync::remote::HostSpec;
use rblocksync::replica::{state_dir, Layout};
use rblocksync::stop::Stop;
use rblocksync::verbs::passed_on;
use std::ffi::OsString;

/// Options of `vm` that are about several VMs, or about output: they are not passed on to the run of each.
pub const FLEETS_OWN: [&str; 11] = [
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

/// Acts on several VMs. `given` says where their options are on the command line, and which are not passed on.
pub fn front<T>(
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
        options: passed_on(Cli::command(), path, matches, without),
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
pub fn promised() -> Result<Vec<Expected>> {
    let root = fleet::host_root();
    fleet::promised(&JobsDir::new(&root, &takes), &PveTree::new(&root))
}

/// Syncs several VMs.
pub fn vms(args: &VmArgs, front: &Front) -> Result<u8> {
    HostSpec::parse(&args.sync.common.to)?;
    if args.sync.target_vmid.is_some() {
        let what = "--target-vmid is for one VM, and several are meant";
        return Err(Error::new(Kind::Usage, what)
            .advise("sync that VM once by itself: its replica keeps its id"));
    }
    let how = (args.fleet.limits(), args.fleet.rpo);
    front.sync(
        &args.selection,
        &args.sync.common.to,
        how,
        args.sync.common.dry_run,
    )
}
