//! Thin snapshots as points in time.
//!
//! They are called `snap_DISK_rbsRUN`: Proxmox takes a name of this form for a snapshot of the volume,
//! does not list it as a disk, and removes it when it removes the disk.

use crate::error::Result;
use crate::lvm::{self, Lv, LvId, OwnerTag, SnapshotOptions, Tag};

const TAG_PREFIX: &str = "rbs.pit=";

/// The tag of a snapshot of this run.
pub(super) fn run_tag(run: &str) -> Result<Tag> {
    Tag::new(format!("{TAG_PREFIX}{run}"))
}

/// The name of the snapshot of `origin` in this run. Fails if it gets too long.
pub(super) fn name(origin: &LvId, run: &str) -> Result<LvId> {
    origin.sibling(format!("snap_{}_rbs{run}", origin.name()))
}

/// The tags of a snapshot of this run.
pub(super) fn tags(run: &str, owner: &OwnerTag) -> Result<Vec<Tag>> {
    Ok(vec![owner.tag().clone(), run_tag(run)?])
}

/// Takes it. Unless it is to be so `at_once` it is not active yet: that takes time the guest should not wait for.
pub(super) fn take(
    origin: &LvId,
    snapshot: &LvId,
    run: &str,
    owner: &OwnerTag,
    at_once: bool,
) -> Result<()> {
    let options = SnapshotOptions {
        read_only: true,
        skip_activation: true,
        at_once,
        tags: tags(run, owner)?,
        ..SnapshotOptions::default()
    };
    lvm::snapshot(origin, snapshot.name(), &options).map(drop)
}

/// `lv` was made by [`take`] for some run of this owner. Told by name and tags, not by LVM's own origin,
/// which is forgotten when that is removed.
pub(super) fn is_ours(lv: &Lv, owner: &OwnerTag) -> bool {
    let runs = lv
        .tags
        .iter()
        .filter_map(|tag| tag.strip_prefix(TAG_PREFIX));
    let name = lv.id.name();
    lv.is_owned_by(owner)
        && name.starts_with("snap_")
        && runs
            .into_iter()
            .any(|run| name.ends_with(&format!("_rbs{run}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_what_proxmox_takes_for_snapshots() {
        let origin: LvId = "pve/vm-101-disk-0".parse().unwrap();
        let snapshot = name(&origin, "0af3").unwrap();
        assert_eq!(snapshot.to_string(), "pve/snap_vm-101-disk-0_rbs0af3");
        let long: LvId = format!("pve/{}", "x".repeat(115)).parse().unwrap();
        assert!(name(&long, "0af3").is_err());
    }
}
