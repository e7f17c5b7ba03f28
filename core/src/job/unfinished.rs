//! Moves of VMs that were begun on this host or to it and are not done: what is left of them, since when, and what to do.
//! One that is under way holds a lock, and is passed over. Nothing is put right here that the other host has a say in.

use super::doctor::Patient;
use super::handover::Handover;
use super::seeded::settle;
use crate::error::{Error, Kind, Result};
use crate::lock::Lock;
use crate::replica::{handovers, source_vms, target_pairs, Finding, Layout, Role, TargetPair};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// All of it.
pub(super) fn unfinished(patient: &Patient, repair: bool) -> Result<Vec<Finding>> {
    let mut findings = given(patient.layout)?;
    findings.extend(landings(patient.layout)?);
    findings.extend(overlays(patient, repair)?);
    Ok(findings)
}

/// How long somebody may have a lock who only looks.
const LOOK: Duration = Duration::from_secs(1);

/// Takes the lock, and lets go of it. False if somebody has it.
fn is_free(lock: &Path, what: &str) -> Result<bool> {
    match Lock::take_within(LOOK, lock, what) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == Kind::Busy => Ok(false),
        Err(e) => Err(e),
    }
}

/// When a file of state was written last, for people.
fn written(path: &Path) -> Result<String> {
    let at = std::fs::metadata(path).and_then(|meta| meta.modified());
    let at = at.map_err(|e| Error::io(format!("cannot stat {}", path.display()), e))?;
    Ok(match Timestamp::try_from(at) {
        Ok(at) => format!("{at:.0}"),
        Err(_) => "a time that cannot be told".to_owned(),
    })
}

/// VMs of this host that were to go to another one.
fn given(layout: &Layout) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for vm in handovers(layout)? {
        if !is_free(&layout.vm_lock(&vm), &format!("VM {vm}"))? {
            continue;
        }
        let Some(handover) = Handover::pending(layout, &vm)? else {
            continue;
        };
        let since = written(&layout.handover(&vm))?;
        findings.push(handover.finding(&vm, &since, handover.is_retired(layout, &vm)?));
    }
    Ok(findings)
}

impl Handover {
    fn finding(&self, vm: &str, since: &str, is_retired: bool) -> Finding {
        let there = &self.target_name;
        let again = format!("migrate {vm} --to {there}");
        let what = format!("the move of VM {vm} to {there} stands still since {since}");
        let (how, advice) = match (self.undoing, is_retired, self.started) {
            (true, _, _) => (
                format!("it is being taken back, and {there} may not have agreed yet"),
                format!("run again: {again} --undo"),
            ),
            (false, false, _) => (
                "the VM is this host's".to_owned(),
                format!("run again: {again}; or give it up: {again} --undo"),
            ),
            (false, true, false) => (
                format!(
                    "the VM was given up here, and whether {there} has taken it over is not known"
                ),
                format!("start it on neither by hand; run again: {again}"),
            ),
            (false, true, true) => (
                format!("it was started on {there}, and is not a replica here yet"),
                format!("run again: {again}"),
            ),
        };
        Finding::new(format!("{what}: {how}"), advice)
    }
}

/// Guests that were to come here with their memory.
fn landings(layout: &Layout) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for pair in target_pairs(layout)? {
        let path = layout.landing(pair.pair);
        if !path.exists() || !is_free(&layout.pair_lock(pair.pair), "a replica")? {
            continue;
        }
        let TargetPair {
            target_vm,
            vm,
            source_name,
            standing,
            ..
        } = &pair;
        // It may have gone while the lock was waited for.
        let Ok(since) = written(&path) else { continue };
        let how = match standing.role {
            Role::Primary => "it has taken it over, and what follows was cut off",
            _ => "its guest may wait here, paused, for the rest of its memory or for the last word",
        };
        findings.push(Finding::new(
            format!(
                "the live move of VM {target_vm} from {source_name} to this host stands still since {since}: {how}"
            ),
            format!(
                "do not resume it by hand; on {source_name}, run the same migrate of VM {vm} again: it goes on, or ends it here"
            ),
        ));
    }
    Ok(findings)
}

/// VMs over whose disks something lies that a live move has left.
fn overlays(patient: &Patient, repair: bool) -> Result<Vec<Finding>> {
    let Some((live, is_laid_over)) = patient.laid_over else {
        return Ok(Vec::new());
    };
    let layout = patient.layout;
    let pairs = target_pairs(layout)?.into_iter();
    let ours = pairs.filter(|pair| pair.standing.role == Role::Primary);
    let mut vms: BTreeSet<String> = ours.map(|pair| pair.target_vm).collect();
    vms.extend(source_vms(layout)?);
    let mut findings = Vec::new();
    for vm in vms {
        // While a handover is pending, it is what the move goes on with.
        if layout.handover(&vm).exists() {
            continue;
        }
        let _lock = match Lock::take(&layout.vm_lock(&vm), &format!("VM {vm}")) {
            Err(e) if e.kind() == Kind::Busy => continue,
            other => other?,
        };
        if is_laid_over(&vm)? {
            let what = format!(
                "files that a live move has laid over the disks of VM {vm} are still in use: \
                 all that its guest writes is in them"
            );
            let merge = || settle(layout, live, &vm).map(drop);
            findings.push(Finding::repairable(what, repair, merge));
        }
    }
    Ok(findings)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::replica::{write_json, SourcePair, Standing, TakeOver};
    use uuid::Uuid;

    fn handover() -> Handover {
        Handover {
            pair: Uuid::nil(),
            reverse: Uuid::nil(),
            target: Uuid::nil(),
            target_name: "host2".into(),
            target_vm: "101".into(),
            epoch: 2,
            runs: true,
            no_start: false,
            sealed: None,
            live: false,
            seeded: false,
            started: false,
            undoing: false,
        }
    }

    #[test]
    fn a_move_that_was_cut_off_is_told_with_what_it_has_come_to() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        assert!(given(&layout).unwrap().is_empty());
        let told = |handover: &Handover| {
            handover.keep(&layout, "101").unwrap();
            let found = given(&layout).unwrap();
            assert_eq!(found.len(), 1);
            format!("{} ({})", found[0].what, found[0].advice)
        };
        let text = told(&handover());
        assert!(text.contains("the move of VM 101 to host2 stands still since 20"));
        assert!(text.contains("this host's") && text.ends_with("--to host2 --undo)"));
        // Under way, it is nobody's business.
        let lock = Lock::take(&layout.vm_lock("101"), "VM 101").unwrap();
        assert!(given(&layout).unwrap().is_empty());
        drop(lock);
        let source = SourcePair {
            pair: Uuid::nil(),
            vm_identity: None,
            target_name: "host2".into(),
            address: None,
            standing: Standing {
                role: Role::Retired,
                epoch: 2,
            },
        };
        write_json(&layout.source_pair("101", Uuid::nil()), &source).unwrap();
        assert!(told(&handover()).contains("start it on neither by hand"));
        let mut started = handover();
        started.started = true;
        assert!(told(&started).contains("not a replica here yet"));
        let mut undoing = handover();
        undoing.undoing = true;
        assert!(told(&undoing).ends_with("(run again: migrate 101 --to host2 --undo)"));
        Handover::forget(&layout, "101").unwrap();
        assert!(given(&layout).unwrap().is_empty());
    }

    #[test]
    fn a_guest_that_may_wait_here_is_told_unless_its_move_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let pair = Uuid::nil();
        let mut state = TargetPair {
            pair,
            source_host: Uuid::nil(),
            source_name: "host1".into(),
            vm: "101".into(),
            target_vm: "201".into(),
            volumes: Default::default(),
            storage_map: Vec::new(),
            maps: Default::default(),
            forks: Vec::new(),
            pinned: BTreeSet::new(),
            head: Some(3),
            last: 0,
            standing: Standing::replica(),
        };
        let order = TakeOver {
            pair,
            generation: 3,
            epoch: 2,
        };
        write_json(&layout.target_pair(pair), &state).unwrap();
        assert!(landings(&layout).unwrap().is_empty());
        write_json(&layout.landing(pair), &order).unwrap();
        let found = landings(&layout).unwrap();
        assert!(found[0].what.contains("VM 201 from host1"), "{found:?}");
        assert!(found[0].what.contains("since 20") && found[0].what.contains("may wait here"));
        assert!(found[0].advice.contains("migrate of VM 101 again"));
        let lock = Lock::take(&layout.pair_lock(pair), "it").unwrap();
        assert!(landings(&layout).unwrap().is_empty());
        drop(lock);
        state.standing = Standing::primary();
        write_json(&layout.target_pair(pair), &state).unwrap();
        assert!(landings(&layout).unwrap()[0].what.contains("taken it over"));
    }
}
