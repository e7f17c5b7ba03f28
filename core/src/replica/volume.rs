//! The volumes of a replica, whatever they are made of: fork, seal, head and prune, each step safe to
//! repeat, each touching only what carries the pair's mark.

use super::{file, thin};
use crate::error::Result;
use crate::lvm::{LvId, OwnerTag};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use uuid::Uuid;

/// What the bytes of a volume are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeFormat {
    /// The disk's own bytes.
    Raw,
    /// A qcow2 container.
    Qcow2,
}

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
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
    },
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::ThinLv { lv, .. } => lv.fmt(f),
            Location::File { path } => path.display().fmt(f),
        }
    }
}

/// A volume of the replica that `pair` owns.
pub(super) struct Volume<'a> {
    pub location: &'a Location,
    pub pair: Uuid,
}

impl Volume<'_> {
    fn owner(&self) -> OwnerTag {
        OwnerTag::new(self.pair)
    }

    /// Refuses a volume that exists and is not this pair's, or that somebody has open. Changes nothing.
    pub fn check(&self) -> Result<()> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::check(lv, &self.owner()),
            Location::File { path } => file::check(path, self.pair),
        }
    }

    /// Free bytes where the volume is.
    pub fn free_bytes(&self) -> Result<u64> {
        match self.location {
            Location::ThinLv { pool, .. } => thin::spare_bytes(pool),
            Location::File { path } => file::free_bytes(path),
        }
    }

    /// What shares its free space: volumes with the same name compete.
    pub fn space_name(&self) -> String {
        match self.location {
            Location::ThinLv { pool, .. } => format!("thin pool {pool}"),
            Location::File { path } => {
                format!("directory {}", path.parent().unwrap_or(path).display())
            }
        }
    }

    /// Makes the fork of generation `parent` ready, at least `size` bytes large, and gives its path.
    /// One left by a run that was cut off is used again if it has the same parent.
    pub fn ensure_fork(&self, parent: Option<u64>, size: u64) -> Result<PathBuf> {
        match self.location {
            Location::ThinLv { lv, pool } => {
                thin::ensure_fork(lv, pool, &self.owner(), parent, size)
            }
            Location::File { path } => file::ensure_fork(path, self.pair, parent, size),
        }
    }

    /// Turns the fork into generation `number`, read-only.
    pub fn seal(&self, number: u64) -> Result<()> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::seal(lv, &self.owner(), number),
            Location::File { path } => file::seal(path, self.pair, number),
        }
    }

    /// Makes the head a writable copy of generation `number`.
    pub fn ensure_head(&self, number: u64) -> Result<()> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::ensure_head(lv, &self.owner(), number),
            Location::File { path } => file::ensure_head(path, self.pair, number),
        }
    }

    /// Whether generation `number` is there, apart from the head.
    pub fn has_generation(&self, number: u64) -> Result<bool> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::has_generation(lv, &self.owner(), number),
            Location::File { path } => file::has_generation(path, self.pair, number),
        }
    }

    /// Whether older generations can be kept beside the head.
    pub fn keeps_generations(&self) -> Result<bool> {
        match self.location {
            Location::ThinLv { .. } => Ok(true),
            Location::File { path } => file::shares_blocks(path),
        }
    }

    /// Removes generation `number`; one that is gone is fine.
    pub fn remove_generation(&self, number: u64) -> Result<()> {
        match self.location {
            Location::ThinLv { lv, .. } => thin::remove_generation(lv, &self.owner(), number),
            Location::File { path } => file::remove_generation(path, self.pair, number),
        }
    }
}
