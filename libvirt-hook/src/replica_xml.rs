//! The definition of a replica, from that of its source: the same virtual machine, on this host's disks and networks.
//!
//! What the guest sees stays: the machine's type, addresses of devices, MACs, serial numbers. What is the source's host
//! goes, and is told: devices that are passed through, media in drives, an emulator in another place.

use crate::disks::NVRAM;
use crate::domain::{disk_key, Domain};
use crate::marks;
use crate::xml::Element;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::replica::{mapped, DiskRecord, Generation, Location, NETWORK};
use std::path::Path;
use uuid::Uuid;

/// What is known of this host.
pub struct Here<'a> {
    /// Its networks.
    pub networks: &'a [String],
    /// Whether a path exists.
    pub exists: &'a dyn Fn(&Path) -> bool,
}

/// What a domain is to be here.
pub struct Wanted<'a> {
    /// The generation that it boots from.
    pub generation: &'a Generation,
    /// Its name.
    pub name: &'a str,
    /// Its UUID, if not the source's.
    pub uuid: Option<Uuid>,
    /// Networks and bridges, and what they are called here.
    pub map: &'a [(String, String)],
}

/// The definition, without any mark, ready to be started. Returns notes for the user.
pub fn render(wanted: &Wanted, here: &Here) -> Result<(Domain, Vec<String>)> {
    let mut domain = Domain::parse(&wanted.generation.config)?;
    let mut notes = Vec::new();
    let identity = marks::identity_of(&domain).or(domain.uuid());
    marks::clear(&mut domain);
    domain.root_mut().unset("id");
    name_it(&mut domain, wanted);
    if let Some(identity) = identity.filter(|identity| domain.uuid() != Some(*identity)) {
        marks::set_identity(&mut domain, identity);
    }
    if let Some(devices) = domain.devices_mut() {
        emulator(devices, here, &mut notes);
        passed_through(devices, &mut notes);
        drives(devices, wanted.generation, here, &mut notes)?;
        for interface in devices.elements_mut().filter(|d| d.name == "interface") {
            network(interface, wanted.map, here, &mut notes);
        }
        for device in devices.elements_mut() {
            forget_runtime(device);
        }
    }
    firmware(&mut domain, wanted, here, &mut notes);
    Ok((domain, notes))
}

fn name_it(domain: &mut Domain, wanted: &Wanted) {
    let root = domain.root_mut();
    match root.child_mut("name") {
        Some(name) => name.set_text(wanted.name),
        None => root.push(Element::new("name").saying(wanted.name)),
    }
    let Some(uuid) = wanted.uuid else { return };
    match root.child_mut("uuid") {
        Some(element) => element.set_text(uuid.to_string()),
        None => root.push(Element::new("uuid").saying(uuid.to_string())),
    }
    // libvirt wants what the guest reads by SMBIOS to be the same.
    if let Some(system) = root
        .child_mut("sysinfo")
        .and_then(|s| s.child_mut("system"))
    {
        for entry in system
            .elements_mut()
            .filter(|e| e.attribute("name") == Some("uuid"))
        {
            entry.set_text(uuid.to_string());
        }
    }
}

fn emulator(devices: &mut Element, here: &Here, notes: &mut Vec<String>) {
    let Some(path) = devices.child("emulator").map(Element::text) else {
        return;
    };
    if !(here.exists)(Path::new(&path)) {
        notes.push(format!(
            "its emulator {path} is not on this host: this host's own is used"
        ));
        devices.retain(|device| device.name != "emulator");
    }
}

/// The same address is another device on another host.
fn passed_through(devices: &mut Element, notes: &mut Vec<String>) {
    devices.retain(|device| match device.name.as_str() {
        "hostdev" => {
            notes.push(format!("{} is left out", crate::disks::hostdev(device)));
            false
        }
        "interface" if device.attribute("type") == Some("hostdev") => {
            let mac = device.child("mac").and_then(|m| m.attribute("address"));
            let mac = mac.unwrap_or("without a MAC");
            notes.push(format!(
                "the network device {mac} is left out: it is one of the source host's"
            ));
            false
        }
        _ => true,
    });
}

fn drives(
    devices: &mut Element,
    generation: &Generation,
    here: &Here,
    notes: &mut Vec<String>,
) -> Result<()> {
    let mut missing = Vec::new();
    devices.retain(|device| {
        if device.name != "disk" {
            return true;
        }
        let key = disk_key(device);
        let is_drive = matches!(device.attribute("device"), Some("cdrom" | "floppy"));
        if is_drive || generation.disks.iter().any(|d| d.key == key) {
            return true;
        }
        if !generation.excluded.iter().any(|e| e == key) {
            missing.push(key.to_owned());
        }
        false
    });
    if !missing.is_empty() {
        let what = format!(
            "generation {} lacks disks that its definition names: {}",
            generation.name(),
            missing.join(", ")
        );
        return Err(Error::new(Kind::Protocol, what));
    }
    for disk in devices.elements_mut().filter(|d| d.name == "disk") {
        let key = disk_key(disk).to_owned();
        match generation.disks.iter().find(|d| d.key == key) {
            Some(record) => point_at(disk, record),
            None => medium(disk, &key, here, notes),
        }
    }
    Ok(())
}

/// Has the disk be what the generation's volume is.
fn point_at(disk: &mut Element, record: &DiskRecord) {
    let (kind, attribute) = match &record.location {
        Location::File { .. } => ("file", "file"),
        Location::ThinLv { .. } | Location::ThickLv { .. } => ("block", "dev"),
    };
    disk.set("type", kind);
    disk.retain(|e| !matches!(e.name.as_str(), "backingStore" | "mirror"));
    match disk.child_mut("driver") {
        Some(driver) => driver.set("type", record.location.format().name()),
        None => disk.children.insert(
            0,
            crate::xml::Node::Element(
                Element::new("driver")
                    .with("name", "qemu")
                    .with("type", record.location.format().name()),
            ),
        ),
    }
    let source = Element::new("source").with(attribute, &record.target);
    match disk.child_mut("source") {
        Some(old) => *old = source,
        None => disk.push(source),
    }
}

/// A drive keeps what is in it if this host has it as well.
fn medium(disk: &mut Element, key: &str, here: &Here, notes: &mut Vec<String>) {
    let Some(source) = disk.child("source") else {
        return;
    };
    let path = source.attribute("file").or(source.attribute("dev"));
    match path {
        Some(path) if (here.exists)(Path::new(path)) => {}
        _ => {
            let what = path.unwrap_or("what is in it").to_owned();
            notes.push(format!(
                "the drive {key} is empty here: {what} is not on this host"
            ));
            disk.retain(|e| !matches!(e.name.as_str(), "source" | "backingStore"));
            disk.set("type", "file");
        }
    }
}

fn network(
    interface: &mut Element,
    map: &[(String, String)],
    here: &Here,
    notes: &mut Vec<String>,
) {
    let kind = interface.attribute("type").unwrap_or_default().to_owned();
    let (attribute, prefix) = match kind.as_str() {
        "network" => ("network", NETWORK),
        "bridge" => ("bridge", ""),
        _ => return,
    };
    let Some(source) = interface.child_mut("source") else {
        return;
    };
    let Some(name) = source.attribute(attribute).map(str::to_owned) else {
        return;
    };
    // A port of a network's is one that runs.
    source.unset("portid");
    source.unset("portgroup-runtime");
    let mapped = mapped(map, &format!("{prefix}{name}"));
    let here_named = mapped.map_or(name, |to| to.strip_prefix(NETWORK).unwrap_or(to).to_owned());
    source.set(attribute, &here_named);
    let is_there = match kind.as_str() {
        "network" => here.networks.contains(&here_named),
        _ => (here.exists)(&Path::new("/sys/class/net").join(&here_named)),
    };
    if !is_there {
        notes.push(format!(
            "there is no {kind} {here_named} on this host, so the replica cannot be started: make it, or map it with --{kind} {here_named}=NAME"
        ));
    }
}

/// What libvirt notes while a domain runs.
fn forget_runtime(device: &mut Element) {
    device.retain(|e| e.name != "alias" || is_users(e));
    if device.name == "interface" {
        device.retain(|e| e.name != "target" || !is_made_up(e));
    }
}

/// An alias that somebody chose begins so.
fn is_users(alias: &Element) -> bool {
    alias
        .attribute("name")
        .is_some_and(|n| n.starts_with("ua-"))
}

fn is_made_up(target: &Element) -> bool {
    target
        .attribute("dev")
        .is_some_and(|d| d.starts_with("vnet"))
}

fn firmware(domain: &mut Domain, wanted: &Wanted, here: &Here, notes: &mut Vec<String>) {
    let record = wanted.generation.disks.iter().find(|d| d.key == NVRAM);
    match record {
        Some(record) => domain.set_nvram(&record.target),
        // libvirt finds a place for it and makes it from its template.
        None => {
            if let Some(nvram) = domain
                .root_mut()
                .child_mut("os")
                .and_then(|os| os.child_mut("nvram"))
            {
                nvram.children.clear();
                nvram.unset("type");
            }
        }
    }
    let Some(os) = domain.root_mut().child_mut("os") else {
        return;
    };
    let loader = os
        .child("loader")
        .map(Element::text)
        .filter(|path| path.starts_with('/'));
    if let Some(path) = loader.filter(|path| !(here.exists)(Path::new(path))) {
        if os.attribute("firmware").is_some() {
            notes.push(format!(
                "its firmware {path} is not on this host: libvirt chooses another of its kind"
            ));
            os.retain(|e| e.name != "loader");
            // What it was made from belongs to the other firmware.
            if let Some(nvram) = os.child_mut("nvram") {
                nvram.unset("template");
            }
        } else {
            notes.push(format!("its firmware {path} is not on this host, so the replica cannot be started: install it"));
        }
    }
    for name in ["kernel", "initrd", "dtb"] {
        let file = os.child(name).map(Element::text);
        if let Some(path) = file.filter(|path| !(here.exists)(Path::new(path))) {
            notes.push(format!(
                "its {name} {path} is not on this host, so the replica cannot be started: copy it"
            ));
        }
    }
}

/// Takes away whatever reaches out of a guest that is only to be looked at. Returns notes.
pub fn isolate(domain: &mut Domain, without_null: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let root = domain.root_mut();
    let before = root.children.len();
    root.retain(|e| !e.name.ends_with(":commandline"));
    if root.children.len() != before {
        notes.push("its <qemu:commandline> is left out: it may reach out of the test".to_owned());
    }
    let Some(devices) = root.child_mut("devices") else {
        return notes;
    };
    devices.retain(|device| {
        !matches!(
            device.name.as_str(),
            "filesystem" | "redirdev" | "shmem" | "vsock"
        )
    });
    devices.elements_mut().for_each(unplug);
    for interface in devices.elements_mut().filter(|d| d.name == "interface") {
        // Connected to nothing. Where libvirt does not know that, to QEMU's own network, which the pulled cable keeps off.
        interface.set("type", if without_null { "user" } else { "null" });
        let stays = |e: &Element| {
            matches!(
                e.name.as_str(),
                "mac" | "model" | "address" | "driver" | "alias" | "boot" | "rom"
            )
        };
        interface.retain(stays);
        interface.push(Element::new("link").with("state", "down"));
    }
    notes
}

/// Character devices that would write where the domain's own do, or speak to whom it speaks to.
fn unplug(device: &mut Element) {
    let is_own = |kind: &str| matches!(kind, "pty" | "null" | "spicevmc" | "spiceport");
    let kind = device.attribute("type").unwrap_or_default();
    match (device.name.as_str(), kind) {
        // libvirt finds a socket for it.
        ("channel", "unix") => device.retain(|e| e.name != "source"),
        ("serial" | "console" | "parallel" | "channel", kind) if !is_own(kind) => {
            device.set("type", "pty");
            device.retain(|e| !matches!(e.name.as_str(), "source" | "protocol" | "log"));
        }
        ("serial" | "console" | "parallel", _) => {
            device.retain(|e| !matches!(e.name.as_str(), "source" | "log"));
        }
        _ => {}
    }
}
