//! The target's part in keeping a replica: take the lock, finish what a run before left, make forks, and
//! hand them to [`super::seal`].

use super::layout::Layout;
use super::listing::Listing;
use super::manifest::{generation_name, Generation};
use super::plan::{lost, newest, settle, Planner, TargetPlan, FOUND_AGAIN};
use super::store::{self, read_json, write_json, TargetPair};
use super::told::{told, Told};
use super::volume::{remove_forks, Location, Volume};
use super::{block_map, heads, in_place, proof, seal, Placement, ReplicaRequest, Retention};
use crate::error::{Error, Kind, Result};
use crate::hypervisor::TargetHypervisor;
use crate::lock::Lock;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
    /// The forks are the heads themselves, for a guest that is to wait on them.
    #[serde(default)]
    pub on_heads: bool,
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
    /// Of a disk whose changes the source knows: whether it holds what was sealed in the parent.
    #[serde(default)]
    pub proof: Option<Proof>,
}

/// Whether a fork holds exactly what was sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// It does, and here is the table of its segments' digests.
    Sealed(PathBuf),
    /// It may not, or it is not known what was sealed: why.
    Doubt(String),
}

/// What sealing did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealReport {
    /// Numbers of the generations that are kept now.
    pub kept: Vec<u64>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// What else is known of them.
    #[serde(default)]
    pub told: Told,
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
    /// What was prepared are the heads.
    on_heads: bool,
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
            None => lost(request, hypervisor)?,
            known => known,
        };
        let request = settle(request, known.as_ref(), hypervisor)?;
        let planner = Planner {
            layout,
            hypervisor,
            request: &request,
            known: known.as_ref(),
            listing: &Listing::default(),
        };
        let mut plan = planner.plan()?;
        plan.notes.extend(hypervisor.remarks(&request)?);
        Ok(plan)
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
            known = lost(request, hypervisor)?;
            if let (Some(pair), Some(newest)) = (&known, &request.newest) {
                write_json(&layout.generation(pair.pair, newest.number), newest)?;
                write_json(&layout.target_pair(pair.pair), pair)?;
                notes.push(FOUND_AGAIN.into());
            }
        }
        let request = &settle(request, known.as_ref(), hypervisor)?;
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
            maps: request.maps.clone(),
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
            on_heads: false,
            patience,
            _lock: lock,
        })
    }

    /// Has the heads themselves be written, if all of them are what was sealed last and can be sealed while somebody has
    /// them open; else it makes forks. A guest is to wait on the heads before the first byte is written.
    pub fn prepare_on_heads(&mut self, request: &ReplicaRequest) -> Result<Prepared> {
        let Some(newest) = newest(&self.layout, &self.pair)? else {
            return self.prepare(request);
        };
        let hold = self.hypervisor.hold(&self.pair)?;
        let place = (self.placements.as_slice(), &newest);
        let heads = heads::as_forks(&self.layout, &self.listing, request, place)?;
        drop(hold);
        let Some(forks) = heads else {
            return self.prepare(request);
        };
        self.on_heads = true;
        Ok(Prepared {
            parent: self.pair.head,
            number: self.number,
            forks,
            notes: self.notes.clone(),
            on_heads: true,
        })
    }

    /// Makes the forks.
    pub fn prepare(&mut self, request: &ReplicaRequest) -> Result<Prepared> {
        let parent = self.pair.head;
        let until = Instant::now() + self.patience;
        let newest = newest(&self.layout, &self.pair)?;
        let mut forks = Vec::new();
        let mut proofs = Vec::new();
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
            let table = self.layout.fork_table(self.pair.pair, index);
            let tracked = base.is_some() && request.tracked.contains(&disk.key);
            let doubt = tracked.then(|| volume.doubt_of_kind()).flatten();
            if tracked && doubt.is_none() {
                // What a run before has written to it is known again soon.
                volume.remove_idle_fork(until).map_err(context)?;
            }
            if let Some(why) = volume.settle_fork(until).map_err(context)? {
                notes.push(format!(
                    "{}: what had arrived is thrown away: {why}",
                    disk.key
                ));
            }
            // It tells what is in the fork, and so must go before there is another fork.
            if !volume.has_fork(base).map_err(context)? {
                store::remove(&table)?;
            }
            let path = volume
                .ensure_fork(base, disk.size, until)
                .map_err(context)?;
            forks.push(Fork {
                key: disk.key.clone(),
                placement: placement.clone(),
                path,
                table,
                proof: doubt.map(|why| Proof::Doubt(why.into())),
            });
            proofs.push(tracked && doubt.is_none());
        }
        // The forks are all made: one look shows them.
        self.listing.forget();
        if let Some(newest) = &newest {
            let wanted = forks.iter_mut().zip(proofs).filter(|(_, wanted)| *wanted);
            for (fork, _) in wanted {
                let volume = self.volume(&fork.placement.location);
                let proof = proof::of_fork(&self.layout, &volume, newest);
                fork.proof = Some(proof.map_err(|e| e.context(format!("disk {}", fork.key)))?);
            }
        }
        self.listing.forget();
        Ok(Prepared {
            parent: self.pair.head,
            number: self.number,
            forks,
            notes,
            on_heads: false,
        })
    }

    /// Turns the forks into `generation`. It must have just the disks that were prepared.
    pub fn seal(&mut self, generation: Generation) -> Result<SealReport> {
        // The volume's name goes into the replica's configuration: another one would be another VM's disk.
        let places = self.placements.iter();
        let prepared = places.map(|p| (&p.key, &p.volume, &p.location));
        let disks = generation.disks.iter();
        let sealed = disks.map(|d| (&d.key, &d.target, &d.location));
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
        if self.on_heads {
            let place = (&self.layout, &self.listing);
            heads::seal_all(place, &mut self.pair, &generation)?;
            return self.report(Vec::new());
        }
        let until = Instant::now() + self.patience;
        for disk in &generation.disks {
            self.volume(&disk.location)
                .check_fork(disk.size, until)
                .map_err(|e| e.context(format!("disk {}", disk.key)))?;
        }
        // Before the point of no return: a replica that somebody started to use meanwhile is theirs.
        let hold = self.hypervisor.hold(&self.pair)?;
        write_json(&self.layout.sealing(self.pair.pair), &generation)?;
        self.listing.forget();
        let place = (&self.layout, &self.listing);
        let pair = &mut self.pair;
        let mut notes = seal::finish(place, self.hypervisor, pair, &generation, Some(hold))?;
        // Before the generation that it is compared with is pruned. It is sealed, whatever becomes of its maps.
        if let Err(e) = block_map::keep(&self.layout, &generation) {
            notes.push(format!("there is no map of what changed: {e}"));
        }
        let pruned = super::prune::after_seal(
            place,
            self.hypervisor,
            &mut self.pair,
            &generation,
            self.retention,
        )?;
        notes.extend(pruned);
        self.report(notes)
    }

    fn report(&self, mut notes: Vec<String>) -> Result<SealReport> {
        let kept = store::generations(&self.layout, self.pair.pair)?;
        // It is sealed, whatever can be told besides.
        let told = told(&self.layout, &kept).unwrap_or_else(|e| {
            notes.push(e.to_string());
            Told::default()
        });
        Ok(SealReport {
            kept: kept.iter().map(|g| g.number).collect(),
            notes,
            told,
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
