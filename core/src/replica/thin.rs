//! A replica's volume in an LVM thin pool. For volume `V` the generation `rbs12` is the snapshot
//! `snap_V_rbs12`, as Proxmox names its own, so that it goes when Proxmox removes `V`.

use super::manifest::generation_name;
use crate::error::{Error, Kind, Result};
use crate::lvm::{self, LvId, LvKind, OwnerTag, SnapshotOptions, Tag};
use std::path::PathBuf;

/// Data and metadata of a pool are never filled above this, in percent.
const POOL_PERCENT_MAX: f64 = 95.0;

fn fork_of(lv: &LvId) -> Result<LvId> {
    lv.sibling(format!("rbs-fork_{}", lv.name()))
}

fn generation_of(lv: &LvId, number: u64) -> Result<LvId> {
    lv.sibling(format!("snap_{}_{}", lv.name(), generation_name(number)))
}

/// The tag that says which generation a fork or a head was made from.
fn base_tag(parent: Option<u64>) -> Result<Tag> {
    Tag::new(format!("rbs.base={}", parent.unwrap_or(0)))
}

fn owned(lv: &LvId, owner: &OwnerTag) -> Result<Option<lvm::Lv>> {
    match lvm::find(lv)? {
        Some(found) if !found.is_owned_by(owner) => Err(Error::new(
            Kind::Refused,
            format!("volume {lv} exists and was not made for this replica"),
        )
        .advise("remove or rename it, or choose another storage or VM id on the target")),
        other => Ok(other),
    }
}

pub(super) fn check(lv: &LvId, owner: &OwnerTag) -> Result<()> {
    if let Some(head) = owned(lv, owner)? {
        if head.open {
            return Err(Error::new(Kind::Busy, format!("volume {lv} is in use"))
                .advise("stop the VM that uses it, or unmount it"));
        }
    }
    owned(&fork_of(lv)?, owner)?;
    Ok(())
}

/// Bytes that may be written to a pool until it is as full as it may become; an error if it already is.
pub fn spare_bytes(pool: &LvId) -> Result<u64> {
    let found = lvm::pool(pool)?;
    found.check_healthy()?;
    // No figure: the pool is not active yet, so nobody is filling it.
    let data = found.data_percent.unwrap_or(0.0);
    let metadata = found.metadata_percent.unwrap_or(0.0);
    if data > POOL_PERCENT_MAX || metadata > POOL_PERCENT_MAX {
        return Err(Error::new(
            Kind::Space,
            format!(
                "thin pool {pool} is nearly full: {data:.1}% of data, {metadata:.1}% of metadata"
            ),
        )
        .advise("extend the pool, or remove volumes from it"));
    }
    let reserve = (found.size as f64 * (100.0 - POOL_PERCENT_MAX) / 100.0) as u64;
    Ok(found.free_bytes().saturating_sub(reserve))
}

pub(super) fn ensure_fork(
    lv: &LvId,
    pool: &LvId,
    owner: &OwnerTag,
    parent: Option<u64>,
    size: u64,
) -> Result<PathBuf> {
    let fork = fork_of(lv)?;
    let base = base_tag(parent)?;
    if let Some(left) = owned(&fork, owner)? {
        if !left.has_tag(&base) {
            lvm::remove(&fork, owner)?;
        }
    }
    let mut found = match (lvm::find(&fork)?, parent) {
        (Some(left), _) => left,
        (None, None) => lvm::create_thin(pool, fork.name(), size, &[owner.tag().clone(), base])?,
        (None, Some(number)) => {
            let sealed = generation_of(lv, number)?;
            if owned(&sealed, owner)?.is_none() {
                return Err(gone(&sealed));
            }
            let options = SnapshotOptions {
                read_only: false,
                skip_activation: false,
                tags: vec![owner.tag().clone(), base],
            };
            lvm::get(&lvm::snapshot(&sealed, fork.name(), &options)?)?
        }
    };
    if found.kind != LvKind::Thin {
        return Err(Error::new(
            Kind::Refused,
            format!("volume {fork} is not a thin volume"),
        ));
    }
    if found.size < size {
        found = lvm::extend(&fork, size, owner)?;
    }
    lvm::activate(&found.id)?;
    Ok(found.id.path())
}

fn gone(lv: &LvId) -> Error {
    Error::new(Kind::NotFound, format!("generation volume {lv} is gone"))
        .advise("the replica was changed by somebody else; remove it and sync again")
}

pub(super) fn seal(lv: &LvId, owner: &OwnerTag, number: u64) -> Result<()> {
    let sealed = generation_of(lv, number)?;
    if owned(&sealed, owner)?.is_none() {
        let fork = fork_of(lv)?;
        if owned(&fork, owner)?.is_none() {
            return Err(gone(&fork));
        }
        lvm::rename(&fork, sealed.name(), owner)?;
    }
    let found = lvm::get(&sealed)?;
    if !found.read_only {
        lvm::deactivate(&sealed)?;
        lvm::set_read_only(&sealed, true, owner)?;
    }
    if found.active {
        lvm::deactivate(&sealed)?;
    }
    Ok(())
}

pub(super) fn ensure_head(lv: &LvId, owner: &OwnerTag, number: u64) -> Result<()> {
    let base = base_tag(Some(number))?;
    if let Some(head) = owned(lv, owner)? {
        if head.has_tag(&base) {
            return Ok(());
        }
        lvm::remove(lv, owner)?;
    }
    let options = SnapshotOptions {
        read_only: false,
        skip_activation: false,
        tags: vec![owner.tag().clone(), base],
    };
    lvm::snapshot(&generation_of(lv, number)?, lv.name(), &options)?;
    // Inactive until somebody starts the VM, as Proxmox leaves volumes of stopped VMs.
    lvm::deactivate(lv)
}

pub(super) fn has_generation(lv: &LvId, owner: &OwnerTag, number: u64) -> Result<bool> {
    Ok(owned(&generation_of(lv, number)?, owner)?.is_some())
}

pub(super) fn remove_generation(lv: &LvId, owner: &OwnerTag, number: u64) -> Result<()> {
    lvm::remove(&generation_of(lv, number)?, owner)
}
