//! A VM in the neutral form, written as a domain of libvirt's. What that has no word for is returned.

use super::read::TAGS;
use super::words::{word, HYPERV, LEVELS, SMBIOS, SYSTEMS};
use super::write_devices::{board_devices, nics, smaller};
use super::write_drives::drives;
use crate::xml::Element;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::guest::{Chipset, Clock, CpuModel, DiskUse, Firmware, Guest, Left, OsFamily, Vars};
use rblocksync::image::ImageFormat;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use uuid::Uuid;

/// A volume of the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where it is.
    pub path: PathBuf,
    /// Whether that is a block device.
    pub is_block: bool,
    /// What its bytes are.
    pub format: ImageFormat,
}

/// What is decided by the host rather than by the VM.
#[derive(Debug, Clone, Default)]
pub struct Put {
    /// The volume of each disk that the domain gets, by the disk's key.
    pub volumes: BTreeMap<String, Volume>,
    /// Whether the host's processor runs it; if not, QEMU emulates one.
    pub kvm: bool,
    /// The UUID of a VM that has none.
    pub uuid: Option<Uuid>,
    /// Newest version of QEMU's boards that the host has, if that is known.
    pub machines: Option<(u32, u32)>,
    /// Bridges there to bridges here, or to `network:NAME`. `vmbr0.20` stands for VLAN 20 of a bridge.
    pub bridges: Vec<(String, String)>,
    /// The bridges that this host has, if that is known.
    pub present: Option<BTreeSet<String>>,
    /// Whether libvirt can put a card of a plain bridge into a VLAN, as it does from 11.0 on.
    pub vlans: bool,
}

/// A domain.
#[derive(Debug, Clone)]
pub struct Written {
    /// Its definition.
    pub domain: Element,
    /// The key that each device has in it, by the one that it had.
    pub keys: BTreeMap<String, String>,
    /// What has no counterpart, or another one.
    pub left: Vec<Left>,
}

/// A definition in the making.
pub(super) struct Draft<'a> {
    pub guest: &'a Guest,
    pub put: &'a Put,
    pub devices: Element,
    pub keys: BTreeMap<String, String>,
    pub left: Vec<Left>,
    /// Threads for input and output.
    pub iothreads: u32,
}

impl Draft<'_> {
    /// The element that says when a device is booted from.
    pub fn boot(&self, key: &str) -> Option<Element> {
        let named = self.guest.boot_place(key);
        let place = named.or_else(|| self.place_behind(key))?;
        Some(Element::new("boot").with("order", place.to_string()))
    }

    /// The place of a disk behind all that are booted from. libvirt has the BIOS look at no others, and then a boot loader
    /// cannot read what it needs from a second disk.
    fn place_behind(&self, key: &str) -> Option<usize> {
        let guest = self.guest;
        if guest.firmware != Firmware::Bios {
            return None;
        }
        let mut others = guest.disks.iter().filter(|disk| {
            matches!(disk.role, DiskUse::Data { .. })
                && self.put.volumes.contains_key(&disk.key)
                && !guest.boot.contains(&disk.key)
        });
        let place = others.position(|disk| disk.key == key)?;
        Some(guest.boot.len() + 1 + place)
    }
}

/// Writes the definition of a VM. Refuses one that cannot be a domain.
pub fn write(guest: &Guest, put: &Put) -> Result<Written> {
    guest.check()?;
    let mut draft = Draft {
        guest,
        put,
        devices: Element::new("devices"),
        keys: BTreeMap::new(),
        left: Vec::new(),
        iothreads: 0,
    };
    drives(&mut draft)?;
    board_devices(&mut draft);
    nics(&mut draft);
    smaller(&mut draft);
    let kind = if put.kvm { "kvm" } else { "qemu" };
    let mut domain = Element::new("domain").with("type", kind);
    people(&mut draft, &mut domain)?;
    memory_and_processors(&mut draft, &mut domain)?;
    sysinfo(&mut draft, &mut domain);
    let os = os(&mut draft)?;
    domain.push(os);
    domain.push(features(guest));
    let cpu = cpu(&mut draft)?;
    domain.push(cpu);
    domain.push(clock(guest));
    for (event, action) in [
        ("on_poweroff", "destroy"),
        ("on_reboot", "restart"),
        ("on_crash", "destroy"),
    ] {
        domain.push(Element::new(event).saying(action));
    }
    let Draft {
        devices,
        keys,
        left,
        ..
    } = draft;
    domain.push(devices);
    Ok(Written { domain, keys, left })
}

/// Name, ids, notes and tags.
fn people(draft: &mut Draft, domain: &mut Element) -> Result<()> {
    let guest = draft.guest;
    let name = guest.name.clone().unwrap_or_else(|| "vm".into());
    let plain: String = name
        .chars()
        .map(|c| if c == '/' || c.is_control() { '-' } else { c })
        .collect();
    if plain != name {
        draft.left.push(Left::changed("name", &name, plain.clone()));
    }
    domain.push(Element::new("name").saying(plain));
    if let Some(uuid) = guest.uuid.or(draft.put.uuid) {
        domain.push(Element::new("uuid").saying(uuid.to_string()));
    }
    if let Some(id) = guest.generation_id {
        domain.push(Element::new("genid").saying(id.to_string()));
    }
    if !guest.description.is_empty() {
        // XML has no word for most control characters.
        let plain = |c: char| {
            if c.is_control() && c != '\n' && c != '\t' {
                ' '
            } else {
                c
            }
        };
        let text: String = guest.description.chars().map(plain).collect();
        domain.push(Element::new("description").saying(text));
    }
    let mut metadata = Element::new("metadata");
    let usual = word_of(guest.os.family);
    if let Some(id) = guest.os.id.as_deref().or(usual) {
        let os = Element::new("libosinfo:os").with("id", id);
        let space = "http://libosinfo.org/xmlns/libvirt/domain/1.0";
        metadata.push(
            Element::new("libosinfo:libosinfo")
                .with("xmlns:libosinfo", space)
                .holding(os),
        );
    }
    if !guest.tags.is_empty() {
        let mut tags = Element::new("rbstags:tags").with("xmlns:rbstags", TAGS);
        for tag in &guest.tags {
            tags.push(Element::new("rbstags:tag").saying(tag));
        }
        metadata.push(tags);
    }
    if !metadata.children.is_empty() {
        domain.push(metadata);
    }
    Ok(())
}

fn word_of(family: OsFamily) -> Option<&'static str> {
    word(&SYSTEMS, &family)
}

fn memory_and_processors(draft: &mut Draft, domain: &mut Element) -> Result<()> {
    let guest = draft.guest;
    let kib = guest.memory.kib.to_string();
    for name in ["memory", "currentMemory"] {
        let element = Element::new(name).with("unit", "KiB");
        domain.push(element.saying(kib.clone()));
    }
    let total = guest.cpu.total();
    if total == 0 || total > 4096 {
        return Err(Error::new(
            Kind::Refused,
            format!("the VM has {total} processors, which no domain can have"),
        ));
    }
    let mut vcpu = Element::new("vcpu").with("placement", "static");
    if let Some(online) = guest.cpu.online.filter(|n| (1..total).contains(n)) {
        vcpu.set("current", online.to_string());
    }
    domain.push(vcpu.saying(total.to_string()));
    if draft.iothreads > 0 {
        domain.push(Element::new("iothreads").saying(draft.iothreads.to_string()));
    }
    Ok(())
}

fn sysinfo(draft: &mut Draft, domain: &mut Element) {
    let mut system = Element::new("system");
    for (field, text) in &draft.guest.smbios {
        match SMBIOS.contains(&field.as_str()) {
            true => system.push(Element::new("entry").with("name", field).saying(text)),
            false => draft.left.push(Left::out(format!("smbios {field}"), text)),
        }
    }
    if !system.children.is_empty() {
        let sysinfo = Element::new("sysinfo").with("type", "smbios");
        domain.push(sysinfo.holding(system));
    }
}

fn os(draft: &mut Draft) -> Result<Element> {
    let guest = draft.guest;
    let mut os = Element::new("os");
    let kind = Element::new("type")
        .with("arch", "x86_64")
        .with("machine", machine(draft))
        .saying("hvm");
    match &guest.firmware {
        Firmware::Bios => os.push(kind),
        Firmware::Uefi { vars } => {
            os.set("firmware", "efi");
            os.push(kind);
            uefi(draft, vars.as_ref(), &mut os);
        }
    }
    if guest
        .smbios
        .keys()
        .any(|field| SMBIOS.contains(&field.as_str()))
    {
        os.push(Element::new("smbios").with("mode", "sysinfo"));
    }
    Ok(os)
}

/// Firmware that libvirt chooses by what is asked of it, and the file for its variables.
fn uefi(draft: &mut Draft, vars: Option<&Vars>, os: &mut Element) {
    // libvirt has it for this board only, as it takes System Management Mode.
    let secure = vars.is_some_and(|vars| vars.secure_boot);
    let can = draft.guest.machine.chipset == Chipset::Q35;
    if secure && !can {
        let why = "off: libvirt has it for q35 only";
        draft.left.push(Left::changed("secure boot", "on", why));
    }
    let state = |on: bool| if on { "yes" } else { "no" };
    let feature = |name: &str, on: bool| {
        Element::new("feature")
            .with("enabled", state(on))
            .with("name", name)
    };
    let on = secure && can;
    let mut firmware = Element::new("firmware");
    firmware.push(feature("enrolled-keys", on));
    firmware.push(feature("secure-boot", on));
    os.push(firmware);
    let Some(vars) = vars else {
        let why = "kept from now on";
        draft
            .left
            .push(Left::changed("UEFI variables", "none", why));
        return;
    };
    if vars.flash_mib == 2 {
        let why = "4 MiB or 2 MiB, as the host has it: with 4 MiB the variables are not understood";
        draft.left.push(Left::changed("UEFI flash", "2 MiB", why));
    }
    match draft.put.volumes.get(&vars.disk) {
        Some(volume) => {
            draft.keys.insert(vars.disk.clone(), super::VARS_KEY.into());
            let path = volume.path.display().to_string();
            let mut nvram = Element::new("nvram");
            if !volume.format.is_raw() {
                nvram.set("format", volume.format.name());
            }
            os.push(nvram.saying(path));
        }
        None => {
            let why = "not replicated: the firmware starts with empty ones";
            draft
                .left
                .push(Left::changed("UEFI variables", &vars.disk, why));
        }
    }
}

/// The board, of the version that the guest knows if the host has it.
fn machine(draft: &mut Draft) -> String {
    let (alias, stem) = match draft.guest.machine.chipset {
        Chipset::I440fx => ("pc", "pc-i440fx-"),
        Chipset::Q35 => ("q35", "pc-q35-"),
    };
    let Some(version) = &draft.guest.machine.version else {
        return alias.into();
    };
    let parsed = version.split_once('.').and_then(|(major, minor)| {
        let minor = minor.split('.').next()?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    let fits = match (parsed, draft.put.machines) {
        (Some(wanted), Some(newest)) => wanted <= newest,
        (Some(_), None) => true,
        (None, _) => false,
    };
    match fits {
        true => format!("{stem}{version}"),
        false => {
            let why = "the newest that this host has";
            draft
                .left
                .push(Left::changed("machine version", version, why));
            alias.into()
        }
    }
}

fn features(guest: &Guest) -> Element {
    let mut features = Element::new("features");
    if guest.acpi {
        features.push(Element::new("acpi"));
    }
    features.push(Element::new("apic"));
    if guest.os.family.is_windows() {
        let mut hyperv = Element::new("hyperv").with("mode", "custom");
        for name in HYPERV {
            let mut part = Element::new(name).with("state", "on");
            if name == "spinlocks" {
                part.set("retries", "8191");
            }
            hyperv.push(part);
        }
        features.push(hyperv);
    }
    if guest.cpu.hidden {
        let hidden = Element::new("hidden").with("state", "on");
        features.push(Element::new("kvm").holding(hidden));
    }
    if let Firmware::Uefi { vars: Some(vars) } = &guest.firmware {
        if vars.secure_boot && guest.machine.chipset == Chipset::Q35 {
            features.push(Element::new("smm").with("state", "on"));
        }
    }
    features
}

fn cpu(draft: &mut Draft) -> Result<Element> {
    let guest = draft.guest;
    let mut cpu = Element::new("cpu");
    let mut left = |value: &str, why: &str| {
        draft.left.push(Left::changed("cpu", value, why));
    };
    let custom = |cpu: &mut Element, name: &str| {
        cpu.set("mode", "custom");
        cpu.set("match", "exact");
        cpu.set("check", "none");
        cpu.push(
            Element::new("model")
                .with("fallback", "forbid")
                .saying(name),
        );
    };
    let kvm = draft.put.kvm;
    let mut level: &[&str] = &[];
    match &guest.cpu.model {
        CpuModel::Host if kvm => {
            cpu.set("mode", "host-passthrough");
            cpu.set("check", "none");
        }
        CpuModel::HostModel if kvm => cpu.set("mode", "host-model"),
        CpuModel::Max => cpu.set("mode", "maximum"),
        CpuModel::Host | CpuModel::HostModel => {
            left("host", "all that QEMU can emulate: this host has no KVM");
            cpu.set("mode", "maximum");
        }
        CpuModel::Named(name) => custom(&mut cpu, name),
        CpuModel::Level(name) => {
            let known = LEVELS.iter().find(|(level, _)| level == name);
            let Some((_, features)) = known else {
                return Err(Error::new(
                    Kind::Refused,
                    format!("its processor {name} is not known"),
                ));
            };
            level = features;
            custom(&mut cpu, "qemu64");
        }
    }
    cpu.push(
        Element::new("topology")
            .with("sockets", guest.cpu.sockets.to_string())
            .with("cores", guest.cpu.cores.to_string())
            .with("threads", guest.cpu.threads.to_string()),
    );
    let own = |name: &str| guest.cpu.flags.iter().any(|flag| flag.name == name);
    for feature in level.iter().filter(|name| !own(name)) {
        cpu.push(
            Element::new("feature")
                .with("policy", "require")
                .with("name", *feature),
        );
    }
    for flag in &guest.cpu.flags {
        let policy = if flag.on { "require" } else { "disable" };
        cpu.push(
            Element::new("feature")
                .with("policy", policy)
                .with("name", &flag.name),
        );
    }
    Ok(cpu)
}

fn clock(guest: &Guest) -> Element {
    let offset = match guest.clock {
        Clock::Utc => "utc",
        Clock::LocalTime => "localtime",
    };
    let mut clock = Element::new("clock").with("offset", offset);
    for (name, attribute, value) in [
        ("rtc", "tickpolicy", "catchup"),
        ("pit", "tickpolicy", "delay"),
        ("hpet", "present", "no"),
    ] {
        clock.push(
            Element::new("timer")
                .with("name", name)
                .with(attribute, value),
        );
    }
    if guest.os.family.is_windows() {
        let timer = Element::new("timer").with("name", "hypervclock");
        clock.push(timer.with("present", "yes"));
    }
    clock
}
