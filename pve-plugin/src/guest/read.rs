//! A VM's configuration, read into the neutral form. Keys that nothing is known of are left, with their values.

use super::options::{from_base64, is_yes, Options};
use super::read_devices::{cd_drives, disks, nic, rng, watchdog};
use super::words::{meaning, FLAGS, LEVELS, OSTYPES, SCSI, SMBIOS, VIDEOS};
use crate::drive::DiskKey;
use crate::vm_config::VmConfig;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::guest::{
    Bus, Chipset, Clock, CpuFlag, CpuModel, DiskUse, Display, Firmware, Guest, Left, Machine,
    Memory, Os, OsFamily, Video,
};
use uuid::Uuid;

/// Keys that tell of the file, not of the VM; or of a state of it that a replica has not.
const BOOKKEEPING: [&str; 11] = [
    "description",
    "digest",
    "lock",
    "meta",
    "parent",
    "snapstate",
    "snaptime",
    "vmstate",
    "runningmachine",
    "runningcpu",
    "running-nets-host-mtu",
];

/// What a key means if it is not there: who says the same says nothing.
const DEFAULTS: [(&str, &str); 16] = [
    ("acpi", "1"),
    ("allow-ksm", "1"),
    ("arch", "x86_64"),
    ("autostart", "0"),
    ("cpulimit", "0"),
    ("freeze", "0"),
    ("hotplug", "network,disk,usb"),
    ("keephugepages", "0"),
    ("kvm", "1"),
    ("numa", "0"),
    ("protection", "0"),
    ("reboot", "1"),
    ("startdate", "now"),
    ("tdf", "0"),
    ("template", "0"),
    ("vcpus", "0"),
];

/// Reads the VM that a configuration describes: its main section, without what waits for the next start.
pub fn read(config: &VmConfig) -> Result<Guest> {
    if let Some(arch) = config.get("arch").filter(|arch| *arch != "x86_64") {
        return Err(Error::new(
            Kind::Refused,
            format!("it is of architecture {arch}, and only x86_64 can be translated"),
        ));
    }
    let family = config.get("ostype").and_then(|w| meaning(&OSTYPES, w));
    let family = family.unwrap_or_default();
    let mut guest = Guest {
        description: config.main().description(),
        os: Os { family, id: None },
        tablet: true,
        memory: Memory {
            kib: 512 << 10,
            balloon: true,
        },
        clock: match family.is_windows() {
            true => Clock::LocalTime,
            false => Clock::Utc,
        },
        ..Guest::default()
    };
    // Proxmox VE's own default.
    guest.cpu.model = CpuModel::Named("kvm64".into());
    disks(config, &mut guest);
    cd_drives(config, &mut guest);
    for (key, value) in config.main().entries() {
        let is_disk = DiskKey::parse(key).is_some();
        let is_said = DEFAULTS.contains(&(key, value));
        // Whatever is given twice: the last one counts.
        let is_old = config.get(key) != Some(value);
        if !is_disk
            && !is_said
            && !is_old
            && !BOOKKEEPING.contains(&key)
            && !take(&mut guest, key, value)
        {
            // Of what nobody else is to see, only the name.
            let value = if key == "cipassword" { "..." } else { value };
            guest.unknown.push(Left::out(key, value));
        }
    }
    guest.nics.sort_by_key(|nic| number(&nic.key));
    guest.serials.sort_unstable();
    guest.boot = boot_order(config, &guest);
    if config.get("bios") == Some("ovmf") {
        firmware(config, &mut guest);
    }
    Ok(guest)
}

/// Takes one key. False: it is not known, or not what it says.
fn take(guest: &mut Guest, key: &str, value: &str) -> bool {
    let known = match key {
        "name" => set(&mut guest.name, Some(value.to_owned())),
        "tags" => {
            let tags = value.split([';', ',', ' ', '\t']).filter(|t| !t.is_empty());
            guest.tags = tags.map(str::to_owned).collect();
            Some(())
        }
        "onboot" => set(&mut guest.autostart, is_yes(value)),
        "ostype" => meaning(&OSTYPES, value).map(drop),
        "machine" => machine(guest, value),
        // With the disk for its variables.
        "bios" => ["seabios", "ovmf"].contains(&value).then_some(()),
        "boot" | "bootdisk" => Some(()),
        "cpu" => cpu(guest, value),
        "sockets" => parse(value).map(|n| guest.cpu.sockets = n),
        // Sockets, of before there were cores.
        "smp" => parse(value).map(|n| guest.cpu.sockets = n),
        "cores" => parse(value).map(|n| guest.cpu.cores = n),
        "vcpus" => parse(value).map(|n| guest.cpu.online = Some(n)),
        "memory" => {
            let mut options = Options::new(key, "current", value);
            let mib: Option<u64> = options.parsed("current", parse);
            guest.unknown.extend(options.left());
            mib.map(|mib| guest.memory.kib = mib << 10)
        }
        "balloon" => match value {
            "0" => set(&mut guest.memory.balloon, false),
            // How far the host may take memory away when it is short of it.
            _ => None,
        },
        "localtime" => set(
            &mut guest.clock,
            match is_yes(value) {
                true => Clock::LocalTime,
                false => Clock::Utc,
            },
        ),
        "acpi" => set(&mut guest.acpi, is_yes(value)),
        "tablet" => set(&mut guest.tablet, is_yes(value)),
        "scsihw" => meaning(&SCSI, value).map(|scsi| guest.scsi = scsi),
        "agent" => agent(guest, value),
        "rng0" => rng(guest, value),
        "watchdog" => watchdog(guest, value),
        "vga" => vga(guest, value),
        "smbios1" => smbios(guest, value),
        "vmgenid" => match Uuid::try_parse(value) {
            Ok(id) => set(&mut guest.generation_id, Some(id)),
            Err(_) => None,
        },
        _ if key.starts_with("net") => number(key).and_then(|_| nic(guest, key, value)),
        _ if key.starts_with("serial") && value == "socket" => {
            let port = number(key).and_then(|n| u8::try_from(n).ok());
            port.map(|port| guest.serials.push(port))
        }
        _ => None,
    };
    known.is_some()
}

fn set<T>(place: &mut T, value: T) -> Option<()> {
    *place = value;
    Some(())
}

pub(super) fn parse<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// The number that a key ends with.
pub(super) fn number(key: &str) -> Option<u32> {
    let digits = key.find(|c: char| c.is_ascii_digit())?;
    key[digits..].parse().ok()
}

/// `pc`, `q35`, or a board with QEMU's version and perhaps Proxmox's own revision of it: `pc-q35-9.2+pve1`.
fn machine(guest: &mut Guest, value: &str) -> Option<()> {
    let mut options = Options::new("machine", "type", value);
    let name = options.take("type").unwrap_or_else(|| "pc".into());
    guest.unknown.extend(options.left());
    let (stem, revision) = match name.split_once('+') {
        Some((stem, revision)) => (stem, Some(revision)),
        None => (name.as_str(), None),
    };
    let (chipset, version) = match stem {
        "pc" => (Chipset::I440fx, None),
        "q35" => (Chipset::Q35, None),
        _ => match (
            stem.strip_prefix("pc-i440fx-"),
            stem.strip_prefix("pc-q35-"),
        ) {
            (Some(version), _) => (Chipset::I440fx, Some(version.to_owned())),
            (None, Some(version)) => (Chipset::Q35, Some(version.to_owned())),
            (None, None) => return None,
        },
    };
    if let Some(revision) = revision {
        let left = Left::out("machine revision", format!("+{revision}"));
        guest.unknown.push(left);
    }
    guest.machine = Machine { chipset, version };
    Some(())
}

fn cpu(guest: &mut Guest, value: &str) -> Option<()> {
    let mut options = Options::new("cpu", "cputype", value);
    let model = options.take("cputype").unwrap_or_else(|| "kvm64".into());
    guest.cpu.model = match model.as_str() {
        "host" => CpuModel::Host,
        "max" => CpuModel::Max,
        level if LEVELS.contains(&level) => CpuModel::Level(model),
        own if own.starts_with("custom-") => {
            let why = "a model of this cluster's own: kvm64 instead";
            guest.unknown.push(Left::changed("cpu", own, why));
            CpuModel::Named("kvm64".into())
        }
        _ => CpuModel::Named(model),
    };
    guest.cpu.hidden = options.flag("hidden").unwrap_or(false);
    for flag in options.take("flags").unwrap_or_default().split(';') {
        let on = flag.starts_with('+');
        let name = flag.trim_start_matches(['+', '-']);
        match FLAGS.contains(&name) {
            true => guest.cpu.flags.push(CpuFlag {
                name: name.to_owned(),
                on,
            }),
            false if flag.is_empty() => {}
            false => guest.unknown.push(Left::out("cpu flags", flag)),
        }
    }
    guest.unknown.extend(options.left());
    Some(())
}

fn agent(guest: &mut Guest, value: &str) -> Option<()> {
    let mut options = Options::new("agent", "enabled", value);
    guest.agent = options.flag("enabled").unwrap_or(false);
    options.drop_default("type", "virtio");
    options.drop_default("fstrim_cloned_disks", "0");
    options.drop_default("freeze-fs-on-backup", "1");
    if guest.agent {
        guest.unknown.extend(options.left());
    }
    Some(())
}

fn vga(guest: &mut Guest, value: &str) -> Option<()> {
    let mut options = Options::new("vga", "type", value);
    let video = match options.take("type") {
        None => Video::Std,
        Some(word) => meaning(&VIDEOS, &word)?,
    };
    guest.display = Display {
        video,
        memory_mib: options.parsed("memory", parse),
    };
    guest.unknown.extend(options.left());
    Some(())
}

fn smbios(guest: &mut Guest, value: &str) -> Option<()> {
    let mut options = Options::new("smbios1", "uuid", value);
    let coded = options.flag("base64").unwrap_or(false);
    guest.uuid = options.parsed("uuid", |text| Uuid::try_parse(text).ok());
    for field in SMBIOS {
        let read = |text: &str| match coded {
            true => from_base64(text),
            false => Some(text.to_owned()),
        };
        if let Some(text) = options.parsed(field, read) {
            guest.smbios.insert(field.to_owned(), text);
        }
    }
    guest.unknown.extend(options.left());
    Some(())
}

/// UEFI, with its variables where there is a disk for them.
fn firmware(config: &VmConfig, guest: &mut Guest) {
    let disk = guest.disks.iter().find(|d| d.role == DiskUse::Vars);
    let drive = disk.and_then(|d| config.drive(DiskKey::parse(&d.key)?));
    let vars = disk
        .zip(drive)
        .map(|(disk, drive)| rblocksync::guest::Vars {
            disk: disk.key.clone(),
            flash_mib: match drive.option("efitype") {
                Some("4m") => 4,
                _ => 2,
            },
            secure_boot: drive.flag("pre-enrolled-keys", false),
        });
    guest.firmware = Firmware::Uefi { vars };
}

/// Keys of what is booted from. The old form names classes of devices, and perhaps a disk.
fn boot_order(config: &VmConfig, guest: &Guest) -> Vec<String> {
    let has = |key: &str| {
        guest.cds.iter().any(|cd| cd.key == key)
            || guest.nics.iter().any(|nic| nic.key == key)
            || guest
                .disks
                .iter()
                .any(|disk| disk.key == key && attached(disk))
    };
    let boot = config.get("boot").unwrap_or("cdn");
    if let Some(order) = boot.strip_prefix("order=") {
        let keys = order.split(';').map(str::trim).filter(|key| has(key));
        return keys.map(str::to_owned).collect();
    }
    let classes = boot.strip_prefix("legacy=").unwrap_or(boot);
    let classes = classes.split(',').next().unwrap_or_default();
    let mut order = Vec::new();
    for class in classes.chars() {
        let first = match class {
            'c' => config
                .get("bootdisk")
                .filter(|key| has(key))
                .map(str::to_owned)
                .or_else(|| {
                    let mut disks = guest.disks.iter();
                    disks.find(|d| attached(d)).map(|d| d.key.clone())
                }),
            'd' => guest.cds.first().map(|cd| cd.key.clone()),
            'n' => guest.nics.first().map(|nic| nic.key.clone()),
            _ => None,
        };
        order.extend(first);
    }
    order
}

fn attached(disk: &rblocksync::guest::Disk) -> bool {
    matches!(disk.role, DiskUse::Data { .. })
}

/// The order in which firmware looks at buses.
pub(super) fn rank(bus: Bus) -> u8 {
    match bus {
        Bus::Ide => 0,
        Bus::Scsi => 1,
        Bus::Virtio => 2,
        Bus::Sata => 3,
    }
}

/// What Proxmox VE takes for granted of an operating system.
pub(super) fn clock_of(family: OsFamily) -> Clock {
    match family.is_windows() {
        true => Clock::LocalTime,
        false => Clock::Utc,
    }
}
