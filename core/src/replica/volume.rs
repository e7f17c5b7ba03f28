//! The volumes of a replica, whatever they are made of: fork, seal, head and prune, each step safe to
//! repeat, each touching only what carries the pair's mark.

use super::file::{self, Image, Stamp};
use super::listing::Listing;
use super::manifest::{DiskRecord, Generation};
use super::{thick, thin};
use crate::cmd::Tool;
use crate::error::Result;
use crate::image::ImageFormat;
use crate::lvm::{self, LvId, OwnerTag};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::time::Instant;
use uuid::Uuid;

/// What a volume is on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Location {
    /// A thin volume, and the pool it is to be in.
    ThinLv {
        /// The volume.
        lv: LvId,
        /// Its pool.
        pool: LvId,
    },
    /// A volume that takes its whole size in its group. Nothing can be shared there, so it has one generation.
    ThickLv {
        /// The volume.
        lv: LvId,
    },
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// How the guest's bytes lie in it.
        #[serde(default, skip_serializing_if = "ImageFormat::is_raw")]
        format: ImageFormat,
        /// Its directory is a subvolume of btrfs that is there for it alone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        subvolume: bool,
    },
}

impl Location {
    /// How the guest's bytes lie in the volume.
    pub fn format(&self) -> ImageFormat {
        match self {
            Location::ThinLv { .. } | Location::ThickLv { .. } => ImageFormat::Raw,
            Location::File { format, .. } => *format,
        }
    }

    /// Whether both are the same volume, whatever it holds.
    pub(super) fn is_place_of(&self, other: &Location) -> bool {
        match (self, other) {
            (Location::ThinLv { lv, .. }, Location::ThinLv { lv: other, .. }) => lv == other,
            (Location::ThickLv { lv }, Location::ThickLv { lv: other }) => lv == other,
            (Location::File { path, .. }, Location::File { path: other, .. }) => path == other,
            _ => false,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::ThinLv { lv, .. } | Location::ThickLv { lv } => lv.fmt(f),
            Location::File { path, .. } => path.display().fmt(f),
        }
    }
}

/// A volume of the replica that `pair` owns.
#[derive(Clone, Copy)]
pub(super) struct Volume<'a> {
    pub location: &'a Location,
    pub pair: Uuid,
    /// Where volumes are looked up. To be made to forget once something was changed.
    pub listing: &'a Listing,
}

/// A sealed volume that can be read as long as this lives.
pub(super) struct Sealed {
    pub path: PathBuf,
    /// It was activated for this, and goes back.
    pub activated: Option<LvId>,
}

impl Drop for Sealed {
    fn drop(&mut self) {
        if let Some(lv) = &self.activated {
            // An active snapshot does no harm.
            let _ = lvm::deactivate(lv);
        }
    }
}

impl Volume<'_> {
    fn owner(&self) -> OwnerTag {
        OwnerTag::new(self.pair)
    }

    /// Refuses a volume that exists and is not this pair's, or that somebody has open. Changes nothing.
    pub fn check(&self) -> Result<()> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::check(self.listing, lv, &self.owner()),
            Location::ThickLv { lv } => thick::check(self.listing, lv, &self.owner()),
            Location::File { path, format, .. } => {
                if *format == ImageFormat::Qcow2 {
                    Tool::QemuNbd.path()?;
                    Tool::QemuImg.path()?;
                }
                file::check(path, self.pair)
            }
        }
    }

    /// Free bytes where the volume is.
    pub fn free_bytes(&self) -> Result<u64> {
        match self.location {
            Location::ThinLv { pool, .. } => thin::free_bytes(self.listing, pool),
            Location::ThickLv { lv } => lvm::free_bytes(lv.vg()),
            Location::File { path, .. } => file::free_bytes(path),
        }
    }

    /// Bytes that a fork left by a run that was cut off takes already.
    pub fn fork_bytes(&self) -> Result<u64> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::fork_bytes(self.listing, lv),
            Location::ThickLv { lv } => thick::fork_bytes(self.listing, lv),
            Location::File { path, .. } => file::fork_bytes(path),
        }
    }

    /// Bytes that the head takes, of which a fork may have to be a copy.
    pub fn head_bytes(&self) -> Result<u64> {
        match self.location {
            Location::ThinLv { .. } => Ok(0),
            Location::ThickLv { lv } => thick::head_bytes(self.listing, lv),
            Location::File { path, .. } => Ok(file::head_bytes(path)),
        }
    }

    /// Bytes that a new volume for a disk takes of which `used` of `size` bytes hold data.
    pub fn new_bytes(&self, used: u64, size: u64) -> u64 {
        match self.location {
            Location::ThickLv { .. } => size,
            Location::ThinLv { .. } | Location::File { .. } => used,
        }
    }

    /// Whether there is a head that a fork would have to be a whole copy of, and no fork yet.
    pub fn is_copied(&self) -> Result<bool> {
        match self.location {
            Location::ThinLv { .. } => Ok(false),
            Location::ThickLv { lv } => thick::is_without_fork(self.listing, lv, &self.owner()),
            Location::File { path, .. } => {
                Ok(file::is_without_fork(path, self.pair)? && !file::shares_blocks(path)?)
            }
        }
    }

    /// Makes the head the fork. It is the base of nothing any more.
    pub fn fork_in_place(&self) -> Result<()> {
        match self.location {
            // Its forks cost nothing.
            Location::ThinLv { .. } => Ok(()),
            Location::ThickLv { lv } => thick::fork_in_place(self.listing, lv, &self.owner()),
            Location::File { path, .. } => file::fork_in_place(path, self.pair),
        }
    }

    /// What shares its free space: volumes with the same name compete.
    pub fn space_name(&self) -> String {
        match self.location {
            Location::ThinLv { pool, .. } => format!("thin pool {pool}"),
            Location::ThickLv { lv } => format!("volume group {}", lv.vg()),
            Location::File {
                path, subvolume, ..
            } => {
                let dir = path.parent().unwrap_or(path);
                let dir = match subvolume {
                    true => dir.parent().unwrap_or(dir),
                    false => dir,
                };
                format!("directory {}", dir.display())
            }
        }
    }

    /// Where the fork is, or would be.
    pub fn fork_path(&self) -> Result<PathBuf> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::fork_of(lv).map(|fork| fork.path()),
            Location::ThickLv { lv } => thick::fork_of(lv).map(|fork| fork.path()),
            Location::File { path, .. } => file::fork_of(path),
        }
    }

    /// Whether there is a fork of generation `parent`, so that it would be used again.
    pub fn has_fork(&self, parent: Option<u64>) -> Result<bool> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::has_fork(self.listing, lv, &self.owner(), parent),
            Location::ThickLv { lv } => thick::has_fork(self.listing, lv, &self.owner(), parent),
            Location::File { path, .. } => file::has_fork(path, self.pair, parent),
        }
    }

    /// Makes the fork of generation `parent` ready, at least `size` bytes large, and gives its path.
    /// One left by a run that was cut off is used again if it has the same parent; it may be in use until
    /// `until`.
    pub fn ensure_fork(&self, parent: Option<u64>, size: u64, until: Instant) -> Result<PathBuf> {
        match self.location {
            Location::ThinLv { lv, pool } => {
                thin::ensure_fork(self.listing, (lv, pool), &self.owner(), parent, size, until)
            }
            Location::ThickLv { lv } => {
                thick::ensure_fork(self.listing, lv, &self.owner(), parent, size, until)
            }
            Location::File {
                path,
                format,
                subvolume,
            } => {
                if *subvolume {
                    file::ensure_subvolume(path)?;
                }
                let image = Image::new(path, *format);
                file::ensure_fork(&image, self.pair, parent, size, until)
            }
        }
    }

    /// Puts right what was left in a fork by a program that was killed. One that cannot be put right goes; then this
    /// tells why. It may be in use until `until`.
    pub fn settle_fork(&self, until: Instant) -> Result<Option<String>> {
        match self.location {
            Location::ThinLv { .. } | Location::ThickLv { .. } => Ok(None),
            Location::File { path, format, .. } => {
                file::settle_fork(&Image::new(path, *format), self.pair, until)
            }
        }
    }

    /// Fails unless the fork is whole, of this size, and written by nobody any more. It may be until `until`.
    pub fn check_fork(&self, size: u64, until: Instant) -> Result<()> {
        match self.location {
            Location::ThinLv { .. } | Location::ThickLv { .. } => Ok(()),
            Location::File { path, format, .. } => {
                file::check_fork(&Image::new(path, *format), size, until)
            }
        }
    }

    /// Removes the fork once nobody has it open, which may be at `until`. One that is gone is fine.
    pub fn remove_idle_fork(&self, until: Instant) -> Result<()> {
        match self.location {
            Location::ThinLv { lv, .. } => {
                thin::await_idle_fork(self.listing, lv, &self.owner(), until)?;
                self.remove_fork()
            }
            Location::ThickLv { lv } => {
                thick::await_idle_fork(self.listing, lv, &self.owner(), until)?;
                self.remove_fork()
            }
            Location::File { path, .. } => file::remove_idle_fork(path, self.pair, until),
        }
    }

    /// What shows later that generation `number` was not written to. None is needed where the volumes tell themselves.
    pub fn stamp(&self, number: u64) -> Result<Option<Stamp>> {
        match self.location {
            Location::ThinLv { .. } | Location::ThickLv { .. } => Ok(None),
            Location::File { path, .. } => file::stamp(path, self.pair, number).map(Some),
        }
    }

    /// Why no volume of this kind can show that it was not written to; `None` if it can. Then there is no use in a new
    /// fork either.
    pub fn doubt_of_kind(&self) -> Option<&'static str> {
        match self.location {
            Location::ThinLv { .. } | Location::File { .. } => None,
            Location::ThickLv { .. } => {
                Some("a thick volume does not tell whether it was written to")
            }
        }
    }

    /// Why the fork, which was just made, may hold something else than what was sealed as generation `number`; `None`
    /// if it cannot. `stamp` was made when it was sealed.
    pub fn doubt(&self, number: u64, stamp: Option<Stamp>) -> Result<Option<String>> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::doubt(self.listing, lv, &self.owner(), number),
            Location::ThickLv { .. } => Ok(self.doubt_of_kind().map(str::to_owned)),
            Location::File { path, .. } => file::doubt(path, self.pair, number, stamp),
        }
    }

    /// Removes the fork; one that is gone is fine.
    pub fn remove_fork(&self) -> Result<()> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::remove_fork(self.listing, lv, &self.owner()),
            Location::ThickLv { lv } => thick::remove_fork(self.listing, lv, &self.owner()),
            Location::File { path, .. } => file::remove_fork(path, self.pair),
        }
    }

    /// Turns the fork into generation `number`, read-only.
    pub fn seal(&self, number: u64) -> Result<()> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::seal(self.listing, lv, &self.owner(), number),
            Location::ThickLv { lv } => thick::seal(self.listing, lv, &self.owner(), number),
            Location::File { path, .. } => file::seal(path, self.pair, number),
        }
    }

    /// Makes a writable copy of generation `number` beside the head.
    pub fn prepare_head(&self, number: u64) -> Result<()> {
        match self.location {
            Location::ThinLv { lv, .. } => {
                thin::prepare_head(self.listing, lv, &self.owner(), number)
            }
            // The generation itself becomes the head.
            Location::ThickLv { .. } => Ok(()),
            Location::File { path, .. } => file::prepare_head(path, self.pair, number),
        }
    }

    /// Makes the copy that was prepared the head.
    pub fn swap_head(&self, number: u64) -> Result<()> {
        match self.location {
            Location::ThinLv { lv, .. } => {
                thin::swap_heads(self.listing, &[lv], &self.owner(), number)
            }
            Location::ThickLv { lv } => thick::swap_head(self.listing, lv, &self.owner(), number),
            Location::File { path, .. } => file::swap_head(path, self.pair, number),
        }
    }

    /// Whether generation `number` is there, apart from the head where blocks can be shared.
    pub fn has_generation(&self, number: u64) -> Result<bool> {
        match self.location {
            Location::ThinLv { lv, .. } => {
                thin::has_generation(self.listing, lv, &self.owner(), number)
            }
            Location::ThickLv { lv } => {
                thick::has_generation(self.listing, lv, &self.owner(), number)
            }
            Location::File { path, .. } => file::has_generation(path, self.pair, number),
        }
    }

    /// Generation `number`, to be read.
    pub fn sealed(&self, number: u64) -> Result<Sealed> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::sealed(self.listing, lv, &self.owner(), number),
            Location::ThickLv { lv } => thick::sealed(self.listing, lv, &self.owner(), number),
            Location::File { path, .. } => file::sealed(path, self.pair, number),
        }
    }

    /// Generation `number`, to be written: damage in it is about to be put right. [`Volume::seal`] ends that.
    pub fn unseal(&self, number: u64) -> Result<PathBuf> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::unseal(self.listing, lv, &self.owner(), number),
            Location::ThickLv { lv } => thick::unseal(self.listing, lv, &self.owner(), number),
            Location::File { path, .. } => {
                file::sealed(path, self.pair, number).map(|s| s.path.clone())
            }
        }
    }

    /// Whether the head holds just what was sealed as generation `number`. False where that cannot be told at little cost:
    /// making it anew costs little, too. Where blocks cannot be shared, the generation is the head.
    pub fn is_head_of(&self, number: u64) -> Result<bool> {
        match self.location {
            Location::ThinLv { lv, .. } => {
                thin::is_head_of(self.listing, lv, &self.owner(), number)
            }
            // It is the generation itself.
            Location::ThickLv { .. } => Ok(true),
            Location::File { .. } => Ok(false),
        }
    }

    /// Has the head made anew, although it was made from generation `number` already. Nothing to do where it is that
    /// generation itself.
    pub fn distrust_head(&self, number: u64) -> Result<()> {
        match self.location {
            Location::ThinLv { lv, .. } => {
                thin::distrust_head(self.listing, lv, &self.owner(), number)
            }
            // It is the generation itself.
            Location::ThickLv { .. } => Ok(()),
            Location::File { path, .. } => file::distrust_head(path, self.pair, number),
        }
    }

    /// Whether something has the name of generation `number`, whoever made it.
    pub fn is_taken(&self, number: u64) -> Result<bool> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::is_taken(self.listing, lv, number),
            Location::ThickLv { lv } => thick::is_taken(self.listing, lv, number),
            Location::File { path, .. } => file::is_taken(path, number),
        }
    }

    /// Whether older generations can be kept beside the head.
    pub fn keeps_generations(&self) -> Result<bool> {
        match self.location {
            Location::ThinLv { .. } => Ok(true),
            Location::ThickLv { .. } => Ok(false),
            Location::File { path, .. } => file::shares_blocks(path),
        }
    }

    /// Makes a disk of a VM that has left this host a volume of the replica: as it is, it becomes generation `number`, and
    /// the head. It may be nobody's, or one of `former` pairs'.
    pub fn adopt(&self, former: &[Uuid], number: u64) -> Result<()> {
        let owners: Vec<_> = former.iter().map(|pair| OwnerTag::new(*pair)).collect();
        match self.location {
            Location::ThinLv { lv, .. } => thin::adopt(lv, &self.owner(), &owners, number),
            Location::ThickLv { lv } => thick::adopt(lv, &self.owner(), &owners, number),
            Location::File { path, .. } => file::adopt(path, self.pair, former, number),
        }
    }

    /// Removes the head of a disk that no generation has any more.
    pub fn remove_head(&self) -> Result<()> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::remove_head(self.listing, lv, &self.owner()),
            Location::ThickLv { lv } => thick::remove_head(self.listing, lv, &self.owner()),
            Location::File {
                path, subvolume, ..
            } => {
                file::remove_head(path, self.pair)?;
                match subvolume {
                    true => file::remove_subvolume(path),
                    false => Ok(()),
                }
            }
        }
    }
}

/// Removes the forks of all these volumes; what is gone is fine.
pub(super) fn remove_forks<'a>(
    mut locations: impl Iterator<Item = &'a Location>,
    pair: Uuid,
) -> Result<()> {
    let listing = &Listing::default();
    locations.try_for_each(|location| {
        Volume {
            location,
            pair,
            listing,
        }
        .remove_fork()
    })
}

/// The disks of a generation whose volumes are gone.
pub(super) fn lost_disks<'a>(
    generation: &'a Generation,
    listing: &Listing,
) -> Result<Vec<&'a DiskRecord>> {
    let mut lost = Vec::new();
    for disk in &generation.disks {
        let volume = Volume {
            location: &disk.location,
            pair: generation.pair,
            listing,
        };
        if !volume.has_generation(generation.number)? {
            lost.push(disk);
        }
    }
    Ok(lost)
}

/// Removes generation `number` of all these volumes; what is gone is fine.
pub(super) fn remove_generation<'a>(
    listing: &Listing,
    locations: impl Iterator<Item = &'a Location>,
    pair: Uuid,
    number: u64,
) -> Result<()> {
    let mut lvs = Vec::new();
    for location in locations {
        match location {
            Location::ThinLv { lv, .. } => lvs.push(thin::generation_of(lv, number)?),
            Location::ThickLv { lv } => lvs.push(thick::generation_of(lv, number)?),
            Location::File { path, .. } => file::remove_generation(path, pair, number)?,
        }
    }
    lvm::remove_listed(listing, &lvs, &OwnerTag::new(pair))
}
