//! A domain's definition, read into the neutral form. Elements that nothing is known of are left, with all that is in them.

use super::read_devices::devices;
use super::words::{family, meaning, HYPERV, LEVELS, SYSTEMS};
use super::VARS_KEY;
use crate::xml::Element;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::guest::{
    Chipset, Clock, CpuFlag, CpuModel, Firmware, Guest, Left, Machine, Os, Vars,
};
use uuid::Uuid;

/// Namespace of what we note in a domain's metadata.
pub(super) const TAGS: &str = "urn:rblocksync:tags";

/// What libvirt or QEMU adds of its own accord, or keeps for itself.
const PLAIN: [&str; 8] = [
    "name",
    "seclabel",
    "resource",
    "pm",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "iothreads",
];

/// What is left of a domain, while it is read.
pub(super) struct Reading<'a> {
    pub domain: &'a Element,
    pub guest: Guest,
}

impl Reading<'_> {
    /// Something that is not understood.
    pub fn left(&mut self, place: &str, element: &Element) {
        let name = match place {
            "" => element.name.clone(),
            _ => format!("{place} {}", element.name),
        };
        self.guest
            .unknown
            .push(Left::out(name, on_one_line(element)));
    }

    pub fn left_attribute(&mut self, name: &str, value: &str) {
        self.guest.unknown.push(Left::out(name, value));
    }
}

/// The element with all that is in it.
fn on_one_line(element: &Element) -> String {
    element.to_string().lines().map(str::trim).collect()
}

/// Reads the VM that a definition describes.
pub fn read(domain: &Element) -> Result<Guest> {
    if domain.name != "domain" {
        return Err(refused(format!("<{}> is not a domain", domain.name)));
    }
    let kind = domain.attribute("type").unwrap_or_default();
    if !["kvm", "qemu"].contains(&kind) {
        return Err(refused(format!("it is of type {kind:?}, and not QEMU's")));
    }
    let mut guest = Guest {
        name: text_of(domain, "name").filter(|name| !name.is_empty()),
        acpi: false,
        ..Guest::default()
    };
    guest.memory.balloon = true;
    let mut reading = Reading { domain, guest };
    for element in domain.elements() {
        section(&mut reading, element)?;
    }
    if let Some(features) = domain.child("features") {
        // When the family is known.
        read_features(&mut reading, features);
    }
    if let Some(devices_of) = domain.child("devices") {
        devices(&mut reading, devices_of)?;
    }
    boot_by_class(&mut reading);
    pools(&mut reading);
    Ok(reading.guest)
}

pub(super) fn refused(why: String) -> Error {
    Error::new(Kind::Refused, why)
}

fn text_of(element: &Element, name: &str) -> Option<String> {
    element.child(name).map(Element::text)
}

fn section(reading: &mut Reading, element: &Element) -> Result<()> {
    let text = element.text();
    let guest = &mut reading.guest;
    match element.name.as_str() {
        name if PLAIN.contains(&name) => {}
        "features" | "devices" => {}
        "uuid" => guest.uuid = Uuid::try_parse(&text).ok(),
        "genid" => guest.generation_id = Uuid::try_parse(&text).ok(),
        "description" => guest.description = text,
        "metadata" => metadata(reading, element),
        "memory" => guest.memory.kib = kib_of(element)?,
        "currentMemory" => {
            let all = reading.domain.child("memory").map(kib_of).transpose()?;
            if all.is_some_and(|all| Ok(all) != kib_of(element).map_err(drop)) {
                reading.left("", element);
            }
        }
        "vcpu" => vcpu(reading, element)?,
        "sysinfo" => sysinfo(reading, element),
        "os" => os(reading, element)?,
        "cpu" => cpu(reading, element)?,
        "clock" => clock(reading, element),
        _ => reading.left("", element),
    }
    Ok(())
}

/// KiB of an amount of memory with a unit.
fn kib_of(element: &Element) -> Result<u64> {
    let text = element.text();
    let odd = || refused(format!("its memory is given as {text:?}"));
    let number: u64 = text.parse().map_err(|_| odd())?;
    let bytes: u64 = match element.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return Err(odd()),
    };
    let all = number.checked_mul(bytes).ok_or_else(odd)?;
    Ok(all.div_ceil(1024))
}

fn metadata(reading: &mut Reading, metadata: &Element) {
    for element in metadata.elements() {
        let local = element.name.rsplit(':').next().unwrap_or_default();
        let space = element
            .attributes
            .iter()
            .find(|(name, _)| name.starts_with("xmlns"))
            .map(|(_, value)| value.as_str())
            .unwrap_or_default();
        if space == TAGS {
            let tags = element.elements().filter(|e| e.name.ends_with("tag"));
            reading.guest.tags = tags.map(Element::text).collect();
        } else if local == "libosinfo" {
            let os = element.elements().find(|e| e.name.ends_with("os"));
            if let Some(id) = os.and_then(|os| os.attribute("id")) {
                let family = family(id);
                let is_usual = meaning(&SYSTEMS, id).is_some();
                reading.guest.os = Os {
                    family,
                    id: (!is_usual).then(|| id.to_owned()),
                };
            }
        } else if !space.starts_with("urn:rblocksync:") {
            reading.left("metadata", element);
        }
    }
}

/// What `virt-blocksync` notes for its targets: the pools of disks that are named by their paths, and whether the domain is
/// started with its host.
fn pools(reading: &mut Reading) {
    let Some(metadata) = reading.domain.child("metadata") else {
        return;
    };
    let notes: Vec<&Element> = metadata
        .elements()
        .filter(|e| e.attribute("role") == Some("source"))
        .collect();
    let mut starts = notes.iter().map(|e| e.attribute("autostart"));
    reading.guest.autostart = starts.any(|starts| starts == Some("yes"));
    for disk in notes.into_iter().flat_map(Element::elements) {
        let key = disk.attribute("key");
        let found = reading
            .guest
            .disks
            .iter_mut()
            .find(|d| Some(d.key.as_str()) == key);
        if let (Some(found), Some(pool)) = (found, disk.attribute("pool")) {
            found.storage = Some(pool.to_owned());
        }
    }
}

fn vcpu(reading: &mut Reading, element: &Element) -> Result<()> {
    let text = element.text();
    let all: u32 = text
        .parse()
        .map_err(|_| refused(format!("it has {text:?} processors")))?;
    let topology = reading.domain.at(&["cpu", "topology"]);
    let part = |name: &str| -> Option<u32> { topology?.attribute(name)?.parse().ok() };
    let cpu = &mut reading.guest.cpu;
    (cpu.sockets, cpu.cores, cpu.threads) = match (part("sockets"), part("cores"), part("threads"))
    {
        (Some(sockets), Some(cores), Some(threads)) => {
            let dies = part("dies").unwrap_or(1).max(1);
            let clusters = part("clusters").unwrap_or(1).max(1);
            (
                sockets,
                cores.saturating_mul(dies).saturating_mul(clusters),
                threads,
            )
        }
        // What QEMU makes of a number alone differs by version; Windows counts sockets, Linux does not.
        _ => (1, all, 1),
    };
    if cpu.total() != all || all == 0 {
        return Err(refused(format!(
            "its {all} processors are not what its topology says"
        )));
    }
    cpu.online = element.attribute("current").and_then(|n| n.parse().ok());
    cpu.online = cpu.online.filter(|n| *n < all);
    for (name, value) in &element.attributes {
        if !["placement", "current"].contains(&name.as_str()) {
            reading.left_attribute(&format!("vcpu {name}"), value);
        }
    }
    Ok(())
}

fn sysinfo(reading: &mut Reading, sysinfo: &Element) {
    for block in sysinfo.elements() {
        match block.name.as_str() {
            "system" => {
                for entry in block.all("entry") {
                    let name = entry.attribute("name").unwrap_or_default();
                    if name != "uuid" {
                        let text = entry.text();
                        reading.guest.smbios.insert(name.to_owned(), text);
                    }
                }
            }
            _ => reading.left("sysinfo", block),
        }
    }
}

fn os(reading: &mut Reading, os: &Element) -> Result<()> {
    let mut secure = false;
    let mut enrolled = None;
    for element in os.elements() {
        match element.name.as_str() {
            "type" => {
                let arch = element.attribute("arch").unwrap_or("x86_64");
                if arch != "x86_64" || element.text() != "hvm" {
                    return Err(refused(format!(
                        "it is of architecture {arch} ({}), and only x86_64 can be translated",
                        element.text()
                    )));
                }
                reading.guest.machine = machine(element.attribute("machine").unwrap_or("pc"))?;
            }
            "loader" => secure |= element.attribute("secure") == Some("yes"),
            "firmware" => {
                for feature in element.all("feature") {
                    let on = feature.attribute("enabled") == Some("yes");
                    match feature.attribute("name") {
                        Some("secure-boot") => secure |= on,
                        Some("enrolled-keys") => enrolled = Some(on),
                        _ => reading.left("firmware", feature),
                    }
                }
            }
            "nvram" | "boot" | "smbios" => {}
            "bootmenu" if element.attribute("enable") != Some("yes") => {}
            _ => reading.left("os", element),
        }
    }
    let loader = os.child("loader").map(Element::text).unwrap_or_default();
    let is_flash = os
        .child("loader")
        .is_some_and(|l| l.attribute("type") == Some("pflash"));
    if os.attribute("firmware") == Some("efi") || is_flash {
        // A template's or a firmware's own name tells the size, where nothing else does.
        let template = os.child("nvram").and_then(|n| n.attribute("template"));
        let names = [loader.as_str(), template.unwrap_or_default()];
        let is_small = names.iter().any(|name| {
            let file = name.rsplit('/').next().unwrap_or_default();
            !file.is_empty() && file.starts_with("OVMF_") && !file.contains("4M")
        });
        let has_keys = |name: &&str| name.contains(".ms.") || name.contains("secboot");
        let by_name = template.is_some_and(|t| has_keys(&t));
        let stateless = os
            .child("loader")
            .is_some_and(|l| l.attribute("stateless") == Some("yes"));
        let vars = (os.child("nvram").is_some() && !stateless).then(|| Vars {
            disk: VARS_KEY.into(),
            flash_mib: if is_small { 2 } else { 4 },
            secure_boot: enrolled.unwrap_or(by_name || secure),
        });
        reading.guest.firmware = Firmware::Uefi { vars };
    } else if !loader.is_empty() {
        reading.left_attribute("os loader", &loader);
    }
    Ok(())
}

/// `pc`, `q35`, or a board with QEMU's version: `pc-q35-7.2`.
fn machine(name: &str) -> Result<Machine> {
    let (chipset, version) = match name {
        "pc" => (Chipset::I440fx, None),
        "q35" => (Chipset::Q35, None),
        _ => match (
            name.strip_prefix("pc-i440fx-"),
            name.strip_prefix("pc-q35-"),
        ) {
            (Some(version), _) => (Chipset::I440fx, Some(version.to_owned())),
            (None, Some(version)) => (Chipset::Q35, Some(version.to_owned())),
            (None, None) => {
                return Err(refused(format!(
                    "there is no board {name} on the other side"
                )));
            }
        },
    };
    Ok(Machine { chipset, version })
}

fn cpu(reading: &mut Reading, cpu: &Element) -> Result<()> {
    let mut flags = Vec::new();
    for element in cpu.elements() {
        match element.name.as_str() {
            "model" | "topology" => {}
            "feature" => {
                let name = element.attribute("name").unwrap_or_default().to_owned();
                let on = match element.attribute("policy").unwrap_or("require") {
                    "require" | "force" => true,
                    "disable" | "forbid" => false,
                    _ => {
                        reading.left("cpu", element);
                        continue;
                    }
                };
                flags.push(CpuFlag { name, on });
            }
            _ => reading.left("cpu", element),
        }
    }
    let model = cpu.child("model").map(Element::text).unwrap_or_default();
    let ours = &mut reading.guest.cpu;
    ours.model = match cpu.attribute("mode") {
        Some("host-passthrough") => CpuModel::Host,
        Some("host-model") => CpuModel::HostModel,
        Some("maximum") => CpuModel::Max,
        // Of old definitions, and of those that only tell the topology.
        Some("custom") | None if model.is_empty() => ours.model.clone(),
        Some("custom") | None => named(model, &mut flags),
        Some(other) => return Err(refused(format!("its processor is {other:?}"))),
    };
    ours.flags = flags;
    Ok(())
}

/// A level of the ABI is a plain model with all that belongs to the level.
fn named(model: String, flags: &mut Vec<CpuFlag>) -> CpuModel {
    if model != "qemu64" {
        return CpuModel::Named(model);
    }
    let has = |name: &&str| flags.iter().any(|flag| flag.on && flag.name == **name);
    match LEVELS.iter().find(|(_, features)| features.iter().all(has)) {
        Some((level, features)) => {
            flags.retain(|flag| !features.contains(&flag.name.as_str()));
            CpuModel::Level((*level).into())
        }
        None => CpuModel::Named(model),
    }
}

fn read_features(reading: &mut Reading, features: &Element) {
    for element in features.elements() {
        match element.name.as_str() {
            "acpi" => reading.guest.acpi = true,
            // Secure Boot needs it, and gets it.
            "apic" | "pae" | "smm" | "vmport" => {}
            "kvm" => {
                for part in element.elements() {
                    let on = part.attribute("state") == Some("on");
                    match part.name.as_str() {
                        "hidden" => reading.guest.cpu.hidden = on,
                        _ if on => reading.left("kvm", part),
                        _ => {}
                    }
                }
            }
            "hyperv" => {
                let is_windows = reading.guest.os.family.is_windows();
                for part in element.elements() {
                    let usual = is_windows && HYPERV.contains(&part.name.as_str());
                    if !usual && part.attribute("state") != Some("off") {
                        reading.left("hyperv", part);
                    }
                }
            }
            _ => reading.left("features", element),
        }
    }
}

fn clock(reading: &mut Reading, clock: &Element) {
    reading.guest.clock = match clock.attribute("offset") {
        Some("localtime") => Clock::LocalTime,
        Some("utc") | None => Clock::Utc,
        Some(other) => {
            reading.left_attribute("clock offset", other);
            Clock::Utc
        }
    };
    for timer in clock.all("timer") {
        // What libvirt's tools write for every domain.
        let usual = match timer.attribute("name") {
            Some("rtc") => timer.attribute("tickpolicy") == Some("catchup"),
            Some("pit") => timer.attribute("tickpolicy") == Some("delay"),
            Some("hpet") => timer.attribute("present") == Some("no"),
            Some("hypervclock") => true,
            _ => false,
        };
        if !usual {
            reading.left("clock", timer);
        }
    }
}

/// The old form of the order of booting: classes of devices.
fn boot_by_class(reading: &mut Reading) {
    let Some(os) = reading.domain.child("os") else {
        return;
    };
    let guest = &mut reading.guest;
    if !guest.boot.is_empty() {
        return;
    }
    let mut order: Vec<String> = Vec::new();
    let classes: Vec<&str> = os.all("boot").filter_map(|b| b.attribute("dev")).collect();
    // What QEMU does if nobody says anything.
    let classes = if classes.is_empty() {
        vec!["hd"]
    } else {
        classes
    };
    for class in classes {
        let is_data = |d: &&rblocksync::guest::Disk| {
            matches!(d.role, rblocksync::guest::DiskUse::Data { .. })
        };
        let first = match class {
            "hd" => guest.disks.iter().find(is_data).map(|d| &d.key),
            "cdrom" => guest.cds.first().map(|d| &d.key),
            "network" => guest.nics.first().map(|n| &n.key),
            _ => None,
        };
        order.extend(first.cloned());
    }
    guest.boot = order;
}
