//! What a disk really is, whichever way it is named.

use super::DiskSource;
use crate::error::{Error, Kind, Result};
use crate::lvm::{Listing, Lv};
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

pub(super) enum Disk {
    Lv(Box<Lv>),
    /// A regular file, by a path without links.
    File(PathBuf),
    /// A block device that is no logical volume.
    Device(PathBuf),
}

/// Fails with [`Kind::NotFound`] if it does not exist.
pub(super) fn resolve(listing: &Listing, source: &DiskSource) -> Result<Disk> {
    let path = match source {
        DiskSource::Lv(id) => return Ok(Disk::Lv(Box::new(listing.get(id)?))),
        DiskSource::Path(path) => path,
    };
    if let Some(lv) = listing.find_by_path(path)? {
        return Ok(Disk::Lv(Box::new(lv)));
    }
    let failed = |e| Error::io(format!("cannot find {}", path.display()), e);
    let real = fs::canonicalize(path).map_err(failed)?;
    let found = fs::metadata(&real).map_err(failed)?.file_type();
    if found.is_file() {
        Ok(Disk::File(real))
    } else if found.is_block_device() {
        Ok(Disk::Device(real))
    } else {
        Err(Error::new(
            Kind::Usage,
            format!("{} is neither a file nor a block device", path.display()),
        ))
    }
}
