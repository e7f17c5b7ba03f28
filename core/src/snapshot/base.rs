//! Points in time that stay when their run has ended: what changed since can be told by comparing with them.
//!
//! A base is the read-only thin snapshot that was sent, marked with the generation it became instead of with its run.
//! There is one for each disk and pair. It keeps the blocks that the guest overwrites, until the next one replaces it.

use super::{PointInTime, SnapshotKind};
use crate::error::Result;
use crate::lvm::{self, Listing, Lv, LvId, OwnerTag, SnapshotOptions, Tag};
use std::collections::BTreeSet;
use uuid::Uuid;

const TAG_PREFIX: &str = "rbs.sent=";

fn tag(number: u64) -> Result<Tag> {
    Tag::new(format!("{TAG_PREFIX}{number}"))
}

/// The snapshot of `origin` that was sent as generation `number` of this owner, if it is there and as it was left.
pub fn base_of(origin: &LvId, owner: &OwnerTag, number: u64) -> Result<Option<Lv>> {
    base_in(&Listing::default(), origin, owner, number)
}

/// The same where `listing` knows the volumes.
pub fn base_in(
    listing: &Listing,
    origin: &LvId,
    owner: &OwnerTag,
    number: u64,
) -> Result<Option<Lv>> {
    let tag = tag(number)?;
    let name = format!("snap_{}_rbs", origin.name());
    let mut found = listing.group(origin.vg())?;
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
    drop_bases_in(&Listing::default(), origins, owner, keep)
}

/// The same where `listing`, which is told, knows the volumes.
pub fn drop_bases_in<'a>(
    listing: &Listing,
    origins: impl Iterator<Item = &'a LvId>,
    owner: &OwnerTag,
    keep: Option<u64>,
) -> Result<()> {
    let keep = keep.map(tag).transpose()?;
    let groups: BTreeSet<&str> = origins.map(LvId::vg).collect();
    let mut old = Vec::new();
    for vg in groups {
        old.extend(listing.group(vg)?.into_iter().filter(|lv| {
            lv.is_owned_by(owner)
                && lv.tags.iter().any(|tag| tag.starts_with(TAG_PREFIX))
                && !keep.as_ref().is_some_and(|keep| lv.has_tag(keep))
        }));
    }
    let old: Vec<LvId> = old.into_iter().map(|lv| lv.id).collect();
    lvm::remove_listed(listing, &old, owner)
}

impl PointInTime {
    /// Lets the thin snapshots stay as the bases of what comes after generation `number`, and QEMU's bitmaps. They are
    /// no longer released with the rest.
    pub fn keep_as_bases(&mut self, number: u64) -> Result<()> {
        self.keep_as_bases_in(&Listing::default(), number)
    }

    /// The same where `listing` knows the volumes as they are now.
    pub fn keep_as_bases_in(&mut self, listing: &Listing, number: u64) -> Result<()> {
        self.sealed = true;
        let ids = self.thin_snapshots();
        if ids.is_empty() {
            return Ok(());
        }
        let snapshots = ids.iter().map(|id| listing.get(id));
        let snapshots = snapshots.collect::<Result<Vec<_>>>()?;
        lvm::deactivate_all(&ids)?;
        let (run, sent) = (super::thin::run_tag(&self.run)?, tag(number)?);
        lvm::exchange_tag(&snapshots, &run, &sent, &self.owner)?;
        self.disks
            .retain(|disk| !matches!(&disk.kind, SnapshotKind::Thin(_)));
        Ok(())
    }
}
