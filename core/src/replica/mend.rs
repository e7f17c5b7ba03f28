//! Putting a damaged generation right, in place: it gets back just the bytes that it was sealed with.
//!
//! `mending.json` is there as long as a sealed volume may be writable. What remains of it after a crash is to seal
//! that again and make the head anew: segments are only ever replaced by what they were.

use super::layout::Layout;
use super::listing::Listing;
use super::manifest::{DiskRecord, Generation};
use super::prune::lock;
use super::seal;
use super::store::{self, read_json, write_json, TargetPair};
use super::verify::{find, params_of};
use super::volume::Volume;
use crate::crash;
use crate::digest::Digest;
use crate::error::{Kind, Result};
use crate::hypervisor::TargetHypervisor;
use crate::image::ImageFormat;
use crate::lock::Lock;
use crate::sync::Params;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use uuid::Uuid;

/// A disk that can be written, to put it right.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unsealed {
    /// The disk's key.
    pub key: String,
    /// The file or device.
    pub path: PathBuf,
    /// How the guest's bytes lie in it.
    #[serde(default)]
    pub format: ImageFormat,
    /// What its segments are to be.
    pub table: PathBuf,
    /// The digest of that.
    pub digest: Digest,
    /// How it is cut and hashed.
    pub params: Params,
}

/// A generation that is being put right. This process holds the replica's lock.
pub struct Mending {
    layout: Layout,
    pair: TargetPair,
    generation: Generation,
    work: Work,
    _lock: Lock,
}

/// What is noted of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Work {
    generation: u64,
    disks: Vec<String>,
}

impl Mending {
    /// Makes these disks of generation `number` of the replica of `vm` writable.
    pub fn begin(
        layout: &Layout,
        hypervisor: &dyn TargetHypervisor,
        vm: &str,
        number: u64,
        disks: &[String],
    ) -> Result<(Mending, Vec<Unsealed>)> {
        let (lock, id) = lock(layout, vm)?;
        seal::recover(layout, hypervisor, id)?;
        let (pair, generation) = find(layout, vm, Some(number))?;
        pair.standing.check_is_replica(&pair.target_vm)?;
        let mending = Mending {
            layout: layout.clone(),
            work: Work {
                generation: number,
                disks: disks.to_vec(),
            },
            pair,
            generation,
            _lock: lock,
        };
        write_json(&layout.mending(id), &mending.work)?;
        let listing = Listing::default();
        let mut unsealed = Vec::new();
        for (index, disk) in mending.disks() {
            let volume = volume(&mending.pair, disk, &listing);
            let path = volume
                .unseal(number)
                .map_err(|e| e.context(format!("disk {}", disk.key)))?;
            let mut params = params_of(disk)?;
            params.verify = true;
            unsealed.push(Unsealed {
                key: disk.key.clone(),
                path,
                format: disk.location.format(),
                table: layout.table(id, number, index),
                digest: disk.digest,
                params,
            });
        }
        Ok((mending, unsealed))
    }

    fn disks(&self) -> impl Iterator<Item = (usize, &DiskRecord)> {
        let disks = self.generation.disks.iter().enumerate();
        disks.filter(|(_, disk)| self.work.disks.contains(&disk.key))
    }

    /// Seals it again. Returns notes.
    pub fn finish(self, hypervisor: &dyn TargetHypervisor) -> Result<Vec<String>> {
        crash::point("mended");
        finish(
            &self.layout,
            hypervisor,
            &self.pair,
            &self.generation,
            &self.work,
        )
    }
}

/// The generation of the pair that is being put right, or was when a program was killed.
pub(super) fn under_way(layout: &Layout, pair: Uuid) -> Result<Option<u64>> {
    let work = read_json::<Work>(&layout.mending(pair))?;
    Ok(work.map(|work| work.generation))
}

fn volume<'a>(pair: &TargetPair, disk: &'a DiskRecord, listing: &'a Listing) -> Volume<'a> {
    Volume {
        location: &disk.location,
        pair: pair.pair,
        listing,
    }
}

/// Finishes what was cut off. The caller holds the pair's lock. Returns notes.
pub(super) fn recover(
    layout: &Layout,
    hypervisor: &dyn TargetHypervisor,
    pair: &TargetPair,
) -> Result<Vec<String>> {
    let Some(work) = read_json::<Work>(&layout.mending(pair.pair))? else {
        return Ok(Vec::new());
    };
    let path = layout.generation(pair.pair, work.generation);
    match read_json::<Generation>(&path)? {
        Some(generation) => finish(layout, hypervisor, pair, &generation, &work)
            .map_err(|e| e.context("cannot seal again a generation that was being put right")),
        // It was pruned since.
        None => store::remove(&layout.mending(pair.pair)).map(|()| Vec::new()),
    }
}

fn finish(
    layout: &Layout,
    hypervisor: &dyn TargetHypervisor,
    pair: &TargetPair,
    generation: &Generation,
    work: &Work,
) -> Result<Vec<String>> {
    let number = generation.number;
    let listing = Listing::default();
    let of_work = |disk: &&DiskRecord| work.disks.contains(&disk.key);
    let each = |act: &dyn Fn(&Volume) -> Result<()>| -> Result<()> {
        for disk in generation.disks.iter().filter(of_work) {
            act(&volume(pair, disk, &listing))
                .map_err(|e| e.context(format!("disk {}", disk.key)))?;
        }
        listing.forget();
        Ok(())
    };
    each(&|volume| volume.seal(number))?;
    let mut notes = Vec::new();
    // What boots shares its blocks with the newest generation, so it has the same damage.
    if pair.head == Some(number) {
        match hypervisor.hold(pair) {
            Ok(_hold) => {
                each(&|volume| volume.distrust_head(number))?;
                each(&|volume| volume.prepare_head(number))?;
                each(&|volume| volume.swap_head(number))?;
            }
            Err(e) if matches!(e.kind(), Kind::Refused | Kind::Busy) => notes.push(format!(
                "what boots was left alone, and is damaged as before: {}",
                e.message()
            )),
            Err(e) => return Err(e),
        }
    }
    store::remove(&layout.mending(pair.pair))?;
    Ok(notes)
}
