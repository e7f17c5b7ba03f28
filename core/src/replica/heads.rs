//! Heads that are brought up to date where they are, because a guest waits on them for its memory: it must be there before
//! the other host pauses its own, and what it has open cannot be exchanged under it.
//!
//! A head is written only if it is just what was sealed last, which stays as it is. So if this comes to nothing, the heads
//! are made anew from that; a sync or a take-over does so in any case, as it trusts no head that maps other blocks than the
//! generation. Sealed is by snapshots of the heads. `landing.json`, which is there before the first byte is written, names
//! the generation that they become: together with `sealing.json` it tells that they are what is to be sealed.

use super::layout::Layout;
use super::listing::Listing;
use super::manifest::Generation;
use super::store::{self, read_json, write_json, TargetPair};
use super::takeover::TakeOver;
use super::target::{Fork, Proof};
use super::volume::Location;
use super::{proof, seal, thin, Placement, ReplicaRequest};
use crate::crash;
use crate::error::Result;
use crate::lvm::{self, LvId, OwnerTag};

/// The heads as what is to be written, active, if all of them can be and nothing but the disks' contents has changed since
/// `newest` was sealed. The caller holds the pair's lock, and the replica.
pub(super) fn as_forks(
    layout: &Layout,
    listing: &Listing,
    request: &ReplicaRequest,
    (placements, newest): (&[Placement], &Generation),
) -> Result<Option<Vec<Fork>>> {
    let is_same = newest.config == request.config
        && newest.described == request.described
        && newest.excluded == request.excluded
        && newest.disks.len() == placements.len()
        && !request.in_place;
    if !is_same {
        return Ok(None);
    }
    let owner = OwnerTag::new(newest.pair);
    let (mut forks, mut idle) = (Vec::new(), Vec::new());
    let disks = request.disks.iter().zip(placements).zip(&newest.disks);
    for (index, ((disk, placement), sealed)) in disks.enumerate() {
        let Location::ThinLv { lv, .. } = &placement.location else {
            return Ok(None);
        };
        let is_known = request.tracked.contains(&disk.key)
            && sealed.location == placement.location
            && (&sealed.key, sealed.size) == (&disk.key, disk.size);
        let table = proof::table_of(layout, newest, index)?;
        let (true, Some(table)) = (is_known, table) else {
            return Ok(None);
        };
        if !thin::is_head_of(listing, lv, &owner, newest.number)? {
            return Ok(None);
        }
        if !listing.get(lv)?.active {
            idle.push(lv.clone());
        }
        forks.push(Fork {
            key: disk.key.clone(),
            placement: placement.clone(),
            path: lv.path(),
            table: layout.fork_table(newest.pair, index),
            proof: Some(Proof::Sealed(table)),
        });
    }
    for fork in &forks {
        store::remove(&fork.table)?;
    }
    lvm::activate_all(&idle)?;
    listing.activated(&idle);
    Ok(Some(forks))
}

/// Whether all heads are what was sealed as `generation`, to the block.
pub(super) fn are(listing: &Listing, generation: &Generation) -> Result<bool> {
    let owner = OwnerTag::new(generation.pair);
    for lv in thin_volumes(generation) {
        if !thin::is_head_of(listing, lv, &owner, generation.number)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the heads of such a generation may have been written where they are.
pub(super) fn could_be_written(generation: &Generation) -> bool {
    thin_volumes(generation).count() == generation.disks.len()
}

fn thin_volumes(generation: &Generation) -> impl Iterator<Item = &LvId> {
    generation.disks.iter().filter_map(|d| match &d.location {
        Location::ThinLv { lv, .. } => Some(lv),
        _ => None,
    })
}

/// Seals the heads as they are now. The hypervisor is not told: the guest that waits has its configuration already. If it
/// does not land, [`complete`] has that done.
pub(super) fn seal_all(
    (layout, listing): (&Layout, &Listing),
    pair: &mut TargetPair,
    generation: &Generation,
) -> Result<()> {
    write_json(&layout.sealing(pair.pair), generation)?;
    crash::point("seal heads");
    snapshot_all(listing, generation)?;
    seal::note_sealed((layout, listing), pair, generation)
}

fn snapshot_all(listing: &Listing, generation: &Generation) -> Result<()> {
    let owner = OwnerTag::new(generation.pair);
    for lv in thin_volumes(generation) {
        thin::seal_head(listing, lv, &owner, generation.number)?;
    }
    Ok(())
}

/// Before a seal is finished that was cut off: if it was one of the heads themselves, snapshots of them are what forks are
/// otherwise. Nobody has them open any more.
pub(super) fn complete(
    (layout, listing): (&Layout, &Listing),
    pair: &TargetPair,
    generation: &Generation,
) -> Result<()> {
    if becoming(layout, pair)? == Some(generation.number) {
        snapshot_all(listing, generation)?;
        listing.forget();
    }
    Ok(())
}

/// Whether the heads are being written where they are: a guest waits on them, and their seal has not begun.
pub(super) fn are_written(layout: &Layout, pair: &TargetPair) -> Result<bool> {
    Ok(becoming(layout, pair)?.is_some() && !layout.sealing(pair.pair).exists())
}

/// The generation that the heads become on which a guest waits, until they are sealed.
fn becoming(layout: &Layout, pair: &TargetPair) -> Result<Option<u64>> {
    let landing: Option<TakeOver> = read_json(&layout.landing(pair.pair))?;
    let number = landing.map(|order| order.generation);
    Ok(number.filter(|number| pair.head != Some(*number)))
}
