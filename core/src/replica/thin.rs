//! A replica's volume in an LVM thin pool. For volume `V` the generation `rbs12` is the snapshot
//! `snap_V_rbs12`, as Proxmox names its own, so that it goes when Proxmox removes `V`.

use super::listing::Listing;
use super::manifest::generation_name;
use super::volume::Sealed;
use crate::error::{Error, Kind, Result};
use crate::lvm::{self, Lv, LvId, LvKind, OwnerTag, SnapshotOptions, Tag};
use crate::runbook::Runbook;
use crate::thin;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Data and metadata of a pool are never filled above this, in percent.
pub const POOL_PERCENT_MAX: f64 = 95.0;
/// Pause between two looks at a volume that is in use.
const IDLE_POLL: Duration = Duration::from_millis(500);

pub(super) fn fork_of(lv: &LvId) -> Result<LvId> {
    lv.sibling(format!("rbs-fork_{}", lv.name()))
}

/// What the head is made as, before it takes the name of the old one.
fn new_head_of(lv: &LvId) -> Result<LvId> {
    lv.sibling(format!("rbs-head_{}", lv.name()))
}

pub(super) fn generation_of(lv: &LvId, number: u64) -> Result<LvId> {
    lv.sibling(format!("snap_{}_{}", lv.name(), generation_name(number)))
}

/// The tag that says which generation a fork or a head was made from.
fn base_tag(parent: Option<u64>) -> Result<Tag> {
    Tag::new(format!("rbs.base={}", parent.unwrap_or(0)))
}

pub(super) fn check(listing: &Listing, lv: &LvId, owner: &OwnerTag) -> Result<()> {
    if let Some(head) = listing.owned(lv, owner)? {
        if head.open {
            return Err(Error::new(Kind::Busy, format!("volume {lv} is in use"))
                .advise("stop the VM that uses it, or unmount it"));
        }
    }
    listing.owned(&fork_of(lv)?, owner)?;
    listing.owned(&new_head_of(lv)?, owner)?;
    Ok(())
}

/// An error unless the pools of these volumes have room for what is overwritten while snapshots are kept: less than
/// `percent_max` of them in use.
pub(super) fn check_pools_in<'a>(
    listing: &Listing,
    volumes: impl Iterator<Item = &'a LvId>,
    percent_max: f64,
) -> Result<()> {
    let mut pools = BTreeSet::new();
    for id in volumes {
        pools.extend(listing.find(id)?.and_then(|lv| lv.pool));
    }
    pools
        .iter()
        .try_for_each(|pool| spare_bytes(listing, pool, percent_max).map(drop))
}

/// Bytes that may be written to a pool until it is as full as it may be at the start of a sync; an error if it
/// already is.
pub(super) fn free_bytes(listing: &Listing, pool: &LvId) -> Result<u64> {
    spare_bytes(listing, pool, POOL_PERCENT_MAX)
}

fn spare_bytes(listing: &Listing, pool: &LvId, percent_max: f64) -> Result<u64> {
    match listing.find(pool)? {
        Some(found) => lvm::pool_of(found)?.spare_bytes(percent_max),
        None => Err(Error::new(
            Kind::NotFound,
            format!("there is no thin pool {pool}"),
        )),
    }
}

/// Bytes that a fork left behind takes already.
pub(super) fn fork_bytes(listing: &Listing, lv: &LvId) -> Result<u64> {
    let Some(fork) = listing.find(&fork_of(lv)?)? else {
        return Ok(0);
    };
    Ok(match fork.data_percent {
        Some(percent) => (fork.size as f64 * percent / 100.0) as u64,
        // Not known: then it does not count, which asks for more room rather than less.
        None => thin::mapped_in(listing, &fork).map_or(0, |mapped| mapped.total()),
    })
}

/// Waits until nobody has the fork open: an agent whose link was cut may need a while to notice.
fn idle(mut fork: Lv, until: Instant) -> Result<Lv> {
    while fork.open {
        if Instant::now() >= until {
            return Err(Error::new(
                Kind::Busy,
                format!("{} is in use by another process", fork.id),
            )
            .advise("find out who uses it with fuser or lsblk"));
        }
        std::thread::sleep(IDLE_POLL);
        fork = lvm::get(&fork.id)?;
    }
    Ok(fork)
}

pub(super) fn has_fork(
    listing: &Listing,
    lv: &LvId,
    owner: &OwnerTag,
    parent: Option<u64>,
) -> Result<bool> {
    let found = listing.owned(&fork_of(lv)?, owner)?;
    Ok(is_based_on(found.as_ref(), &base_tag(parent)?))
}

pub(super) fn ensure_fork(
    listing: &Listing,
    (lv, pool): (&LvId, &LvId),
    owner: &OwnerTag,
    parent: Option<u64>,
    size: u64,
    until: Instant,
) -> Result<PathBuf> {
    let fork = fork_of(lv)?;
    let base = base_tag(parent)?;
    let left = match listing.owned(&fork, owner)? {
        Some(left) => Some(idle(left, until)?),
        None => None,
    };
    let left = match left {
        Some(left) if !left.has_tag(&base) => {
            lvm::remove_listed(listing, std::slice::from_ref(&fork), owner)?;
            None
        }
        other => other,
    };
    let found = match (left, parent) {
        (Some(left), _) if left.kind != LvKind::Thin => {
            return Err(Error::new(
                Kind::Refused,
                format!("volume {fork} is not a thin volume"),
            ));
        }
        (Some(left), _) => left,
        (None, None) => {
            lvm::create_thin(pool, fork.name(), size, &[owner.tag().clone(), base])?;
            return Ok(fork.path());
        }
        (None, Some(number)) => {
            let sealed = generation_of(lv, number)?;
            let Some(mut made) = listing.owned(&sealed, owner)? else {
                return Err(gone(&sealed));
            };
            let options = SnapshotOptions {
                tags: vec![owner.tag().clone(), base],
                ..SnapshotOptions::default()
            };
            lvm::snapshot(&sealed, fork.name(), &options)?;
            made.active = true;
            made
        }
    };
    if found.size < size {
        lvm::extend(&fork, size, owner)?;
    }
    if !found.active {
        lvm::activate(&fork)?;
    }
    Ok(fork.path())
}

pub(super) fn await_idle_fork(
    listing: &Listing,
    lv: &LvId,
    owner: &OwnerTag,
    until: Instant,
) -> Result<()> {
    match listing.owned(&fork_of(lv)?, owner)? {
        Some(fork) => idle(fork, until).map(drop),
        None => Ok(()),
    }
}

/// The head was made from the generation when it was sealed, and shares all its blocks; the fork was made from it just
/// now. A write to any of the three since then has broken that: dm-thin gives a shared block that is written a copy of
/// its own. So if fork and head map the same blocks, nothing was written.
pub(super) fn doubt(
    listing: &Listing,
    lv: &LvId,
    owner: &OwnerTag,
    number: u64,
) -> Result<Option<String>> {
    let of_generation = base_tag(Some(number))?;
    let fork = listing.owned(&fork_of(lv)?, owner)?;
    let head = listing.owned(lv, owner)?;
    let (Some(fork), Some(head)) = (fork, head.filter(|head| head.has_tag(&of_generation))) else {
        return Ok(Some(
            "the replica's head is not the newest generation's".into(),
        ));
    };
    match thin::changed_in(listing, &head, &fork)?.is_empty() {
        true => Ok(None),
        false => Ok(Some("the replica was written to".into())),
    }
}

pub(super) fn remove_fork(listing: &Listing, lv: &LvId, owner: &OwnerTag) -> Result<()> {
    lvm::remove_listed(listing, &[fork_of(lv)?], owner)
}

pub(super) fn remove_head(listing: &Listing, lv: &LvId, owner: &OwnerTag) -> Result<()> {
    lvm::remove_listed(listing, &[new_head_of(lv)?, lv.clone()], owner)
}

fn gone(lv: &LvId) -> Error {
    Error::new(Kind::NotFound, format!("generation volume {lv} is gone"))
        .advise("the replica was changed by somebody else; remove it and sync again")
}

/// Gives the fork the name of generation `number`, and tells what is to be sealed under it.
pub(super) fn to_be_sealed(
    listing: &Listing,
    lv: &LvId,
    owner: &OwnerTag,
    number: u64,
) -> Result<Lv> {
    let sealed = generation_of(lv, number)?;
    if let Some(found) = listing.owned(&sealed, owner)? {
        return Ok(found);
    }
    let fork = fork_of(lv)?;
    let Some(mut found) = listing.owned(&fork, owner)? else {
        return Err(gone(&fork));
    };
    found.id = lvm::rename_listed(listing, &fork, sealed.name(), owner)?;
    Ok(found)
}

pub(super) fn seal(listing: &Listing, lv: &LvId, owner: &OwnerTag, number: u64) -> Result<()> {
    lvm::seal(&to_be_sealed(listing, lv, owner, number)?, owner)
}

/// Makes what the head holds now generation `number`. Nothing to do if there is one.
pub(super) fn seal_head(listing: &Listing, lv: &LvId, owner: &OwnerTag, number: u64) -> Result<()> {
    let sealed = generation_of(lv, number)?;
    if listing.owned(&sealed, owner)?.is_some() {
        return Ok(());
    }
    if listing.owned(lv, owner)?.is_none() {
        return Err(gone(lv));
    }
    let options = SnapshotOptions {
        read_only: true,
        skip_activation: true,
        tags: vec![owner.tag().clone()],
        ..SnapshotOptions::default()
    };
    lvm::snapshot(lv, sealed.name(), &options).map(drop)
}

/// Makes what is to become the head, beside the present one. Nothing to do if that is it already.
pub(super) fn prepare_head(
    listing: &Listing,
    lv: &LvId,
    owner: &OwnerTag,
    number: u64,
) -> Result<()> {
    let base = base_tag(Some(number))?;
    if is_based_on(listing.owned(lv, owner)?.as_ref(), &base) {
        return Ok(());
    }
    let fresh = new_head_of(lv)?;
    match listing.owned(&fresh, owner)? {
        Some(left) if left.has_tag(&base) => return Ok(()),
        Some(_) => lvm::remove_listed(listing, std::slice::from_ref(&fresh), owner)?,
        None => {}
    }
    let options = SnapshotOptions {
        // Until somebody starts the VM, as Proxmox leaves volumes of stopped VMs.
        inactive: true,
        tags: vec![owner.tag().clone(), base],
        ..SnapshotOptions::default()
    };
    lvm::snapshot(&generation_of(lv, number)?, fresh.name(), &options).map(drop)
}

/// Puts the heads that were prepared in the places of the present ones, all of which go at once.
pub(super) fn swap_heads(
    listing: &Listing,
    heads: &[&LvId],
    owner: &OwnerTag,
    number: u64,
) -> Result<()> {
    let base = base_tag(Some(number))?;
    let (mut going, mut coming) = (Vec::new(), Vec::new());
    for lv in heads {
        let present = listing.owned(lv, owner)?;
        let fresh = new_head_of(lv)?;
        let prepared = listing.owned(&fresh, owner)?;
        if is_based_on(present.as_ref(), &base) {
            // It has its place already. Then another one is left over.
            going.extend(prepared.map(|left| left.id));
            continue;
        }
        if prepared.is_none() {
            return Err(gone(&fresh));
        }
        going.extend(present.map(|present| present.id));
        coming.push((fresh, lv.name()));
    }
    lvm::remove_listed(listing, &going, owner)?;
    coming
        .iter()
        .try_for_each(|(fresh, name)| lvm::rename_listed(listing, fresh, name, owner).map(drop))
}

fn is_based_on(head: Option<&Lv>, base: &Tag) -> bool {
    head.is_some_and(|head| head.has_tag(base))
}

pub(super) fn has_generation(
    listing: &Listing,
    lv: &LvId,
    owner: &OwnerTag,
    number: u64,
) -> Result<bool> {
    let found = listing.find(&generation_of(lv, number)?)?;
    Ok(found.is_some_and(|lv| lv.is_owned_by(owner)))
}

pub(super) fn sealed(
    listing: &Listing,
    lv: &LvId,
    owner: &OwnerTag,
    number: u64,
) -> Result<Sealed> {
    let id = generation_of(lv, number)?;
    let Some(found) = listing.owned(&id, owner)? else {
        return Err(gone(&id));
    };
    if !found.active {
        lvm::activate(&id)?;
    }
    Ok(Sealed {
        path: id.path(),
        activated: (!found.active).then_some(id),
    })
}

pub(super) fn unseal(
    listing: &Listing,
    lv: &LvId,
    owner: &OwnerTag,
    number: u64,
) -> Result<PathBuf> {
    let id = generation_of(lv, number)?;
    match listing.owned(&id, owner)? {
        Some(found) => lvm::unseal(&found, owner).map(|()| id.path()),
        None => Err(gone(&id)),
    }
}

/// Makes `clone`, owned by `trial`, a writable snapshot of generation `number`.
pub(super) fn make_clone(
    listing: &Listing,
    lv: &LvId,
    owner: &OwnerTag,
    number: u64,
    (clone, trial): (&LvId, &OwnerTag),
) -> Result<()> {
    let sealed = generation_of(lv, number)?;
    let Some(found) = listing.owned(&sealed, owner)? else {
        return Err(gone(&sealed));
    };
    if let Some(pool) = &found.pool {
        free_bytes(listing, pool)?;
    }
    let options = SnapshotOptions {
        inactive: true,
        tags: vec![trial.tag().clone()],
        ..SnapshotOptions::default()
    };
    lvm::snapshot(&sealed, clone.name(), &options).map(drop)
}

/// Whether the head maps just the blocks of the generation that it was made from: dm-thin gives a shared block that is
/// written a copy of its own. If the pool cannot tell, it is not said.
pub(super) fn is_head_of(
    listing: &Listing,
    lv: &LvId,
    owner: &OwnerTag,
    number: u64,
) -> Result<bool> {
    let base = base_tag(Some(number))?;
    let head = listing.owned(lv, owner)?;
    let sealed = listing.owned(&generation_of(lv, number)?, owner)?;
    match (head, sealed) {
        (Some(head), Some(sealed)) if head.has_tag(&base) => {
            let changed = thin::changed_in(listing, &sealed, &head);
            Ok(changed.is_ok_and(|changed| changed.is_empty()))
        }
        _ => Ok(false),
    }
}

pub(super) fn distrust_head(
    listing: &Listing,
    lv: &LvId,
    owner: &OwnerTag,
    number: u64,
) -> Result<()> {
    let base = base_tag(Some(number))?;
    let head = new_head_of(lv)?;
    // One that was left may be from before, too.
    lvm::remove_listed(listing, &[head], owner)?;
    match is_based_on(listing.owned(lv, owner)?.as_ref(), &base) {
        true => lvm::del_tag(lv, &base, owner),
        false => Ok(()),
    }
}

pub(super) fn is_taken(listing: &Listing, lv: &LvId, number: u64) -> Result<bool> {
    Ok(listing.find(&generation_of(lv, number)?)?.is_some())
}

/// Makes the volume itself, whatever it holds, the head of generation `number`, and a snapshot of it that generation.
pub(super) fn adopt(lv: &LvId, owner: &OwnerTag, former: &[OwnerTag], number: u64) -> Result<()> {
    let sealed = generation_of(lv, number)?;
    match lvm::find(&sealed)? {
        Some(found) if found.is_owned_by(owner) => {}
        Some(_) => {
            return Err(Error::new(
                Kind::Refused,
                format!("volume {sealed} exists and was not made for this replica"),
            )
            .see(Runbook::WrongVmid))
        }
        None => {
            let options = SnapshotOptions {
                read_only: true,
                skip_activation: true,
                tags: vec![owner.tag().clone()],
                ..SnapshotOptions::default()
            };
            lvm::snapshot(lv, sealed.name(), &options)?;
        }
    }
    lvm::claim(lv, owner, former, &[base_tag(Some(number))?])
}
