//! Reading a whole generation again and comparing it with its manifest.

use super::listing::Listing;
use super::manifest::{DiskRecord, Generation};
use super::target::{find_replica, no_generation};
use super::volume::Volume;
use super::{Layout, TargetPair};
use crate::agent::BlockEnd;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::stop::Stop;
use crate::sync::{Geometry, Meter, Params, Tuning};
use serde::{Deserialize, Serialize};

/// What a verification found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verified {
    /// The VM's id on this host.
    pub vm: String,
    /// The generation's name.
    pub generation: String,
    /// Its disks, in the manifest's order.
    pub disks: Vec<VerifiedDisk>,
}

/// One disk of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifiedDisk {
    /// The disk's key.
    pub key: String,
    /// Volume on this host.
    pub volume: String,
    /// Bytes that were compared, holes included.
    pub size: u64,
    /// The manifest's digest.
    pub expected: Digest,
    /// What the volume has now; `None` if it could not be read.
    pub found: Option<Digest>,
    /// Why it could not be read.
    pub problem: Option<String>,
}

impl VerifiedDisk {
    /// Whether it is what it was when it was sealed.
    pub fn is_right(&self) -> bool {
        self.found == Some(self.expected)
    }
}

/// Reads generation `number`, or the newest, of the replica of `vm` on this host. Damage is not an error here:
/// it is in the answer.
pub fn verify(layout: &Layout, vm: &str, number: Option<u64>, stop: &Stop) -> Result<Verified> {
    let (pair, generation) = find(layout, vm, number)?;
    let listing = Listing::default();
    let mut disks = Vec::new();
    for disk in &generation.disks {
        stop.check()?;
        let volume = Volume {
            location: &disk.location,
            pair: pair.pair,
            listing: &listing,
        };
        let found = digest_of(&volume, disk, generation.number, stop);
        let (found, problem) = match found {
            Ok(found) => (Some(found), None),
            Err(e) if e.kind() == Kind::Cancelled => return Err(e),
            Err(e) => (None, Some(e.message())),
        };
        disks.push(VerifiedDisk {
            key: disk.key.clone(),
            volume: disk.target.clone(),
            size: disk.size,
            expected: disk.digest,
            found,
            problem,
        });
    }
    Ok(Verified {
        vm: pair.target_vm,
        generation: generation.name(),
        disks,
    })
}

fn find(layout: &Layout, vm: &str, number: Option<u64>) -> Result<(TargetPair, Generation)> {
    let (pair, generations) = find_replica(layout, vm)?;
    let number = number.or(pair.head);
    match generations.into_iter().find(|g| Some(g.number) == number) {
        Some(generation) => Ok((pair, generation)),
        None => Err(no_generation(vm, number.unwrap_or_default())),
    }
}

fn digest_of(volume: &Volume, disk: &DiskRecord, number: u64, stop: &Stop) -> Result<Digest> {
    let sealed = volume.sealed(number)?;
    // From the medium: what is cached proves nothing.
    let (mut image, opened) =
        BlockEnd::source(&sealed.path, true).or_else(|_| BlockEnd::source(&sealed.path, false))?;
    if opened.size < disk.size {
        return Err(Error::new(
            Kind::Digest,
            format!("it has {} bytes instead of {}", opened.size, disk.size),
        ));
    }
    let tuning = Tuning {
        hash: disk.hash,
        ..Tuning::default()
    };
    let params = Params::new(Geometry::new(disk.size, disk.leaf_bytes)?, &tuning);
    image.digest(&params, stop, &Meter::new())
}
