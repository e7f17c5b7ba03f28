//! What this host is for a VM, in all pairs that it is in: a change of roles concerns each of them.

use super::guard::set_guard;
use super::layout::Layout;
use super::role::{Role, Standing};
use super::store::{self, pair_files, read_json, source_pairs, write_json, write_text, TargetPair};
use crate::crash;
use crate::error::Result;
use crate::hypervisor::RoleHypervisor;
use uuid::Uuid;

/// The newest epoch that this host knows of `vm`.
pub fn newest_epoch(layout: &Layout, vm: &str) -> Result<u64> {
    let sources = source_pairs(layout, vm)?;
    let targets = targets_of(layout, vm)?;
    let epochs = sources.iter().map(|pair| pair.standing.epoch);
    let epochs = epochs.chain(targets.iter().map(|pair| pair.standing.epoch));
    Ok(epochs.max().unwrap_or(0))
}

/// Whether this host has given `vm` up in `epoch` or later, or has begun to: in one of its pairs is enough.
pub fn has_given_up(layout: &Layout, vm: &str, epoch: u64) -> Result<bool> {
    let pairs = source_pairs(layout, vm)?;
    let mut standings = pairs.iter().map(|pair| pair.standing);
    Ok(standings.any(|s| s.role == Role::Retired && s.epoch >= epoch))
}

/// The pairs in which `vm` is the VM's id here, and this host is or was the target.
pub fn targets_of(layout: &Layout, vm: &str) -> Result<Vec<TargetPair>> {
    let mut found = Vec::new();
    for id in store::replicas(layout)? {
        found.extend(read_json::<TargetPair>(&layout.target_pair(id))?);
    }
    found.retain(|pair| pair.target_vm == vm);
    Ok(found)
}

/// The pairs of `vm` here other than `pair` whose volumes are the VM's own by now, or were.
pub(super) fn others_of(layout: &Layout, vm: &str, pair: Uuid) -> Result<Vec<Uuid>> {
    let mut others = targets_of(layout, vm)?;
    others.retain(|other| other.pair != pair && other.standing.role != Role::Replica);
    Ok(others.iter().map(|other| other.pair).collect())
}

/// Sets what this host is for `vm` in all pairs but those in which it only keeps a replica. None goes back to an older epoch.
pub fn stand(layout: &Layout, vm: &str, standing: Standing) -> Result<()> {
    for (path, mut pair) in pair_files(layout, vm)? {
        if pair.standing != standing && pair.standing.epoch <= standing.epoch {
            pair.standing = standing;
            write_json(&path, &pair)?;
            crash::point("stand");
        }
    }
    for mut pair in targets_of(layout, vm)? {
        let is_replica = pair.standing.role == Role::Replica;
        if !is_replica && pair.standing != standing && pair.standing.epoch <= standing.epoch {
            pair.standing = standing;
            write_json(&layout.target_pair(pair.pair), &pair)?;
        }
    }
    Ok(())
}

/// Gives `vm` up in `epoch` to the host that people call `to`: durable in all pairs, in the guard's file, and with the
/// hypervisor. The configuration is kept aside first. Safe to repeat. Returns notes.
pub fn retire(
    layout: &Layout,
    hypervisor: &dyn RoleHypervisor,
    vm: &str,
    epoch: u64,
    to: &str,
) -> Result<Vec<String>> {
    let why = give_up(layout, hypervisor, vm, epoch, to)?;
    hypervisor.retire(vm, &why)
}

/// The part of [`retire`] that makes it durable. Returns what the hypervisor is to tell whoever wants to start the VM.
pub fn give_up(
    layout: &Layout,
    hypervisor: &dyn RoleHypervisor,
    vm: &str,
    epoch: u64,
    to: &str,
) -> Result<String> {
    let aside = layout.retired_config(vm, epoch);
    if !aside.exists() {
        // In a cluster it may have been moved to the other node already.
        if let Ok(config) = hypervisor.config(vm) {
            write_text(&aside, &config)?;
        }
    }
    let standing = Standing {
        role: Role::Retired,
        epoch,
    };
    stand(layout, vm, standing)?;
    crash::point("retired standing");
    let why = format!("it has gone to {to}");
    set_guard(layout, vm, standing, &why)?;
    crash::point("retired guard");
    Ok(why)
}
