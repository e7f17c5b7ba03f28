//! Where the disks of a replica go on this node: on which storage, under which name, and as what.
//!
//! The target's storages may be of other kinds than the source's. A volume gets the name that Proxmox would give it
//! there, with the source's number if that is free.

use crate::disks::{self, Location as PveLocation};
use crate::drive::DriveTarget;
use crate::replica_config::TargetVolume;
use crate::storage_cfg::{Storage, StorageCfg, StorageEntry};
use crate::vm_config::VmConfig;
use crate::volid::{Format, Vmid, Volid};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::image::ImageFormat;
use rblocksync::lvm::LvId;
pub(crate) use rblocksync::replica::mapped as mapping;
use rblocksync::replica::Location;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn mapped<'a>(map: &'a [(String, String)], storage: &'a str) -> &'a str {
    mapping(map, storage).unwrap_or(storage)
}

/// Stands in a map for every storage that is not named in it.
pub(crate) const ANY: &str = "*";

/// The storage of this host for a disk of another kind of hypervisor: the one of its pool's name, Proxmox VE's usual one for
/// disks, or the first that can take it.
pub(crate) fn usual(storages: &StorageCfg, pool: Option<&str>, node: &str) -> Result<String> {
    let is_fit = |id: &str| usable(storages, id, node).is_ok_and(|e| check_alone(e).is_ok());
    let named = pool.into_iter().chain(["local-lvm"]);
    let all = storages.entries().iter().map(|entry| entry.id.as_str());
    let fit = named.chain(all).find(|id| is_fit(id));
    fit.map(str::to_owned).ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            format!("no storage of {node} can hold disks of a replica"),
        )
        .advise(WRITABLE)
    })
}

pub(crate) fn usable<'a>(
    storages: &'a StorageCfg,
    id: &str,
    node: &str,
) -> Result<&'a StorageEntry> {
    let entry = storages
        .usable(id, node)
        .map_err(|e| e.advise("name another storage with --storage SRC=DST"))?;
    if !entry.holds_images() {
        return Err(Error::new(
            Kind::Refused,
            format!("storage {id} on {node} is not for disk images"),
        )
        .advise(
            "add 'images' to its content types, or name another storage with --storage SRC=DST",
        ));
    }
    entry.check_present()?;
    Ok(entry)
}

/// The volume a disk was placed on before. It does not move on its own.
pub(crate) fn again(volume: &str, storage: &str) -> Result<Volid> {
    let volid = Volid::parse(volume)?;
    match volid.storage() == storage {
        true => Ok(volid),
        false => Err(Error::new(
            Kind::Refused,
            format!("the replica's volume is {volid}, and cannot be moved to storage {storage}"),
        )
        .advise("keep the storage map as it was")),
    }
}

/// What a volume on `entry` is that is to hold a disk of this format.
pub(crate) fn usual_format(entry: &StorageEntry, format: ImageFormat) -> Format {
    match (&entry.storage, format) {
        (Storage::Dir { .. }, ImageFormat::Qcow2) => Format::Qcow2,
        // btrfs could hold qcow2 files as well, but as a subvolume a disk has snapshots of Proxmox's there.
        _ => Format::Raw,
    }
}

/// A volume name on `entry`: the source's number if it is free. A template's disks are named as such.
pub(crate) fn fresh(
    entry: &StorageEntry,
    vmid: Vmid,
    format: Format,
    source: &Volid,
    taken: &BTreeSet<Volid>,
) -> Result<Volid> {
    // Of a linked clone the base's name comes first.
    let name = source.volname().rsplit('/').next().unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    let digits = stem.rsplit('-').next().unwrap_or_default();
    let first = digits.parse::<u32>().unwrap_or(0);
    let is_base = name.starts_with("base-");
    if is_base && matches!(entry.storage, Storage::Lvm { .. }) {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "{source} is a template's disk, and storage {} of type {} cannot hold templates",
                entry.id,
                entry.kind()
            ),
        )
        .advise("name a storage of type lvmthin, dir or btrfs with --storage SRC=DST"));
    }
    for number in std::iter::once(first).chain(0..1000) {
        let volid = match is_base {
            true => entry.base_volid(vmid, number, format)?,
            false => entry.disk_volid(vmid, number, format)?,
        };
        if !taken.contains(&volid) {
            return Ok(volid);
        }
    }
    Err(Error::new(
        Kind::Refused,
        format!("no volume name is left on storage {}", entry.id),
    ))
}

/// Where to go instead.
const WRITABLE: &str = "name a storage of type lvmthin, lvm, dir or btrfs with --storage SRC=DST";

/// Refuses a storage on which other hosts may get in the way of a replica.
pub(crate) fn check_alone(entry: &StorageEntry) -> Result<()> {
    let why = match &entry.storage {
        // Proxmox changes such a group under a lock of its cluster, which is not ours to take.
        Storage::Lvm { .. } if entry.shared => {
            "it is shared, and other hosts may change its volume group at the same time"
        }
        _ if entry.is_network() => {
            "nothing keeps another host from writing to a replica on a network share"
        }
        _ => return Ok(()),
    };
    Err(Error::new(
        Kind::Refused,
        format!(
            "storage {} (type {}) cannot hold a replica: {why}",
            entry.id,
            entry.kind()
        ),
    )
    .advise(WRITABLE))
}

/// The volume as the suite's core knows it. Refuses kinds that nothing can be written to yet.
pub(crate) fn core_location(location: &PveLocation) -> Result<Location> {
    let refuse = |what: &str| {
        let why = format!("{what} are only read, and cannot be a replica's yet");
        Err(Error::new(Kind::Refused, why).advise(WRITABLE))
    };
    Ok(match location {
        PveLocation::LvmThin { vg, lv, pool } => Location::ThinLv {
            lv: LvId::new(vg.as_str(), lv.as_str())?,
            pool: LvId::new(vg.as_str(), pool.as_str())?,
        },
        PveLocation::Lvm { format, .. } if !format.is_raw() => {
            return refuse("qcow2 images in LVs");
        }
        PveLocation::Lvm { vg, lv, .. } => Location::ThickLv {
            lv: LvId::new(vg.as_str(), lv.as_str())?,
        },
        PveLocation::File { path, format } => Location::File {
            path: path.clone(),
            format: *format,
            subvolume: false,
        },
        PveLocation::Subvolume { .. } => Location::File {
            path: location.path(),
            format: ImageFormat::Raw,
            subvolume: true,
        },
        PveLocation::Zvol { .. } => return refuse("ZFS volumes"),
        PveLocation::Rbd { .. } => return refuse("RBD images"),
    })
}

/// The base of a linked clone, if a volume of its name is on this host: files only, of the others nothing is asked.
pub(crate) fn base_of(clone: &Volid, storages: &StorageCfg) -> Option<Volid> {
    let entry = storages.get(clone.storage())?;
    let parts: Vec<&str> = clone.volname().split('/').collect();
    let [owner, base, _, _] = parts[..] else {
        return None;
    };
    let base = Volid::new(clone.storage(), &format!("{owner}/{base}")).ok()?;
    let (_, location) = disks::locate(entry, &base).ok()?;
    location.path().is_file().then_some(base)
}

/// The cloud-init drives' volumes on the target, where Proxmox makes them when the VM starts.
pub(crate) fn cloud_init(
    config: &VmConfig,
    storages: &StorageCfg,
    node: &str,
    map: &[(String, String)],
    vmid: Vmid,
) -> Result<BTreeMap<Volid, TargetVolume>> {
    let mut volumes = BTreeMap::new();
    for drive in config.drives() {
        if let DriveTarget::CloudInit(source) = &drive.target {
            let entry = usable(storages, mapped(map, source.storage()), node)
                .map_err(|e| e.context(format!("disk {}", drive.key)))?;
            let volid = entry.cloudinit_volid(vmid)?;
            volumes.insert(source.clone(), TargetVolume { volid, size: None });
        }
    }
    Ok(volumes)
}
