//! A replica's volume that takes its whole size in its group. Nothing is shared there, so the fork of volume `V` is a
//! whole copy, `rbs-fork_V`, and the only generation is the head: a sealed fork is `rbs12_V` until it takes the head's
//! place. The one before is removed only then, so there is a complete one at any time.
//!
//! A new volume holds what was on the disk before. The sync overwrites all of it up to the guest's size; what LVM has
//! rounded up behind that is zeroed here.

mod copy;
mod group;

use super::manifest::generation_name;
use super::volume::Sealed;
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::lvm::{self, LvId, OwnerTag, Tag};
use group::{Found, Group};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What the tag begins with that says which generation a volume was made from.
const BASE: &str = "rbs.base=";
/// Pause between two looks at a volume that is in use.
const IDLE_POLL: Duration = Duration::from_millis(500);

pub(super) fn fork_of(lv: &LvId) -> Result<LvId> {
    lv.sibling(format!("rbs-fork_{}", lv.name()))
}

/// What a fork is made as, until it is a whole copy.
fn new_fork_of(lv: &LvId) -> Result<LvId> {
    lv.sibling(format!("rbs-new_{}", lv.name()))
}

pub(super) fn generation_of(lv: &LvId, number: u64) -> Result<LvId> {
    lv.sibling(format!("{}_{}", generation_name(number), lv.name()))
}

fn base_tag(parent: Option<u64>) -> Result<Tag> {
    Tag::new(format!("{BASE}{}", parent.unwrap_or(0)))
}

fn gone(lv: &LvId) -> Error {
    Error::new(Kind::NotFound, format!("generation volume {lv} is gone"))
        .advise("the replica was changed by somebody else; remove it and sync again")
}

fn in_use(lv: &LvId) -> Error {
    Error::new(Kind::Busy, format!("volume {lv} is in use"))
        .advise("stop the VM that uses it, or find out who does with fuser or lsblk")
}

pub(super) fn check(group: &dyn Group, lv: &LvId, owner: &OwnerTag) -> Result<()> {
    if group.owned(lv, owner)?.is_some_and(|head| head.open) {
        return Err(in_use(lv));
    }
    group.owned(&fork_of(lv)?, owner)?;
    group.owned(&new_fork_of(lv)?, owner)?;
    Ok(())
}

fn bytes(found: Option<Found>) -> u64 {
    found.map_or(0, |found| found.size)
}

/// Bytes that a fork left behind takes already.
pub(super) fn fork_bytes(group: &dyn Group, lv: &LvId) -> Result<u64> {
    let (fork, new) = (group.find(&fork_of(lv)?)?, group.find(&new_fork_of(lv)?)?);
    Ok(bytes(fork) + bytes(new))
}

pub(super) fn head_bytes(group: &dyn Group, lv: &LvId) -> Result<u64> {
    group.find(lv).map(bytes)
}

/// Whether there is a head, and no fork.
pub(super) fn is_without_fork(group: &dyn Group, lv: &LvId, owner: &OwnerTag) -> Result<bool> {
    Ok(group.owned(lv, owner)?.is_some() && group.owned(&fork_of(lv)?, owner)?.is_none())
}

/// Makes the head the fork. It is the base of nothing any more.
pub(super) fn fork_in_place(group: &dyn Group, lv: &LvId, owner: &OwnerTag) -> Result<()> {
    match group.owned(lv, owner)? {
        None => Err(gone(lv)),
        Some(head) if head.open => Err(in_use(lv)),
        Some(_) => {
            group.rebase(lv, &base_tag(None)?, owner)?;
            crash::point("thick in place");
            group.rename(lv, &fork_of(lv)?, owner)
        }
    }
}

pub(super) fn has_fork(
    group: &dyn Group,
    lv: &LvId,
    owner: &OwnerTag,
    parent: Option<u64>,
) -> Result<bool> {
    let base = base_tag(parent)?;
    let fork = group.owned(&fork_of(lv)?, owner)?;
    Ok(fork.is_some_and(|fork| fork.has(&base)))
}

/// Waits until nobody has the fork open: an agent whose link was cut may need a while to notice.
pub(super) fn await_idle_fork(
    group: &dyn Group,
    lv: &LvId,
    owner: &OwnerTag,
    until: Instant,
) -> Result<()> {
    let fork = fork_of(lv)?;
    while group.owned(&fork, owner)?.is_some_and(|found| found.open) {
        if Instant::now() >= until {
            return Err(in_use(&fork));
        }
        std::thread::sleep(IDLE_POLL);
        group.look_again();
    }
    Ok(())
}

pub(super) fn ensure_fork(
    group: &dyn Group,
    lv: &LvId,
    owner: &OwnerTag,
    parent: Option<u64>,
    size: u64,
    until: Instant,
) -> Result<PathBuf> {
    let fork = fork_of(lv)?;
    let base = base_tag(parent)?;
    await_idle_fork(group, lv, owner, until)?;
    let left = group.owned(&fork, owner)?;
    match left {
        Some(left) if left.has(&base) => {
            if left.size < size {
                group.extend(&fork, size, owner)?;
            }
        }
        left => {
            if left.is_some() {
                group.remove(&fork, owner)?;
            }
            make_fork(group, lv, owner, parent, size)?;
        }
    }
    let path = group.activate(&fork)?;
    copy::zero_from(&path, size)?;
    Ok(path)
}

/// Makes the fork under another name first, so that a fork that exists always is a whole copy.
fn make_fork(
    group: &dyn Group,
    lv: &LvId,
    owner: &OwnerTag,
    parent: Option<u64>,
    size: u64,
) -> Result<()> {
    let fresh = new_fork_of(lv)?;
    if group.owned(&fresh, owner)?.is_some() {
        group.remove(&fresh, owner)?;
    }
    let from = match parent {
        None => None,
        Some(number) => Some(generation(group, lv, owner, number)?),
    };
    group.create(&fresh, size, &[owner.tag().clone(), base_tag(parent)?])?;
    if let Some((from, found)) = from {
        let to = group.activate(&fresh)?;
        let source = group.activate(&from)?;
        let copied = copy::copy(&source, &to, size);
        if !found.active {
            // It is the head, which a stopped VM does not need active.
            group.rest(&from);
        }
        copied?;
    }
    crash::point("thick copied");
    group.rename(&fresh, &fork_of(lv)?, owner)
}

/// The volume that is generation `number`: sealed, or the head.
fn generation(
    group: &dyn Group,
    lv: &LvId,
    owner: &OwnerTag,
    number: u64,
) -> Result<(LvId, Found)> {
    let sealed = generation_of(lv, number)?;
    if let Some(found) = group.owned(&sealed, owner)? {
        return Ok((sealed, found));
    }
    match head_is(group, lv, owner, number)? {
        Some(found) => Ok((lv.clone(), found)),
        None => Err(gone(&sealed)),
    }
}

/// The head, if that is generation `number`.
fn head_is(group: &dyn Group, lv: &LvId, owner: &OwnerTag, number: u64) -> Result<Option<Found>> {
    let base = base_tag(Some(number))?;
    Ok(group.owned(lv, owner)?.filter(|head| head.has(&base)))
}

pub(super) fn remove_fork(group: &dyn Group, lv: &LvId, owner: &OwnerTag) -> Result<()> {
    group.remove(&new_fork_of(lv)?, owner)?;
    group.remove(&fork_of(lv)?, owner)
}

pub(super) fn remove_head(group: &dyn Group, lv: &LvId, owner: &OwnerTag) -> Result<()> {
    group.remove(lv, owner)
}

pub(super) fn seal(group: &dyn Group, lv: &LvId, owner: &OwnerTag, number: u64) -> Result<()> {
    let sealed = generation_of(lv, number)?;
    if group.owned(&sealed, owner)?.is_some() || head_is(group, lv, owner, number)?.is_some() {
        return Ok(());
    }
    let fork = fork_of(lv)?;
    match group.owned(&fork, owner)? {
        Some(_) => group.rename(&fork, &sealed, owner),
        None => Err(gone(&fork)),
    }
}

/// Puts the generation in the place of the present head.
pub(super) fn swap_head(group: &dyn Group, lv: &LvId, owner: &OwnerTag, number: u64) -> Result<()> {
    let sealed = generation_of(lv, number)?;
    if group.owned(&sealed, owner)?.is_none() {
        // It has that place already.
        return match head_is(group, lv, owner, number)? {
            Some(_) => Ok(()),
            None => Err(gone(&sealed)),
        };
    }
    group.rebase(&sealed, &base_tag(Some(number))?, owner)?;
    crash::point("thick rebased");
    // Refused if it is in use.
    group.remove(lv, owner)?;
    crash::point("thick removed");
    group.rename(&sealed, lv, owner)?;
    group.rest(lv);
    Ok(())
}

pub(super) fn has_generation(
    group: &dyn Group,
    lv: &LvId,
    owner: &OwnerTag,
    number: u64,
) -> Result<bool> {
    let sealed = group.find(&generation_of(lv, number)?)?;
    let head = group.find(lv)?;
    let base = base_tag(Some(number))?;
    Ok(sealed.is_some_and(|found| found.has(owner.tag()))
        || head.is_some_and(|found| found.has(owner.tag()) && found.has(&base)))
}

pub(super) fn sealed(
    group: &dyn Group,
    lv: &LvId,
    owner: &OwnerTag,
    number: u64,
) -> Result<Sealed> {
    let (id, found) = generation(group, lv, owner, number)?;
    Ok(Sealed {
        path: group.activate(&id)?,
        activated: (!found.active).then_some(id),
    })
}

pub(super) fn unseal(
    group: &dyn Group,
    lv: &LvId,
    owner: &OwnerTag,
    number: u64,
) -> Result<PathBuf> {
    let (id, _) = generation(group, lv, owner, number)?;
    group.activate(&id)
}

/// Makes a volume that was nobody's, or one of `former` owners, the head, which is generation `number`.
pub(super) fn adopt(lv: &LvId, owner: &OwnerTag, former: &[OwnerTag], number: u64) -> Result<()> {
    lvm::claim(lv, owner, former, &[base_tag(Some(number))?])
}

pub(super) fn is_taken(group: &dyn Group, lv: &LvId, number: u64) -> Result<bool> {
    Ok(group.find(&generation_of(lv, number)?)?.is_some())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
