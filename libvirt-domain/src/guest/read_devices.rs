//! A domain's devices.

use super::read::{refused, Reading};
use super::words::{meaning, ACTIONS, AIOS, BUSES, CACHES, SCSI, VIDEOS};
use super::write_drives::LSI_SLOTS;
use super::VARS_KEY;
use crate::xml::Element;
use rblocksync::error::Result;
use rblocksync::guest::{
    Bus, Cache, CdDrive, Chipset, Disk, DiskUse, Display, Firmware, Left, Network, Nic, Rates, Rng,
    ScsiController, Tpm, TpmVersion, Video, Watchdog, WatchdogAction,
};

/// Reads all devices.
pub(super) fn devices(reading: &mut Reading, devices: &Element) -> Result<()> {
    let mut order: Vec<(u32, String)> = Vec::new();
    let mut boots = |element: &Element, key: &str| {
        let place = element.child("boot").and_then(|b| b.attribute("order"));
        if let Some(place) = place.and_then(|place| place.parse().ok()) {
            order.push((place, key.to_owned()));
        }
    };
    vars(reading);
    for element in devices.elements() {
        match element.name.as_str() {
            "disk" => {
                let key = drive(reading, element)?;
                boots(element, &key);
            }
            "interface" => {
                if let Some(key) = nic(reading, element) {
                    boots(element, &key);
                }
            }
            "serial" => serial(reading, element),
            "channel" => channel(reading, element),
            "input" => input(reading, element),
            "tpm" => tpm(reading, element),
            "video" => video(reading, element),
            "watchdog" => watchdog(reading, element),
            "memballoon" => {
                reading.guest.memory.balloon = element.attribute("model") != Some("none");
            }
            "rng" => rng(reading, element),
            // The same port again, or a place to look at what is told elsewhere.
            "console" if is_serial(element) => {}
            "emulator" => {}
            "graphics" if element.attribute("type") == Some("vnc") => {}
            "graphics" => {
                let kind = element.attribute("type").unwrap_or_default();
                let left =
                    Left::changed("graphics", kind, "the other side's own way to look at it");
                reading.guest.unknown.push(left);
            }
            "controller" if is_plain(element) => {}
            "audio" if element.attribute("type") == Some("none") => {}
            _ => reading.left("", element),
        }
    }
    scsi(reading, devices);
    serial_display(reading);
    order.sort();
    reading.guest.boot = order.into_iter().map(|(_, key)| key).collect();
    Ok(())
}

/// A console that is the first serial port.
fn is_serial(console: &Element) -> bool {
    let target = console.child("target").and_then(|t| t.attribute("type"));
    matches!(target, None | Some("serial"))
}

/// Controllers that there are because of what hangs on them, or of the board.
fn is_plain(controller: &Element) -> bool {
    let kind = controller.attribute("type").unwrap_or_default();
    ["pci", "usb", "ide", "sata", "scsi", "virtio-serial", "fdc"].contains(&kind)
}

/// The file of the firmware's variables counts as a disk.
fn vars(reading: &mut Reading) {
    let Firmware::Uefi { vars: Some(_) } = &reading.guest.firmware else {
        return;
    };
    let Some(nvram) = reading.domain.at(&["os", "nvram"]) else {
        return;
    };
    let source = nvram.child("source");
    let source = source.and_then(|s| s.attribute("file").or(s.attribute("dev")));
    let path = source.map_or_else(|| nvram.text(), str::to_owned);
    let disk = Disk::new(VARS_KEY, path, DiskUse::Vars);
    reading.guest.disks.push(disk);
}

/// Reads a disk or a CD drive, and gives its key.
fn drive(reading: &mut Reading, element: &Element) -> Result<String> {
    let target = element.child("target");
    let key = target.and_then(|t| t.attribute("dev")).unwrap_or_default();
    let bus_name = target.and_then(|t| t.attribute("bus")).unwrap_or_default();
    let bus_name = match bus_name {
        "" => bus_by_name(key),
        name => name,
    };
    let device = element.attribute("device").unwrap_or("disk");
    let bus = meaning(&BUSES, bus_name);
    match (device, bus) {
        ("cdrom", Some(bus)) => {
            let slot = slot_of(reading, element, key, bus);
            if let Some(source) = element.child("source") {
                let value = source.attributes.iter().map(|(_, value)| value.as_str());
                let value = value.collect::<Vec<_>>().join(" ");
                let why = "an empty CD drive: media stay behind";
                reading.guest.unknown.push(Left::changed(key, value, why));
            }
            reading.guest.cds.push(CdDrive::new(key, bus, slot));
        }
        ("disk", Some(bus)) => {
            let slot = slot_of(reading, element, key, bus);
            let (volume, storage) = volume_of(element);
            let mut disk = Disk::new(key, volume, DiskUse::Data { bus, slot });
            disk.storage = storage;
            options(reading, element, &mut disk);
            reading.guest.disks.push(disk);
        }
        ("disk", None) => {
            return Err(refused(format!(
                "disk {key} is on the bus {bus_name:?}, which the other side does not have"
            )));
        }
        _ => reading.left(key, element),
    }
    Ok(key.to_owned())
}

fn bus_by_name(dev: &str) -> &'static str {
    match dev.get(..2) {
        Some("hd") => "ide",
        Some("sd") => "scsi",
        _ => "virtio",
    }
}

/// Volume and pool. Everything but a pool's volume is named by its path.
fn volume_of(element: &Element) -> (String, Option<String>) {
    let Some(source) = element.child("source") else {
        return (String::new(), None);
    };
    let of = |name: &str| source.attribute(name).map(str::to_owned);
    match (of("pool"), of("volume")) {
        (Some(pool), Some(volume)) => (format!("{pool}/{volume}"), Some(pool)),
        _ => {
            let path = of("file").or_else(|| of("dev")).or_else(|| of("name"));
            (path.unwrap_or_default(), None)
        }
    }
}

/// The place on the bus: by its address, or by its name.
fn slot_of(reading: &Reading, element: &Element, dev: &str, bus: Bus) -> u16 {
    let address = element.child("address");
    let part = |name: &str| -> u16 {
        let value = address.and_then(|a| a.attribute(name));
        value.and_then(|v| v.parse().ok()).unwrap_or(0)
    };
    let by_name = letters(dev.get(2..).unwrap_or_default());
    let is_drive = address.and_then(|a| a.attribute("type")) == Some("drive");
    let slot = match (bus, is_drive) {
        (Bus::Ide, true) => part("bus").saturating_mul(2).saturating_add(part("unit")),
        (Bus::Sata, true) => part("controller")
            .saturating_mul(6)
            .saturating_add(part("unit")),
        (Bus::Scsi, true) if is_lsi(reading) => {
            let before = part("controller").saturating_mul(LSI_SLOTS);
            before.saturating_add(part("unit"))
        }
        (Bus::Scsi, true) => part("target").saturating_add(part("unit")),
        _ => by_name,
    };
    let taken = |slot: u16| {
        let disks = reading.guest.disks.iter();
        let mut disks = disks.map(|d| d.role);
        let mut cds = reading.guest.cds.iter();
        disks.any(|role| role == DiskUse::Data { bus, slot })
            || cds.any(|cd| (cd.bus, cd.slot) == (bus, slot))
    };
    let mut free = std::iter::once(slot)
        .chain(0..u16::MAX)
        .filter(|s| !taken(*s));
    free.next().unwrap_or(slot)
}

/// Whether SCSI disks hang on LSI's controllers, which is the default.
fn is_lsi(reading: &Reading) -> bool {
    let devices = reading.domain.child("devices").into_iter();
    let mut controllers = devices
        .flat_map(Element::elements)
        .filter(|c| c.name == "controller" && c.attribute("type") == Some("scsi"));
    let model = controllers.next().and_then(|c| c.attribute("model"));
    matches!(model, None | Some("lsilogic"))
}

/// `a` is 0, `z` 25, `aa` 26.
fn letters(text: &str) -> u16 {
    let text: Vec<u8> = text.bytes().take_while(u8::is_ascii_lowercase).collect();
    let number = text.iter().take(3).fold(0u32, |number, byte| {
        number * 26 + u32::from(byte - b'a') + 1
    });
    u16::try_from(number.saturating_sub(1)).unwrap_or(0)
}

fn options(reading: &mut Reading, element: &Element, disk: &mut Disk) {
    disk.cache = Cache::Writeback;
    let key = disk.key.clone();
    for child in element.elements() {
        match child.name.as_str() {
            "driver" => driver(reading, child, disk),
            "serial" => disk.serial = Some(child.text()),
            "wwn" => disk.wwn = Some(child.text().to_lowercase()),
            "readonly" => disk.read_only = true,
            "iotune" => rates(reading, child, disk),
            "target" => {
                disk.ssd = child.attribute("rotation_rate") == Some("1");
                if let Some(rate) = child.attribute("rotation_rate").filter(|r| *r != "1") {
                    reading.left_attribute(&format!("{key} rotation_rate"), rate);
                }
            }
            "source" | "backingStore" | "alias" | "address" | "boot" | "mirror" => {}
            _ => reading.left(&key, child),
        }
    }
}

fn driver(reading: &mut Reading, driver: &Element, disk: &mut Disk) {
    for (name, value) in &driver.attributes {
        let known = match name.as_str() {
            "name" | "type" => true,
            "cache" => meaning(&CACHES, value)
                .map(|cache| disk.cache = cache)
                .is_some(),
            "io" => meaning(&AIOS, value)
                .map(|aio| disk.aio = Some(aio))
                .is_some(),
            "discard" => {
                disk.discard = value == "unmap";
                true
            }
            "detect_zeroes" => {
                disk.detect_zeroes = Some(value != "off");
                true
            }
            "iothread" => {
                disk.iothread = true;
                true
            }
            _ => value == "default",
        };
        if !known {
            reading.left_attribute(&format!("{} {name}", disk.key), value);
        }
    }
    for child in driver.elements() {
        reading.left(&disk.key, child);
    }
}

fn rates(reading: &mut Reading, iotune: &Element, disk: &mut Disk) {
    let mut rates = Rates::default();
    for child in iotune.elements() {
        let place = match child.name.as_str() {
            "total_bytes_sec" => &mut rates.bytes,
            "read_bytes_sec" => &mut rates.bytes_read,
            "write_bytes_sec" => &mut rates.bytes_written,
            "total_iops_sec" => &mut rates.operations,
            "read_iops_sec" => &mut rates.reads,
            "write_iops_sec" => &mut rates.writes,
            _ => {
                reading.left(&disk.key, child);
                continue;
            }
        };
        match child.text().parse() {
            Ok(rate) => *place = rate,
            Err(_) => reading.left(&disk.key, child),
        }
    }
    disk.rates = rates;
}

/// What SCSI disks hang on. A controller for each disk is told from one for all of them.
fn scsi(reading: &mut Reading, devices: &Element) {
    let controllers: Vec<&Element> = devices
        .all("controller")
        .filter(|c| c.attribute("type") == Some("scsi"))
        .collect();
    let is_scsi = |d: &&Disk| matches!(d.role, DiskUse::Data { bus: Bus::Scsi, .. });
    let on_scsi = reading.guest.disks.iter().filter(is_scsi).count()
        + reading
            .guest
            .cds
            .iter()
            .filter(|cd| cd.bus == Bus::Scsi)
            .count();
    let mut threads = false;
    let mut model = None;
    for controller in &controllers {
        let name = controller.attribute("model").unwrap_or("lsilogic");
        match meaning(&SCSI, name) {
            Some(found) if model.is_none() || model == Some(found) => model = Some(found),
            _ => reading.left("", controller),
        }
        for child in controller.elements() {
            match child.name.as_str() {
                "address" | "alias" => {}
                "driver" if child.attributes.iter().all(|(name, _)| name == "iothread") => {
                    threads = threads || child.attribute("iothread").is_some();
                    let index = controller.attribute("index").unwrap_or("0");
                    threads_of(reading, devices, index);
                }
                _ => reading.left("controller scsi", child),
            }
        }
    }
    reading.guest.scsi = match model {
        Some(ScsiController::Virtio) if threads || controllers.len() == on_scsi => {
            ScsiController::VirtioSingle
        }
        Some(model) => model,
        None => ScsiController::default(),
    };
}

/// Disks whose controller has a thread of its own.
fn threads_of(reading: &mut Reading, devices: &Element, controller: &str) {
    for element in devices.all("disk") {
        let target = element.child("target");
        let dev = target.and_then(|t| t.attribute("dev")).unwrap_or_default();
        let address = element.child("address");
        let its = address
            .and_then(|a| a.attribute("controller"))
            .unwrap_or("0");
        let of_it =
            |d: &&mut Disk| d.key == dev && matches!(d.role, DiskUse::Data { bus: Bus::Scsi, .. });
        if its == controller {
            let mut disks = reading.guest.disks.iter_mut().filter(of_it);
            disks.by_ref().for_each(|disk| disk.iothread = true);
        }
    }
}

fn nic(reading: &mut Reading, element: &Element) -> Option<String> {
    let key = format!("net{}", reading.guest.nics.len());
    let source = |name: &str| -> Option<String> {
        element.child("source")?.attribute(name).map(str::to_owned)
    };
    let network = match element.attribute("type") {
        Some("bridge") => Network::Bridge(source("bridge")?),
        Some("network") => Network::Named(source("network")?),
        Some("user") => Network::User,
        _ => {
            reading.left("", element);
            return None;
        }
    };
    let mut nic = Nic {
        key: key.clone(),
        // libvirt's own default.
        model: "rtl8139".into(),
        mac: None,
        network,
        vlan: None,
        mtu: None,
        queues: None,
        link: true,
        firewall: false,
    };
    for child in element.elements() {
        let of = |name: &str| child.attribute(name);
        match child.name.as_str() {
            "mac" => nic.mac = of("address").map(str::to_ascii_lowercase),
            "model" => nic.model = of("type").unwrap_or("rtl8139").to_owned(),
            "mtu" => nic.mtu = of("size").and_then(|size| size.parse().ok()),
            "link" => nic.link = of("state") != Some("down"),
            "driver"
                if child
                    .attributes
                    .iter()
                    .all(|(n, _)| n == "queues" || n == "name") =>
            {
                nic.queues = of("queues").and_then(|n| n.parse().ok());
            }
            "vlan" if child.elements().count() == 1 && of("trunk").is_none() => {
                let tag = child.child("tag").and_then(|tag| tag.attribute("id"));
                nic.vlan = tag.and_then(|id| id.parse().ok());
            }
            "source" => {
                if let Some(group) = of("portgroup") {
                    reading.left_attribute(&format!("{key} portgroup"), group);
                }
            }
            "target" | "alias" | "boot" => {}
            "address" => {
                // Names like ens3 are made of it.
                let slot = of("slot").or(of("bus")).unwrap_or_default();
                let why = "the other side's own, so a Linux guest may name the card otherwise";
                let name = format!("{key} address");
                if reading.guest.machine.chipset == Chipset::I440fx && !is_usual_slot(slot) {
                    reading.guest.unknown.push(Left::changed(name, slot, why));
                } else if reading.guest.machine.chipset == Chipset::Q35 {
                    let bus = of("bus").unwrap_or_default();
                    reading.guest.unknown.push(Left::changed(name, bus, why));
                }
            }
            _ => reading.left(&key, child),
        }
    }
    reading.guest.nics.push(nic);
    Some(key)
}

/// The places that Proxmox VE gives to network cards, from 18 on: `ens18`.
fn is_usual_slot(slot: &str) -> bool {
    let number = slot
        .strip_prefix("0x")
        .and_then(|hex| u8::from_str_radix(hex, 16).ok());
    number.is_some_and(|n| (0x12..0x18).contains(&n))
}

fn serial(reading: &mut Reading, element: &Element) {
    let kind = element.attribute("type").unwrap_or_default();
    let target = element.child("target");
    let port = target.and_then(|t| t.attribute("port")).unwrap_or("0");
    let is_plain = ["pty", "unix", "tcp", "null", "file", "stdio"].contains(&kind);
    match port.parse() {
        Ok(port) if is_plain => {
            reading.guest.serials.push(port);
            if kind != "pty" {
                let why = "a serial port that can be reached from the host";
                let left = Left::changed(format!("serial {port}"), kind, why);
                reading.guest.unknown.push(left);
            }
        }
        _ => reading.left("", element),
    }
}

fn channel(reading: &mut Reading, element: &Element) {
    let name = element.child("target").and_then(|t| t.attribute("name"));
    match name {
        Some("org.qemu.guest_agent.0") => reading.guest.agent = true,
        _ => reading.left("", element),
    }
}

fn input(reading: &mut Reading, element: &Element) {
    match (element.attribute("type"), element.attribute("bus")) {
        (Some("tablet"), _) => reading.guest.tablet = true,
        // Every PC has them.
        (Some("mouse" | "keyboard"), Some("ps2") | None) => {}
        _ => reading.left("", element),
    }
}

fn tpm(reading: &mut Reading, element: &Element) {
    let backend = element.child("backend");
    let of = |name: &str| backend.and_then(|b| b.attribute(name));
    if of("type") != Some("emulator") {
        reading.left("", element);
        return;
    }
    reading.guest.tpm = Some(Tpm {
        version: match of("version") {
            Some("1.2") => TpmVersion::V12,
            _ => TpmVersion::V20,
        },
        disk: None,
    });
}

fn video(reading: &mut Reading, element: &Element) {
    let model = element.child("model");
    let of = |name: &str| model.and_then(|m| m.attribute(name));
    let name = of("type").unwrap_or("vga");
    let heads: u8 = of("heads").and_then(|n| n.parse().ok()).unwrap_or(1);
    let video = match meaning(&VIDEOS, name) {
        Some(Video::Qxl(_)) => Video::Qxl(heads.clamp(1, 4)),
        Some(Video::Virtio) if accelerated(model) => Video::VirtioGl,
        Some(video) => video,
        None => {
            reading.left("", element);
            return;
        }
    };
    let vram: Option<u32> = of("vram").and_then(|n| n.parse().ok());
    // What libvirt writes for every card says nothing.
    let vram = vram.filter(|kib| *kib > 16 << 10 && kib % 1024 == 0);
    let vram = vram.filter(|_| !matches!(video, Video::Qxl(_)));
    reading.guest.display = Display {
        video,
        memory_mib: vram.map(|kib| kib >> 10),
    };
}

fn accelerated(model: Option<&Element>) -> bool {
    let acceleration = model.and_then(|m| m.child("acceleration"));
    acceleration.and_then(|a| a.attribute("accel3d")) == Some("yes")
}

/// Where there is no card, the first serial port is what is looked at.
fn serial_display(reading: &mut Reading) {
    let devices = reading.domain.child("devices");
    let has_card = devices.is_some_and(|d| d.child("video").is_some());
    let guest = &mut reading.guest;
    if !has_card {
        guest.display.video = Video::None;
    }
    if guest.display.video == Video::None {
        if let Some(port) = guest.serials.first() {
            guest.display.video = Video::Serial(*port);
        }
    }
}

fn watchdog(reading: &mut Reading, element: &Element) {
    let model = element.attribute("model").unwrap_or("i6300esb");
    // Every Q35 has one, and libvirt shows it.
    if model == "itco" {
        return;
    }
    let action = element.attribute("action").unwrap_or("reset");
    let Some(action) = meaning(&ACTIONS, action) else {
        reading.left("", element);
        reading.guest.watchdog = Some(Watchdog {
            model: model.into(),
            action: WatchdogAction::None,
        });
        return;
    };
    reading.guest.watchdog = Some(Watchdog {
        model: model.into(),
        action,
    });
}

fn rng(reading: &mut Reading, element: &Element) {
    let backend = element.child("backend");
    if backend.and_then(|b| b.attribute("model")) != Some("random") {
        reading.left("", element);
        return;
    }
    let rate = |name: &str| -> Option<u64> { element.child("rate")?.attribute(name)?.parse().ok() };
    reading.guest.rng = Some(Rng {
        source: backend.map(Element::text).unwrap_or_default(),
        bytes: rate("bytes").unwrap_or(0),
        period_ms: rate("period").unwrap_or(1000),
    });
}
