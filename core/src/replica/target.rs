//! The target's part in keeping a replica: take the lock, finish what a run before left, make forks, seal
//! them into a generation, drop the oldest ones.

use super::layout::Layout;
use super::manifest::Generation;
use super::store::{self, read_json, write_json, TargetPair};
use super::volume::{Location, Volume};
use super::{Placement, ReplicaRequest};
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{Published, TargetHypervisor};
use crate::lock::Lock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use uuid::Uuid;

/// What a target would do; nothing was changed to find out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TargetPlan {
    /// Where the disks go.
    pub placements: Vec<Placement>,
    /// The generation that would be the parent.
    pub head: Option<u64>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Forks that are ready to be written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prepared {
    /// The generation they were made from.
    pub parent: Option<u64>,
    /// Number of the generation that they become.
    pub number: u64,
    /// Key of the disk, where its volume is, and what to write to.
    pub forks: Vec<(String, Placement, PathBuf)>,
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
    keep: u32,
    excluded: Vec<String>,
    _lock: Lock,
}

impl<'a> ReplicaTarget<'a> {
    /// Looks at what a sync would do, and refuses what it would refuse. Read-only.
    pub fn plan(
        layout: &Layout,
        hypervisor: &dyn TargetHypervisor,
        request: &ReplicaRequest,
    ) -> Result<TargetPlan> {
        let known: Option<TargetPair> = read_json(&layout.target_pair(request.pair))?;
        let head = known.as_ref().and_then(|p| p.head);
        let volumes = known.map(|p| p.volumes).unwrap_or_default();
        let placements = hypervisor.place(request, &volumes)?;
        let mut notes = Vec::new();
        if layout.sealing(request.pair).exists() {
            notes.push("a seal that was cut off will be finished first".into());
        } else {
            check_volumes(request, &placements, &volumes)?;
        }
        Ok(TargetPlan {
            placements,
            head,
            notes,
        })
    }

    /// Takes the pair's lock and finishes what an earlier run left half done.
    pub fn open(
        layout: Layout,
        hypervisor: &'a dyn TargetHypervisor,
        request: &ReplicaRequest,
    ) -> Result<Self> {
        let lock = Lock::take(
            &layout.pair_lock(request.pair),
            &format!("the replica of VM {}", request.vm),
        )?;
        recover(&layout, hypervisor, request.pair)?;
        let known: Option<TargetPair> = read_json(&layout.target_pair(request.pair))?;
        let plan = Self::plan(&layout, hypervisor, request)?;
        let mut volumes = known
            .as_ref()
            .map(|p| p.volumes.clone())
            .unwrap_or_default();
        for (disk, placement) in request.disks.iter().zip(&plan.placements) {
            volumes.insert(disk.volume.clone(), placement.volume.clone());
        }
        let pair = TargetPair {
            pair: request.pair,
            source_host: request.source_host,
            source_name: request.source_name.clone(),
            vm: request.vm.clone(),
            target_vm: request
                .target_vm
                .clone()
                .unwrap_or_else(|| request.vm.clone()),
            volumes,
            storage_map: request.storage_map.clone(),
            head: known.and_then(|p| p.head),
        };
        // Durable before the first volume is made: what carries the pair's mark can be traced to it.
        write_json(&layout.target_pair(request.pair), &pair)?;
        Ok(ReplicaTarget {
            layout,
            hypervisor,
            pair,
            placements: plan.placements,
            keep: request.keep,
            excluded: request.excluded.clone(),
            _lock: lock,
        })
    }

    /// Makes the forks.
    pub fn prepare(&self, request: &ReplicaRequest) -> Result<Prepared> {
        let parent = self.pair.head;
        let mut forks = Vec::new();
        for (disk, placement) in request.disks.iter().zip(&self.placements) {
            let volume = self.volume(&placement.location);
            // A disk that the newest generation does not have starts from nothing.
            let base = match parent {
                Some(number) if volume.has_generation(number)? => Some(number),
                _ => None,
            };
            let path = volume
                .ensure_fork(base, disk.size)
                .map_err(|e| e.context(format!("disk {}", disk.key)))?;
            forks.push((disk.key.clone(), placement.clone(), path));
        }
        Ok(Prepared {
            parent,
            number: parent.unwrap_or(0) + 1,
            forks,
        })
    }

    /// Turns the forks into `generation`. It must have just the disks that were prepared.
    pub fn seal(&mut self, generation: Generation) -> Result<SealReport> {
        let prepared = self.placements.iter().map(|p| (&p.key, &p.location));
        let sealed = generation.disks.iter().map(|d| (&d.key, &d.location));
        let expected = self.pair.head.unwrap_or(0) + 1;
        if !prepared.eq(sealed)
            || generation.pair != self.pair.pair
            || generation.number != expected
            || generation.excluded != self.excluded
        {
            return Err(Error::new(
                Kind::Protocol,
                "the generation to be sealed is not the one that was prepared",
            ));
        }
        write_json(&self.layout.sealing(self.pair.pair), &generation)?;
        let mut notes = finish_seal(&self.layout, self.hypervisor, &mut self.pair, &generation)?;
        let keeps = self
            .placements
            .iter()
            .map(|p| self.volume(&p.location).keeps_generations())
            .collect::<Result<Vec<bool>>>()?;
        let mut keep = self.keep.max(1);
        if keep > 1 && keeps.contains(&false) {
            keep = 1;
            notes.push(
                "only the newest generation is kept: a disk lies on a file system that cannot share blocks \
                 between files (XFS and btrfs can)"
                    .into(),
            );
        }
        self.prune(keep)?;
        let kept = store::generations(&self.layout, self.pair.pair)?;
        Ok(SealReport {
            kept: kept.iter().map(|g| g.number).collect(),
            notes,
        })
    }

    /// Removes the oldest generations beyond `keep`, never the newest.
    fn prune(&self, keep: u32) -> Result<()> {
        let all = store::generations(&self.layout, self.pair.pair)?;
        let surplus = all.len().saturating_sub(keep.max(1) as usize);
        if surplus == 0 {
            return Ok(());
        }
        let (old, kept) = all.split_at(surplus);
        // First nobody may be shown them any more, then they are marked as going, then they go.
        publish(self.hypervisor, &self.pair, kept)?;
        for generation in old {
            let path = self.layout.generation(self.pair.pair, generation.number);
            let going = path.with_extension("pruned");
            std::fs::rename(&path, &going)
                .map_err(|e| Error::io(format!("cannot rename {}", path.display()), e))?;
            crate::image::flush_parent(&going)?;
        }
        finish_prune(&self.layout, self.pair.pair)
    }

    fn volume<'v>(&self, location: &'v Location) -> Volume<'v> {
        Volume {
            location,
            pair: self.pair.pair,
        }
    }
}

/// Finishes a seal and a prune that were cut off. The caller holds the pair's lock.
fn recover(layout: &Layout, hypervisor: &dyn TargetHypervisor, pair: Uuid) -> Result<()> {
    if let Some(generation) = read_json::<Generation>(&layout.sealing(pair))? {
        let Some(mut state) = read_json::<TargetPair>(&layout.target_pair(pair))? else {
            return Err(Error::new(
                Kind::Io,
                format!("the state of replica {pair} is incomplete"),
            ));
        };
        finish_seal(layout, hypervisor, &mut state, &generation)
            .map_err(|e| e.context("cannot finish a seal that was cut off"))?;
    }
    finish_prune(layout, pair)
}

/// Does what is left to do of a seal. All steps are safe to repeat.
fn finish_seal(
    layout: &Layout,
    hypervisor: &dyn TargetHypervisor,
    pair: &mut TargetPair,
    generation: &Generation,
) -> Result<Vec<String>> {
    let number = generation.number;
    let manifest = layout.generation(pair.pair, number);
    if pair.head != Some(number) {
        for disk in &generation.disks {
            crash_point("seal");
            let volume = Volume {
                location: &disk.location,
                pair: pair.pair,
            };
            volume
                .seal(number)
                .map_err(|e| e.context(format!("disk {}", disk.key)))?;
        }
        for disk in &generation.disks {
            crash_point("head");
            let volume = Volume {
                location: &disk.location,
                pair: pair.pair,
            };
            volume
                .ensure_head(number)
                .map_err(|e| e.context(format!("disk {}", disk.key)))?;
        }
        write_json(&manifest, generation)?;
        crash_point("manifest");
        pair.head = Some(number);
        write_json(&layout.target_pair(pair.pair), pair)?;
    }
    crash_point("publish");
    let notes = publish(hypervisor, pair, &store::generations(layout, pair.pair)?)?;
    store::remove(&layout.sealing(pair.pair))?;
    Ok(notes)
}

/// Removes the volumes of generations that were marked as going.
fn finish_prune(layout: &Layout, pair: Uuid) -> Result<()> {
    let dir = layout.generations(pair);
    let Ok(entries) = std::fs::read_dir(&dir) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != "pruned") {
            continue;
        }
        if let Some(generation) = read_json::<Generation>(&path)? {
            for disk in &generation.disks {
                Volume {
                    location: &disk.location,
                    pair,
                }
                .remove_generation(generation.number)?;
            }
        }
        store::remove(&path)?;
    }
    Ok(())
}

fn publish(
    hypervisor: &dyn TargetHypervisor,
    pair: &TargetPair,
    generations: &[Generation],
) -> Result<Vec<String>> {
    let published: Vec<Published> = generations
        .iter()
        .map(|generation| Published {
            generation,
            snapshots: generation
                .disks
                .iter()
                .filter(|d| matches!(d.location, Location::ThinLv { .. }))
                .map(|d| d.key.clone())
                .collect(),
        })
        .collect();
    hypervisor.publish(pair, &published)
}

/// Ours or absent, not in use, and enough room for what is new.
fn check_volumes(
    request: &ReplicaRequest,
    placements: &[Placement],
    known: &BTreeMap<String, String>,
) -> Result<()> {
    let mut wanted: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (disk, placement) in request.disks.iter().zip(placements) {
        let volume = Volume {
            location: &placement.location,
            pair: request.pair,
        };
        volume
            .check()
            .map_err(|e| e.context(format!("disk {}", disk.key)))?;
        let free = volume
            .free_bytes()
            .map_err(|e| e.context(format!("disk {}", disk.key)))?;
        let need = match known.contains_key(&disk.volume) {
            true => 0,
            false => disk.used,
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
            .advise("free some space there, or choose another storage with --storage SRC=DST"));
        }
    }
    Ok(())
}

/// Ends the process as a power cut would, where tests ask for it: `RBLOCKSYNC_CRASH_AT=seal`.
fn crash_point(name: &str) {
    if std::env::var_os("RBLOCKSYNC_CRASH_AT").is_some_and(|at| at == name) {
        std::process::abort();
    }
}

/// Sealed generations on this host, of one VM (by its id here or at the source) or of all.
pub fn list_generations(
    layout: &Layout,
    vm: Option<&str>,
) -> Result<Vec<(TargetPair, Vec<Generation>)>> {
    let dir = layout.replicas();
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(format!("cannot list {}", dir.display()), e)),
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<Uuid>() else {
            continue;
        };
        if let Some(pair) = read_json::<TargetPair>(&layout.target_pair(id))? {
            if vm.is_none_or(|vm| vm == pair.vm || vm == pair.target_vm) {
                let generations = store::generations(layout, id)?;
                found.push((pair, generations));
            }
        }
    }
    found.sort_by(|a, b| (&a.0.target_vm, a.0.pair).cmp(&(&b.0.target_vm, b.0.pair)));
    Ok(found)
}
