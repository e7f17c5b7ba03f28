//! Points in time that stay when their run has ended: what changed since can be told by comparing with them.
//!
//! A base is the read-only thin snapshot that was sent, marked with the generation it became instead of with its run.
//! There is one for each disk and pair. It keeps the blocks that the guest overwrites, until the next one replaces it.

use super::{PointInTime, SnapshotKind};
use crate::error::Result;
use crate::lvm::{self, Lv, LvId, OwnerTag, SnapshotOptions, Tag};
use std::collections::BTreeSet;
use uuid::Uuid;

const TAG_PREFIX: &str = "rbs.sent=";

fn tag(number: u64) -> Result<Tag> {
    Tag::new(format!("{TAG_PREFIX}{number}"))
}

/// The snapshot of `origin` that was sent as generation `number` of this owner, if it is there and as it was left.
pub fn base_of(origin: &LvId, owner: &OwnerTag, number: u64) -> Result<Option<Lv>> {
    let tag = tag(number)?;
    let name = format!("snap_{}_rbs", origin.name());
    let mut found = lvm::list(origin.vg())?;
    found.retain(|lv| {
        lv.is_owned_by(owner) && lv.has_tag(&tag) && lv.read_only && lv.id.name().starts_with(&name)
    });
    Ok(found.pop())
}

/// Keeps what `sealed` holds, a read-only snapshot of `origin`, as the base of what comes after generation `number`. Success,
/// too, if there is one.
pub fn keep_as_base(origin: &LvId, sealed: &LvId, owner: &OwnerTag, number: u64) -> Result<()> {
    if base_of(origin, owner, number)?.is_some() {
        return Ok(());
    }
    let run = Uuid::new_v4().simple().to_string();
    let options = SnapshotOptions {
        read_only: true,
        skip_activation: true,
        tags: vec![owner.tag().clone(), tag(number)?],
        ..SnapshotOptions::default()
    };
    let name = super::thin::name(origin, &run)?;
    lvm::snapshot(sealed, name.name(), &options).map(drop)
}

/// Removes the bases of this owner in the groups of these volumes, but those of generation `keep`.
pub fn drop_bases<'a>(
    origins: impl Iterator<Item = &'a LvId>,
    owner: &OwnerTag,
    keep: Option<u64>,
) -> Result<()> {
    let keep = keep.map(tag).transpose()?;
    let groups: BTreeSet<&str> = origins.map(LvId::vg).collect();
    let mut old = Vec::new();
    for vg in groups {
        old.extend(lvm::list(vg)?.into_iter().filter(|lv| {
            lv.is_owned_by(owner)
                && lv.tags.iter().any(|tag| tag.starts_with(TAG_PREFIX))
                && !keep.as_ref().is_some_and(|keep| lv.has_tag(keep))
        }));
    }
    let old: Vec<LvId> = old.into_iter().map(|lv| lv.id).collect();
    lvm::remove_all(&old, owner)
}

impl PointInTime {
    /// Lets the thin snapshots stay as the bases of what comes after generation `number`, and QEMU's bitmaps. They are
    /// no longer released with the rest.
    pub fn keep_as_bases(&mut self, number: u64) -> Result<()> {
        self.sealed = true;
        let mut kept = Vec::new();
        for disk in &self.disks {
            if let SnapshotKind::Thin(id) = &disk.kind {
                lvm::deactivate(id)?;
                // As long as it has both marks it is a leftover, and goes with the next sweep.
                lvm::add_tag(id, &tag(number)?, &self.owner)?;
                lvm::del_tag(id, &super::thin::run_tag(&self.run)?, &self.owner)?;
                kept.push(id.clone());
            }
        }
        self.disks
            .retain(|disk| !matches!(&disk.kind, SnapshotKind::Thin(id) if kept.contains(id)));
        Ok(())
    }
}
