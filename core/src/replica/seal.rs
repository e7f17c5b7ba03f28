//! Sealing forks into a generation, dropping the oldest ones, and finishing either after a crash.
//!
//! `sealing.json` is the point of no return of a seal, the renaming of a manifest to `.pruned` that of a
//! prune. Every step behind it can be repeated.

use super::layout::Layout;
use super::listing::Listing;
use super::manifest::Generation;
use super::store::{self, read_json, write_json, TargetPair};
use super::volume::{remove_generation, Location, Volume};
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{Hold, Published, TargetHypervisor};
use std::path::PathBuf;
use uuid::Uuid;

/// Finishes a seal and a prune that were cut off. The caller holds the pair's lock. Returns notes.
pub(super) fn recover(
    layout: &Layout,
    hypervisor: &dyn TargetHypervisor,
    pair: Uuid,
) -> Result<Vec<String>> {
    let state: Option<TargetPair> = read_json(&layout.target_pair(pair))?;
    let sealing: Option<Generation> = read_json(&layout.sealing(pair))?;
    let Some(mut state) = state else {
        return match sealing {
            None => Ok(Vec::new()),
            Some(_) => Err(Error::new(
                Kind::Io,
                format!("the state of replica {pair} is incomplete"),
            )),
        };
    };
    let mut notes = Vec::new();
    if let Some(generation) = sealing {
        let context = |e: Error| e.context("cannot finish a seal that was cut off");
        let hold = match state.head == Some(generation.number) {
            true => None,
            false => Some(hypervisor.hold(&state).map_err(context)?),
        };
        notes.extend(finish(layout, hypervisor, &mut state, &generation, hold).map_err(context)?);
        notes.push(format!(
            "generation {} of a run that was cut off is sealed",
            generation.name()
        ));
    }
    notes.extend(finish_prune(layout, &mut state)?);
    Ok(notes)
}

/// Does what is left to do of a seal. Returns notes.
pub(super) fn finish(
    layout: &Layout,
    hypervisor: &dyn TargetHypervisor,
    pair: &mut TargetPair,
    generation: &Generation,
    hold: Option<Box<dyn Hold>>,
) -> Result<Vec<String>> {
    let number = generation.number;
    if pair.head != Some(number) {
        let listing = Listing::default();
        each_disk(generation, &listing, "seal", |volume| volume.seal(number))?;
        listing.forget();
        each_disk(generation, &listing, "head", |volume| {
            volume.prepare_head(number)
        })?;
        listing.forget();
        each_disk(generation, &listing, "swap", |volume| {
            volume.swap_head(number)
        })?;
        write_json(&layout.generation(pair.pair, number), generation)?;
        crash::point("manifest");
        pair.head = Some(number);
        pair.forks.clear();
        write_json(&layout.target_pair(pair.pair), pair)?;
    }
    // Publishing takes the hypervisor's lock itself.
    drop(hold);
    crash::point("publish");
    let all = store::generations(layout, pair.pair)?;
    let notes = publish(hypervisor, pair, &all, &Listing::default())?;
    store::remove(&layout.sealing(pair.pair))?;
    Ok(notes)
}

/// Tests may crash before any disk's turn: at `seal scsi0`.
fn each_disk(
    generation: &Generation,
    listing: &Listing,
    step: &str,
    act: impl Fn(Volume) -> Result<()>,
) -> Result<()> {
    for disk in &generation.disks {
        crash::point(&format!("{step} {}", disk.key));
        act(Volume {
            location: &disk.location,
            pair: generation.pair,
            listing,
        })
        .map_err(|e| e.context(format!("disk {}", disk.key)))?;
    }
    Ok(())
}

/// Removes the oldest generations beyond `keep`, never the newest. The seal is done, so what fails here
/// is a note, and tried again by the next run.
pub(super) fn prune(
    layout: &Layout,
    hypervisor: &dyn TargetHypervisor,
    pair: &mut TargetPair,
    keep: u32,
) -> Result<Vec<String>> {
    let all = store::generations(layout, pair.pair)?;
    let surplus = all.len().saturating_sub(keep.max(1) as usize);
    if surplus == 0 {
        return Ok(Vec::new());
    }
    let (old, kept) = all.split_at(surplus);
    // First nobody may be shown them any more, then they are marked as going, then they go.
    if let Err(e) = publish(hypervisor, pair, kept, &Listing::default()) {
        return Ok(vec![format!("older generations stay for now: {e}")]);
    }
    for generation in old {
        let path = layout.generation(pair.pair, generation.number);
        let going = path.with_extension("pruned");
        std::fs::rename(&path, &going)
            .map_err(|e| Error::io(format!("cannot rename {}", path.display()), e))?;
        crate::image::flush_parent(&going)?;
    }
    crash::point("prune");
    finish_prune(layout, pair)
}

/// Removes the volumes of generations that were marked as going. Returns notes on those that stay.
fn finish_prune(layout: &Layout, pair: &mut TargetPair) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let mut dropped = false;
    for path in going(layout, pair.pair) {
        let Some(generation) = read_json::<Generation>(&path)? else {
            continue;
        };
        match drop_generation(layout, pair, &generation) {
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

fn going(layout: &Layout, pair: Uuid) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(layout.generations(pair));
    let mut paths: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "pruned"))
        .collect();
    paths.sort();
    paths
}

/// Removes a generation's volumes, and the heads of disks that it was the last to have.
fn drop_generation(layout: &Layout, pair: &mut TargetPair, old: &Generation) -> Result<()> {
    let locations = old.disks.iter().map(|d| &d.location);
    remove_generation(locations, pair.pair, old.number)?;
    let kept = store::generations(layout, pair.pair)?;
    let is_kept = |location: &Location| kept.iter().any(|g| g.disk_at(location).is_some());
    for disk in old.disks.iter().filter(|d| !is_kept(&d.location)) {
        // A fork of it would mean that it is about to come back.
        if pair.forks.contains(&disk.location) {
            continue;
        }
        Volume {
            location: &disk.location,
            pair: pair.pair,
            listing: &Listing::default(),
        }
        .remove_head()?;
        pair.volumes.retain(|_, target| *target != disk.target);
    }
    Ok(())
}

fn publish(
    hypervisor: &dyn TargetHypervisor,
    pair: &TargetPair,
    generations: &[Generation],
    listing: &Listing,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let mut published = Vec::new();
    for generation in generations {
        let mut snapshots = std::collections::BTreeSet::new();
        for disk in &generation.disks {
            let volume = Volume {
                location: &disk.location,
                pair: pair.pair,
                listing,
            };
            if !volume.has_generation(generation.number)? {
                notes.push(format!(
                    "generation {} has lost its disk {}: {} is gone",
                    generation.name(),
                    disk.key,
                    disk.location
                ));
            } else if matches!(disk.location, Location::ThinLv { .. }) {
                snapshots.insert(disk.key.clone());
            }
        }
        published.push(Published {
            generation,
            snapshots,
        });
    }
    notes.extend(hypervisor.publish(pair, &published)?);
    Ok(notes)
}
