//! A VM in the neutral form, written as a configuration of Proxmox VE's. What that has no word for is returned.

use super::options::to_base64;
use super::read::clock_of;
use super::words::{word, FLAGS, LEVELS, OSTYPES, SCSI, SMBIOS, VIDEOS};
use super::write_devices::{cd_drives, disks, nics, rng, watchdog};
use crate::vm_config::encode_text;
use crate::volid::Volid;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::guest::{
    Chipset, Clock, CpuModel, DiskUse, Firmware, Guest, Left, Tpm, TpmVersion, Vars, Video,
};
use std::collections::{BTreeMap, BTreeSet};

/// What is decided by the host rather than by the VM.
#[derive(Debug, Clone, Default)]
pub struct Put {
    /// The volume of each disk that the VM gets, by the disk's key, and its size in bytes if that is to be told.
    pub volumes: BTreeMap<String, (Volid, Option<u64>)>,
    /// Bridges and networks there to bridges here. `vmbr0.20` stands for VLAN 20 of a bridge.
    pub bridges: Vec<(String, String)>,
    /// The bridges that this host has, if that is known.
    pub present: Option<BTreeSet<String>>,
}

/// A configuration.
#[derive(Debug, Clone)]
pub struct Written {
    /// Its text.
    pub text: String,
    /// The key that each device has in it, by the one that it had.
    pub keys: BTreeMap<String, String>,
    /// What has no counterpart, or another one.
    pub left: Vec<Left>,
}

/// A configuration in the making.
pub(super) struct Draft<'a> {
    pub guest: &'a Guest,
    pub put: &'a Put,
    pub lines: BTreeMap<String, String>,
    pub keys: BTreeMap<String, String>,
    pub left: Vec<Left>,
}

impl Draft<'_> {
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        // One line each, whatever the names in it hold.
        let value = value.into().replace(char::is_control, " ");
        self.lines.insert(key.to_owned(), value);
    }
}

/// Writes the configuration of a VM. Refuses one with more disks or network cards than a VM can have here.
pub fn write(guest: &Guest, put: &Put) -> Result<Written> {
    guest.check()?;
    let mut draft = Draft {
        guest,
        put,
        lines: BTreeMap::new(),
        keys: BTreeMap::new(),
        left: Vec::new(),
    };
    people(&mut draft);
    board(&mut draft);
    cpu(&mut draft)?;
    memory(&mut draft);
    disks(&mut draft)?;
    cd_drives(&mut draft)?;
    nics(&mut draft)?;
    special_disks(&mut draft);
    rng(&mut draft);
    watchdog(&mut draft);
    smaller(&mut draft);
    boot(&mut draft);
    let mut text = String::new();
    for line in guest.description.lines() {
        text.push_str(&format!("#{}\n", encode_text(line)));
    }
    for (key, value) in &draft.lines {
        text.push_str(&format!("{key}: {value}\n"));
    }
    Ok(Written {
        text,
        keys: draft.keys,
        left: draft.left,
    })
}

/// Name, tags and the like.
fn people(draft: &mut Draft) {
    let guest = draft.guest;
    if let Some(name) = &guest.name {
        let ours = dns_name(name);
        if ours != *name {
            let why = format!("{ours}: names are those of DNS");
            draft.left.push(Left::changed("name", name, why));
        }
        draft.set("name", ours);
    }
    let mut tags = Vec::new();
    for tag in &guest.tags {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-+.".contains(c);
        let is_tag = tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        match is_tag && tag.chars().all(plain) {
            true => tags.push(tag.as_str()),
            false => draft.left.push(Left::out("tag", tag)),
        }
    }
    if !tags.is_empty() {
        draft.set("tags", tags.join(";"));
    }
    if guest.autostart {
        draft.set("onboot", "1");
    }
    let ostype = word(&OSTYPES, &guest.os.family).unwrap_or("other");
    if ostype != "other" {
        draft.set("ostype", ostype);
    }
    if let Some(id) = &guest.os.id {
        let why = format!("ostype {ostype}");
        draft.left.push(Left::changed("operating system", id, why));
    }
    let mut smbios = Vec::new();
    if let Some(uuid) = guest.uuid {
        smbios.push(format!("uuid={uuid}"));
    }
    for (field, text) in &guest.smbios {
        match SMBIOS.contains(&field.as_str()) {
            true => smbios.push(format!("{field}={}", to_base64(text.as_bytes()))),
            false => draft.left.push(Left::out(format!("smbios {field}"), text)),
        }
    }
    if smbios.iter().any(|part| !part.starts_with("uuid=")) {
        smbios.push("base64=1".into());
    }
    if !smbios.is_empty() {
        let line = smbios.join(",");
        match line.len() <= SMBIOS_BYTES_MAX {
            true => draft.set("smbios1", line),
            false => {
                let why = "more than a line of Proxmox VE holds: only the UUID";
                let left = Left::changed("smbios", smbios[1..].join(","), why);
                draft.left.push(left);
                draft.set("smbios1", smbios.swap_remove(0));
            }
        }
    }
    if let Some(id) = guest.generation_id {
        draft.set("vmgenid", id.to_string());
    }
}

/// Longest value of `smbios1`.
const SMBIOS_BYTES_MAX: usize = 512;

/// A name of letters, digits and dashes, with dots between such names.
fn dns_name(name: &str) -> String {
    let plain = |c: char| match c.is_ascii_alphanumeric() || c == '.' {
        true => c,
        false => '-',
    };
    let name: String = name.chars().map(plain).collect();
    let parts = name.split('.').map(|part| part.trim_matches('-'));
    let parts = parts.filter(|part| !part.is_empty()).map(|part| {
        let end = part.len().min(63);
        part[..end].trim_end_matches('-')
    });
    let name = parts.collect::<Vec<_>>().join(".");
    match name.is_empty() {
        true => "vm".into(),
        false => name,
    }
}

fn board(draft: &mut Draft) {
    let machine = &draft.guest.machine;
    let plain = |v: &&String| {
        let part = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
        v.contains('.') && v.split('.').all(part)
    };
    let version = machine.version.as_ref().filter(plain);
    if let (Some(other), None) = (&machine.version, version) {
        let why = "the newest there is: the version is another vendor's";
        draft
            .left
            .push(Left::changed("machine version", other, why));
    }
    match (machine.chipset, version) {
        (Chipset::I440fx, None) => {}
        (Chipset::Q35, None) => draft.set("machine", "q35"),
        (Chipset::I440fx, Some(version)) => draft.set("machine", format!("pc-i440fx-{version}")),
        (Chipset::Q35, Some(version)) => draft.set("machine", format!("pc-q35-{version}")),
    }
    if draft.guest.firmware != Firmware::Bios {
        draft.set("bios", "ovmf");
    }
    if !draft.guest.acpi {
        draft.set("acpi", "0");
    }
    if draft.guest.clock != clock_of(draft.guest.os.family) {
        draft.set(
            "localtime",
            match draft.guest.clock {
                Clock::LocalTime => "1",
                Clock::Utc => "0",
            },
        );
    }
    if !draft.guest.tablet {
        draft.set("tablet", "0");
    }
}

fn cpu(draft: &mut Draft) -> Result<()> {
    let cpu = &draft.guest.cpu;
    let mut cores = cpu.cores.max(1);
    if cpu.threads > 1 {
        cores = cores.saturating_mul(cpu.threads);
        let why = format!("{cores} cores: there are no threads");
        let left = Left::changed("cpu threads", cpu.threads.to_string(), why);
        draft.left.push(left);
    }
    if cpu.sockets == 0 || cpu.sockets.saturating_mul(cores) > CPUS_MAX {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "the VM has {} sockets of {cores} cores each, and can have {CPUS_MAX} processors",
                cpu.sockets
            ),
        ));
    }
    draft.set("cores", cores.to_string());
    if cpu.sockets != 1 {
        draft.set("sockets", cpu.sockets.to_string());
    }
    if let Some(online) = cpu.online.filter(|n| *n > 0 && *n < cpu.total()) {
        draft.set("vcpus", online.to_string());
    }
    let model = match &cpu.model {
        CpuModel::Host => "host".to_owned(),
        CpuModel::HostModel => {
            let why = "host: the processor as it is";
            draft.left.push(Left::changed("cpu", "host-model", why));
            "host".to_owned()
        }
        CpuModel::Max => "max".to_owned(),
        CpuModel::Level(level) if LEVELS.contains(&level.as_str()) => level.clone(),
        CpuModel::Named(name) | CpuModel::Level(name) => match MODELS.contains(&name.as_str()) {
            true => name.clone(),
            false => {
                let why = "kvm64: not a model of Proxmox VE's";
                draft.left.push(Left::changed("cpu", name, why));
                "kvm64".to_owned()
            }
        },
    };
    let mut flags = Vec::new();
    for flag in &cpu.flags {
        let sign = if flag.on { '+' } else { '-' };
        match FLAGS.contains(&flag.name.as_str()) {
            true => flags.push(format!("{sign}{}", flag.name)),
            false => {
                let left = Left::out("cpu feature", format!("{sign}{}", flag.name));
                draft.left.push(left);
            }
        }
    }
    let mut line = model;
    if !flags.is_empty() {
        line.push_str(&format!(",flags={}", flags.join(";")));
    }
    if cpu.hidden {
        line.push_str(",hidden=1");
    }
    draft.set("cpu", line);
    Ok(())
}

/// More are of no use with QEMU's boards as Proxmox VE starts them.
const CPUS_MAX: u32 = 4096;

/// Models of QEMU's that a VM's configuration may name.
const MODELS: [&str; 76] = [
    "486",
    "Broadwell",
    "Broadwell-IBRS",
    "Broadwell-noTSX",
    "Broadwell-noTSX-IBRS",
    "Cascadelake-Server",
    "Cascadelake-Server-noTSX",
    "Cascadelake-Server-v2",
    "Cascadelake-Server-v4",
    "Cascadelake-Server-v5",
    "Conroe",
    "Cooperlake",
    "Cooperlake-v2",
    "EPYC",
    "EPYC-Genoa",
    "EPYC-IBPB",
    "EPYC-Milan",
    "EPYC-Milan-v2",
    "EPYC-Rome",
    "EPYC-Rome-v2",
    "EPYC-Rome-v3",
    "EPYC-Rome-v4",
    "EPYC-v3",
    "EPYC-v4",
    "GraniteRapids",
    "Haswell",
    "Haswell-IBRS",
    "Haswell-noTSX",
    "Haswell-noTSX-IBRS",
    "Icelake-Client",
    "Icelake-Client-noTSX",
    "Icelake-Server",
    "Icelake-Server-noTSX",
    "Icelake-Server-v3",
    "Icelake-Server-v4",
    "Icelake-Server-v5",
    "Icelake-Server-v6",
    "IvyBridge",
    "IvyBridge-IBRS",
    "KnightsMill",
    "Nehalem",
    "Nehalem-IBRS",
    "Opteron_G1",
    "Opteron_G2",
    "Opteron_G3",
    "Opteron_G4",
    "Opteron_G5",
    "Penryn",
    "SandyBridge",
    "SandyBridge-IBRS",
    "SapphireRapids",
    "SapphireRapids-v2",
    "Skylake-Client",
    "Skylake-Client-IBRS",
    "Skylake-Client-noTSX-IBRS",
    "Skylake-Client-v4",
    "Skylake-Server",
    "Skylake-Server-IBRS",
    "Skylake-Server-noTSX-IBRS",
    "Skylake-Server-v4",
    "Skylake-Server-v5",
    "Westmere",
    "Westmere-IBRS",
    "athlon",
    "core2duo",
    "coreduo",
    "host",
    "kvm32",
    "kvm64",
    "max",
    "pentium",
    "pentium2",
    "pentium3",
    "phenom",
    "qemu32",
    "qemu64",
];

fn memory(draft: &mut Draft) {
    let kib = draft.guest.memory.kib;
    let mib = kib.div_ceil(1024).max(16);
    if mib << 10 != kib {
        let why = format!("{mib} MiB");
        draft
            .left
            .push(Left::changed("memory", format!("{kib} KiB"), why));
    }
    draft.set("memory", mib.to_string());
    if !draft.guest.memory.balloon {
        draft.set("balloon", "0");
    }
}

/// The disks of firmware and TPM.
fn special_disks(draft: &mut Draft) {
    let guest = draft.guest;
    match &guest.firmware {
        Firmware::Uefi { vars: Some(vars) } => vars_disk(draft, vars),
        // Forgotten when the VM is off, as before.
        Firmware::Uefi { vars: None } | Firmware::Bios => {}
    }
    if let Some(tpm) = &guest.tpm {
        tpm_disk(draft, tpm);
    }
}

fn vars_disk(draft: &mut Draft, vars: &Vars) {
    let Some((volid, size)) = draft.put.volumes.get(&vars.disk) else {
        let why = "not replicated: the firmware starts with empty ones each time";
        draft
            .left
            .push(Left::changed("UEFI variables", &vars.disk, why));
        return;
    };
    let mut line = format!("{volid},efitype={}m", vars.flash_mib);
    if vars.secure_boot {
        line.push_str(",pre-enrolled-keys=1");
    }
    if let Some(size) = size {
        line.push_str(&format!(",size={}", crate::drive::format_size(*size)));
    }
    draft.keys.insert(vars.disk.clone(), "efidisk0".into());
    draft.set("efidisk0", line);
}

fn tpm_disk(draft: &mut Draft, tpm: &Tpm) {
    let version = match tpm.version {
        TpmVersion::V12 => "v1.2",
        TpmVersion::V20 => "v2.0",
    };
    let volume = tpm.disk.as_ref().and_then(|disk| {
        let volume = draft.put.volumes.get(disk)?;
        Some((disk.clone(), volume.clone()))
    });
    let Some((disk, (volid, size))) = volume else {
        let why = "none: its state is kept in another form, and cannot be brought over";
        draft.left.push(Left::changed("TPM", version, why));
        return;
    };
    let mut line = format!("{volid}");
    if let Some(size) = size {
        line.push_str(&format!(",size={}", crate::drive::format_size(size)));
    }
    line.push_str(&format!(",version={version}"));
    draft.keys.insert(disk, "tpmstate0".into());
    draft.set("tpmstate0", line);
}

/// Serial ports, agent, display.
fn smaller(draft: &mut Draft) {
    let guest = draft.guest;
    for (nth, port) in guest.serials.iter().enumerate() {
        // From 0 to 3.
        match *port <= 3 && nth <= 3 {
            true => draft.set(&format!("serial{port}"), "socket"),
            false => draft.left.push(Left::out("serial port", port.to_string())),
        }
    }
    if guest.agent {
        draft.set("agent", "1");
    }
    let has_scsi = guest.disks.iter().any(|d| {
        matches!(
            d.role,
            DiskUse::Data {
                bus: rblocksync::guest::Bus::Scsi,
                ..
            }
        )
    });
    if has_scsi || guest.scsi != Default::default() {
        if let Some(scsi) = word(&SCSI, &guest.scsi) {
            draft.set("scsihw", scsi);
        }
    }
    let display = &guest.display;
    let video = match (word(&VIDEOS, &display.video), display.video) {
        (Some(_), Video::Serial(port)) if !guest.serials.contains(&port) => "none",
        (Some(video), _) => video,
        (None, _) => {
            let left = Left::changed("display", format!("{:?}", display.video), "qxl4");
            draft.left.push(left);
            "qxl4"
        }
    };
    let memory = display
        .memory_mib
        .filter(|_| !matches!(display.video, Video::None | Video::Serial(_)));
    let in_range = |mib: &u32| (4..=512).contains(mib);
    if let Some(mib) = memory.filter(|mib| !in_range(mib)) {
        draft
            .left
            .push(Left::out("display memory", format!("{mib} MiB")));
    }
    match memory.filter(in_range) {
        Some(mib) => draft.set("vga", format!("{video},memory={mib}")),
        None if video != "std" => draft.set("vga", video),
        None => {}
    }
}

fn boot(draft: &mut Draft) {
    let keys = draft.guest.boot.iter();
    let order: Vec<String> = keys
        .filter_map(|key| draft.keys.get(key).cloned())
        .collect();
    draft.set("boot", format!("order={}", order.join(";")));
}
