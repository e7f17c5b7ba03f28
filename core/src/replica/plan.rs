//! What a sync would do on the target, found out without changing anything.

use super::in_place;
use super::layout::Layout;
use super::listing::Listing;
use super::manifest::Generation;
use super::maps::with_known;
use super::store::{read_json, TargetPair};
use super::volume::{lost_disks, Volume};
use super::{Placement, ReplicaRequest, Standing};
use crate::error::{Error, Kind, Result};
use crate::hypervisor::TargetHypervisor;
use crate::runbook::Runbook;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a target would do; nothing was changed to find out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TargetPlan {
    /// Id of the VM there.
    pub vm: String,
    /// Where the disks go.
    pub placements: Vec<Placement>,
    /// The generation that would be the parent.
    pub head: Option<u64>,
    /// Number of the generation that would be made.
    pub number: u64,
    /// What the user should know.
    pub notes: Vec<String>,
    /// What the target will be for the VM.
    pub standing: Standing,
}

pub(super) const FOUND_AGAIN: &str =
    "this host had lost what it knew of the replica; its newest generation was found again";

/// The state of a replica whose files are lost here, from what the source knows and the volumes' marks. `None` if its
/// newest generation is not here, or not all of it.
pub(super) fn lost(
    request: &ReplicaRequest,
    hypervisor: &dyn TargetHypervisor,
) -> Result<Option<TargetPair>> {
    let Some(newest) = &request.newest else {
        return Ok(None);
    };
    if newest.pair != request.pair || !lost_disks(newest, &Listing::default())?.is_empty() {
        return Ok(None);
    }
    let volumes = newest.disks.iter();
    Ok(Some(TargetPair {
        pair: request.pair,
        source_host: request.source_host,
        source_name: request.source_name.clone(),
        vm: request.vm.clone(),
        target_vm: id_here(request, hypervisor),
        volumes: volumes
            .map(|d| (d.source.clone(), d.target.clone()))
            .collect(),
        storage_map: request.storage_map.clone(),
        maps: request.maps.clone(),
        forks: Vec::new(),
        pinned: BTreeSet::new(),
        head: Some(newest.number),
        last: 0,
        standing: Standing {
            epoch: newest.epoch,
            ..Standing::replica()
        },
    }))
}

/// The id that the VM gets here if nobody says another one: the same. On another kind of hypervisor ids have another form,
/// so there it is the VM's name.
fn id_here(request: &ReplicaRequest, hypervisor: &dyn TargetHypervisor) -> String {
    let described = request.described.as_deref();
    let foreign = described.filter(|d| d.form != hypervisor.form());
    let guest = foreign.and_then(|d| d.guest.as_ref().ok());
    let name = guest.and_then(|guest| guest.name.clone());
    let wanted = request.target_vm.clone().or(name);
    wanted.unwrap_or_else(|| request.vm.clone())
}

/// What the request leaves open is as it was before; what was decided before cannot change.
pub(super) fn settle(
    request: &ReplicaRequest,
    known: Option<&TargetPair>,
    hypervisor: &dyn TargetHypervisor,
) -> Result<ReplicaRequest> {
    let mut settled = request.clone();
    settled.target_vm = Some(id_here(request, hypervisor));
    let Some(known) = known.filter(|k| k.was_sealed()) else {
        return Ok(settled);
    };
    match &request.target_vm {
        Some(wanted) if *wanted != known.target_vm => {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "the replica of VM {} is VM {} there, and cannot become {wanted}",
                    request.vm, known.target_vm
                ),
            )
            .advise("leave the id out, or give the same as before"));
        }
        _ => settled.target_vm = Some(known.target_vm.clone()),
    }
    settled.storage_map = with_known(&request.storage_map, &known.storage_map);
    settled.maps = request.maps.settled(&known.maps);
    Ok(settled)
}

/// The id that the VM of a request has or gets here, and where its disks are or go. Changes nothing.
pub fn placed(
    layout: &Layout,
    hypervisor: &dyn TargetHypervisor,
    request: &ReplicaRequest,
) -> Result<(String, Vec<Placement>)> {
    let known: Option<TargetPair> = read_json(&layout.target_pair(request.pair))?;
    let settled = settle(request, known.as_ref(), hypervisor)?;
    let volumes = volumes_of(known.as_ref());
    let placements = hypervisor.place(&settled, &volumes)?;
    Ok((id_here(&settled, hypervisor), placements))
}

/// Where the disks of a replica were placed before.
fn volumes_of(known: Option<&TargetPair>) -> BTreeMap<String, String> {
    let sealed = known.filter(|k| k.was_sealed());
    sealed.map(|k| k.volumes.clone()).unwrap_or_default()
}

/// What is needed to plan.
pub(super) struct Planner<'a> {
    pub layout: &'a Layout,
    pub hypervisor: &'a dyn TargetHypervisor,
    pub request: &'a ReplicaRequest,
    pub known: Option<&'a TargetPair>,
    pub listing: &'a Listing,
}

impl Planner<'_> {
    pub fn plan(&self) -> Result<TargetPlan> {
        let standing = self.known.map_or(Standing::replica(), |k| k.standing);
        let standing = standing.receiving(&self.request.vm, self.request.epoch)?;
        let sealed = self.known.filter(|k| k.was_sealed());
        let volumes = volumes_of(self.known);
        let mut head = sealed.and_then(|k| k.head);
        let last = sealed.map_or(0, |k| k.last);
        let placements = self.hypervisor.place(self.request, &volumes)?;
        let mut notes = Vec::new();
        let sealing: Option<Generation> = read_json(&self.layout.sealing(self.request.pair))?;
        match sealing {
            Some(generation) => {
                notes.push("a seal that was cut off will be finished first".into());
                head = Some(generation.number);
            }
            None => self.check_volumes(&placements)?,
        }
        Ok(TargetPlan {
            vm: self
                .request
                .target_vm
                .clone()
                .unwrap_or_else(|| self.request.vm.clone()),
            number: self.free_number(head.unwrap_or(0).max(last) + 1, &placements)?,
            placements,
            head,
            notes,
            standing,
        })
    }

    /// A volume with a generation's name that no manifest tells of is left by a state that is lost, and
    /// must not be taken for what is about to be sealed.
    fn free_number(&self, first: u64, placements: &[Placement]) -> Result<u64> {
        let mut number = first;
        while placements.iter().try_fold(false, |taken, p| {
            Ok(taken || self.volume(p).is_taken(number)?)
        })? {
            number += 1;
        }
        Ok(number)
    }

    /// Ours or absent, not in use, and enough room for what is new.
    fn check_volumes(&self, placements: &[Placement]) -> Result<()> {
        let newest = match self.known {
            Some(known) => newest(self.layout, known)?,
            None => None,
        };
        let mut wanted: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (disk, placement) in self.request.disks.iter().zip(placements) {
            let context = |e: Error| e.context(format!("disk {}", disk.key));
            let volume = self.volume(placement);
            volume.check().map_err(context)?;
            let free = volume.free_bytes().map_err(context)?;
            let recorded = newest.as_ref().and_then(|g| g.disk_at(&placement.location));
            let need = match recorded {
                // What changed is not known yet; only growth is, and what has to be copied.
                Some(recorded) => {
                    let growth = disk.size.saturating_sub(recorded.size);
                    let growth = volume.new_bytes(disk.used.min(growth), growth);
                    growth + self.copy_bytes(placement).map_err(context)?
                }
                None => volume
                    .new_bytes(disk.used, disk.size)
                    .saturating_sub(volume.fork_bytes().map_err(context)?),
            };
            let entry = wanted.entry(volume.space_name()).or_insert((0, free));
            entry.0 += need;
        }
        for (place, (need, free)) in wanted {
            if need > free {
                return Err(Error::new(
                    Kind::Space,
                    format!("{place} has {free} bytes to spare, but the disks need up to {need}"),
                )
                .advise(
                    "free some space there, choose another storage with --storage SRC=DST, or, where a file system \
                     cannot share blocks, overwrite the replica with --in-place",
                )
                .see(Runbook::PoolFull));
            }
        }
        Ok(())
    }

    /// Bytes of the fork that cannot be shared with the newest generation.
    fn copy_bytes(&self, placement: &Placement) -> Result<u64> {
        match self.known {
            Some(known) if !self.request.in_place => {
                match in_place::is_copied(&placement.location, known, self.listing)? {
                    true => self.volume(placement).head_bytes(),
                    false => Ok(0),
                }
            }
            _ => Ok(0),
        }
    }

    fn volume<'v>(&'v self, placement: &'v Placement) -> Volume<'v> {
        Volume {
            location: &placement.location,
            pair: self.request.pair,
            listing: self.listing,
        }
    }
}

/// The manifest of the newest generation.
pub(super) fn newest(layout: &Layout, pair: &TargetPair) -> Result<Option<Generation>> {
    match pair.head {
        Some(number) => read_json(&layout.generation(pair.pair, number)),
        None => Ok(None),
    }
}
