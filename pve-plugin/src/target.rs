//! This node as the target of a replication: where volumes go, and the replica's configuration.

use crate::config_text::ConfigText;
use crate::disks::{self, Disk, Location as PveLocation, Resolved, SkipReason, Skipped};
use crate::drive::{DiskKey, DriveTarget};
use crate::guard;
use crate::node::PveTree;
use crate::replica_config::{self, ReplicaSpec, TargetVolume};
use crate::storage_cfg::{Storage, StorageCfg, StorageEntry};
use crate::vm_config::VmConfig;
use crate::volid::{Format, Vmid, Volid};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::hypervisor::{Hold, Published, TargetHypervisor};
use rblocksync::image::ImageFormat;
use rblocksync::lvm::LvId;
use rblocksync::replica::{
    set_guard, Generation, Layout, Location, Placement, ReplicaRequest, Role, TargetPair,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use uuid::Uuid;

/// The VM that a replica is of, and its node.
struct Source<'a> {
    vmid: Vmid,
    node: &'a str,
}

impl Source<'_> {
    fn of<'a>(vm: &str, node: &'a str) -> Result<Source<'a>> {
        let vmid = vmid(vm)?;
        Ok(Source { vmid, node })
    }
}

/// A Proxmox VE node that keeps replicas.
pub struct PveTarget {
    pub(crate) tree: PveTree,
    pub(crate) layout: Layout,
}

impl PveTarget {
    /// The node of `tree`, with the suite's state under `layout`.
    pub fn new(tree: PveTree, layout: Layout) -> Self {
        PveTarget { tree, layout }
    }

    /// In one cluster a VM id exists once, so the replica's configuration cannot be in place there if it
    /// has the id of its source: it is kept aside until it is needed.
    fn config_aside(&self, vmid: Vmid, source: &Source) -> Result<bool> {
        if vmid != source.vmid || !self.tree.is_clustered()? {
            return Ok(false);
        }
        Ok(match self.tree.guest(vmid)? {
            Some((node, "qemu-server")) => node == source.node && node != self.tree.local_node()?,
            _ => false,
        })
    }

    /// Refuses an id that another guest has, and a replica that is in use.
    fn check_free(&self, pair: Uuid, vmid: Vmid, source: &Source) -> Result<()> {
        let node = self.tree.local_node()?;
        let context = |e: Error| e.context(format!("on {node}"));
        if self.tree.is_running(vmid)? {
            return Err(context(
                Error::new(Kind::Busy, format!("VM {vmid} is running"))
                    .advise("the replica cannot be brought up to date while it is in use"),
            ));
        }
        match self.tree.guest(vmid)? {
            None => Ok(()),
            Some(_) if self.config_aside(vmid, source)? => Ok(()),
            Some((at, "qemu-server")) if at == node => {
                self.tree.check_replaceable(vmid, pair).map_err(context)
            }
            Some((at, _)) => Err(Error::new(
                Kind::Refused,
                format!("the id {vmid} is taken by another guest of node {at}"),
            )
            .advise("choose another id for the replica with --target-vmid")),
        }
    }

    pub(crate) fn aside_path(&self, pair: Uuid, vmid: Vmid) -> PathBuf {
        self.layout.replica(pair).join(format!("{vmid}.conf"))
    }

    /// The replica's configuration as it is now, if there is one.
    fn previous(&self, pair: Uuid, vmid: Vmid, aside: bool) -> Result<Option<VmConfig>> {
        if aside {
            let path = self.aside_path(pair, vmid);
            return match std::fs::read_to_string(&path) {
                Ok(text) => VmConfig::parse(&text).map(Some),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Error::io(format!("cannot read {}", path.display()), e)),
            };
        }
        match self.tree.guest(vmid)? {
            Some(_) => self.tree.vm_config(vmid).map(Some),
            None => Ok(None),
        }
    }
}

impl PveTarget {
    /// The configuration of the replica as of `newest`.
    pub(crate) fn replica_text(
        &self,
        pair: &TargetPair,
        newest: &Generation,
        kept: &[replica_config::Generation],
        previous: Option<&VmConfig>,
    ) -> Result<String> {
        let target_vmid = vmid(&pair.target_vm)?;
        let config = VmConfig::parse(&newest.config)?;
        let storages = self.tree.storage_cfg()?;
        let node = self.tree.local_node()?;
        let mut volumes = cloud_init(&config, &storages, &node, &pair.storage_map, target_vmid)?;
        for disk in &newest.disks {
            let target = Volid::parse(&disk.target)?;
            volumes.insert(
                Volid::parse(&disk.source)?,
                TargetVolume {
                    volid: target,
                    size: Some(disk.size),
                },
            );
        }
        replica_config::render(&ReplicaSpec {
            pair: pair.pair,
            source_host: &pair.source_name,
            config: &config,
            resolved: &resolved(vmid(&pair.vm)?, &config, newest),
            target_vmid,
            volumes: &volumes,
            generations: kept,
            previous,
        })
    }

    /// The same with the hookscript that holds beyond `qm unlock`, and what that is to say.
    fn guarded(&self, pair: &TargetPair, text: &str) -> Result<String> {
        if pair.standing.role != Role::Replica {
            return Ok(text.to_owned());
        }
        let why = format!(
            "it is the replica of VM {} on {}, and the next sync overwrites it",
            pair.vm, pair.source_name
        );
        set_guard(&self.layout, &pair.target_vm, pair.standing, &why)?;
        let mut text = ConfigText::new(text);
        let hookscript = guard::install(&self.tree, &self.layout)?;
        text.set("hookscript", hookscript.as_deref());
        Ok(text.to_string())
    }
}

impl TargetHypervisor for PveTarget {
    fn describe(&self) -> Result<(String, String)> {
        Ok(("Proxmox VE".into(), self.tree.local_node()?))
    }

    fn place(
        &self,
        request: &ReplicaRequest,
        known: &BTreeMap<String, String>,
    ) -> Result<Vec<Placement>> {
        let vmid = vmid(request.target_vm.as_deref().unwrap_or(&request.vm))?;
        self.check_free(
            request.pair,
            vmid,
            &Source::of(&request.vm, &request.source_name)?,
        )?;
        let storages = self.tree.storage_cfg()?;
        let node = self.tree.local_node()?;
        let mut taken: BTreeSet<Volid> = known
            .values()
            .filter_map(|v| Volid::parse(v).ok())
            .collect();
        let mut placements = Vec::new();
        for disk in &request.disks {
            let context = |e: Error| e.context(format!("disk {}", disk.key));
            let source = Volid::parse(&disk.volume).map_err(context)?;
            let known = known.get(&disk.volume);
            let id = match (known, mapping(&request.storage_map, source.storage())) {
                (_, Some(to)) => to.to_owned(),
                // It stays where it was.
                (Some(volume), None) => Volid::parse(volume).map_err(context)?.storage().to_owned(),
                (None, None) => source.storage().to_owned(),
            };
            let id = id.as_str();
            let entry = usable(&storages, id, &node).map_err(context)?;
            let wanted = request.formats.iter().find(|(key, _)| *key == disk.key);
            let wanted = wanted.map(|(_, format)| *format);
            let volid = match known {
                Some(volume) => again(volume, id).map_err(context)?,
                None => {
                    let format = usual_format(entry, wanted.unwrap_or(disk.format));
                    fresh(entry, vmid, format, &source, &taken).map_err(context)?
                }
            };
            let (_, location) =
                disks::locate(entry, &volid).map_err(|e| context(e.context(&volid)))?;
            let location = core_location(&location).map_err(context)?;
            if wanted.is_some_and(|format| format != location.format()) {
                return Err(context(Error::new(
                    Kind::Refused,
                    format!(
                        "{volid} is {}, and cannot be another format",
                        location.format()
                    ),
                ))
                .advise("leave --format out, or name a directory storage for a new replica"));
            }
            placements.push(Placement {
                key: disk.key.clone(),
                volume: volid.to_string(),
                location,
            });
            taken.insert(volid);
        }
        let config = VmConfig::parse(&request.config)?;
        cloud_init(&config, &storages, &node, &request.storage_map, vmid)?;
        Ok(placements)
    }

    fn hold(&self, pair: &TargetPair) -> Result<Box<dyn Hold>> {
        let target_vmid = vmid(&pair.target_vm)?;
        let held = self.tree.hold_vm(target_vmid)?;
        self.check_free(
            pair.pair,
            target_vmid,
            &Source::of(&pair.vm, &pair.source_name)?,
        )?;
        Ok(Box::new(held))
    }

    fn publish(&self, pair: &TargetPair, generations: &[Published]) -> Result<Vec<String>> {
        let Some(newest) = generations.last().map(|p| p.generation) else {
            return Ok(Vec::new());
        };
        let target_vmid = vmid(&pair.target_vm)?;
        let aside = self.config_aside(target_vmid, &Source::of(&pair.vm, &pair.source_name)?)?;
        let kept: Vec<replica_config::Generation> = generations.iter().map(listed).collect();
        let previous = self.previous(pair.pair, target_vmid, aside)?;
        let text = self.replica_text(pair, newest, &kept, previous.as_ref())?;
        let text = self.guarded(pair, &text)?;
        let node = self.tree.local_node()?;
        if aside {
            let path = self.aside_path(pair.pair, target_vmid);
            rblocksync::replica::write_text(&path, &text)?;
            return Ok(vec![format!(
                "VM ids are unique in a cluster: the replica's configuration is kept in {} on {node}",
                path.display()
            )]);
        }
        self.tree.write_vm_config(target_vmid, &text, pair.pair)?;
        Ok(Vec::new())
    }
}

pub(crate) fn vmid(text: &str) -> Result<Vmid> {
    text.parse()
}

fn mapped<'a>(map: &'a [(String, String)], storage: &'a str) -> &'a str {
    mapping(map, storage).unwrap_or(storage)
}

fn mapping<'a>(map: &'a [(String, String)], storage: &str) -> Option<&'a str> {
    let found = map.iter().find(|(from, _)| from == storage);
    found.map(|(_, to)| to.as_str())
}

fn usable<'a>(storages: &'a StorageCfg, id: &str, node: &str) -> Result<&'a StorageEntry> {
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
fn again(volume: &str, storage: &str) -> Result<Volid> {
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
fn usual_format(entry: &StorageEntry, format: ImageFormat) -> Format {
    match (&entry.storage, format) {
        // It holds raw volumes only.
        (Storage::LvmThin { .. }, _) | (_, ImageFormat::Raw) => Format::Raw,
        (_, ImageFormat::Qcow2) => Format::Qcow2,
    }
}

/// A volume name on `entry`: the source's number if it is free.
fn fresh(
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
    for number in std::iter::once(first).chain(0..1000) {
        let volid = entry.disk_volid(vmid, number, format)?;
        if !taken.contains(&volid) {
            return Ok(volid);
        }
    }
    Err(Error::new(
        Kind::Refused,
        format!("no volume name is left on storage {}", entry.id),
    ))
}

pub(crate) fn core_location(location: &PveLocation) -> Result<Location> {
    Ok(match location {
        PveLocation::LvmThin { vg, lv, pool } => Location::ThinLv {
            lv: LvId::new(vg.as_str(), lv.as_str())?,
            pool: LvId::new(vg.as_str(), pool.as_str())?,
        },
        PveLocation::File { path, format } => Location::File {
            path: path.clone(),
            format: *format,
        },
    })
}

/// The cloud-init drives' volumes on the target, where Proxmox makes them when the VM starts.
fn cloud_init(
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

fn listed(published: &Published) -> replica_config::Generation {
    replica_config::Generation {
        name: published.generation.name(),
        time: u64::try_from(published.generation.taken_at.as_second()).unwrap_or(0),
        snapshots: published
            .snapshots
            .iter()
            .filter_map(|key| DiskKey::parse(key))
            .collect(),
    }
}

/// What was decided about the VM's disks at the source, from what the generation holds.
fn resolved(vmid: Vmid, config: &VmConfig, generation: &Generation) -> Resolved {
    let mut resolved = Resolved {
        vmid,
        disks: Vec::new(),
        skipped: Vec::new(),
        notes: Vec::new(),
    };
    for drive in config.drives() {
        let key = drive.key.to_string();
        let reason = match &drive.target {
            DriveTarget::Volume(volid) if generation.disks.iter().any(|d| d.key == key) => {
                resolved.disks.push(Disk {
                    key: drive.key,
                    volid: volid.clone(),
                    location: PveLocation::File {
                        path: PathBuf::new(),
                        format: ImageFormat::Raw,
                    },
                    size: drive.size(),
                    drive: drive.clone(),
                });
                continue;
            }
            DriveTarget::CloudInit(_) if !generation.excluded.contains(&key) => {
                SkipReason::CloudInit
            }
            DriveTarget::None => SkipReason::Empty,
            _ if drive.key.is_unused() => SkipReason::Unused,
            _ if generation.excluded.contains(&key) => SkipReason::Excluded,
            _ => SkipReason::Cd,
        };
        let value = drive.value();
        resolved.skipped.push(Skipped { key, value, reason });
    }
    for key in &generation.excluded {
        if DiskKey::parse(key).is_none() {
            resolved.skipped.push(Skipped {
                key: key.clone(),
                value: config.get(key).unwrap_or_default().to_owned(),
                reason: SkipReason::Excluded,
            });
        }
    }
    resolved
}
