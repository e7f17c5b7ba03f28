//! `job run` and `job check`, and what job files promise.

use super::pick::{lists, pick, Chosen};
use super::{Front, SelectionArgs};
use crate::jobs_file::{JobFile, JobsDir};
use crate::node::PveTree;
use crate::volid::Vmid;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::job::fleet::{Expected, Limits};
use rblocksync::remote::HostSpec;
use serde_json::json;
use std::ffi::OsString;

/// What to do with jobs.
#[derive(Debug, clap::Args)]
pub struct JobArgs {
    #[command(subcommand)]
    verb: JobVerb,
}

#[derive(Debug, clap::Subcommand)]
enum JobVerb {
    /// Run a job now: all VMs that its file names
    Run {
        /// Name of the job: /etc/pvesync/jobs.d/NAME.toml
        name: String,
        /// Tell what would be done; change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Check the file of a job, or of all jobs, and tell which VMs they come to
    Check {
        /// Name of the job
        name: Option<String>,
    },
}

/// Runs or checks jobs. Gives the exit code.
pub fn job(args: &JobArgs, front: &Front) -> Result<u8> {
    match &args.verb {
        JobVerb::Run { name, dry_run } => run(name, *dry_run, front),
        JobVerb::Check { name } => check(name.as_deref(), front),
    }
}

fn run(name: &str, dry_run: bool, front: &Front) -> Result<u8> {
    let job = JobsDir::new(&front.root, front.takes).load(name)?;
    let chosen = chosen(&job, &front.tree)?;
    let mut options: Vec<OsString> = front.options.clone();
    options.extend(job.options().into_iter().map(|(_, option)| option));
    if dry_run {
        options.push("--dry-run".into());
    }
    let rpo = job.rpo.as_ref().map(|rpo| rpo.get());
    let picked = front.picked(chosen, job.to.hosts(), rpo, &options);
    front.run(picked, limits(&job), dry_run)
}

/// The VMs that a job is about.
pub(super) fn chosen(job: &JobFile, tree: &PveTree) -> Result<Chosen> {
    let selection = SelectionArgs {
        vms: lists(job.vms.as_ref()),
        all: job.all,
        tag: job.tags.clone(),
        pool: job.pools.clone(),
        exclude_vm: lists(job.exclude_vms.as_ref()),
    };
    pick(&selection, tree)
}

fn limits(job: &JobFile) -> Limits {
    let parallel = job.parallel.unwrap_or(2) as usize;
    Limits {
        parallel,
        per_host: job.per_host.map_or(parallel, |n| n as usize),
    }
}

fn check(name: Option<&str>, front: &Front) -> Result<u8> {
    let jobs = JobsDir::new(&front.root, front.takes);
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => jobs.names()?,
    };
    if names.is_empty() {
        let error = Error::new(Kind::NotFound, "there are no jobs");
        return Err(error.advise("pvesync schedule add makes one"));
    }
    let mut bad = 0;
    for name in &names {
        let looked = jobs.load(name).and_then(|job| {
            job.schedule.as_ref().map_or(Ok(()), |s| s.check())?;
            Ok((chosen(&job, &front.tree)?, job))
        });
        match looked {
            Ok((chosen, job)) => tell(front, name, &chosen, &job),
            Err(e) => {
                bad += 1;
                let e = e.context(format!("job {name}"));
                front.reporter.fail(crate::source::PROGRAM, &e);
            }
        }
    }
    match bad {
        0 => Ok(0),
        _ => Err(Error::new(
            Kind::Usage,
            format!("{bad} of {} jobs are not in order", names.len()),
        )),
    }
}

fn tell(front: &Front, name: &str, chosen: &Chosen, job: &JobFile) {
    let ids = |vms: &mut dyn Iterator<Item = Vmid>| {
        vms.map(|vm| vm.to_string()).collect::<Vec<_>>().join(", ")
    };
    let vms = ids(&mut chosen.vms.iter().copied());
    let mut text = match vms.as_str() {
        "" => format!("job {name}: in order, but no VM is meant"),
        vms => format!(
            "job {name}: in order; VM {vms} to {}",
            job.to.hosts().join(", ")
        ),
    };
    for why in &chosen.left_out {
        text.push_str(&format!("\n  left out: {why}"));
    }
    for (_, e) in &chosen.failed {
        text.push_str(&format!("\n  cannot be read: {e}"));
    }
    let failed = ids(&mut chosen.failed.iter().map(|(vm, _)| *vm));
    front.reporter.say(
        text,
        json!({
            "event": "job",
            "name": name,
            "vms": vms,
            "to": job.to.hosts(),
            "left_out": chosen.left_out,
            "unreadable": failed,
            "schedule": job.schedule,
        }),
    );
}

/// What the jobs of this node promise, where they have an rpo.
pub fn promised(jobs: &JobsDir, tree: &PveTree) -> Result<Vec<Expected>> {
    let mut promised = Vec::new();
    for name in jobs.names()? {
        promised.extend(promises(&jobs.load(&name)?, tree)?);
    }
    Ok(promised)
}

/// What one job promises. A VM that cannot be read is among them: it is not synced.
pub(super) fn promises(job: &JobFile, tree: &PveTree) -> Result<Vec<Expected>> {
    let Some(rpo) = &job.rpo else {
        return Ok(Vec::new());
    };
    let chosen = chosen(job, tree)?;
    let vms = chosen
        .vms
        .iter()
        .chain(chosen.failed.iter().map(|(vm, _)| vm));
    let mut promises = Vec::new();
    for vm in vms {
        for host in job.to.hosts() {
            promises.push(Expected {
                vm: vm.to_string(),
                // Under that name runs are in the journal.
                host: HostSpec::parse(host)?.host().to_owned(),
                rpo_s: rpo.get().as_secs(),
            });
        }
    }
    Ok(promises)
}
