//! Whether a head is what was sealed, by reading all of it: what is laid over a head that is not would be a disk that never
//! was.

use super::manifest::{DiskRecord, Generation};
use super::verify::params_of;
use super::Location;
use crate::agent::BlockEnd;
use crate::error::{Error, Kind, Result};
use crate::stop::Stop;

/// Refuses heads that are not `generation`, and disks that are not files.
pub(super) fn check_heads(generation: &Generation, stop: &Stop) -> Result<()> {
    for disk in &generation.disks {
        check_head(disk, stop).map_err(|e| {
            e.context(format!(
                "disk {} of generation {}",
                disk.key,
                generation.name()
            ))
        })?;
    }
    Ok(())
}

fn check_head(disk: &DiskRecord, stop: &Stop) -> Result<()> {
    let Location::File { path, format, .. } = &disk.location else {
        return Err(Error::new(
            Kind::Refused,
            format!("{} is no file", disk.location),
        ));
    };
    let (mut image, opened) = BlockEnd::from_medium(path, *format)?;
    let params = params_of(disk)?;
    let mut digest = params.image_digest();
    if opened.size == disk.size {
        let segments = 0..params.geometry.segments();
        image.scan(&params, segments, stop, |index, found| {
            digest.add(index, found?);
            Ok(())
        })?;
        if digest.finish(params.geometry.size()) == disk.digest {
            return Ok(());
        }
    }
    Err(Error::new(
        Kind::Digest,
        format!("{} is not what was sealed", path.display()),
    )
    .advise(
        "somebody has written to it since: 'verify' tells where, and the next sync puts it right",
    ))
}
