//! Logical volumes, through the lvm2 commands.
//!
//! Everything here names volumes by [`LvId`] and counts in bytes. What only looks ([`list`], [`find`],
//! [`find_by_path`], [`pool`], a [`Listing`]) works on any volume; what changes a volume that exists already
//! ([`remove`], [`rename`], [`extend`], [`seal`], [`add_tag`], [`del_tag`], [`retag`]) takes the
//! [`OwnerTag`] it must carry, reads it again right before, and refuses strangers' volumes and, except for
//! tags, open ones. The one exception is [`claim`], which makes a volume ours that was nobody's. Where
//! LVM can check the tag itself, under its own lock, it is told to. Each call of LVM scans all disks and takes the group's
//! lock, so a step that concerns several volumes looks once, and what ends in `_listed` or `_all` takes what was seen.
//!
//! Verbs are idempotent: removing what is gone, or activating what is active, is success.

mod find;
mod group;
mod id;
mod kernel;
mod listing;
mod ops;
mod pool;
mod remove;
mod report;

pub use find::{find, find_by_path, get, id_of_device, list};
pub use group::free_bytes;
pub use id::{LvId, OwnerTag, Tag};
pub use listing::Listing;
pub use ops::{
    activate, activate_all, add_tag, claim, create_thick, create_thin, deactivate, deactivate_all,
    del_tag, exchange_tag, extend, rename, rename_listed, retag, seal, seal_all, snapshot, unseal,
    SnapshotOptions,
};
pub use pool::{pool, pool_of, Pool, PoolMode, PoolStatus, POOL_PERCENT_WRITING_MAX};
pub(crate) use pool::{pool_status, status_of_target};
pub use remove::{remove, remove_all, remove_listed};
pub use report::{Lv, LvKind};

/// A door for the fuzzer: reads the output of `lvs`.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn parse_report(json: &[u8]) -> crate::error::Result<Vec<Lv>> {
    report::parse(json)
}
