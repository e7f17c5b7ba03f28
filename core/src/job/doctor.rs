//! What is unfinished, broken or missing on this host, whichever part it has in a replication.

use super::trial::sweep_trials;
use super::unfinished::unfinished;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{LiveHypervisor, TargetHypervisor, TrialHypervisor};
use crate::journal::{Journal, RunRecord, Side};
use crate::lock::Lock;
use crate::lvm::OwnerTag;
use crate::replica::{inspect, source_pairs, source_vms, trials, Finding, Layout};
use crate::snapshot::{self, DiskSource};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

/// A program that something needs.
#[derive(Debug, Clone, Copy)]
pub struct Needed {
    /// Its name.
    pub program: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
    /// What does not work without it.
    pub why: &'static str,
}

impl Needed {
    /// OpenSSH's client.
    pub const SSH: Needed = Needed {
        program: "ssh",
        package: "openssh-client",
        why: "other hosts cannot be reached",
    };
    /// OpenSSH's server.
    pub const SSHD: Needed = Needed {
        program: "sshd",
        package: "openssh-server",
        why: "other hosts cannot reach this one",
    };
    /// LVM.
    pub const LVS: Needed = Needed {
        program: "lvs",
        package: "lvm2",
        why: "volumes on LVM cannot be replicated",
    };
    /// The tools of thin pools.
    pub const THIN_DUMP: Needed = Needed {
        program: "thin_dump",
        package: "thin-provisioning-tools",
        why: "all of a thin volume is read, not only what is mapped",
    };
}

/// What a front end knows of its host.
pub struct Patient<'a> {
    /// State on this host.
    pub layout: &'a Layout,
    /// This host's hypervisor.
    pub hypervisor: &'a dyn TargetHypervisor,
    /// The disks of a VM of this host, by its id. [`Kind::NotFound`] if there is no such VM.
    pub disks: &'a dyn Fn(&str) -> Result<Vec<DiskSource>>,
    /// Programs that must be there.
    pub needed: &'a [Needed],
    /// The hypervisor once more, if replicas can be tested on it.
    pub trials: Option<&'a dyn TrialHypervisor>,
    /// The hypervisor once more, if live moves lay something over disks, and whether something lies over those of a VM.
    pub laid_over: Option<(&'a dyn LiveHypervisor, LaidOver<'a>)>,
}

/// Tells of a VM whether something lies over its disks; false if there is no such VM.
pub type LaidOver<'a> = &'a dyn Fn(&str) -> Result<bool>;

/// Looks for all of it; with `repair`, what can be put right is.
pub fn examine(patient: &Patient, repair: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    findings.extend(missing(patient.needed));
    findings.extend(state(patient.layout, repair)?);
    findings.extend(unfinished(patient, repair)?);
    findings.extend(sources(patient, repair)?);
    findings.extend(inspect(patient.layout, patient.hypervisor, repair)?);
    findings.extend(tests(patient, repair)?);
    Ok(findings)
}

/// What tests of replicas have left. One that is under way is passed over.
fn tests(patient: &Patient, repair: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for trial in trials(patient.layout)? {
        let lock = patient.layout.trial_lock(&trial.vm);
        match Lock::take(&lock, &format!("the test with VM {}", trial.vm)) {
            Err(e) if e.kind() == Kind::Busy => continue,
            other => drop(other?),
        }
        let what = format!(
            "a test of VM {} was cut off: its clone, VM {}, may be left",
            trial.replica, trial.vm
        );
        findings.push(match patient.trials {
            Some(hypervisor) => Finding::repairable(what, repair, || {
                sweep_trials(patient.layout, hypervisor).map(drop)
            }),
            None => Finding::new(what, "test-failover removes it"),
        });
    }
    Ok(findings)
}

fn missing(needed: &[Needed]) -> Vec<Finding> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let missing = needed.iter().filter(|n| !is_there(n.program));
    missing
        .map(|n| {
            Finding::new(
                format!("{} is not installed: {}", n.program, n.why),
                format!("apt install {}", n.package),
            )
        })
        .collect()
}

fn state(layout: &Layout, repair: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let root = layout.root();
    let mode = match std::fs::metadata(root) {
        Ok(meta) => meta.permissions().mode(),
        // Nothing was ever done here.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(findings),
        Err(e) => return Err(Error::io(format!("cannot stat {}", root.display()), e)),
    };
    if mode & 0o077 != 0 {
        let what = format!("{} can be used by others than its owner", root.display());
        let close = || {
            std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700))
                .map_err(|e| Error::io(format!("cannot change {}", root.display()), e))
        };
        findings.push(Finding::repairable(what, repair, close));
    }
    let path = layout.journal();
    match Journal::look(&path) {
        Err(e) => {
            let renew = || Journal::open(&path).map(drop);
            findings.push(Finding::repairable(e.to_string(), repair, renew));
        }
        Ok(Some(journal)) => findings.extend(cut_off(&journal)?),
        Ok(None) => {}
    }
    Ok(findings)
}

fn cut_off(journal: &Journal) -> Result<Vec<Finding>> {
    let runs = journal.runs(Side::Source)?;
    let newest: BTreeMap<&str, &RunRecord> = runs.iter().map(|r| (r.vm.as_str(), r)).collect();
    let cut_off = newest.values().filter(|run| run.was_cut_off());
    let finding = |run: &&RunRecord| {
        Finding::new(
            format!(
                "the last run of VM {} was cut off in its step {}",
                run.vm, run.state
            ),
            format!("run again: vm {} --to {}", run.vm, run.peer),
        )
    };
    Ok(cut_off.map(finding).collect())
}

/// Snapshots and clones that runs have left on disks of VMs of this host.
fn sources(patient: &Patient, repair: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for vm in source_vms(patient.layout)? {
        let lock = patient.layout.vm_lock(&vm);
        let _lock = match Lock::take(&lock, &format!("VM {vm}")) {
            // What a run has taken is no leftover.
            Err(e) if e.kind() == Kind::Busy => continue,
            other => other?,
        };
        let disks = match (patient.disks)(&vm) {
            Err(e) if e.kind() == Kind::NotFound => continue,
            Err(e) => {
                findings.push(Finding::new(
                    e.to_string(),
                    "what runs may have left on its disks was not looked for",
                ));
                continue;
            }
            Ok(disks) => disks,
        };
        let pairs = source_pairs(patient.layout, &vm)?;
        let owners: Vec<OwnerTag> = pairs.iter().map(|p| OwnerTag::new(p.pair)).collect();
        let left = snapshot::leftovers(&owners, &disks)?;
        if !left.is_empty() {
            let what = format!("VM {vm}: a run that was cut off left {}", left.join(", "));
            let remove = || {
                let swept = snapshot::sweep(&owners, &disks)?;
                swept.problems.into_iter().next().map_or(Ok(()), Err)
            };
            findings.push(Finding::repairable(what, repair, remove));
        }
    }
    Ok(findings)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_missing_is_named_with_its_package() {
        let needed = ["sh", "no-such-program"].map(|program| Needed {
            program,
            package: "some-package",
            why: "nothing works",
        });
        let found = missing(&needed);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].what,
            "no-such-program is not installed: nothing works"
        );
        assert_eq!(found[0].advice, "apt install some-package");
    }

    #[test]
    fn a_state_open_to_others_and_a_damaged_journal_are_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        std::fs::write(layout.journal(), "junk".repeat(1000)).unwrap();
        let found = state(&layout, false).unwrap();
        assert_eq!(found.iter().filter(|f| !f.repaired).count(), 2);
        let found = state(&layout, true).unwrap();
        assert_eq!(found.iter().filter(|f| f.repaired).count(), 2, "{found:?}");
        assert!(state(&layout, false).unwrap().is_empty());
    }
}
