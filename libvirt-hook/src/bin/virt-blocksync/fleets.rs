//! Several domains at once, each in a process of its own.

use crate::syncs::Us;
use clap::{ArgMatches, CommandFactory};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::job::fleet::Runner;
use rblocksync::remote::HostSpec;
use rblocksync::verbs::{self, passed_on, Fleet, Picked, Task};
use std::collections::BTreeSet;
use std::ffi::OsString;
use virt_blocksync::args::{Cli, VmArgs};
use virt_blocksync::domain::{check_name, Domain};
use virt_blocksync::marks::{mark_of, Mark};
use virt_blocksync::source::PROGRAM;

/// Options that are about several domains, or about output: they are not passed on to the run of each.
const FLEETS_OWN: [&str; 9] = [
    "to",
    "all",
    "exclude_vm",
    "parallel",
    "per_host",
    "rpo",
    "json",
    "quiet",
    "progress",
];

/// Syncs several domains. Gives the exit code.
pub fn vms(args: &VmArgs, us: &Us, matches: &ArgMatches, quiet: bool) -> Result<u8> {
    let sync = &args.sync;
    HostSpec::parse(&sync.common.to)?;
    if sync.target_name.is_some() {
        let what = "--target-name is for one domain, and several are meant";
        return Err(Error::new(Kind::Usage, what)
            .advise("sync that domain once by itself: its replica keeps its name"));
    }
    let options = passed_on(Cli::command(), &["vm"], matches, &FLEETS_OWN);
    let mut picked = Picked::default();
    for name in chosen(args, us, &mut picked)? {
        let mut words: Vec<OsString> = ["--json", "vm"].map(Into::into).to_vec();
        words.push(format!("--to={}", sync.common.to).into());
        words.extend_from_slice(&options);
        // A name may look like an option.
        words.push("--".into());
        words.push(name.clone().into());
        picked.tasks.push(Task {
            vm: name,
            host: sync.common.to.clone(),
            rpo: args.fleet.rpo,
            args: words,
        });
    }
    let place = us.place;
    verbs::fleet(
        picked,
        &Fleet {
            program: PROGRAM,
            layout: place.layout,
            reporter: place.reporter,
            quiet,
            stop: place.stop,
            runner: Runner::this_executable(sync.common.dry_run),
            limits: args.fleet.limits(),
        },
    )
}

/// Names of the domains that are meant.
fn chosen(args: &VmArgs, us: &Us, picked: &mut Picked) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for name in &args.vms {
        check_name(name)?;
        names.insert(name.clone());
    }
    if args.all {
        for found in us.host.domains()? {
            let why = match Domain::parse(&found.xml).map(|domain| mark_of(&domain)) {
                Err(e) => {
                    picked.failed.push((found.name, e));
                    continue;
                }
                Ok(Some(Mark::Replica { .. })) => "it is a replica",
                Ok(Some(Mark::Retired { .. })) => "it has gone to another host",
                Ok(Some(Mark::Trial { .. })) => "it is a clone for a test",
                Ok(Some(Mark::TakenOver { .. }) | None) if !found.persistent => "it is transient",
                Ok(Some(Mark::TakenOver { .. }) | None) => {
                    names.insert(found.name);
                    continue;
                }
            };
            picked.left_out.push(format!("{}: {why}", found.name));
        }
    }
    names.retain(|name| !args.exclude_vm.contains(name));
    match names.is_empty() && picked.failed.is_empty() {
        false => Ok(names),
        true => Err(
            Error::new(Kind::NotFound, "no domain of this host is meant")
                .advise("'virsh list --all' shows them"),
        ),
    }
}
