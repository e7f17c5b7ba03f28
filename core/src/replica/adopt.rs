//! The way back: a host that gave its VM up becomes a replica host of the one that runs it now. The VM's own disks, as
//! they were left, become a generation, so nothing of them is lost and most of them need not be sent again.
//!
//! After a planned migration they are what was sealed last, which is proved without reading them: of a thin volume by the
//! pool, of a file by when it was written last. Disks that cannot be proved (after a failover they have gone their own way)
//! are read. `adopting.json` holds the number of the generation from before the first mark until the replica is whole, and
//! every step can be repeated.

use super::guard::set_guard;
use super::layout::Layout;
use super::listing::Listing;
use super::manifest::{DiskRecord, Generation};
use super::maps::with_known;
use super::reverse::WayBack;
use super::role::{Role, Standing};
use super::seal::publish;
use super::stand::{others_of, retire};
use super::store::{self, newest_sent, read_json, write_json, TargetPair};
use super::takeover::PATIENCE;
use super::volume::Volume;
use super::Location;
use crate::agent::BlockEnd;
use crate::clock;
use crate::crash;
use crate::digest::{Digest, HashKind};
use crate::error::{Error, Kind, Result};
use crate::guest::Described;
use crate::hypervisor::RoleHypervisor;
use crate::lock::{private_dir, Lock};
use crate::lvm::{self, LvId, OwnerTag};
use crate::snapshot::{self, Consistency};
use crate::stop::Stop;
use crate::sync::{DigestTable, Geometry, Params, Tuning};
use crate::thin;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use uuid::Uuid;

/// What a host is told that gave a VM up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// The pair in which it was the source.
    pub origin: Uuid,
    /// The pair in which it is to be the target.
    pub pair: Uuid,
    /// The epoch in which the other host is primary.
    pub epoch: u64,
    /// The host that is primary now.
    pub source_host: Uuid,
    /// Its name.
    pub source_name: String,
    /// The VM's id there.
    pub vm: String,
    /// Its id here.
    pub target_vm: String,
    /// The VM's configuration there.
    pub config: String,
    /// The same in the form of no hypervisor in particular.
    #[serde(default)]
    pub described: Option<Box<Described>>,
    /// Keys of the disks that the VM has there and this host has not.
    pub excluded: Vec<String>,
    /// The disks that both have.
    pub disks: Vec<SharedDisk>,
    /// What is called otherwise here.
    #[serde(default)]
    pub back: WayBack,
    /// Kind of the digests of what has to be read.
    pub hash: HashKind,
    /// Their leaf size in bytes.
    pub leaf_bytes: u32,
}

/// A disk that both hosts have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedDisk {
    /// The disk's key.
    pub key: String,
    /// Its volume on the host that is primary now.
    pub there: String,
    /// Its volume on the host that was.
    pub here: String,
}

/// What became of the VM's disks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Adopted {
    /// The generation that they are.
    pub generation: Generation,
    /// Keys of the disks that had to be read.
    pub read: Vec<String>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// An adoption that is not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Adopting {
    number: u64,
    epoch: u64,
}

/// Settles which generation of `pair` the disks of `vm` here will be once it has left in `epoch`, and gives its number and
/// what each of the `volumes` is, with its size in bytes. Asked again, it is the same number.
pub fn reserve(
    layout: &Layout,
    hypervisor: &dyn RoleHypervisor,
    pair: Uuid,
    epoch: u64,
    volumes: &[String],
) -> Result<(u64, Vec<(Location, u64)>)> {
    let located = volumes.iter().map(|volume| hypervisor.locate(volume));
    let located = located.collect::<Result<Vec<_>>>()?;
    if let Some(kept) = read_json::<Adopting>(&layout.adopting(pair))? {
        if kept.epoch == epoch {
            return Ok((kept.number, located));
        }
    }
    let known: Option<TargetPair> = read_json(&layout.target_pair(pair))?;
    let all = store::generations(layout, pair)?;
    let newest = all.iter().map(|g| g.number).max();
    let last = known.map_or(0, |known| known.last.max(known.head.unwrap_or(0)));
    let mut number = last.max(newest.unwrap_or(0)) + 1;
    let listing = Listing::default();
    let is_taken = |number| -> Result<bool> {
        for (location, _) in &located {
            let volume = Volume {
                location,
                pair,
                listing: &listing,
            };
            if volume.is_taken(number)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    while is_taken(number)? {
        number += 1;
    }
    write_json(&layout.adopting(pair), &Adopting { number, epoch })?;
    Ok((number, located))
}

/// Notes of the files among the disks of `sent`, which was just sealed on the host `target` while `vm` was off, when they
/// were written last: it shows later that they are still what was sent.
pub fn note_written(
    layout: &Layout,
    vm: &str,
    target: Uuid,
    sent: &Generation,
    files: &[(String, PathBuf)],
) -> Result<()> {
    for (index, disk) in sent.disks.iter().enumerate() {
        if let Some((_, path)) = files.iter().find(|(volume, _)| *volume == disk.source) {
            let path_of_note = layout.sent_stamp(vm, target, sent.number, index);
            write_json(&path_of_note, &super::file::written(path)?)?;
        }
    }
    Ok(())
}

/// Makes the VM's disks on this host a generation of the pair in which it is the target from now on. The caller holds the
/// VM's lock. Nothing of the disks is changed.
///
/// Fails with [`Kind::Refused`] if the VM runs here, or this host has seen a newer epoch.
pub fn adopt(
    layout: &Layout,
    hypervisor: &dyn RoleHypervisor,
    order: &Adopt,
    stop: &Stop,
) -> Result<Adopted> {
    let what = format!("the replica of VM {}", order.vm);
    let _lock = Lock::take_within(PATIENCE, &layout.pair_lock(order.pair), &what)?;
    let mut notes = Vec::new();
    let (mut pair, generation, read) = match done_before(layout, order)? {
        Some((pair, generation)) => {
            if read_json::<Adopting>(&layout.adopting(order.pair))?.is_none() {
                return Ok(Adopted {
                    generation,
                    read: Vec::new(),
                    notes,
                });
            }
            (pair, generation, Vec::new())
        }
        None => become_replica(layout, hypervisor, order, stop, &mut notes)?,
    };
    let why = format!(
        "it is a replica of VM {} on {}",
        order.vm, order.source_name
    );
    notes.extend(order.back.lost.iter().cloned());
    set_guard(layout, &order.target_vm, pair.standing, &why)?;
    hypervisor.yield_to(&order.target_vm, order.pair)?;
    crash::point("adopt publish");
    let all = store::generations(layout, order.pair)?;
    let listing = &Listing::default();
    notes.extend(publish(hypervisor, &pair, &all, listing)?);
    let place = (layout, listing);
    let overwritten = super::prune::drop_overwritten(place, hypervisor, &mut pair, &generation)?;
    notes.extend(overwritten);
    store::remove(&layout.adopting(order.pair))?;
    notes.extend(drop_old_bases(order.origin, &generation));
    Ok(Adopted {
        generation,
        read,
        notes,
    })
}

/// All up to the standing as a replica. Tells also the keys of the disks that were read.
fn become_replica(
    layout: &Layout,
    hypervisor: &dyn RoleHypervisor,
    order: &Adopt,
    stop: &Stop,
    notes: &mut Vec<String>,
) -> Result<(TargetPair, Generation, Vec<String>)> {
    if hypervisor.is_running(&order.target_vm)? {
        return Err(Error::new(
            Kind::Refused,
            format!("VM {} runs on this host", order.target_vm),
        )
        .advise(
            "both hosts would run it: decide which one has what is to be kept, and shut the other down",
        ));
    }
    notes.extend(give_up(layout, hypervisor, order)?);
    crash::point("adopt given-up");
    let volumes: Vec<String> = order.disks.iter().map(|disk| disk.here.clone()).collect();
    let (number, located) = reserve(layout, hypervisor, order.pair, order.epoch, &volumes)?;
    let known: Option<TargetPair> = read_json(&layout.target_pair(order.pair))?;
    let mut pair = target_pair(order, known);
    // Durable before the first volume is marked: what carries the pair's mark can be traced to it.
    write_json(&layout.target_pair(order.pair), &pair)?;
    crash::point("adopt pair");
    let former = others_of(layout, &order.target_vm, order.pair)?;
    let work = Work {
        layout,
        order,
        number,
        stop,
        sent: newest_sent(layout, &order.target_vm, order.source_host)?
            .filter(|sent| sent.pair == order.origin),
    };
    let mut read = Vec::new();
    let mut disks = Vec::new();
    for (index, (disk, (location, size))) in order.disks.iter().zip(&located).enumerate() {
        crash::point(&format!("adopt {}", disk.key));
        let (record, was_read) = work
            .adopt(index, disk, location, *size, &former)
            .map_err(|e| e.context(format!("disk {}", disk.key)))?;
        read.extend(was_read.then(|| disk.key.clone()));
        disks.push(record);
    }
    let mut generation = work.generation(disks, &read);
    generation.state = hypervisor.state(&order.target_vm)?;
    super::proof::note(layout, &generation, &Listing::default())?;
    write_json(&layout.generation(order.pair, number), &generation)?;
    crash::point("adopt manifest");
    pair.head = Some(number);
    pair.standing.role = Role::Replica;
    write_json(&layout.target_pair(order.pair), &pair)?;
    crash::point("adopt replica");
    Ok((pair, generation, read))
}

/// What an earlier call has come to, if this host is the replica already.
fn done_before(layout: &Layout, order: &Adopt) -> Result<Option<(TargetPair, Generation)>> {
    let Some(pair) = read_json::<TargetPair>(&layout.target_pair(order.pair))? else {
        return Ok(None);
    };
    let Standing { role, epoch } = pair.standing;
    if epoch > order.epoch {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "this host is {role} for VM {} since epoch {epoch}, and was told to become a replica in epoch {}",
                order.target_vm, order.epoch
            ),
        )
        .advise("the roles were changed since: 'status' on both hosts tells them"));
    }
    match pair.head {
        Some(number) if (role, epoch) == (Role::Replica, order.epoch) => {
            let generation = read_json(&layout.generation(order.pair, number))?;
            Ok(generation.map(|generation| (pair, generation)))
        }
        _ => Ok(None),
    }
}

/// What this host was for the VM it is no more.
fn give_up(layout: &Layout, hypervisor: &dyn RoleHypervisor, order: &Adopt) -> Result<Vec<String>> {
    let vm = &order.target_vm;
    let pairs = store::source_pairs(layout, vm)?;
    let Some(origin) = pairs.iter().find(|pair| pair.pair == order.origin) else {
        return Err(Error::new(
            Kind::NotFound,
            format!(
                "this host knows nothing of VM {vm} as the source of pair {}",
                order.origin
            ),
        )
        .advise("sync to it as to any host, under another VM id if the old VM is to stay"));
    };
    if origin.standing.epoch > order.epoch {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "this host is {} for VM {vm} since epoch {}, which is newer than epoch {}",
                origin.standing.role, origin.standing.epoch, order.epoch
            ),
        )
        .advise("the host that asks was replaced: 'status' on both hosts tells the roles"));
    }
    if origin.standing.role == Role::Primary && origin.standing.epoch == order.epoch {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "both hosts say that they are primary for VM {vm} in epoch {}",
                order.epoch
            ),
        )
        .advise("decide which one has what is to be kept before anything is overwritten"));
    }
    retire(layout, hypervisor, vm, order.epoch, &order.source_name)
}

/// What this host will remember. Until all is done it takes no generations.
fn target_pair(order: &Adopt, known: Option<TargetPair>) -> TargetPair {
    let standing = Standing {
        role: Role::Retired,
        epoch: order.epoch,
    };
    let disks = order.disks.iter();
    let volumes: BTreeMap<_, _> = disks
        .map(|disk| (disk.there.clone(), disk.here.clone()))
        .collect();
    // What this pair has been told before is more than what can be made out from the way there.
    let (storage_map, maps) = match &known {
        Some(known) => (
            with_known(&known.storage_map, &order.back.storages),
            known.maps.settled(&order.back.maps),
        ),
        None => (order.back.storages.clone(), order.back.maps.clone()),
    };
    let known = known.map(|known| (known.pinned, known.head, known.last));
    let (pinned, head, last) = known.unwrap_or((BTreeSet::new(), None, 0));
    TargetPair {
        pair: order.pair,
        source_host: order.source_host,
        source_name: order.source_name.clone(),
        vm: order.vm.clone(),
        target_vm: order.target_vm.clone(),
        volumes,
        storage_map,
        maps,
        forks: Vec::new(),
        pinned,
        head,
        last,
        standing,
    }
}

/// The snapshots that were kept for the next sync in the old direction: there is none.
fn drop_old_bases(origin: Uuid, generation: &Generation) -> Option<String> {
    let disks = generation.disks.iter();
    let volumes = disks.filter_map(|disk| match &disk.location {
        Location::ThinLv { lv, .. } => Some(lv),
        Location::ThickLv { .. } | Location::File { .. } => None,
    });
    let dropped = snapshot::drop_bases(volumes, &OwnerTag::new(origin), None);
    let failed = dropped.err();
    failed.map(|e| format!("a snapshot that was sent last stays for now: {e}"))
}

/// One adoption, under way.
struct Work<'a> {
    layout: &'a Layout,
    order: &'a Adopt,
    number: u64,
    stop: &'a Stop,
    /// What was sent last in the old direction.
    sent: Option<Generation>,
}

impl Work<'_> {
    /// Tells also whether the disk had to be read.
    fn adopt(
        &self,
        index: usize,
        disk: &SharedDisk,
        location: &Location,
        size: u64,
        former: &[Uuid],
    ) -> Result<(DiskRecord, bool)> {
        // Before it is marked, which would look like a change.
        let proved = self.proved(disk, location, size)?;
        let listing = Listing::default();
        let volume = Volume {
            location,
            pair: self.order.pair,
            listing: &listing,
        };
        volume.adopt(former, self.number)?;
        let record = |digest, hash, leaf_bytes| DiskRecord {
            key: disk.key.clone(),
            source: disk.there.clone(),
            target: disk.here.clone(),
            location: location.clone(),
            size,
            digest,
            hash,
            leaf_bytes,
            changed: 0,
        };
        let table = self.layout.table(self.order.pair, self.number, index);
        private_dir(&self.layout.generations(self.order.pair))?;
        if let Some((from, sent)) = proved {
            store::copy(&from, &table)?;
            return Ok((record(sent.digest, sent.hash, sent.leaf_bytes), false));
        }
        let leaf_bytes = self.order.leaf_bytes;
        let geometry = Geometry::new(size, leaf_bytes)?;
        let kept = DigestTable::create(&table, self.order.hash, geometry, Uuid::nil())?;
        let digest = self.read(&volume, &kept, geometry)?;
        store::flush(&table)?;
        Ok((record(digest, self.order.hash, leaf_bytes), true))
    }

    /// The table and the record of the disk as it was sent last, if it is still just that.
    fn proved(
        &self,
        disk: &SharedDisk,
        location: &Location,
        size: u64,
    ) -> Result<Option<(std::path::PathBuf, &DiskRecord)>> {
        let Some(sent) = &self.sent else {
            return Ok(None);
        };
        let mut disks = sent.disks.iter();
        let Some(index) = disks.position(|d| d.source == disk.here && d.size == size) else {
            return Ok(None);
        };
        let (record, host) = (&sent.disks[index], self.order.source_host);
        let vm = &self.order.target_vm;
        let is_same = match location {
            Location::ThinLv { lv, .. } => is_base(lv, sent)?,
            // Nothing tells whether it was written to.
            Location::ThickLv { .. } => false,
            Location::File { path, .. } => {
                let then = read_json(&self.layout.sent_stamp(vm, host, sent.number, index))?;
                then.is_some_and(|then: super::file::Written| {
                    super::file::written(path).is_ok_and(|now| now == then)
                })
            }
        };
        if !is_same {
            return Ok(None);
        }
        let table = self.layout.sent_table(vm, host, sent.number, index);
        let geometry = Geometry::new(record.size, record.leaf_bytes)?;
        let found = DigestTable::open_of(&table, record.hash, geometry, record.digest)?;
        Ok(found.map(|_| (table, record)))
    }

    /// Reads the generation's volume, and fills the table of its segments' digests.
    fn read(&self, volume: &Volume, table: &DigestTable, geometry: Geometry) -> Result<Digest> {
        let tuning = Tuning {
            hash: self.order.hash,
            ..Tuning::default()
        };
        let params = Params::new(geometry, &tuning);
        volume.listing.forget();
        let sealed = volume.sealed(self.number)?;
        let (mut image, _) = BlockEnd::from_medium(&sealed.path, volume.location.format())?;
        let all = 0..geometry.segments();
        image.scan(&params, all, self.stop, |index, found| match found? {
            Some(digest) => table.put(index, &digest),
            None => Ok(()),
        })?;
        table.image_digest()
    }

    fn generation(&self, disks: Vec<DiskRecord>, read: &[String]) -> Generation {
        let mut notes = vec![format!(
            "the VM's own disks, as they were when {} took it over",
            self.order.source_name
        )];
        if !read.is_empty() {
            notes.push(format!("not the same as there: {}", read.join(", ")));
        }
        Generation {
            version: Generation::VERSION,
            pair: self.order.pair,
            epoch: self.order.epoch,
            number: self.number,
            parent: None,
            taken_at: clock::now(),
            consistency: Consistency::Offline,
            notes,
            disks,
            excluded: self.order.excluded.clone(),
            config: self.order.config.clone(),
            described: self.order.described.clone(),
            state: None,
        }
    }
}

/// Whether a thin volume still holds just what was sent: it shares all blocks with the snapshot that was.
fn is_base(lv: &LvId, sent: &Generation) -> Result<bool> {
    match snapshot::base_of(lv, &OwnerTag::new(sent.pair), sent.number)? {
        Some(base) => {
            let now = lvm::get(lv)?;
            Ok(thin::changed(&base, &now).is_ok_and(|changed| changed.is_empty()))
        }
        None => Ok(false),
    }
}
