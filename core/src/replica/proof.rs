//! Whether a fork that was just made holds exactly what was sealed: what changed on the source since may only be
//! written to that.

use super::layout::Layout;
use super::listing::Listing;
use super::manifest::Generation;
use super::store::{read_json, write_json};
use super::target::Proof;
use super::volume::Volume;
use crate::error::Result;
use crate::sync::{DigestTable, Geometry};
use std::path::PathBuf;

/// Of the fork of `volume`, made from `newest`. Fails only where going on makes no sense.
pub(super) fn of_fork(layout: &Layout, volume: &Volume, newest: &Generation) -> Result<Proof> {
    let doubt = |why: &str| Ok(Proof::Doubt(why.to_owned()));
    let mut disks = newest.disks.iter();
    let Some(index) = disks.position(|d| d.location == *volume.location) else {
        return doubt("the newest generation does not have it");
    };
    let Some(path) = table_of(layout, newest, index)? else {
        return doubt("the digests of its segments are not there");
    };
    let stamp = read_json(&layout.stamp(newest.pair, newest.number, index))?;
    match volume.doubt(newest.number, stamp) {
        Ok(None) => Ok(Proof::Sealed(path)),
        Ok(Some(why)) => Ok(Proof::Doubt(why)),
        Err(e) => Ok(Proof::Doubt(e.message())),
    }
}

/// The table of the digests of a disk's segments as they were sealed, if it is there and agrees with the manifest.
pub(super) fn table_of(
    layout: &Layout,
    newest: &Generation,
    index: usize,
) -> Result<Option<PathBuf>> {
    let disk = &newest.disks[index];
    let path = layout.table(newest.pair, newest.number, index);
    let geometry = Geometry::new(disk.size, disk.leaf_bytes)?;
    let table = DigestTable::open_of(&path, disk.hash, geometry, disk.digest)?;
    Ok(table.map(|_| path))
}

/// Notes of what was just sealed what will be needed for that.
pub(super) fn note(layout: &Layout, generation: &Generation, listing: &Listing) -> Result<()> {
    let (pair, number) = (generation.pair, generation.number);
    for (index, disk) in generation.disks.iter().enumerate() {
        let volume = Volume {
            location: &disk.location,
            pair,
            listing,
        };
        let path = layout.stamp(pair, number, index);
        // A seal that is finished later must not cover up what happened in between.
        if !path.exists() {
            if let Some(stamp) = volume.stamp(number)? {
                write_json(&path, &stamp)?;
            }
        }
    }
    Ok(())
}
