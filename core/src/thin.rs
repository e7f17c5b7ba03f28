//! Which bytes of a thin volume are mapped, read from the pool's own metadata.
//!
//! The kernel has no call for it: SEEK_DATA and FIEMAP fail on block devices. So the pool is asked to keep
//! a snapshot of its metadata still (there can be one at a time), `thin_dump` prints the one volume's
//! mappings from it, and it is released as soon as thin_dump has ended.
//!
//! The answer holds for the moment of the reservation: for a volume nobody writes, such as a read-only
//! snapshot, it stays true. On any error the caller can still treat the whole volume as data.

mod delta;
mod dump;
mod reserve;
mod xml;

use crate::cmd::{Cmd, Tool};
use crate::error::{Error, Kind, Result};
use crate::lvm::{Listing, Lv, LvId, LvKind};
use crate::range::RangeSet;
use reserve::{Places, Reservation};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long to wait for another user of the metadata snapshot.
const RESERVE_PATIENCE: Duration = Duration::from_secs(10);
/// thin_dump reads some hundred MB of metadata at worst.
const DUMP_TIMEOUT: Duration = Duration::from_secs(600);

/// So many origins behind each other are taken for a mistake.
const ORIGINS_MAX: usize = 10_000;

/// The bytes of the thin volume `lv` that are mapped; all others read zero.
///
/// Of a very scattered volume the set is coarser than the truth, never smaller. Fails with
/// [`Kind::Busy`] if somebody else holds the pool's metadata snapshot, with [`Kind::Refused`] if unmapped
/// does not mean zero (an external origin shows through).
pub fn mapped(lv: &Lv) -> Result<RangeSet> {
    mapped_in(&Listing::default(), lv)
}

/// The same, where `listing` knows the volumes of its group.
pub fn mapped_in(listing: &Listing, lv: &Lv) -> Result<RangeSet> {
    let doing = |e: Error| e.context(format!("cannot list what is mapped of {}", lv.id));
    mapped_at(listing, lv, &Places::system()).map_err(doing)
}

/// The bytes in which the thin volume `new` may differ from `old`, another one of its pool: chunks that are not
/// shared any more, whether or not their content differs. Both must be volumes that nobody writes. Fails as [`mapped`]
/// does.
pub fn changed(old: &Lv, new: &Lv) -> Result<RangeSet> {
    changed_in(&Listing::default(), old, new)
}

/// The same, where `listing` knows the volumes of their group.
pub fn changed_in(listing: &Listing, old: &Lv, new: &Lv) -> Result<RangeSet> {
    let doing = |e: Error| {
        e.context(format!(
            "cannot list what {} changed since {}",
            new.id, old.id
        ))
    };
    changed_at(listing, old, new, &Places::system()).map_err(doing)
}

fn changed_at(listing: &Listing, old: &Lv, new: &Lv, places: &Places) -> Result<RangeSet> {
    let (pool, left) = in_pool(old)?;
    let (other, right) = in_pool(new)?;
    if pool != other {
        return Err(Error::new(Kind::Usage, "they are in different pools"));
    }
    check_no_external_origin(listing, old, pool)?;
    check_no_external_origin(listing, new, pool)?;
    let devices = ["--snap1", &left.to_string(), "--snap2", &right.to_string()];
    with_metadata(pool, places, |device| {
        Cmd::new(Tool::ThinDelta)
            .arg("-m")
            .args(devices)
            .arg(device)
            .timeout(DUMP_TIMEOUT)
            .stream(|xml| delta::parse(xml, left, right, new.size))
    })
}

fn in_pool(lv: &Lv) -> Result<(&LvId, u32)> {
    match (lv.kind, &lv.pool, lv.thin_id) {
        (LvKind::Thin, Some(pool), Some(thin_id)) => Ok((pool, thin_id)),
        _ => Err(Error::new(
            Kind::Usage,
            format!("{} is not a thin volume", lv.id),
        )),
    }
}

/// Runs `look` on the pool's metadata while that is held still.
fn with_metadata<T>(
    pool: &LvId,
    places: &Places,
    look: impl FnOnce(PathBuf) -> Result<T>,
) -> Result<T> {
    let reservation = Reservation::take(pool, places, RESERVE_PATIENCE)?;
    let found = look(metadata_device(pool));
    // A reservation that stays would make the pool's metadata grow for ever: that is worth an error.
    let released = reservation.release();
    let found = found?;
    released?;
    Ok(found)
}

/// A door for the fuzzer: reads the output of thin_delta.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn parse_delta(xml: &[u8], left: u32, right: u32, size: u64) -> Result<RangeSet> {
    delta::parse(xml, left, right, size)
}

/// A door for the fuzzer: reads the output of thin_dump.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn parse_dump(xml: &[u8], thin_id: u32, size: u64) -> Result<RangeSet> {
    dump::parse(xml, thin_id, size)
}

fn mapped_at(listing: &Listing, lv: &Lv, places: &Places) -> Result<RangeSet> {
    let (pool, thin_id) = in_pool(lv)?;
    check_no_external_origin(listing, lv, pool)?;
    with_metadata(pool, places, |device| {
        Cmd::new(Tool::ThinDump)
            .args(["-m", "--dev-id", &thin_id.to_string()])
            .arg(device)
            .timeout(DUMP_TIMEOUT)
            .stream(|xml| dump::parse(xml, thin_id, lv.size))
    })
}

/// Unmapped parts of a volume with an external origin show that origin, which is in no pool or another. So do those of
/// its snapshots, whose own origin is a volume like any other.
fn check_no_external_origin(listing: &Listing, lv: &Lv, pool: &LvId) -> Result<()> {
    let mut origin = lv.origin.clone();
    let mut seen = 0;
    while let Some(id) = origin {
        match listing.find(&id)? {
            Some(found) if found.pool.as_ref() != Some(pool) => {
                return Err(Error::new(
                    Kind::Refused,
                    format!("it shows its external origin {id} where nothing is mapped"),
                ))
            }
            Some(found) => origin = found.origin,
            None => return Ok(()),
        }
        seen += 1;
        if seen > ORIGINS_MAX {
            return Err(Error::new(Kind::Tool, "its origins have no end"));
        }
    }
    Ok(())
}

fn metadata_device(pool: &LvId) -> PathBuf {
    Path::new("/dev/mapper").join(format!("{}_tmeta", pool.mapper_name()))
}
