//! Many domains of this host in one run: which ones are meant, on the command line and in job files.

use crate::args::CONFIGURED;
use crate::domain::{check_name, Domain};
use crate::host::Host;
use crate::marks::{mark_of, Mark};
use crate::source::PROGRAM;
use clap::Args;
use rblocksync::error::Result;
use rblocksync::verbs::jobs::{Chosen, Fault, JobKind, Selection};
use rblocksync::verbs::schedule::Templates;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The jobs of this program.
pub const JOBS: JobKind = JobKind {
    program: CONFIGURED,
    templates: &Templates {
        program: PROGRAM,
        job: include_str!("../../packaging/systemd/virt-blocksync-job@.service"),
        notify: include_str!("../../packaging/systemd/virt-blocksync-notify@.service"),
    },
    selection: SelectionArgs::augment_args,
    // About one domain, and about the host whose timer runs the job.
    not_in_jobs: &["connect", "target-name"],
};

/// Which domains are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectionArgs {
    /// Names of domains
    #[arg(value_name = "DOMAIN", required_unless_present = "all")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vms: Vec<String>,
    /// All domains of this host, but replicas and those that have gone to other hosts
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// But not these
    #[arg(long, value_name = "DOMAIN")]
    #[serde(rename = "exclude_vms", skip_serializing_if = "Vec::is_empty")]
    pub exclude_vm: Vec<String>,
}

impl SelectionArgs {
    /// The domain, if one is meant by its name, and nothing else.
    pub fn single(&self) -> Option<&str> {
        match self.vms.as_slice() {
            [name] if !self.all && self.exclude_vm.is_empty() => Some(name),
            _ => None,
        }
    }
}

impl Selection for SelectionArgs {
    const FIELDS: &'static [&'static str] = &["vms", "all", "exclude_vms"];

    fn check(&self) -> std::result::Result<(), Fault> {
        if self.vms.is_empty() && !self.all {
            return Err(Fault::new("vms", "it names no domains: vms or all"));
        }
        for (key, names) in [("vms", &self.vms), ("exclude_vms", &self.exclude_vm)] {
            for name in names {
                check_name(name).map_err(|e| Fault::new(key, e.message()))?;
            }
        }
        Ok(())
    }
}

/// Finds the domains of a selection.
///
/// A name that is listed is always among them: if there is no such domain here, its run tells, and the others go on.
pub fn pick(selection: &SelectionArgs, host: &dyn Host) -> Result<Chosen> {
    let mut names = BTreeSet::new();
    for name in &selection.vms {
        check_name(name)?;
        names.insert(name.clone());
    }
    let is_excluded = |name: &String| selection.exclude_vm.contains(name);
    let mut chosen = Chosen::default();
    let others = match selection.all {
        true => host.domains()?,
        false => Vec::new(),
    };
    for found in others {
        if is_excluded(&found.name) || names.contains(&found.name) {
            continue;
        }
        let why = match Domain::parse(&found.xml).map(|domain| mark_of(&domain)) {
            Err(e) => {
                chosen.failed.push((found.name, e));
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
        chosen.left_out.push(format!("{}: {why}", found.name));
    }
    names.retain(|name| !is_excluded(name));
    chosen.vms = names.into_iter().collect();
    Ok(chosen)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
