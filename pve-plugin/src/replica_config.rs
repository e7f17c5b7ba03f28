//! The configuration of a replica: the source VM's, with its disks replaced, what belongs to the source
//! host taken out, and guards so that it does not start by accident.
//!
//! Guards are `lock: migrate` (Proxmox refuses to start, change or destroy a locked VM) and `onboot: 0`; a
//! tag and the description tell people. The description also carries the pair's id, by which a later run
//! knows the file as its own. Proxmox rewrites the file at will, so only what survives that is used:
//! values of keys, and single lines of the description.

use crate::disks::{Resolved, SkipReason};
use crate::drive::{format_size, DiskKey, Drive, DriveTarget};
use crate::renamed;
use crate::vm_config::{encode_text, is_snapshot_name, Section, VmConfig};
use crate::volid::{Vmid, Volid};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::replica::Maps;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The tag every replica carries.
pub const TAG: &str = "rblocksync-replica";
/// The lock that keeps Proxmox from starting a replica.
pub const GUARD_LOCK: &str = "migrate";
/// How each line we put into the description starts, so that they are found again and replaced.
pub(crate) const OUR_LINE: &str = "[rblocksync]";
/// What stands before the pair's id in the description.
pub(crate) const PAIR_MARK: &str = "rblocksync-pair:";
/// The same once the replica has become the VM: no lock of Proxmox's makes it a standby again.
pub(crate) const WAS_PAIR_MARK: &str = "rblocksync-was-pair:";

/// A volume of the replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetVolume {
    /// Its id on the target.
    pub volid: Volid,
    /// Its size in bytes; `None` keeps what the source's line says (cloud-init drives).
    pub size: Option<u64>,
}

/// A generation the target keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Its name, also that of its snapshots: `rbs12`.
    pub name: String,
    /// When it was taken, in seconds since 1970.
    pub time: u64,
    /// The disks that have a snapshot of this name on the target.
    pub snapshots: BTreeSet<DiskKey>,
}

/// Everything a replica's configuration follows from.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaSpec<'a> {
    /// The pair's id.
    pub pair: Uuid,
    /// The source host, as people call it.
    pub source_host: &'a str,
    /// The VM's id there.
    pub source_vm: &'a str,
    /// The source VM's configuration.
    pub config: &'a VmConfig,
    /// What of it is replicated.
    pub resolved: &'a Resolved,
    /// The replica's VM id.
    pub target_vmid: Vmid,
    /// The target's volume for each replicated disk and each cloud-init drive, by source volume.
    pub volumes: &'a BTreeMap<Volid, TargetVolume>,
    /// The kept generations, oldest first. Those with a snapshot of every disk appear as snapshots of the VM.
    pub generations: &'a [Generation],
    /// What is called otherwise on the target.
    pub maps: &'a Maps,
    /// The replica's present configuration: its snapshot sections say what the VM was like back then.
    pub previous: Option<&'a VmConfig>,
}

/// How a configuration on the target stands to a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not a replica of this pair.
    Foreign,
    /// A replica of this pair, guarded: may be replaced.
    Standby,
    /// Was a replica of this pair, but became the VM itself, or somebody removed the guard to use it as one.
    TakenOver,
}

/// The pair whose replica this is, by the mark in the description.
pub fn pair_of(config: &VmConfig) -> Option<Uuid> {
    Uuid::try_parse(&mark_of(config, PAIR_MARK)?).ok()
}

/// The pair whose replica this was until it became the VM itself.
pub fn was_pair_of(config: &VmConfig) -> Option<Uuid> {
    Uuid::try_parse(&mark_of(config, WAS_PAIR_MARK)?).ok()
}

/// What stands behind a mark in the description.
pub(crate) fn mark_of(config: &VmConfig, mark: &str) -> Option<String> {
    // Only at the start of a line of ours: the rest of such a line may quote names of the source.
    config.main().description().lines().find_map(|line| {
        let ours = line.trim().strip_prefix(OUR_LINE)?.trim_start();
        Some(ours.strip_prefix(mark)?.trim().to_owned())
    })
}

/// Whether this is a replica of the pair, guarded or not.
pub fn is_our_replica(config: &VmConfig, pair: Uuid) -> bool {
    pair_of(config) == Some(pair)
}

/// How the configuration stands to the pair.
pub fn standing(config: &VmConfig, pair: Uuid) -> Standing {
    if was_pair_of(config) == Some(pair) {
        Standing::TakenOver
    } else if !is_our_replica(config, pair) {
        Standing::Foreign
    } else if config.lock() == Some(GUARD_LOCK) {
        Standing::Standby
    } else {
        Standing::TakenOver
    }
}

/// Writes the replica's configuration.
pub fn render(spec: &ReplicaSpec) -> Result<String> {
    if pair_of(spec.config).is_some() && spec.config.lock().is_some() {
        return Err(Error::new(
            Kind::Refused,
            format!("VM {} is itself a replica", spec.source_vm),
        )
        .advise("replicate the VM it is a replica of, or take the replica over first"));
    }
    let mut left_out = Vec::new();
    let keys = replica_keys(spec, &mut left_out)?;
    let sections = match spec.config.is_template() {
        // A template has no snapshots: it never changes.
        true => Vec::new(),
        false => snapshot_sections(spec, &keys)?,
    };

    let mut main = keys;
    main.insert("lock".to_owned(), GUARD_LOCK.to_owned());
    let tags = with_our_tag(spec.config.get("tags"));
    main.insert("tags".to_owned(), tags);
    if let Some((newest, _)) = sections.last() {
        main.insert("parent".to_owned(), newest.clone());
    }

    let mut text = description(spec, &left_out);
    text.push_str(&key_lines(&main));
    // Proxmox sorts the snapshot sections by name when it writes; so it will not reorder ours.
    let sorted: BTreeMap<_, _> = sections.into_iter().collect();
    for (name, section) in &sorted {
        text.push_str(&format!("\n[{name}]\n{}", key_lines(section)));
    }
    check(spec, &text)?;
    Ok(text)
}

type Keys = BTreeMap<String, String>;

fn key_lines(keys: &Keys) -> String {
    keys.iter().map(|(k, v)| format!("{k}: {v}\n")).collect()
}

/// The main section's keys for the target, without guards. Fills `left_out` for the description.
fn replica_keys(spec: &ReplicaSpec, left_out: &mut Vec<String>) -> Result<Keys> {
    let mut keys = Keys::new();
    for (key, value) in spec.config.main().entries() {
        if let Some(disk) = DiskKey::parse(key).and_then(|key| spec.config.drive(key)) {
            if let Some(line) = target_disk(spec, disk)? {
                keys.insert(disk.key.to_string(), line);
            }
        } else if spec.resolved.skipped.iter().any(|s| s.key == key) {
            // Named below, with the other skipped lines.
        } else if let Some(why) = bound_to_host(key, value) {
            left_out.push(format!("{key} ({why})"));
        } else if !is_bookkeeping(key) {
            keys.insert(key.to_owned(), renamed::line(key, value, spec.maps));
        }
    }
    if let (None, Some(cpu)) = (keys.get("cpu"), renamed::missing_cpu(spec.maps)) {
        keys.insert("cpu".to_owned(), cpu);
    }
    keys.insert("onboot".to_owned(), "0".to_owned());
    for skipped in &spec.resolved.skipped {
        if !matches!(skipped.reason, SkipReason::CloudInit | SkipReason::Empty) {
            left_out.push(format!("{} ({})", skipped.key, skipped.reason));
        }
    }
    Ok(keys)
}

/// The target's line for a disk; `None`: the replica has no such disk.
fn target_disk(spec: &ReplicaSpec, drive: &Drive) -> Result<Option<String>> {
    let skipped = spec
        .resolved
        .skipped
        .iter()
        .find(|s| s.key == drive.key.to_string());
    match skipped.map(|s| &s.reason) {
        Some(SkipReason::Empty | SkipReason::Cd) => {
            return Ok(Some("none,media=cdrom".to_owned()));
        }
        Some(
            SkipReason::Excluded
            | SkipReason::ReplicateOff
            | SkipReason::NoBackup
            | SkipReason::LeftOut
            | SkipReason::Unused,
        ) => return Ok(None),
        Some(SkipReason::CloudInit) | None => {}
    }
    let (DriveTarget::Volume(source) | DriveTarget::CloudInit(source)) = &drive.target else {
        return Err(Error::new(
            Kind::Refused,
            format!("disk {} has not been decided upon", drive.key),
        ));
    };
    let Some(target) = spec.volumes.get(source) else {
        return Err(Error::new(
            Kind::NotFound,
            format!("disk {} ({source}) has no volume on the target", drive.key),
        ));
    };
    if drive.key.is_unused() {
        // Such a line takes no options.
        return Ok(Some(target.volid.to_string()));
    }
    let mut options = drive.options.clone();
    // The volume's name on the target says the format; what a new disk was made from does not matter.
    options.retain(|(name, _)| name != "format" && name != "import-from");
    if let Some(size) = target.size {
        options.retain(|(name, _)| name != "size");
        options.push(("size".to_owned(), format_size(size)));
    }
    // As Proxmox sorts them.
    options.sort();
    let mut line = target.volid.to_string();
    for (name, content) in options {
        line.push_str(&format!(",{name}={content}"));
    }
    Ok(Some(line))
}

/// Why a setting makes no sense, or harm, on another host.
fn bound_to_host(key: &str, value: &str) -> Option<&'static str> {
    let family = key.trim_end_matches(|c: char| c.is_ascii_digit());
    match family {
        "hostpci" => Some("device of the source host"),
        "usb" if !value.split(',').any(|p| p == "spice" || p == "host=spice") => {
            Some("device of the source host")
        }
        "serial" | "parallel" if value.starts_with('/') => Some("device of the source host"),
        "virtiofs" => Some("directory of the source host"),
        "hookscript" => Some("script on the source host"),
        "vmstatestorage" => Some("storage of the source host"),
        _ => None,
    }
}

/// Keys that describe the state of the source VM's file, not the VM.
fn is_bookkeeping(key: &str) -> bool {
    [
        "lock",
        "parent",
        "onboot",
        "description",
        "vmstate",
        "snapstate",
    ]
    .contains(&key)
}

fn with_our_tag(tags: Option<&str>) -> String {
    let mut tags: Vec<&str> = tags
        .unwrap_or("")
        .split([';', ',', ' ', '\t'])
        .filter(|tag| !tag.is_empty() && *tag != TAG)
        .collect();
    tags.push(TAG);
    tags.join(";")
}

/// The snapshot sections, oldest first, each with the one before as parent.
fn snapshot_sections(spec: &ReplicaSpec, now: &Keys) -> Result<Vec<(String, Keys)>> {
    let mut sections: Vec<(String, Keys)> = Vec::new();
    for generation in spec.generations {
        let name = &generation.name;
        if !is_snapshot_name(name) || sections.iter().any(|(n, _)| n == name) {
            return Err(Error::new(
                Kind::Usage,
                format!("{name:?} cannot name another snapshot"),
            ));
        }
        let earlier = spec
            .previous
            .and_then(|p| p.snapshots().find(|(n, _)| n == name))
            .map(|(_, section)| section)
            .filter(|s| s.get("snaptime") == Some(generation.time.to_string().as_str()));
        let mut keys = earlier.map_or_else(|| now.clone(), keys_of_section);
        // Proxmox keeps none in its snapshots.
        keys.retain(|key, _| !DiskKey::parse(key).is_some_and(DiskKey::is_unused));
        if !has_every_disk(&keys, &generation.snapshots) {
            continue;
        }
        keys.insert("snaptime".to_owned(), generation.time.to_string());
        match sections.last() {
            Some((parent, _)) => keys.insert("parent".to_owned(), parent.clone()),
            None => keys.remove("parent"),
        };
        sections.push((name.clone(), keys));
    }
    Ok(sections)
}

fn keys_of_section(section: &Section) -> Keys {
    section
        .entries()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// Whether every disk with data has a snapshot; Proxmox could not roll back otherwise.
fn has_every_disk(keys: &Keys, snapshots: &BTreeSet<DiskKey>) -> bool {
    keys.iter()
        .filter_map(|(key, value)| Drive::parse(DiskKey::parse(key)?, value).ok())
        .filter(|drive| !drive.is_cdrom() && !matches!(drive.target, DriveTarget::CloudInit(_)))
        .all(|drive| snapshots.contains(&drive.key))
}

fn description(spec: &ReplicaSpec, left_out: &[String]) -> String {
    let source = spec.source_vm;
    let target = spec.target_vmid;
    let name = spec
        .config
        .name()
        .map(|name| format!(" ({name})"))
        .unwrap_or_default();
    let mut ours = vec![
        format!(
            "Replica of VM {source}{name} on host {}. The next sync overwrites it: do not start or change it.",
            spec.source_host
        ),
        match spec.config.is_template() {
            true => format!("It is a template, too. To clone it: qm unlock {target}, and no sync will change it again."),
            false => format!(
                "To use it, only when VM {source} is down for good: pvesync failover {target}."
            ),
        },
        format!("{PAIR_MARK} {}", spec.pair),
    ];
    if !left_out.is_empty() {
        ours.push(format!("Not part of it: {}.", left_out.join(", ")));
    }
    if spec.config.get("cicustom").is_some() {
        ours.push("cicustom names snippets: copy them to this host.".to_owned());
    }
    let mut text = String::new();
    for line in ours {
        // One line each, whatever the names in it hold.
        let line = line.replace(char::is_control, " ");
        text.push_str(&format!(
            "#{}\n",
            encode_text(&format!("{OUR_LINE} {line}"))
        ));
    }
    // Decoded first: a line break may be hidden in a percent code, and a line of ours behind it.
    for line in spec.config.main().description().lines() {
        if !line.trim_start().starts_with(OUR_LINE) {
            text.push_str(&format!("#{}\n", encode_text(line)));
        }
    }
    text
}

/// Reads the result back: it must be what a later run will recognise, with every disk in it.
fn check(spec: &ReplicaSpec, text: &str) -> Result<()> {
    let faulty = |why: &str| {
        Error::new(
            Kind::Refused,
            format!(
                "the configuration made for replica {} is faulty: {why}",
                spec.target_vmid
            ),
        )
    };
    let config = VmConfig::parse(text).map_err(|e| faulty("cannot be read back").because(e))?;
    if standing(&config, spec.pair) != Standing::Standby {
        return Err(faulty("its guard or pair id is not there"));
    }
    for disk in &spec.resolved.disks {
        let target = spec.volumes.get(&disk.volid).map(|v| &v.volid);
        let written = config.drive(disk.key).map(|d| &d.target);
        if !matches!((target, written), (Some(t), Some(DriveTarget::Volume(w))) if t == w) {
            return Err(faulty(&format!("disk {} is not in it", disk.key)));
        }
    }
    Ok(())
}
