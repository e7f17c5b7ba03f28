//! The target's part in keeping a replica: take the lock, finish what a run before left, make forks, and
//! hand them to [`super::seal`].

use super::layout::Layout;
use super::listing::Listing;
use super::manifest::{generation_name, Generation};
use super::store::{self, read_json, write_json, TargetPair};
use super::volume::{lost_disks, remove_forks, Location, Volume};
use super::{in_place, seal, Placement, ReplicaRequest, Retention, Standing};
use crate::error::{Error, Kind, Result};
use crate::hypervisor::TargetHypervisor;
use crate::lock::Lock;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

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

/// Forks that are ready to be written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prepared {
    /// The generation they were made from.
    pub parent: Option<u64>,
    /// Number of the generation that they become.
    pub number: u64,
    /// One for each disk, in the order of the request.
    pub forks: Vec<Fork>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// What a disk is to be written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The disk's key.
    pub key: String,
    /// Where its volume is.
    pub placement: Placement,
    /// The file or device to write to.
    pub path: PathBuf,
    /// The file for the digests of its segments.
    pub table: PathBuf,
}

/// What sealing did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealReport {
    /// Numbers of the generations that are kept now.
    pub kept: Vec<u64>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// A replica that this process holds the lock of.
pub struct ReplicaTarget<'a> {
    layout: Layout,
    hypervisor: &'a dyn TargetHypervisor,
    pair: TargetPair,
    placements: Vec<Placement>,
    number: u64,
    retention: Retention,
    excluded: Vec<String>,
    notes: Vec<String>,
    listing: Listing,
    /// How long another process may go on using what should be ours alone.
    patience: Duration,
    _lock: Lock,
}

impl<'a> ReplicaTarget<'a> {
    /// Looks at what a sync would do, and refuses what it would refuse. Read-only.
    pub fn plan(
        layout: &Layout,
        hypervisor: &dyn TargetHypervisor,
        request: &ReplicaRequest,
    ) -> Result<TargetPlan> {
        let known = match read_json(&layout.target_pair(request.pair))? {
            None => lost(request)?,
            known => known,
        };
        let request = settle(request, known.as_ref())?;
        Planner {
            layout,
            hypervisor,
            request: &request,
            known: known.as_ref(),
            listing: &Listing::default(),
        }
        .plan()
    }

    /// Takes the pair's lock and finishes what an earlier run left half done. `patience` is for an agent
    /// of such a run that has not noticed yet that its driver is gone.
    pub fn open(
        layout: Layout,
        hypervisor: &'a dyn TargetHypervisor,
        request: &ReplicaRequest,
        patience: Duration,
    ) -> Result<Self> {
        let lock = Lock::take_within(
            patience,
            &layout.pair_lock(request.pair),
            &format!("the replica of VM {}", request.vm),
        )?;
        let mut notes = seal::recover(&layout, hypervisor, request.pair)?;
        let mut known: Option<TargetPair> = read_json(&layout.target_pair(request.pair))?;
        if known.is_none() {
            known = lost(request)?;
            if let (Some(pair), Some(newest)) = (&known, &request.newest) {
                write_json(&layout.generation(pair.pair, newest.number), newest)?;
                write_json(&layout.target_pair(pair.pair), pair)?;
                notes.push(FOUND_AGAIN.into());
            }
        }
        let request = &settle(request, known.as_ref())?;
        let listing = Listing::default();
        let plan = Planner {
            layout: &layout,
            hypervisor,
            request,
            known: known.as_ref(),
            listing: &listing,
        }
        .plan()?;
        notes.extend(plan.notes);
        let standing = plan.standing;
        let last = known.as_ref().map_or(0, |k| k.last);
        let (mut volumes, forks, head, pinned) = match known {
            Some(known) if known.was_sealed() => {
                (known.volumes, known.forks, known.head, known.pinned)
            }
            Some(known) => (BTreeMap::new(), known.forks, None, BTreeSet::new()),
            None => Default::default(),
        };
        for (disk, placement) in request.disks.iter().zip(&plan.placements) {
            volumes.insert(disk.volume.clone(), placement.volume.clone());
        }
        let wanted: Vec<Location> = plan.placements.iter().map(|p| p.location.clone()).collect();
        let stale = forks.iter().filter(|l| !wanted.contains(l));
        remove_forks(stale, request.pair)?;
        let pair = TargetPair {
            pair: request.pair,
            source_host: request.source_host,
            source_name: request.source_name.clone(),
            vm: request.vm.clone(),
            target_vm: plan.vm,
            volumes,
            storage_map: request.storage_map.clone(),
            forks: wanted,
            pinned,
            head,
            last,
            standing,
        };
        // Durable before the first volume is made: what carries the pair's mark can be traced to it.
        write_json(&layout.target_pair(request.pair), &pair)?;
        Ok(ReplicaTarget {
            layout,
            hypervisor,
            pair,
            placements: plan.placements,
            number: plan.number,
            retention: request.retention,
            excluded: request.excluded.clone(),
            notes,
            listing,
            patience,
            _lock: lock,
        })
    }

    /// Makes the forks.
    pub fn prepare(&mut self, request: &ReplicaRequest) -> Result<Prepared> {
        let parent = self.pair.head;
        let until = Instant::now() + self.patience;
        let newest = newest(&self.layout, &self.pair)?;
        let mut forks = Vec::new();
        let mut notes = self.notes.clone();
        if request.in_place {
            notes.extend(in_place::make_way(
                &self.layout,
                self.hypervisor,
                &mut self.pair,
                newest.as_ref(),
                &self.placements,
            )?);
        }
        for (index, (disk, placement)) in request.disks.iter().zip(&self.placements).enumerate() {
            let volume = self.volume(&placement.location);
            let context = |e: Error| e.context(format!("disk {}", disk.key));
            let recorded = newest.as_ref().and_then(|g| g.disk_at(&placement.location));
            // A disk that the newest generation does not have starts from nothing.
            let base = match (parent, recorded) {
                (Some(_), Some(recorded)) if recorded.size > disk.size => {
                    notes.push(format!("{} became smaller: it is sent in full", disk.key));
                    None
                }
                (Some(number), Some(_)) if volume.has_generation(number).map_err(context)? => {
                    Some(number)
                }
                (Some(number), Some(_)) => {
                    notes.push(format!(
                        "{}: its volume of generation {} is gone, so it is sent in full",
                        disk.key,
                        generation_name(number)
                    ));
                    None
                }
                _ => None,
            };
            let path = volume
                .ensure_fork(base, disk.size, until)
                .map_err(context)?;
            forks.push(Fork {
                key: disk.key.clone(),
                placement: placement.clone(),
                path,
                table: self.layout.fork_table(self.pair.pair, index),
            });
        }
        self.listing.forget();
        Ok(Prepared {
            parent: self.pair.head,
            number: self.number,
            forks,
            notes,
        })
    }

    /// Turns the forks into `generation`. It must have just the disks that were prepared.
    pub fn seal(&mut self, generation: Generation) -> Result<SealReport> {
        let prepared = self.placements.iter().map(|p| (&p.key, &p.location));
        let sealed = generation.disks.iter().map(|d| (&d.key, &d.location));
        if !prepared.eq(sealed)
            || generation.pair != self.pair.pair
            || generation.number != self.number
            || generation.epoch != self.pair.standing.epoch
            || generation.excluded != self.excluded
        {
            return Err(Error::new(
                Kind::Protocol,
                "the generation to be sealed is not the one that was prepared",
            ));
        }
        // Before the point of no return: a replica that somebody started to use meanwhile is theirs.
        let hold = self.hypervisor.hold(&self.pair)?;
        write_json(&self.layout.sealing(self.pair.pair), &generation)?;
        let (layout, pair) = (&self.layout, &mut self.pair);
        let mut notes = seal::finish(layout, self.hypervisor, pair, &generation, Some(hold))?;
        let pruned = super::prune::after_seal(
            &self.layout,
            self.hypervisor,
            &mut self.pair,
            &generation,
            self.retention,
        )?;
        notes.extend(pruned);
        let kept = store::generations(&self.layout, self.pair.pair)?;
        Ok(SealReport {
            kept: kept.iter().map(|g| g.number).collect(),
            notes,
        })
    }

    fn volume<'v>(&'v self, location: &'v Location) -> Volume<'v> {
        Volume {
            location,
            pair: self.pair.pair,
            listing: &self.listing,
        }
    }
}

const FOUND_AGAIN: &str =
    "this host had lost what it knew of the replica; its newest generation was found again";

/// The state of a replica whose files are lost here, from what the source knows and the volumes' marks. `None` if its
/// newest generation is not here, or not all of it.
fn lost(request: &ReplicaRequest) -> Result<Option<TargetPair>> {
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
        target_vm: request
            .target_vm
            .clone()
            .unwrap_or_else(|| request.vm.clone()),
        volumes: volumes
            .map(|d| (d.source.clone(), d.target.clone()))
            .collect(),
        storage_map: request.storage_map.clone(),
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

/// What the request leaves open is as it was before; what was decided before cannot change.
fn settle(request: &ReplicaRequest, known: Option<&TargetPair>) -> Result<ReplicaRequest> {
    let mut settled = request.clone();
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
    for (from, to) in &known.storage_map {
        if !request.storage_map.iter().any(|(f, _)| f == from) {
            settled.storage_map.push((from.clone(), to.clone()));
        }
    }
    Ok(settled)
}

struct Planner<'a> {
    layout: &'a Layout,
    hypervisor: &'a dyn TargetHypervisor,
    request: &'a ReplicaRequest,
    known: Option<&'a TargetPair>,
    listing: &'a Listing,
}

impl Planner<'_> {
    fn plan(&self) -> Result<TargetPlan> {
        let standing = self.known.map_or(Standing::replica(), |k| k.standing);
        let standing = standing.receiving(&self.request.vm, self.request.epoch)?;
        let sealed = self.known.filter(|k| k.was_sealed());
        let volumes = sealed.map(|k| k.volumes.clone()).unwrap_or_default();
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
                    let growth = disk.used.min(disk.size.saturating_sub(recorded.size));
                    growth + self.copy_bytes(placement).map_err(context)?
                }
                None => disk
                    .used
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
                ));
            }
        }
        Ok(())
    }

    /// Bytes of the fork that cannot be shared with the newest generation.
    fn copy_bytes(&self, placement: &Placement) -> Result<u64> {
        match self.known {
            Some(known) if !self.request.in_place => {
                match in_place::is_copied(&placement.location, known)? {
                    true => Ok(self.volume(placement).head_bytes()),
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
fn newest(layout: &Layout, pair: &TargetPair) -> Result<Option<Generation>> {
    match pair.head {
        Some(number) => read_json(&layout.generation(pair.pair, number)),
        None => Ok(None),
    }
}

/// Sealed generations on this host, of one VM (by its id here or at the source) or of all.
pub fn list_generations(
    layout: &Layout,
    vm: Option<&str>,
) -> Result<Vec<(TargetPair, Vec<Generation>)>> {
    let mut found = Vec::new();
    for id in store::replicas(layout)? {
        if let Some(pair) = read_json::<TargetPair>(&layout.target_pair(id))? {
            if vm.is_none_or(|vm| vm == pair.vm || vm == pair.target_vm) {
                let generations = store::generations(layout, id)?;
                // Before the first seal there is no replica.
                if !generations.is_empty() {
                    found.push((pair, generations));
                }
            }
        }
    }
    found.sort_by(|a, b| (&a.0.target_vm, a.0.pair).cmp(&(&b.0.target_vm, b.0.pair)));
    Ok(found)
}

/// The one replica on this host of `vm`, by its id here or at the source, with its sealed generations.
pub(super) fn find_replica(layout: &Layout, vm: &str) -> Result<(TargetPair, Vec<Generation>)> {
    let mut found = list_generations(layout, Some(vm))?;
    let missing = |what: String| Error::new(Kind::NotFound, what);
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(
            missing(format!("there is more than one replica of VM {vm}"))
                .advise("name it by its id on the host that keeps it"),
        ),
        (None, _) => Err(missing(format!("there is no replica of VM {vm}"))),
    }
}

/// That there is no such generation.
pub(super) fn no_generation(vm: &str, number: u64) -> Error {
    Error::new(
        Kind::NotFound,
        format!(
            "the replica of VM {vm} has no generation {}",
            generation_name(number)
        ),
    )
}
