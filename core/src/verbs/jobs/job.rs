//! `job run` and `job check`, and what job files promise.

use super::{picked, Chosen, Job, JobFront, JobKind, JobsDir, Selection};
use crate::error::{Error, Kind, Result};
use crate::job::fleet::Expected;
use crate::remote::HostSpec;
use serde_json::json;
use std::path::Path;

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
        /// Name of the job: that of its file NAME.toml in jobs.d
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
pub fn job<S: Selection>(args: &JobArgs, front: &JobFront<S>) -> Result<u8> {
    match &args.verb {
        JobVerb::Run { name, dry_run } => run(name, *dry_run, front),
        JobVerb::Check { name } => check(name.as_deref(), front),
    }
}

fn run<S: Selection>(name: &str, dry_run: bool, front: &JobFront<S>) -> Result<u8> {
    let job = front.jobs().load(name)?;
    let chosen = (front.pick)(&job.selection)?;
    let mut options = front.given(&["job", "run"], &["dry_run"]);
    options.extend(job.options.words(&options));
    if dry_run {
        options.push("--dry-run".into());
    }
    let plan = &job.plan;
    let rpo = plan.rpo.as_ref().map(|rpo| rpo.get());
    let picked = picked(chosen, plan.to.hosts(), rpo, &options);
    front.run(picked, plan.limits(), dry_run)
}

fn check<S: Selection>(name: Option<&str>, front: &JobFront<S>) -> Result<u8> {
    let jobs = front.jobs();
    let program = front.kind.program.name;
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => jobs.names()?,
    };
    if names.is_empty() {
        let error = Error::new(Kind::NotFound, "there are no jobs");
        return Err(error.advise(format!("{program} schedule add makes one")));
    }
    let mut bad = 0;
    for name in &names {
        let looked = jobs.load(name).and_then(|job| {
            job.plan.schedule.as_ref().map_or(Ok(()), |s| s.check())?;
            Ok(((front.pick)(&job.selection)?, job))
        });
        match looked {
            Ok((chosen, job)) => tell(front, name, &chosen, &job),
            Err(e) => {
                bad += 1;
                let e = e.context(format!("job {name}"));
                front.reporter.fail(program, &e);
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

fn tell<S>(front: &JobFront<S>, name: &str, chosen: &Chosen, job: &Job<S>) {
    let vms = chosen.vms.join(", ");
    let mut text = match vms.as_str() {
        "" => format!("job {name}: in order, but no VM is meant"),
        vms => format!(
            "job {name}: in order; VM {vms} to {}",
            job.plan.to.hosts().join(", ")
        ),
    };
    for why in &chosen.left_out {
        text.push_str(&format!("\n  left out: {why}"));
    }
    for (_, e) in &chosen.failed {
        text.push_str(&format!("\n  cannot be read: {e}"));
    }
    let failed: Vec<&str> = chosen.failed.iter().map(|(vm, _)| vm.as_str()).collect();
    front.reporter.say(
        text,
        json!({
            "event": "job",
            "name": name,
            "vms": vms,
            "to": job.plan.to.hosts(),
            "left_out": chosen.left_out,
            "unreadable": failed.join(", "),
            "schedule": job.plan.schedule,
        }),
    );
}

/// What the jobs of this host promise, where they have an rpo.
pub fn promised<S: Selection>(
    root: &Path,
    kind: &JobKind,
    pick: &dyn Fn(&S) -> Result<Chosen>,
) -> Result<Vec<Expected>> {
    let jobs = JobsDir::new(root, kind);
    let mut promised = Vec::new();
    for name in jobs.names()? {
        promised.extend(promises(&jobs.load(&name)?, pick)?);
    }
    Ok(promised)
}

/// What one job promises. A VM that cannot be read is among them: it is not synced.
pub(super) fn promises<S>(
    job: &Job<S>,
    pick: &dyn Fn(&S) -> Result<Chosen>,
) -> Result<Vec<Expected>> {
    let Some(rpo) = &job.plan.rpo else {
        return Ok(Vec::new());
    };
    let chosen = pick(&job.selection)?;
    let failed = chosen.failed.iter().map(|(vm, _)| vm);
    let mut promises = Vec::new();
    for vm in chosen.vms.iter().chain(failed) {
        for host in job.plan.to.hosts() {
            promises.push(Expected {
                vm: vm.clone(),
                // Under that name runs are in the journal.
                host: HostSpec::parse(host)?.host().to_owned(),
                rpo_s: rpo.get().as_secs(),
            });
        }
    }
    Ok(promises)
}
