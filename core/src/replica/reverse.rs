//! The new primary's part in turning a pair round: it will send to the host that it took the VM over from. And what a host
//! says that is not to take a VM over any more.

use super::adopt::SharedDisk;
use super::layout::Layout;
use super::manifest::{DiskRecord, Generation};
use super::maps::{inverse, Maps, NameMap};
use super::role::{Role, Standing};
use super::seal;
use super::stand::stand;
use super::store::{self, note_sent, read_json, write_json, SourcePair, TargetPair};
use super::takeover::PATIENCE;
use super::Location;
use crate::clock;
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::guest::Described;
use crate::hypervisor::RoleHypervisor;
use crate::lock::Lock;
use crate::lvm::{LvId, OwnerTag};
use crate::snapshot::{self, Consistency};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What the new primary is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeginReverse {
    /// The pair by which it got the VM.
    pub origin: Uuid,
    /// The generation that it took over.
    pub generation: u64,
    /// The pair in which it is to be the source.
    pub pair: Uuid,
    /// Number of the generation that the other host's disks become, which are the same.
    pub number: u64,
    /// The epoch in which it is primary.
    pub epoch: u64,
    /// The other host.
    pub host: Uuid,
    /// Its name.
    pub host_name: String,
    /// What tells the VM from another one that gets its id later.
    pub vm_identity: Option<String>,
    /// The VM's disks on the other host, as the generation has them: key, volume and what that is.
    pub disks: Vec<(String, String, Location)>,
}

/// What became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reversed {
    /// The VM's configuration on the new primary.
    pub config: String,
    /// The same in the form of no hypervisor in particular.
    #[serde(default)]
    pub described: Option<Box<Described>>,
    /// The disks that both hosts have.
    pub disks: Vec<SharedDisk>,
    /// Keys of the disks that the first sync back has to compare.
    pub compared: Vec<String>,
    /// What is called otherwise on the way back.
    #[serde(default)]
    pub back: WayBack,
}

/// The maps of the way back: those of the way there, turned round.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WayBack {
    /// Storages.
    pub storages: NameMap,
    /// What else.
    pub maps: Maps,
    /// What cannot be told of them.
    pub lost: Vec<String>,
}

impl WayBack {
    /// From the maps of the pair by which this host got the VM.
    pub fn of(origin: &TargetPair) -> WayBack {
        let (storages, mut lost) = inverse(&origin.storage_map);
        let (maps, more) = origin.maps.inverse();
        lost.extend(more);
        WayBack {
            storages,
            maps,
            lost,
        }
    }
}

/// Notes what the other host has, and keeps what is needed to send only what the guest changes from now on: what was sealed
/// does not change, so it makes no difference whether the VM was started since. Safe to repeat.
pub fn begin_reverse(
    layout: &Layout,
    hypervisor: &dyn RoleHypervisor,
    order: &BeginReverse,
) -> Result<Reversed> {
    let what = format!("the replica {}", order.origin);
    let _lock = Lock::take_within(PATIENCE, &layout.pair_lock(order.origin), &what)?;
    let target = target_of(layout, order.origin)?;
    let wanted = Standing {
        role: Role::Primary,
        epoch: order.epoch,
    };
    if target.standing != wanted {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "this host is {} for VM {} since epoch {}, and not primary in epoch {}",
                target.standing.role, target.target_vm, target.standing.epoch, order.epoch
            ),
        )
        .advise("'status' on both hosts tells the roles; the newest epoch counts"));
    }
    let vm = &target.target_vm;
    let manifest = layout.generation(order.origin, order.generation);
    let Some(taken) = read_json::<Generation>(&manifest)? else {
        return Err(super::replicas::no_generation(vm, order.generation));
    };
    let config = hypervisor.config(vm)?;
    let described = hypervisor.described(&config).map(Box::new);
    let generation = generation_there(order, &taken, &config, described.clone())?;
    let newest = store::newest_sent(layout, vm, order.host)?;
    let is_past = newest.is_some_and(|g| g.pair == order.pair && g.number > order.number);
    if !is_past {
        know_of(
            layout,
            vm,
            order.host,
            &source_pair(order),
            Some(&generation),
        )?;
        crash::point("reverse known");
        keep_bases(layout, vm, order, &taken)?;
        crash::point("reverse bases");
    }
    stand(layout, vm, wanted)?;
    let disks = generation.disks.iter().enumerate();
    let compared = disks
        .filter(|(index, _)| !has_base(layout, vm, order, &taken, *index))
        .map(|(_, disk)| disk.key.clone())
        .collect();
    let shared = |disk: &DiskRecord| SharedDisk {
        key: disk.key.clone(),
        there: disk.source.clone(),
        here: disk.target.clone(),
    };
    Ok(Reversed {
        config,
        described,
        disks: generation.disks.iter().map(shared).collect(),
        compared,
        back: WayBack::of(&target),
    })
}

/// Notes that `vm` of this host is sent to the host `target` as `pair`, which has `newest` of it.
pub fn know_of(
    layout: &Layout,
    vm: &str,
    target: Uuid,
    pair: &SourcePair,
    newest: Option<&Generation>,
) -> Result<()> {
    let path = layout.source_pair(vm, target);
    let known = read_json::<SourcePair>(&path)?;
    let mut pair = pair.clone();
    if let (None, Some(known)) = (&pair.address, &known) {
        pair.address.clone_from(&known.address);
    }
    if known.as_ref() != Some(&pair) {
        write_json(&path, &pair)?;
    }
    if let Some(newest) = newest {
        // What was known of older generations is of no use, and must not be taken for newer.
        for extension in ["digests", "bitmap", "written"] {
            for old in store::files_in(&layout.sent(vm, target), extension)? {
                store::remove(&old)?;
            }
        }
        note_sent(layout, vm, target, newest, &[newest.number])?;
    }
    Ok(())
}

fn target_of(layout: &Layout, pair: Uuid) -> Result<TargetPair> {
    read_json(&layout.target_pair(pair))?.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            format!("there is no replica {pair} on this host"),
        )
    })
}

fn source_pair(order: &BeginReverse) -> SourcePair {
    SourcePair {
        pair: order.pair,
        vm_identity: order.vm_identity.clone(),
        target_name: order.host_name.clone(),
        // It has come to us, so we have never had to find it.
        address: None,
        standing: Standing {
            role: Role::Primary,
            epoch: order.epoch,
        },
    }
}

/// The generation that the other host's disks become.
fn generation_there(
    order: &BeginReverse,
    taken: &Generation,
    config: &str,
    described: Option<Box<Described>>,
) -> Result<Generation> {
    let mut disks = Vec::new();
    for disk in &taken.disks {
        let there = order.disks.iter().find(|(key, ..)| *key == disk.key);
        let Some((_, volume, location)) = there else {
            return Err(Error::new(
                Kind::Protocol,
                format!("disk {} is missing in a request", disk.key),
            ));
        };
        disks.push(DiskRecord {
            source: disk.target.clone(),
            target: volume.clone(),
            location: location.clone(),
            changed: 0,
            ..disk.clone()
        });
    }
    Ok(Generation {
        version: Generation::VERSION,
        pair: order.pair,
        epoch: order.epoch,
        number: order.number,
        parent: None,
        taken_at: clock::now(),
        consistency: Consistency::Offline,
        notes: Vec::new(),
        disks,
        excluded: Vec::new(),
        config: config.to_owned(),
        described,
        state: taken.state.clone(),
    })
}

/// Keeps of each disk what was taken over: the table of its segments' digests, and of a thin volume a snapshot, or what
/// QEMU's bitmap is called that began with it.
fn keep_bases(layout: &Layout, vm: &str, order: &BeginReverse, taken: &Generation) -> Result<()> {
    let owner = OwnerTag::new(order.pair);
    for (index, disk) in taken.disks.iter().enumerate() {
        let from = layout.table(taken.pair, taken.number, index);
        if from.exists() {
            let to = layout.sent_table(vm, order.host, order.number, index);
            store::copy(&from, &to)?;
        }
        let bitmap = layout.taken_bitmap(taken.pair, taken.number, index);
        if bitmap.exists() {
            let to = layout.sent_bitmap(vm, order.host, order.number, index);
            store::copy(&bitmap, &to)?;
        }
        if let Location::ThinLv { lv, .. } = &disk.location {
            let sealed = super::thin::generation_of(lv, taken.number)?;
            snapshot::keep_as_base(lv, &sealed, &owner, order.number)?;
            crash::point(&format!("reverse {}", disk.key));
        }
    }
    snapshot::drop_bases(thin_volumes(taken), &owner, Some(order.number))
}

fn thin_volumes(generation: &Generation) -> impl Iterator<Item = &LvId> {
    let disks = generation.disks.iter();
    disks.filter_map(|disk| match &disk.location {
        Location::ThinLv { lv, .. } => Some(lv),
        Location::ThickLv { .. } | Location::File { .. } => None,
    })
}

/// Whether the next sync can tell what changed of a disk.
fn has_base(
    layout: &Layout,
    vm: &str,
    order: &BeginReverse,
    taken: &Generation,
    index: usize,
) -> bool {
    let table = layout.sent_table(vm, order.host, order.number, index);
    let is_known = match &taken.disks[index].location {
        Location::ThinLv { lv, .. } => {
            let base = snapshot::base_of(lv, &OwnerTag::new(order.pair), order.number);
            base.is_ok_and(|base| base.is_some())
        }
        // Whether it can be relied on is seen when it is asked for.
        Location::File { .. } => layout
            .sent_bitmap(vm, order.host, order.number, index)
            .exists(),
        Location::ThickLv { .. } => false,
    };
    is_known && table.exists()
}

/// What a target is told that is not to take a VM over any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decline {
    /// The pair.
    pub pair: Uuid,
    /// The epoch that it stays a replica in.
    pub epoch: u64,
}

/// Makes sure that this host will obey no order to take the VM over that is older than the epoch named: durable when this
/// returns. Fails with [`Kind::Refused`] if it has taken it over already. Safe to repeat.
pub fn decline(layout: &Layout, hypervisor: &dyn RoleHypervisor, order: &Decline) -> Result<()> {
    let what = format!("the replica {}", order.pair);
    let _lock = Lock::take_within(PATIENCE, &layout.pair_lock(order.pair), &what)?;
    seal::recover(layout, hypervisor, order.pair)?;
    let mut pair = target_of(layout, order.pair)?;
    let Standing { role, epoch } = pair.standing;
    if role != Role::Replica || epoch > order.epoch {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "the target is {role} for VM {} since epoch {epoch}, so it cannot leave the VM to its source",
                pair.target_vm
            ),
        )
        .advise("run the migration again without --undo: it is finished then"));
    }
    pair.standing.epoch = order.epoch;
    write_json(&layout.target_pair(order.pair), &pair)?;
    crash::point("declined");
    Ok(())
}
