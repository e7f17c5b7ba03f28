//! Steps of a seal that concern all disks of a generation.

use super::listing::Listing;
use super::manifest::Generation;
use super::thin;
use super::volume::{Location, Volume};
use crate::crash;
use crate::error::Result;
use crate::lvm::{self, OwnerTag};

/// Seals the forks of all disks of a generation. Those in thin pools together: each call of LVM costs a scan.
pub(super) fn seal_all(generation: &Generation, listing: &Listing) -> Result<()> {
    let (number, owner) = (generation.number, OwnerTag::new(generation.pair));
    let mut forks = Vec::new();
    each_disk(generation, listing, "seal", |volume| {
        match volume.location {
            Location::ThinLv { lv, .. } => {
                forks.push(thin::to_be_sealed(listing, lv, &owner, number)?);
            }
            _ => volume.seal(number)?,
        }
        Ok(())
    })?;
    lvm::seal_all(&forks, &owner)
}

/// Makes what was prepared the heads of all disks of a generation.
pub(super) fn swap_heads(generation: &Generation, listing: &Listing) -> Result<()> {
    let (number, owner) = (generation.number, OwnerTag::new(generation.pair));
    let mut heads = Vec::new();
    each_disk(generation, listing, "swap", |volume| {
        match volume.location {
            Location::ThinLv { lv, .. } => heads.push(lv),
            _ => volume.swap_head(number)?,
        }
        Ok(())
    })?;
    thin::swap_heads(listing, &heads, &owner, number)
}

/// Does something to all disks of a generation. Tests may crash before any disk's turn: at `seal scsi0`.
pub(super) fn each_disk<'g>(
    generation: &'g Generation,
    listing: &'g Listing,
    step: &str,
    mut act: impl FnMut(Volume<'g>) -> Result<()>,
) -> Result<()> {
    for disk in &generation.disks {
        crash::point(&format!("{step} {}", disk.key));
        act(Volume {
            location: &disk.location,
            pair: generation.pair,
            listing,
        })
        .map_err(|e| e.context(format!("disk {}", disk.key)))?;
    }
    Ok(())
}
