//! A replica becomes the VM itself: its head is what was sealed as a generation, this host is primary, and the
//! hypervisor may start it.
//!
//! `takeover.json` is the point of no return. It is written once everything was checked, and it goes when the standing
//! is durable: a run that was cut off in between is finished by whoever takes the pair's lock next. From then on the
//! head is the VM's own disk, and nothing here touches it any more; what is left, the guard and the configuration, is
//! done again by the next run of the same verb.

use super::guard::set_guard;
use super::layout::Layout;
use super::listing::Listing;
use super::manifest::{DiskRecord, Generation};
use super::replicas::no_generation;
use super::role::{Role, Standing};
use super::seal;
use super::store::{self, read_json, write_json, TargetPair};
use super::volume::{lost_disks, remove_forks, Volume};
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{RoleHypervisor, TargetHypervisor};
use crate::lock::Lock;
use crate::wire::limits;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::time::Duration;
use uuid::Uuid;

/// So long an agent may hold the replica whose driver has vanished, as it does if a source is lost in the middle of a sync:
/// it notices within the links' limit of silence.
pub(super) const PATIENCE: Duration = Duration::from_secs(limits::SILENCE_S_MAX + 10);

/// Which replica is to become the VM, as of when, and in which epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeOver {
    /// The pair.
    pub pair: Uuid,
    /// Number of the generation that it becomes.
    pub generation: u64,
    /// The epoch that begins with it.
    pub epoch: u64,
}

/// What became the VM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TakenOver {
    /// The generation that it was made from.
    pub generation: Generation,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// A take-over of `pair` that was announced and not finished, if there is one.
pub fn pending_take_over(layout: &Layout, pair: Uuid) -> Result<Option<TakeOver>> {
    read_json(&layout.take_over(pair))
}

/// Makes the replica the VM. Does not start it. Safe to repeat: what was cut off is finished.
///
/// Fails with [`Kind::Refused`] if this host is not a replica of an older epoch (nor what the order makes of it), with
/// [`Kind::NotFound`] if the generation is not there with all its volumes, with [`Kind::Busy`] if a run or a VM uses it.
pub fn take_over(
    layout: &Layout,
    hypervisor: &dyn RoleHypervisor,
    order: &TakeOver,
) -> Result<TakenOver> {
    let path = layout.target_pair(order.pair);
    let unknown = || {
        Error::new(
            Kind::NotFound,
            format!("there is no replica {} on this host", order.pair),
        )
    };
    // Before the lock, so that an unknown pair leaves no lock file.
    read_json::<TargetPair>(&path)?.ok_or_else(unknown)?;
    let what = format!("the replica {}", order.pair);
    let _lock = Lock::take_within(PATIENCE, &layout.pair_lock(order.pair), &what)?;
    let mut notes = seal::recover(layout, hypervisor, order.pair)?;
    let mut pair = read_json::<TargetPair>(&path)?.ok_or_else(unknown)?;
    let is_done = check_standing(&pair, order)?;
    let manifest = layout.generation(order.pair, order.generation);
    let generation: Generation =
        read_json(&manifest)?.ok_or_else(|| no_generation(&pair.target_vm, order.generation))?;
    crash::point("take-over checked");
    if !is_done {
        let listing = &Listing::default();
        check_volumes(&generation, listing)?;
        notes.extend(doubts(layout, &generation)?);
        // A replica that somebody started to use is theirs.
        let hold = hypervisor.hold(&pair)?;
        write_json(&layout.take_over(order.pair), order)?;
        crash::point("take-over announced");
        finish((layout, listing), &mut pair, &generation, order)?;
        drop(hold);
        crash::point("take-over primary");
    }
    let why = format!("it was taken over from generation {}", generation.name());
    set_guard(layout, &pair.target_vm, pair.standing, &why)?;
    crash::point("take-over guard");
    notes.extend(hypervisor.promote(&pair, &generation)?);
    crash::point("take-over promoted");
    notes.extend(drop_forks(layout, &mut pair));
    Ok(TakenOver { generation, notes })
}

/// Whether what was ordered has happened already. Refuses what must not.
pub(super) fn check_standing(pair: &TargetPair, order: &TakeOver) -> Result<bool> {
    let Standing { role, epoch } = pair.standing;
    let refused = |what: String| Err(Error::new(Kind::Refused, what));
    match role {
        Role::Replica if epoch < order.epoch => Ok(false),
        Role::Primary if epoch == order.epoch => match pair.head == Some(order.generation) {
            true => Ok(true),
            false => refused(format!(
                "VM {} was taken over in epoch {epoch} from another generation than {}",
                pair.target_vm, order.generation
            )),
        },
        _ => refused(format!(
            "this host is {role} for VM {} since epoch {epoch}, so it cannot take it over in epoch {}",
            pair.target_vm, order.epoch
        )),
    }
    .map_err(|e: Error| e.advise("'status' on both hosts tells the roles; the newest epoch counts"))
}

pub(super) fn check_volumes(generation: &Generation, listing: &Listing) -> Result<()> {
    let lost = lost_disks(generation, listing)?;
    match lost.first() {
        None => Ok(()),
        Some(disk) => Err(Error::new(
            Kind::NotFound,
            format!(
                "generation {} has lost its disk {}: {} is gone",
                generation.name(),
                disk.key,
                disk.location
            ),
        )
        .advise("choose another generation; 'generations' lists them")),
    }
}

/// Disks that may hold something else than what was sealed. That is no reason to refuse what may be the only copy.
fn doubts(layout: &Layout, generation: &Generation) -> Result<Vec<String>> {
    let listing = Listing::default();
    let mut notes = Vec::new();
    for (index, disk) in generation.disks.iter().enumerate() {
        let stamp = read_json(&layout.stamp(generation.pair, generation.number, index))?;
        if stamp.is_none() {
            // Of thin volumes there is none; a sealed one cannot be written to.
            continue;
        }
        if let Some(why) = volume(generation, disk, &listing).doubt(generation.number, stamp)? {
            notes.push(format!("{} may not be as it was sealed: {why}", disk.key));
        }
    }
    Ok(notes)
}

/// The head becomes what was sealed, and this host primary. The caller holds the pair's lock, and the replica.
fn finish(
    (layout, listing): (&Layout, &Listing),
    pair: &mut TargetPair,
    generation: &Generation,
    order: &TakeOver,
) -> Result<()> {
    make_heads(generation, listing)?;
    crash::point("take-over heads");
    pair.head = Some(generation.number);
    pair.standing = Standing {
        role: Role::Primary,
        epoch: order.epoch,
    };
    write_json(&layout.target_pair(pair.pair), pair)?;
    crash::point("take-over standing");
    store::remove(&layout.take_over(pair.pair))
}

/// Makes each head what was sealed, if that is not proved. Nobody has it open. `listing` knows the volumes as they are, or
/// nothing yet.
pub(super) fn make_heads(generation: &Generation, listing: &Listing) -> Result<()> {
    let number = generation.number;
    let changed = Cell::new(false);
    // Somebody may have written to a head, by starting the replica and locking it again.
    each_disk(generation, listing, "distrust", |volume| {
        if volume.is_head_of(number)? {
            return Ok(());
        }
        changed.set(true);
        volume.distrust_head(number)
    })?;
    let look_again = || {
        // Where nothing was changed, what was seen is still so.
        if changed.get() {
            listing.forget();
        }
    };
    look_again();
    each_disk(generation, listing, "head", |v| v.prepare_head(number))?;
    look_again();
    each_disk(generation, listing, "swap", |v| v.swap_head(number))
}

/// Tests may crash before any disk's turn: at `take-over swap scsi0`.
fn each_disk(
    generation: &Generation,
    listing: &Listing,
    step: &str,
    act: impl Fn(&Volume) -> Result<()>,
) -> Result<()> {
    for disk in &generation.disks {
        crash::point(&format!("take-over {step} {}", disk.key));
        act(&volume(generation, disk, listing))
            .map_err(|e| e.context(format!("disk {}", disk.key)))?;
    }
    Ok(())
}

fn volume<'a>(generation: &Generation, disk: &'a DiskRecord, listing: &'a Listing) -> Volume<'a> {
    Volume {
        location: &disk.location,
        pair: generation.pair,
        listing,
    }
}

/// Finishes a take-over that was announced, up to the standing. The caller holds the pair's lock. Returns notes.
pub(super) fn recover(
    layout: &Layout,
    hypervisor: &dyn TargetHypervisor,
    pair: &mut TargetPair,
) -> Result<Vec<String>> {
    let Some(order) = pending_take_over(layout, pair.pair)? else {
        return Ok(Vec::new());
    };
    let context = |e: Error| e.context("cannot finish a take-over that was cut off");
    if pair.standing.role == Role::Primary {
        store::remove(&layout.take_over(pair.pair))?;
        return Ok(Vec::new());
    }
    check_standing(pair, &order).map_err(context)?;
    let manifest = layout.generation(pair.pair, order.generation);
    let generation: Generation =
        read_json(&manifest)?.ok_or_else(|| no_generation(&pair.target_vm, order.generation))?;
    let hold = hypervisor.hold(pair).map_err(context)?;
    let place = (layout, &Listing::default());
    finish(place, pair, &generation, &order).map_err(context)?;
    drop(hold);
    Ok(vec![format!(
        "the take-over of VM {} from generation {} that was cut off was gone on with: this host is primary in epoch {}",
        pair.target_vm,
        generation.name(),
        order.epoch
    )])
}

/// Nothing is received here any more. What stays is only in the way, so it is no failure.
pub(super) fn drop_forks(layout: &Layout, pair: &mut TargetPair) -> Option<String> {
    let drop_all = |pair: &mut TargetPair| {
        if pair.forks.is_empty() {
            return Ok(());
        }
        remove_forks(pair.forks.iter(), pair.pair)?;
        for index in 0..pair.forks.len() {
            store::remove(&layout.fork_table(pair.pair, index))?;
        }
        pair.forks.clear();
        write_json(&layout.target_pair(pair.pair), pair)
    };
    let failed = drop_all(pair).err();
    failed.map(|e| format!("what a sync had begun to receive stays for now: {e}"))
}
