//! Disks, CD drives, network cards and the smaller devices.

use super::options::Options;
use super::read::{number, parse, rank};
use super::words::{meaning, ACTIONS, AIOS, BUSES, CACHES, NICS, RNG_SOURCES, WATCHDOGS};
use crate::drive::{Bus, DiskKey, Drive, DriveTarget};
use crate::vm_config::{decode_text, VmConfig};
use rblocksync::guest::{
    self, Cache, CdDrive, Disk, DiskUse, Guest, Left, Network, Nic, Rates, Rng, Tpm, TpmVersion,
    Watchdog, WatchdogAction,
};

/// Reads all disks that hold data.
pub(super) fn disks(config: &VmConfig, guest: &mut Guest) {
    let (mut disks, mut unknown) = (Vec::new(), Vec::new());
    for drive in config.drives() {
        let key = drive.key.to_string();
        let (volume, storage) = match &drive.target {
            DriveTarget::Volume(volid) if !drive.is_cdrom() => {
                (volid.to_string(), Some(volid.storage().to_owned()))
            }
            // Refused, or left out by name, long before this.
            DriveTarget::Path(path) => (path.clone(), None),
            _ => continue,
        };
        let mut disk = Disk::new(key, volume, role(drive.key));
        disk.storage = storage;
        options(drive, &mut disk, &mut unknown);
        if drive.key.bus() == Bus::Tpmstate {
            guest.tpm = Some(Tpm {
                version: match drive.option("version") {
                    Some("v2.0") => TpmVersion::V20,
                    _ => TpmVersion::V12,
                },
                disk: Some(disk.key.clone()),
            });
        }
        disks.push(disk);
    }
    disks.sort_by_key(|disk| match disk.role {
        DiskUse::Data { bus, slot } => (rank(bus), slot),
        DiskUse::Vars => (10, 0),
        DiskUse::Tpm => (11, 0),
        DiskUse::Unused => (12, 0),
    });
    guest.disks = disks;
    guest.unknown.extend(unknown);
}

/// What a key says of its disk.
fn role(key: DiskKey) -> DiskUse {
    let slot = number(&key.to_string()).and_then(|n| u16::try_from(n).ok());
    let slot = slot.unwrap_or(0);
    let bus = match key.bus() {
        Bus::Ide => guest::Bus::Ide,
        Bus::Sata => guest::Bus::Sata,
        Bus::Scsi => guest::Bus::Scsi,
        Bus::Virtio => guest::Bus::Virtio,
        Bus::Efidisk => return DiskUse::Vars,
        Bus::Tpmstate => return DiskUse::Tpm,
        Bus::Unused => return DiskUse::Unused,
    };
    DiskUse::Data { bus, slot }
}

fn options(drive: &Drive, disk: &mut Disk, unknown: &mut Vec<Left>) {
    let mut options = Options::of(&disk.key, &drive.options);
    // Of the volume, not of the guest; or of where it came from.
    for name in ["size", "format", "import-from", "media"] {
        options.take(name);
    }
    for (name, default) in [("backup", "1"), ("replicate", "1"), ("shared", "0")] {
        options.drop_default(name, default);
    }
    match disk.role {
        DiskUse::Vars => {
            options.take("efitype");
            options.take("pre-enrolled-keys");
        }
        DiskUse::Tpm => drop(options.take("version")),
        DiskUse::Data { .. } | DiskUse::Unused => {}
    }
    let cache = options.parsed("cache", |word| meaning(&CACHES, word));
    disk.cache = cache.unwrap_or(Cache::None);
    disk.aio = options.parsed("aio", |word| meaning(&AIOS, word));
    disk.discard = options.parsed("discard", |word| match word {
        "on" => Some(true),
        "ignore" => Some(false),
        _ => None,
    }) == Some(true);
    disk.detect_zeroes = options.flag("detect_zeroes");
    disk.iothread = options.flag("iothread").unwrap_or(false);
    disk.ssd = options.flag("ssd").unwrap_or(false);
    disk.read_only = options.flag("ro").unwrap_or(false);
    disk.serial = options.take("serial").map(|text| decode_text(&text));
    disk.wwn = options.parsed("wwn", |text| text.strip_prefix("0x").map(str::to_lowercase));
    let mut bytes = |name: &str| options.parsed(name, mib_of).unwrap_or(0);
    disk.rates = Rates {
        bytes: bytes("mbps"),
        bytes_read: bytes("mbps_rd"),
        bytes_written: bytes("mbps_wr"),
        ..Rates::default()
    };
    disk.rates.operations = options.parsed("iops", parse).unwrap_or(0);
    disk.rates.reads = options.parsed("iops_rd", parse).unwrap_or(0);
    disk.rates.writes = options.parsed("iops_wr", parse).unwrap_or(0);
    unknown.extend(options.left());
}

/// Bytes of a number of MiB with a fraction.
fn mib_of(text: &str) -> Option<u64> {
    let mib: f64 = text.parse().ok()?;
    // A thousandth of the largest that a double has exactly.
    let is_sane = (0.0..1e9).contains(&mib);
    is_sane.then(|| (mib * 1_048_576.0).round() as u64)
}

/// Reads CD drives. What is in them stays behind.
pub(super) fn cd_drives(config: &VmConfig, guest: &mut Guest) {
    for drive in config.drives().iter() {
        let is_cloud_init = matches!(drive.target, DriveTarget::CloudInit(_));
        if !drive.is_cdrom() && !is_cloud_init {
            continue;
        }
        let key = drive.key.to_string();
        let DiskUse::Data { bus, slot } = role(drive.key) else {
            continue;
        };
        match &drive.target {
            DriveTarget::None => {}
            DriveTarget::CloudInit(_) => guest.unknown.push(Left::changed(
                &key,
                drive.value(),
                "an empty CD drive: cloud-init's medium is made by Proxmox VE",
            )),
            _ => guest.unknown.push(Left::changed(
                &key,
                drive.value(),
                "an empty CD drive: media stay behind",
            )),
        }
        guest.cds.push(CdDrive::new(key, bus, slot));
    }
    guest.cds.sort_by_key(|cd| (rank(cd.bus), cd.slot));
}

/// Reads a network card.
pub(super) fn nic(guest: &mut Guest, key: &str, value: &str) -> Option<()> {
    let mut options = Options::new(key, "model", value);
    let (model, mac) = match options.take_any(&NICS) {
        Some((model, mac)) => (model, Some(mac)),
        None => {
            let model = options.take("model")?;
            (model, options.take("macaddr"))
        }
    };
    if !NICS.contains(&model.as_str()) {
        return None;
    }
    let mtu: Option<u32> = options.parsed("mtu", |text| match parse(text) {
        // As the bridge's, which is what the other side does of its own accord.
        Some(1) | None => None,
        mtu => mtu,
    });
    options.drop_default("mtu", "1");
    let nic = Nic {
        key: key.to_owned(),
        model,
        mac: mac.map(|mac| mac.to_ascii_lowercase()),
        network: match options.take("bridge") {
            Some(bridge) => Network::Bridge(bridge),
            None => Network::User,
        },
        vlan: options.parsed("tag", parse),
        mtu,
        queues: options.parsed("queues", parse).filter(|q| *q != 0),
        link: !options.flag("link_down").unwrap_or(false),
        firewall: options.flag("firewall").unwrap_or(false),
    };
    guest.unknown.extend(options.left());
    guest.nics.push(nic);
    Some(())
}

/// Reads a source of random numbers.
pub(super) fn rng(guest: &mut Guest, value: &str) -> Option<()> {
    let mut options = Options::new("rng0", "source", value);
    let source = options.take("source")?;
    if !RNG_SOURCES.contains(&source.as_str()) {
        return None;
    }
    guest.rng = Some(Rng {
        source,
        bytes: options.parsed("max_bytes", parse).unwrap_or(1024),
        period_ms: options.parsed("period", parse).unwrap_or(1000),
    });
    guest.unknown.extend(options.left());
    Some(())
}

/// Reads a watchdog.
pub(super) fn watchdog(guest: &mut Guest, value: &str) -> Option<()> {
    let mut options = Options::new("watchdog", "model", value);
    let model = options.take("model").unwrap_or_else(|| WATCHDOGS[0].into());
    if !WATCHDOGS.contains(&model.as_str()) {
        return None;
    }
    let action = options.parsed("action", |word| meaning(&ACTIONS, word));
    guest.watchdog = Some(Watchdog {
        model,
        action: action.unwrap_or(WatchdogAction::None),
    });
    guest.unknown.extend(options.left());
    Some(())
}

/// The key of a disk at this place.
pub(super) fn key_at(bus: guest::Bus, slot: u16) -> Option<DiskKey> {
    let (name, _) = BUSES.iter().find(|(_, b)| *b == bus)?;
    DiskKey::parse(&format!("{name}{slot}"))
}
