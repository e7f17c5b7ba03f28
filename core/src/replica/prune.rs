//! Dropping generations: those that nobody wants to keep, with what goes with the last one of a disk.
//!
//! The renaming of a manifest to `.pruned` is the point of no return. Every step behind it can be repeated.

use super::in_place::give_up_overwritten;
use super::layout::Layout;
use super::listing::Listing;
use super::manifest::Generation;
use super::replicas::{find_replica, no_generation};
use super::seal::{publish, recover};
use super::store::{self, files_in, read_json, write_json, TargetPair};
use super::volume::{remove_generation, Location, Volume};
use super::Retention;
use crate::crash;
use crate::error::{Error, Result};
use crate::hypervisor::TargetHypervisor;
use crate::lock::Lock;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A manifest's extension once its generation is to go.
pub(super) const GOING: &str = "pruned";

/// What pruning came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pruned {
    /// The VM's id on this host.
    pub vm: String,
    /// Numbers of the generations that went, or would go.
    pub gone: Vec<u64>,
    /// Numbers of those that stay.
    pub kept: Vec<u64>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Drops the generations of the replica of `vm` on this host that `retention` does not keep. With `dry_run` it only
/// tells which.
pub fn prune(
    layout: &Layout,
    hypervisor: &dyn TargetHypervisor,
    vm: &str,
    retention: Retention,
    dry_run: bool,
) -> Result<Pruned> {
    if dry_run {
        let (pair, all) = find_replica(layout, vm)?;
        let (go, stay) = retention.split(all, &pair.pinned);
        return Ok(pruned(&pair, &go, &stay, Vec::new()));
    }
    let (_lock, pair) = lock(layout, vm)?;
    let mut notes = recover(layout, hypervisor, pair)?;
    let (mut pair, all) = find_replica(layout, vm)?;
    pair.standing.check_is_replica(&pair.target_vm)?;
    let (go, stay) = retention.split(all, &pair.pinned);
    let listing = Listing::default();
    let place = (layout, &listing);
    notes.extend(drop_all(place, hypervisor, &mut pair, &go, &stay)?);
    Ok(pruned(&pair, &go, &stay, notes))
}

fn pruned(pair: &TargetPair, go: &[Generation], stay: &[Generation], notes: Vec<String>) -> Pruned {
    let numbers = |of: &[Generation]| of.iter().map(|g| g.number).collect();
    Pruned {
        vm: pair.target_vm.clone(),
        gone: numbers(go),
        kept: numbers(stay),
        notes,
    }
}

/// Keeps generation `number` of the replica of `vm` from being pruned, or no longer does.
pub fn pin(layout: &Layout, vm: &str, number: u64, pinned: bool) -> Result<()> {
    let (_lock, _) = lock(layout, vm)?;
    let (mut pair, all) = find_replica(layout, vm)?;
    if !all.iter().any(|g| g.number == number) {
        return Err(no_generation(vm, number));
    }
    let changed = match pinned {
        true => pair.pinned.insert(number),
        false => pair.pinned.remove(&number),
    };
    match changed {
        true => write_json(&layout.target_pair(pair.pair), &pair),
        false => Ok(()),
    }
}

/// Locks the replica of `vm`. What was looked at without the lock may be old news, so only its pair is told.
pub(super) fn lock(layout: &Layout, vm: &str) -> Result<(Lock, Uuid)> {
    let (pair, _) = find_replica(layout, vm)?;
    let what = format!("the replica of VM {}", pair.vm);
    let lock = Lock::take(&layout.pair_lock(pair.pair), &what)?;
    Ok((lock, pair.pair))
}

/// Drops what `retention` does not keep, behind the seal of `newest`. The seal is done, so what fails here is a note,
/// and tried again by the next run.
pub(super) fn after_seal(
    (layout, listing): (&Layout, &Listing),
    hypervisor: &dyn TargetHypervisor,
    pair: &mut TargetPair,
    newest: &Generation,
    retention: Retention,
) -> Result<Vec<String>> {
    if !keeps_generations(pair.pair, newest)? {
        let mut notes = drop_all_but_head((layout, listing), hypervisor, pair)?;
        if retention.keep > 1 || retention.within_s.is_some() || !pair.pinned.is_empty() {
            notes.push(
                "only the newest generation is kept: a disk lies on a file system that cannot share blocks \
                 between files (XFS and btrfs can), or in a volume of LVM without a thin pool"
                    .into(),
            );
        }
        return Ok(notes);
    }
    let all = store::generations(layout, pair.pair)?;
    let (go, stay) = retention.split(all, &pair.pinned);
    drop_all((layout, listing), hypervisor, pair, &go, &stay)
}

fn keeps_generations(pair: Uuid, newest: &Generation) -> Result<bool> {
    let listing = &Listing::default();
    let volume = |location| Volume {
        location,
        pair,
        listing,
    };
    for disk in &newest.disks {
        if !volume(&disk.location).keeps_generations()? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where blocks cannot be shared, the head has overwritten all generations before it: they are none any more.
pub(super) fn drop_overwritten(
    place: (&Layout, &Listing),
    hypervisor: &dyn TargetHypervisor,
    pair: &mut TargetPair,
    newest: &Generation,
) -> Result<Vec<String>> {
    match keeps_generations(pair.pair, newest)? {
        true => Ok(Vec::new()),
        false => drop_all_but_head(place, hypervisor, pair),
    }
}

fn drop_all_but_head(
    (layout, listing): (&Layout, &Listing),
    hypervisor: &dyn TargetHypervisor,
    pair: &mut TargetPair,
) -> Result<Vec<String>> {
    let all = store::generations(layout, pair.pair)?;
    let (stay, go): (Vec<_>, Vec<_>) = all.into_iter().partition(|g| Some(g.number) == pair.head);
    drop_all((layout, listing), hypervisor, pair, &go, &stay)
}

fn drop_all(
    (layout, listing): (&Layout, &Listing),
    hypervisor: &dyn TargetHypervisor,
    pair: &mut TargetPair,
    go: &[Generation],
    stay: &[Generation],
) -> Result<Vec<String>> {
    if go.is_empty() {
        return finish_prune((layout, listing), pair);
    }
    // First nobody may be shown them any more, then they are marked as going, then they go.
    if let Err(e) = publish(hypervisor, pair, stay, listing) {
        return Ok(vec![format!("older generations stay for now: {e}")]);
    }
    for generation in go {
        let path = layout.generation(pair.pair, generation.number);
        let going = path.with_extension(GOING);
        std::fs::rename(&path, &going)
            .map_err(|e| Error::io(format!("cannot rename {}", path.display()), e))?;
        crate::image::flush_parent(&going)?;
    }
    crash::point("prune");
    finish_prune((layout, listing), pair)
}

/// Removes the volumes of generations that were marked as going. Returns notes on those that stay.
pub(super) fn finish_prune(
    (layout, listing): (&Layout, &Listing),
    pair: &mut TargetPair,
) -> Result<Vec<String>> {
    if pair.head.is_some() {
        give_up_overwritten(layout, pair)?;
    }
    let mut notes = Vec::new();
    let mut dropped = false;
    for path in files_in(&layout.generations(pair.pair), GOING)? {
        let Some(generation) = read_json::<Generation>(&path)? else {
            continue;
        };
        match drop_generation((layout, listing), pair, &generation) {
            Ok(()) => store::remove(&path)?,
            Err(e) => notes.push(format!(
                "generation {} is not wholly removed yet: {e}",
                generation.name()
            )),
        }
        dropped = true;
    }
    if dropped {
        write_json(&layout.target_pair(pair.pair), pair)?;
    }
    Ok(notes)
}

/// Whether a prune was cut off.
pub(super) fn is_unfinished(layout: &Layout, pair: Uuid) -> Result<bool> {
    Ok(!files_in(&layout.generations(pair), GOING)?.is_empty())
}

/// Removes a generation's volumes, and the heads of disks that it was the last to have.
fn drop_generation(
    (layout, listing): (&Layout, &Listing),
    pair: &mut TargetPair,
    old: &Generation,
) -> Result<()> {
    let locations = old.disks.iter().map(|d| &d.location);
    remove_generation(listing, locations, pair.pair, old.number)?;
    store::remove(&layout.boot(pair.pair, old.number))?;
    store::remove(&layout.checked(pair.pair, old.number))?;
    store::remove(&layout.block_maps(pair.pair, old.number))?;
    for index in 0..old.disks.len() {
        store::remove(&layout.table(pair.pair, old.number, index))?;
        store::remove(&layout.stamp(pair.pair, old.number, index))?;
        store::remove(&layout.taken_bitmap(pair.pair, old.number, index))?;
    }
    let kept = store::generations(layout, pair.pair)?;
    let is_kept = |location: &Location| kept.iter().any(|g| g.has_place(location));
    for disk in old.disks.iter().filter(|d| !is_kept(&d.location)) {
        // A fork of it would mean that it is about to come back.
        if pair.forks.iter().any(|f| f.is_place_of(&disk.location)) {
            continue;
        }
        Volume {
            location: &disk.location,
            pair: pair.pair,
            listing,
        }
        .remove_head()?;
        pair.volumes.retain(|_, target| *target != disk.target);
    }
    Ok(())
}
