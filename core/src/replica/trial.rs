//! Clones of a generation, for a test whether it boots: writable, with an owner of their own, and gone afterwards.
//!
//! What a test is about to make is noted durably before, and the note goes last: so whatever a test leaves that was cut
//! off can be found, and told from everything else by its owner's mark.

use super::file;
use super::layout::Layout;
use super::listing::Listing;
use super::manifest::{DiskRecord, Generation};
use super::store::{files_in, read_json, remove, write_json};
use super::thin;
use super::volume::Location;
use super::Placement;
use crate::error::{Error, Kind, Result};
use crate::image::ImageFormat;
use crate::lvm::{self, OwnerTag};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// A test of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Random id: owner of the clones.
    pub id: Uuid,
    /// The pair.
    pub pair: Uuid,
    /// Number of the generation.
    pub generation: u64,
    /// The replica's id on this host.
    pub replica: String,
    /// The clone's id.
    pub vm: String,
    /// Where the clones of the disks go.
    pub disks: Vec<Placement>,
}

/// How it showed that a generation boots. Ordered by what it is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootSign {
    /// Its QEMU still ran after a while; what the guest did is not known.
    Runs,
    /// The guest's agent answered.
    Agent,
    /// The user's own script said so.
    Script,
}

impl fmt::Display for BootSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BootSign::Runs => "it kept running, which is a weak sign",
            BootSign::Agent => "the guest's agent answered",
            BootSign::Script => "the script said so",
        })
    }
}

/// That a generation was seen to boot. Beside the manifest, which does not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// When.
    pub at: Timestamp,
    /// How that showed.
    pub sign: BootSign,
}

/// Notes that a generation was seen to boot.
pub fn note_boot(layout: &Layout, pair: Uuid, number: u64, boot: &Boot) -> Result<()> {
    write_json(&layout.boot(pair, number), boot)
}

/// Whether a generation was seen to boot.
pub fn boot_of(layout: &Layout, pair: Uuid, number: u64) -> Result<Option<Boot>> {
    read_json(&layout.boot(pair, number))
}

/// The tests that are under way on this host, or were cut off.
pub fn trials(layout: &Layout) -> Result<Vec<Trial>> {
    let mut found = Vec::new();
    for path in files_in(&layout.trials(), "json")? {
        found.extend(read_json::<Trial>(&path)?);
    }
    Ok(found)
}

impl Trial {
    /// The formats that the clones of the generation's disks get.
    pub fn formats(generation: &Generation) -> Result<Vec<ImageFormat>> {
        let format = |disk: &DiskRecord| match &disk.location {
            Location::ThinLv { .. } => Ok(ImageFormat::Raw),
            Location::File { path, format } => file::clone_format(path, *format),
        };
        generation.disks.iter().map(format).collect()
    }

    /// Whether a clone of one of the disks reads the generation's own file as long as it runs.
    pub fn reads_original(&self, generation: &Generation) -> Result<bool> {
        let mut files = generation.disks.iter().filter_map(|d| match &d.location {
            Location::File { path, .. } => Some(path),
            Location::ThinLv { .. } => None,
        });
        files.try_fold(
            false,
            |reads, path| Ok(reads || !file::shares_blocks(path)?),
        )
    }

    /// Notes durably what is about to be made.
    pub fn announce(&self, layout: &Layout) -> Result<()> {
        write_json(&layout.trial(&self.vm), self)
    }

    /// Makes the clones. The caller keeps the generation from being pruned meanwhile.
    pub fn make_clones(&self, generation: &Generation) -> Result<()> {
        let listing = Listing::default();
        let owner = OwnerTag::new(self.pair);
        for (disk, placement) in generation.disks.iter().zip(&self.disks) {
            let made = match (&disk.location, &placement.location) {
                (Location::ThinLv { lv, .. }, Location::ThinLv { lv: clone, .. }) => {
                    let trial = OwnerTag::new(self.id);
                    thin::make_clone(&listing, lv, &owner, self.generation, (clone, &trial))
                }
                (Location::File { path, format }, Location::File { path: clone, .. }) => {
                    let clone = (clone.as_path(), self.id);
                    file::make_clone(path, *format, self.pair, self.generation, clone)
                }
                _ => Err(Error::new(
                    Kind::Refused,
                    "a clone must be the same kind of volume as the original",
                )),
            };
            made.map_err(|e| e.context(format!("disk {}", disk.key)))?;
        }
        Ok(())
    }

    /// Removes the clones, then the note of the test. What is gone is fine. The clone must have ended.
    pub fn clear(&self, layout: &Layout) -> Result<()> {
        let mut lvs = Vec::new();
        for placement in &self.disks {
            match &placement.location {
                Location::ThinLv { lv, .. } => lvs.push(lv.clone()),
                Location::File { path, .. } => file::remove_clone(path, self.id)
                    .map_err(|e| e.context(format!("disk {}", placement.key)))?,
            }
        }
        let trial = OwnerTag::new(self.id);
        // One of another owner has its name: it was there before, and stopped the test.
        for lv in &lvs {
            if lvm::find(lv)?.is_some_and(|found| found.is_owned_by(&trial)) {
                lvm::remove(lv, &trial)?;
            }
        }
        remove(&layout.trial(&self.vm))
    }
}
