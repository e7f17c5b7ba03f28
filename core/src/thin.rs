//! Which bytes of a thin volume are mapped, read from the pool's own metadata.
//!
//! The kernel has no call for it: SEEK_DATA and FIEMAP fail on block devices. So the pool is asked to keep
//! a snapshot of its metadata still (there can be one at a time), `thin_dump` prints the one volume's
//! mappings from it, and it is released as soon as thin_dump has ended.
//!
//! The answer holds for the moment of the reservation: for a volume nobody writes, such as a read-only
//! snapshot, it stays true. On any error the caller can still treat the whole volume as data.

mod dump;
mod reserve;

use crate::cmd::{Cmd, Tool};
use crate::error::{Error, Kind, Result};
use crate::lvm::{self, Lv, LvId, LvKind};
use crate::range::RangeSet;
use reserve::{Places, Reservation};
use std::path::Path;
use std::time::Duration;

/// How long to wait for another user of the metadata snapshot.
const RESERVE_PATIENCE: Duration = Duration::from_secs(10);
/// thin_dump reads some hundred MB of metadata at worst.
const DUMP_TIMEOUT: Duration = Duration::from_secs(600);

/// The bytes of the thin volume `lv` that are mapped; all others read zero.
///
/// Of a very scattered volume the set is coarser than the truth, never smaller. Fails with
/// [`Kind::Busy`] if somebody else holds the pool's metadata snapshot, with [`Kind::Refused`] if unmapped
/// does not mean zero (an external origin shows through).
pub fn mapped(lv: &Lv) -> Result<RangeSet> {
    let doing = |e: Error| e.context(format!("cannot list what is mapped of {}", lv.id));
    mapped_in(lv, &Places::system()).map_err(doing)
}

/// A door for the fuzzer: reads the output of thin_dump.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn parse_dump(xml: &[u8], thin_id: u32, size: u64) -> Result<RangeSet> {
    dump::parse(xml, thin_id, size)
}

fn mapped_in(lv: &Lv, places: &Places) -> Result<RangeSet> {
    let (LvKind::Thin, Some(pool), Some(thin_id)) = (lv.kind, &lv.pool, lv.thin_id) else {
        return Err(Error::new(Kind::Usage, "it is not a thin volume"));
    };
    check_no_external_origin(lv, pool)?;
    let reservation = Reservation::take(pool, places, RESERVE_PATIENCE)?;
    let dumped = Cmd::new(Tool::ThinDump)
        .args(["-m", "--dev-id", &thin_id.to_string()])
        .arg(metadata_device(pool))
        .timeout(DUMP_TIMEOUT)
        .stream(|xml| dump::parse(xml, thin_id, lv.size));
    // A reservation that stays would make the pool's metadata grow for ever: that is worth an error.
    let released = reservation.release();
    let mapped = dumped?;
    released?;
    Ok(mapped)
}

/// Unmapped parts of a volume with an external origin show that origin, which is in no pool or another.
fn check_no_external_origin(lv: &Lv, pool: &LvId) -> Result<()> {
    let Some(origin) = &lv.origin else {
        return Ok(());
    };
    match lvm::find(origin)? {
        Some(found) if found.pool.as_ref() != Some(pool) => Err(Error::new(
            Kind::Refused,
            format!("it shows its external origin {origin} where nothing is mapped"),
        )),
        _ => Ok(()),
    }
}

fn metadata_device(pool: &LvId) -> std::path::PathBuf {
    Path::new("/dev/mapper").join(format!("{}_tmeta", pool.mapper_name()))
}
