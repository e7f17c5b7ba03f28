//! Sealing forks into a generation, and finishing that after a crash.
//!
//! `sealing.json` is the point of no return of a seal. Every step behind it can be repeated.

use super::layout::Layout;
use super::listing::Listing;
use super::manifest::{DiskRecord, Generation};
use super::prune::{drop_overwritten, finish_prune};
use super::role::Role;
use super::steps::{each_disk, seal_all, swap_heads};
use super::store::{self, read_json, write_json, TargetPair};
use super::volume::{lost_disks, Location};
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{Hold, Published, TargetHypervisor};
use crate::lock::private_dir;
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
    let mut notes = super::mend::recover(layout, hypervisor, &state)?;
    let listing = &Listing::default();
    if state.standing.role == Role::Primary {
        // Its guest has landed on what was sealed, and the VM is no replica any more that could be published.
        store::remove(&layout.sealing(pair))?;
    } else if let Some(generation) = sealing {
        let context = |e: Error| e.context("cannot finish a seal that was cut off");
        let hold = match state.head == Some(generation.number) {
            true => None,
            false => Some(hypervisor.hold(&state).map_err(context)?),
        };
        let place = (layout, listing);
        super::heads::complete(place, &state, &generation).map_err(context)?;
        notes.extend(finish(place, hypervisor, &mut state, &generation, hold).map_err(context)?);
        notes.push(format!(
            "generation {} of a run that was cut off is sealed",
            generation.name()
        ));
        notes.extend(drop_overwritten(
            place,
            hypervisor,
            &mut state,
            &generation,
        )?);
    }
    notes.extend(super::takeover::recover(layout, hypervisor, &mut state)?);
    listing.forget();
    notes.extend(finish_prune((layout, listing), &mut state)?);
    Ok(notes)
}

/// Does what is left to do of a seal. `listing` must know nothing yet, or what is there now. Returns notes.
pub(super) fn finish(
    (layout, listing): (&Layout, &Listing),
    hypervisor: &dyn TargetHypervisor,
    pair: &mut TargetPair,
    generation: &Generation,
    hold: Option<Box<dyn Hold>>,
) -> Result<Vec<String>> {
    let number = generation.number;
    if pair.head != Some(number) {
        seal_all(generation, listing)?;
        each_disk(generation, listing, "head", |volume| {
            volume.prepare_head(number)
        })?;
        // What was done is seen with what was made.
        listing.forget();
        swap_heads(generation, listing)?;
        note_sealed((layout, listing), pair, generation)?;
    }
    // Publishing takes the hypervisor's lock itself.
    drop(hold);
    crash::point("publish");
    let all = store::generations(layout, pair.pair)?;
    let notes = publish(hypervisor, pair, &all, listing)?;
    store::remove(&layout.sealing(pair.pair))?;
    Ok(notes)
}

/// Notes that the volumes are sealed as `generation`.
pub(super) fn note_sealed(
    (layout, listing): (&Layout, &Listing),
    pair: &mut TargetPair,
    generation: &Generation,
) -> Result<()> {
    let number = generation.number;
    keep_tables(layout, generation)?;
    super::proof::note(layout, generation, listing)?;
    write_json(&layout.generation(pair.pair, number), generation)?;
    crash::point("manifest");
    pair.head = Some(number);
    pair.forks.clear();
    write_json(&layout.target_pair(pair.pair), pair)
}

/// The digests of the segments go with the generation. Where there are none, damage is found, but not its place.
fn keep_tables(layout: &Layout, generation: &Generation) -> Result<()> {
    let (pair, number) = (generation.pair, generation.number);
    private_dir(&layout.generations(pair))?;
    for index in 0..generation.disks.len() {
        let (from, to) = (
            layout.fork_table(pair, index),
            layout.table(pair, number, index),
        );
        match std::fs::rename(&from, &to) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("cannot rename {}", from.display()), e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Tells the hypervisor which generations there are. Returns notes.
pub(super) fn publish(
    hypervisor: &dyn TargetHypervisor,
    pair: &TargetPair,
    generations: &[Generation],
    listing: &Listing,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let mut published = Vec::new();
    for generation in generations {
        let lost = lost_disks(generation, listing)?;
        for disk in &lost {
            notes.push(format!(
                "generation {} has lost its disk {}: {} is gone",
                generation.name(),
                disk.key,
                disk.location
            ));
        }
        let is_shown = |disk: &&DiskRecord| {
            matches!(disk.location, Location::ThinLv { .. }) && !lost.contains(disk)
        };
        let shown = generation.disks.iter().filter(is_shown);
        let snapshots = shown.map(|disk| disk.key.clone()).collect();
        published.push(Published {
            generation,
            snapshots,
        });
    }
    notes.extend(hypervisor.publish(pair, &published)?);
    Ok(notes)
}
