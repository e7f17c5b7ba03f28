//! This node as the target of a replication: where volumes go, and the replica's configuration.

use crate::config_text::ConfigText;
use crate::disks::{self, Disk, Location as PveLocation, Resolved, SkipReason, Skipped};
use crate::drive::{DiskKey, Drive, DriveTarget};
use crate::guard;
use crate::guest::{foreign, ours, stand_in, FORM};
use crate::node::PveTree;
pub(crate) use crate::placement::core_location;
use crate::placement::{
    self, again, check_alone, cloud_init, fresh, mapping, usable, usual_format, ANY,
};
use crate::renamed;
use crate::replica_config::{self, ReplicaSpec, TargetVolume};
use crate::storage_cfg::StorageCfg;
use crate::vm_config::VmConfig;
use crate::volid::{Vmid, Volid};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::guest::told;
use rblocksync::hypervisor::{Hold, Published, TargetHypervisor};
use rblocksync::image::ImageFormat;
use rblocksync::replica::{
    set_guard, Generation, Layout, Placement, ReplicaRequest, Role, TargetPair,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use uuid::Uuid;

/// The VM that a replica is of, and its node.
struct Source<'a> {
    /// Its id, if it is a VM of Proxmox VE's.
    vmid: Option<Vmid>,
    node: &'a str,
}

impl Source<'_> {
    fn of<'a>(vm: &str, node: &'a str) -> Source<'a> {
        Source {
            vmid: vm.parse().ok(),
            node,
        }
    }
}

/// A Proxmox VE node that keeps replicas.
pub struct PveTarget {
    pub(crate) tree: PveTree,
    pub(crate) layout: Layout,
    /// A guest is there, and its host changes under it: see `live`.
    pub(crate) lives: bool,
}

impl PveTarget {
    /// The node of `tree`, with the suite's state under `layout`.
    pub fn new(tree: PveTree, layout: Layout) -> Self {
        PveTarget {
            tree,
            layout,
            lives: false,
        }
    }

    /// In one cluster a VM id exists once, so the replica's configuration cannot be in place there if it
    /// has the id of its source: it is kept aside until it is needed.
    fn config_aside(&self, vmid: Vmid, source: &Source) -> Result<bool> {
        if Some(vmid) != source.vmid || !self.tree.is_clustered()? {
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

    /// The replica's configuration that was kept aside, if it was.
    pub(crate) fn aside(&self, pair: Uuid, vmid: Vmid) -> Result<Option<VmConfig>> {
        let path = self.aside_path(pair, vmid);
        match std::fs::read_to_string(&path) {
            Ok(text) => VmConfig::parse(&text).map(Some),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("cannot read {}", path.display()), e)),
        }
    }

    /// The replica's configuration as it is now, if there is one.
    fn previous(&self, pair: Uuid, vmid: Vmid, aside: bool) -> Result<Option<VmConfig>> {
        if aside {
            return self.aside(pair, vmid);
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
        let ours = ours(newest, &pair.maps.networks)?;
        let newest = ours.generation.as_ref();
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
            source_vm: &pair.vm,
            config: &config,
            resolved: &resolved(target_vmid, &config, newest),
            target_vmid,
            volumes: &volumes,
            generations: kept,
            maps: &pair.maps,
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

    fn form(&self) -> &'static str {
        FORM
    }

    fn place(
        &self,
        request: &ReplicaRequest,
        known: &BTreeMap<String, String>,
    ) -> Result<Vec<Placement>> {
        let described = foreign(request.described.as_deref());
        let vmid = match described {
            None => vmid(request.target_vm.as_deref().unwrap_or(&request.vm))?,
            Some(_) => numbered(request)?,
        };
        self.check_free(
            request.pair,
            vmid,
            &Source::of(&request.vm, &request.source_name),
        )?;
        let storages = self.tree.storage_cfg()?;
        let node = self.tree.local_node()?;
        let mut taken: BTreeSet<Volid> = known
            .values()
            .filter_map(|v| Volid::parse(v).ok())
            .collect();
        let mut placements = Vec::new();
        for (number, disk) in request.disks.iter().enumerate() {
            let context = |e: Error| e.context(format!("disk {}", disk.key));
            let (source, from) = match described {
                None => {
                    let source = Volid::parse(&disk.volume).map_err(context)?;
                    let storage = source.storage().to_owned();
                    (source, Some(storage))
                }
                Some(described) => {
                    let guest = described.guest()?;
                    let pool = guest.disk(&disk.volume, &disk.key);
                    let pool = pool.and_then(|d| d.storage.clone());
                    (stand_in(number)?, pool)
                }
            };
            let known = known.get(&disk.volume);
            let wanted = from.as_deref();
            let wanted = wanted.and_then(|from| mapping(&request.storage_map, from));
            let id = match (
                known,
                wanted.or_else(|| mapping(&request.storage_map, ANY)),
                from,
            ) {
                (_, Some(to), _) => to.to_owned(),
                // It stays where it was.
                (Some(volume), None, _) => {
                    Volid::parse(volume).map_err(context)?.storage().to_owned()
                }
                (None, None, Some(same)) if described.is_none() => same,
                (None, None, pool) => {
                    placement::usual(&storages, pool.as_deref(), &node).map_err(context)?
                }
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
            let location = check_alone(entry)
                .and_then(|()| core_location(&location))
                .map_err(context)?;
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
        if described.is_none() {
            let config = VmConfig::parse(&request.config)?;
            cloud_init(&config, &storages, &node, &request.storage_map, vmid)?;
        }
        Ok(placements)
    }

    fn remarks(&self, request: &ReplicaRequest) -> Result<Vec<String>> {
        let config = VmConfig::parse(&request.config)?;
        renamed::lacking(&self.tree, &config, &request.maps)
    }

    fn hold(&self, pair: &TargetPair) -> Result<Box<dyn Hold>> {
        let target_vmid = vmid(&pair.target_vm)?;
        let held = self.tree.hold_vm(target_vmid)?;
        self.check_free(
            pair.pair,
            target_vmid,
            &Source::of(&pair.vm, &pair.source_name),
        )?;
        Ok(Box::new(held))
    }

    fn publish(&self, pair: &TargetPair, generations: &[Published]) -> Result<Vec<String>> {
        let Some(newest) = generations.last().map(|p| p.generation) else {
            return Ok(Vec::new());
        };
        let target_vmid = vmid(&pair.target_vm)?;
        let aside = self.config_aside(target_vmid, &Source::of(&pair.vm, &pair.source_name))?;
        let kept = generations.iter().map(listed).collect::<Result<Vec<_>>>()?;
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
        let translated = ours(newest, &pair.maps.networks)?;
        let mut notes = bases_here(&translated.generation, &self.tree.storage_cfg()?);
        notes.extend(told(&translated.left));
        Ok(notes)
    }
}

pub(crate) fn vmid(text: &str) -> Result<Vmid> {
    text.parse()
}

/// The id that the replica of another hypervisor's VM gets.
fn numbered(request: &ReplicaRequest) -> Result<Vmid> {
    let wanted = request.target_vm.as_deref().unwrap_or(&request.vm);
    vmid(wanted).map_err(|e| {
        e.context(format!("VM {} needs a number on Proxmox VE", request.vm))
            .advise("choose one that is free: --target-name 101")
    })
}

fn listed(published: &Published) -> Result<replica_config::Generation> {
    let keys = ours(published.generation, &[])?.keys;
    let key = |key: &String| DiskKey::parse(keys.get(key).unwrap_or(key));
    Ok(replica_config::Generation {
        name: published.generation.name(),
        time: u64::try_from(published.generation.taken_at.as_second()).unwrap_or(0),
        snapshots: published.snapshots.iter().filter_map(key).collect(),
    })
}

/// Why the source left a disk out, as far as the disk's line tells.
fn why_excluded(drive: &Drive) -> SkipReason {
    match (drive.flag("replicate", true), drive.flag("backup", true)) {
        (false, _) => SkipReason::ReplicateOff,
        // Either by name or by that.
        (true, false) => SkipReason::LeftOut,
        (true, true) => SkipReason::Excluded,
    }
}

/// Notes on linked clones whose base this host has as well. The replica does without, as nothing proves that both bases
/// are the same.
fn bases_here(generation: &Generation, storages: &StorageCfg) -> Vec<String> {
    let disks = generation.disks.iter();
    disks
        .filter_map(|disk| {
            let source = Volid::parse(&disk.source).ok()?;
            let base = placement::base_of(&source, storages)?;
            Some(format!(
                "disk {} is a linked clone of {base}, and this host has a volume of that name, too; the replica has \
                 all content of its own and does not need it",
                disk.key
            ))
        })
        .collect()
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
            _ if generation.excluded.contains(&key) => why_excluded(drive),
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
