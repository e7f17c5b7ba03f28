//! Disks, CD drives and network cards as lines of a configuration.

use super::read_devices::key_at;
use super::words::{word, ACTIONS, AIOS, CACHES, NICS, RNG_SOURCES, WATCHDOGS};
use super::write::Draft;
use crate::drive::format_size;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::guest::{Bus, Cache, Disk, DiskUse, Left, Network, Nic, ScsiController};

/// Network cards that a VM can have.
const NICS_MAX: usize = 32;

/// The bridge that every installation has.
const USUAL_BRIDGE: &str = "vmbr0";

/// Writes the disks that have a volume.
pub(super) fn disks(draft: &mut Draft) -> Result<()> {
    let guest = draft.guest;
    let mut unused = 0;
    for disk in &guest.disks {
        let special = [&guest_vars(draft), &guest_tpm(draft)].contains(&&Some(disk.key.clone()));
        let Some((volid, size)) = draft.put.volumes.get(&disk.key) else {
            if !special {
                let why = "not replicated";
                draft.left.push(Left::changed(&disk.key, &disk.volume, why));
            }
            continue;
        };
        match disk.role {
            DiskUse::Data { bus, slot } => {
                let key = place(draft, &disk.key, bus, slot)?;
                let mut line = volid.to_string();
                for (name, value) in options(draft, disk, bus, *size) {
                    line.push_str(&format!(",{name}={value}"));
                }
                draft.set(&key, line);
            }
            // With firmware and TPM.
            DiskUse::Vars | DiskUse::Tpm if special => {}
            DiskUse::Vars | DiskUse::Tpm | DiskUse::Unused => {
                let key = format!("unused{unused}");
                unused += 1;
                draft.keys.insert(disk.key.clone(), key.clone());
                draft.set(&key, volid.to_string());
            }
        }
    }
    Ok(())
}

fn guest_vars(draft: &Draft) -> Option<String> {
    match &draft.guest.firmware {
        rblocksync::guest::Firmware::Uefi { vars: Some(vars) } => Some(vars.disk.clone()),
        _ => None,
    }
}

fn guest_tpm(draft: &Draft) -> Option<String> {
    draft.guest.tpm.as_ref().and_then(|tpm| tpm.disk.clone())
}

/// A free key on this bus: the same place if it is free here.
fn place(draft: &mut Draft, was: &str, bus: Bus, slot: u16) -> Result<String> {
    for slot in std::iter::once(slot).chain(0..64) {
        let Some(key) = key_at(bus, slot).map(|key| key.to_string()) else {
            continue;
        };
        if !draft.lines.contains_key(&key) && !draft.keys.values().any(|k| *k == key) {
            draft.keys.insert(was.to_owned(), key.clone());
            return Ok(key);
        }
    }
    Err(Error::new(
        Kind::Refused,
        format!(
            "the VM has more drives on {bus:?} than Proxmox VE allows: there is no place for {was}"
        ),
    )
    .advise("leave a disk out with --exclude, or put it on another bus"))
}

/// A disk's options, as Proxmox VE sorts them.
fn options(
    draft: &mut Draft,
    disk: &Disk,
    bus: Bus,
    size: Option<u64>,
) -> Vec<(&'static str, String)> {
    let mut options: Vec<(&str, String)> = Vec::new();
    let mut left = |name: &str, value: &str, why: &str| {
        let name = format!("{} {name}", disk.key);
        draft.left.push(Left::changed(name, value, why));
    };
    let yes = || "1".to_owned();
    if let (true, Some(cache)) = (disk.cache != Cache::None, word(&CACHES, &disk.cache)) {
        options.push(("cache", cache.to_owned()));
    }
    if let Some(aio) = disk.aio.and_then(|aio| word(&AIOS, &aio)) {
        match aio == "native" && !matches!(disk.cache, Cache::None | Cache::Directsync) {
            true => left("aio", aio, "it works past the page cache only"),
            false => options.push(("aio", aio.to_owned())),
        }
    }
    if disk.discard {
        options.push(("discard", "on".to_owned()));
    }
    if let Some(detect) = disk.detect_zeroes {
        options.push(("detect_zeroes", u8::from(detect).to_string()));
    }
    if disk.iothread {
        let single = bus == Bus::Scsi && draft.guest.scsi == ScsiController::VirtioSingle;
        match single || bus == Bus::Virtio {
            true => options.push(("iothread", yes())),
            false => left("iothread", "1", "needs virtio, or virtio-scsi-single"),
        }
    }
    if disk.ssd {
        match bus == Bus::Virtio {
            false => options.push(("ssd", yes())),
            true => left("ssd", "1", "not on virtio"),
        }
    }
    if disk.read_only {
        match matches!(bus, Bus::Scsi | Bus::Virtio) {
            true => options.push(("ro", yes())),
            false => left(
                "readonly",
                "1",
                "the disk can be written: only SCSI and virtio can be read-only",
            ),
        }
    }
    if let Some(serial) = &disk.serial {
        let coded = coded(serial);
        match coded.len() <= 60 {
            true => options.push(("serial", coded)),
            false => left("serial", serial, "too long"),
        }
    }
    if let Some(wwn) = &disk.wwn {
        let is_wwn = wwn.len() == 16 && wwn.bytes().all(|b| b.is_ascii_hexdigit());
        match is_wwn && bus != Bus::Virtio {
            true => options.push(("wwn", format!("0x{wwn}"))),
            false => left("wwn", wwn, "not here"),
        }
    }
    let rates = &disk.rates;
    for (name, bytes) in [
        ("mbps", rates.bytes),
        ("mbps_rd", rates.bytes_read),
        ("mbps_wr", rates.bytes_written),
    ] {
        if bytes > 0 {
            // A double has more digits than this needs, so the same number of bytes is read again.
            options.push((name, format!("{}", bytes as f64 / 1_048_576.0)));
        }
    }
    for (name, count) in [
        ("iops", rates.operations),
        ("iops_rd", rates.reads),
        ("iops_wr", rates.writes),
    ] {
        if count > 0 {
            options.push((name, count.to_string()));
        }
    }
    if let Some(size) = size {
        options.push(("size", format_size(size)));
    }
    options.sort();
    options
}

/// Text in percent codes, where it is not a plain word.
fn coded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Writes the CD drives, empty. One on a bus that has none here goes to IDE.
pub(super) fn cd_drives(draft: &mut Draft) -> Result<()> {
    for cd in &draft.guest.cds {
        let bus = match cd.bus {
            Bus::Virtio => Bus::Ide,
            bus => bus,
        };
        let key = place(draft, &cd.key, bus, cd.slot)?;
        draft.set(&key, "none,media=cdrom");
    }
    Ok(())
}

/// Writes the network cards.
pub(super) fn nics(draft: &mut Draft) -> Result<()> {
    let guest = draft.guest;
    if guest.nics.len() > NICS_MAX {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "the VM has {} network cards, and can have {NICS_MAX}",
                guest.nics.len()
            ),
        ));
    }
    for (index, nic) in guest.nics.iter().enumerate() {
        let is_free = |key: &String| !draft.lines.contains_key(key);
        let own = (0..NICS_MAX).map(|n| format!("net{n}"));
        let key = own.clone().find(|key| *key == nic.key).filter(is_free);
        let key = key.or_else(|| Some(format!("net{index}")).filter(is_free));
        let key = key.or_else(|| own.clone().find(is_free));
        if let Some(key) = key {
            let line = nic_line(draft, nic);
            draft.keys.insert(nic.key.clone(), key.clone());
            draft.set(&key, line);
        }
    }
    Ok(())
}

fn nic_line(draft: &mut Draft, nic: &Nic) -> String {
    let mut left = |name: &str, value: &str, why: &str| {
        let name = match name {
            "" => nic.key.clone(),
            name => format!("{} {name}", nic.key),
        };
        draft.left.push(Left::changed(name, value, why));
    };
    let model = match NICS.contains(&nic.model.as_str()) {
        true => nic.model.as_str(),
        false => {
            left("model", &nic.model, "e1000");
            "e1000"
        }
    };
    let mut line = match &nic.mac {
        Some(mac) => format!("{model}={}", mac.to_ascii_uppercase()),
        None => model.to_owned(),
    };
    let mapped = |name: &str| {
        let found = draft.put.bridges.iter().find(|(from, _)| from == name);
        found.map(|(_, to)| to.clone())
    };
    let (mut vlan, mut link) = (nic.vlan, nic.link);
    let wanted = match (&nic.network, nic.vlan) {
        (Network::Bridge(name) | Network::Named(name), Some(tag)) => {
            let of_vlan = mapped(&format!("{name}.{tag}"));
            if of_vlan.is_some() {
                vlan = None;
            }
            of_vlan.or_else(|| mapped(name)).map(|to| (to, true))
        }
        (Network::Bridge(name) | Network::Named(name), None) => mapped(name).map(|to| (to, true)),
        (Network::User, _) => None,
    };
    let is_present = |bridge: &String| {
        let present = draft.put.present.as_ref();
        present.is_none_or(|bridges| bridges.contains(bridge))
    };
    let bridge = match (wanted, &nic.network) {
        (Some((to, _)), _) => Some(to),
        (None, Network::User) => None,
        (None, Network::Bridge(name)) if is_bridge(name) && is_present(name) => Some(name.clone()),
        (None, Network::Bridge(name) | Network::Named(name)) => {
            let why = format!(
                "on {USUAL_BRIDGE}, unplugged: name the bridge with --bridge {name}=BRIDGE, or plug it in"
            );
            left("", name, &why);
            link = false;
            Some(USUAL_BRIDGE.to_owned())
        }
    };
    if let Some(bridge) = bridge {
        line.push_str(&format!(",bridge={bridge}"));
    }
    if nic.firewall {
        line.push_str(",firewall=1");
    }
    if !link {
        line.push_str(",link_down=1");
    }
    match nic.mtu {
        Some(mtu) if model == "virtio" && (2..=65520).contains(&mtu) => {
            line.push_str(&format!(",mtu={mtu}"));
        }
        Some(mtu) => left(
            "mtu",
            &mtu.to_string(),
            "the bridge's: virtio cards have their own",
        ),
        None => {}
    }
    match nic.queues {
        Some(queues @ 1..=64) => line.push_str(&format!(",queues={queues}")),
        Some(queues) => left("queues", &queues.to_string(), "one"),
        None => {}
    }
    match vlan {
        Some(tag @ 1..=4094) => line.push_str(&format!(",tag={tag}")),
        Some(tag) => left("vlan", &tag.to_string(), "none"),
        None => {}
    }
    line
}

fn is_bridge(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    !name.is_empty() && name.len() <= 15 && name.bytes().all(plain)
}

/// Writes the source of random numbers.
pub(super) fn rng(draft: &mut Draft) {
    let Some(rng) = &draft.guest.rng else {
        return;
    };
    let source = match RNG_SOURCES.contains(&rng.source.as_str()) {
        true => rng.source.as_str(),
        false => {
            let why = RNG_SOURCES[0];
            draft.left.push(Left::changed("rng", &rng.source, why));
            why
        }
    };
    let mut line = format!("source={source}");
    line.push_str(&format!(",max_bytes={}", rng.bytes));
    line.push_str(&format!(",period={}", rng.period_ms.max(1)));
    draft.set("rng0", line);
}

/// Writes the watchdog.
pub(super) fn watchdog(draft: &mut Draft) {
    let Some(watchdog) = &draft.guest.watchdog else {
        return;
    };
    let model = match WATCHDOGS.contains(&watchdog.model.as_str()) {
        true => watchdog.model.as_str(),
        false => {
            let why = WATCHDOGS[0];
            draft
                .left
                .push(Left::changed("watchdog", &watchdog.model, why));
            why
        }
    };
    let action = word(&ACTIONS, &watchdog.action).unwrap_or("none");
    draft.set("watchdog", format!("model={model},action={action}"));
}
