//! Which chunks of a device are mapped, if it is a thin volume.

use super::block::Role;
use crate::error::{Kind, Result};
use crate::image::{Room, ThinMap};
use crate::lvm::{self, Listing, LvKind, Pool};
use crate::range::{ByteRange, RangeSet};
use crate::thin;
use std::cell::Cell;
use std::path::Path;

/// The mapping of the thin volume at `path`; `None` for any other device.
///
/// Where the pool cannot tell (somebody else holds its metadata snapshot, or its tools are missing),
/// all of the volume is taken for data, and `note` says so: slower, never wrong. A target in a pool that does not zero its
/// chunks is the exception: writing there without knowing the mapping could expose old bytes.
pub(super) fn of(path: &Path, role: Role, note: &Cell<Option<String>>) -> Result<Option<ThinMap>> {
    let listing = Listing::default();
    let Some(lv) = listing.find_by_path(path)? else {
        return Ok(None);
    };
    let (LvKind::Thin, Some(pool)) = (lv.kind, &lv.pool) else {
        return Ok(None);
    };
    let pool = lvm::pool_of(listing.get(pool)?)?;
    let mapped = match thin::mapped_in(&listing, &lv) {
        Ok(mapped) => mapped,
        Err(e) if role == Role::Target && !pool.zeroes_new => {
            let e = match e.kind() {
                Kind::Busy => e.advise("wait until the other user of the pool's metadata is done"),
                _ => e,
            };
            return Err(e.context(format!("cannot tell what {lv} maps", lv = lv.id)));
        }
        Err(e) => {
            note.set(Some(format!("all of {} is read: {}", lv.id, e.message())));
            whole(lv.size)
        }
    };
    let map = ThinMap::new(lv.size, pool.chunk_bytes, pool.zeroes_new, &mapped);
    Ok(Some(match role {
        Role::Source => map,
        Role::Target => map.with_room(room_in(pool)),
    }))
}

/// What may still be written to a pool.
fn room_in(pool: Pool) -> Room {
    Room::new(pool.id.to_string(), move || {
        pool.look_again()?
            .spare_bytes(lvm::POOL_PERCENT_WRITING_MAX)
    })
}

fn whole(size: u64) -> RangeSet {
    [ByteRange::new(0, size)].into_iter().collect()
}
