//! Network cards and the smaller devices of a domain.

use super::words::{word, ACTIONS, VIDEOS};
use super::write::Draft;
use crate::xml::{Element, Node};
use rblocksync::guest::{Chipset, Left, Network, Nic, TpmVersion, Video};

/// Where Proxmox VE puts its first network cards on i440FX: from there they have names like `ens18`.
const FIRST_NIC_SLOT: usize = 0x12;
const NICS_IN_PLACE: usize = 6;

/// Network cards of QEMU that libvirt can name.
const NICS: [&str; 10] = [
    "virtio", "e1000", "e1000e", "i82551", "i82557b", "i82559er", "ne2k_pci", "pcnet", "rtl8139",
    "vmxnet3",
];

/// Controllers that are named so that libvirt does not choose others.
pub(super) fn board_devices(draft: &mut Draft) {
    let guest = draft.guest;
    if guest.agent {
        let mut channel = Element::new("channel").with("type", "unix");
        channel.push(
            Element::new("target")
                .with("type", "virtio")
                .with("name", "org.qemu.guest_agent.0"),
        );
        draft.devices.push(channel);
    }
    for port in &guest.serials {
        let port = port.to_string();
        let target = Element::new("target")
            .with("type", "isa-serial")
            .with("port", &port);
        let serial = Element::new("serial").with("type", "pty");
        draft.devices.push(serial.holding(target));
    }
    if let Some(port) = guest.serials.first() {
        let target = Element::new("target")
            .with("type", "serial")
            .with("port", port.to_string());
        let console = Element::new("console").with("type", "pty");
        draft.devices.push(console.holding(target));
    }
}

/// Writes the network cards.
pub(super) fn nics(draft: &mut Draft) {
    let guest = draft.guest;
    for (index, nic) in guest.nics.iter().enumerate() {
        let mut element = interface(draft, nic);
        element
            .children
            .extend(draft.boot(&nic.key).map(Node::Element));
        if guest.machine.chipset == Chipset::I440fx {
            if let Some(slot) = slot(nic, index) {
                element.push(
                    Element::new("address")
                        .with("type", "pci")
                        .with("domain", "0x0000")
                        .with("bus", "0x00")
                        .with("slot", format!("0x{slot:02x}"))
                        .with("function", "0x0"),
                );
            }
        }
        draft.keys.insert(nic.key.clone(), format!("net{index}"));
        draft.devices.push(element);
    }
    if guest.machine.chipset == Chipset::Q35 && !guest.nics.is_empty() {
        let why = "libvirt's own, so a Linux guest may name them otherwise";
        draft
            .left
            .push(Left::changed("network cards", "their places on PCI", why));
    }
}

/// The place on the PCI bus of a card that had its number from Proxmox VE.
fn slot(nic: &Nic, index: usize) -> Option<usize> {
    let number = nic.key.strip_prefix("net").and_then(|n| n.parse().ok());
    let number = number.unwrap_or(index);
    (number < NICS_IN_PLACE).then_some(FIRST_NIC_SLOT + number)
}

fn interface(draft: &mut Draft, nic: &Nic) -> Element {
    let mut left = |name: &str, value: &str, why: &str| {
        let name = format!("{} {name}", nic.key);
        draft.left.push(Left::changed(name.trim_end(), value, why));
    };
    let mapped = |name: &str| {
        let found = draft.put.bridges.iter().find(|(from, _)| from == name);
        found.map(|(_, to)| to.as_str())
    };
    let (name, is_bridge) = match &nic.network {
        Network::Bridge(name) => (name.as_str(), true),
        Network::Named(name) => (name.as_str(), false),
        Network::User => ("", false),
    };
    let of_vlan = nic.vlan.and_then(|tag| mapped(&format!("{name}.{tag}")));
    let (mut link, mut vlan) = (nic.link, nic.vlan);
    if of_vlan.is_some() {
        vlan = None;
    }
    let is_present = |bridge: &str| {
        let present = draft.put.present.as_ref();
        present.is_none_or(|bridges| bridges.contains(bridge))
    };
    let (kind, source) = match of_vlan.or_else(|| mapped(name)) {
        Some(to) => match to.strip_prefix("network:") {
            Some(network) => ("network", network.to_owned()),
            None => ("bridge", to.to_owned()),
        },
        None if nic.network == Network::User => ("user", String::new()),
        None if !is_bridge => ("network", name.to_owned()),
        None if is_present(name) => ("bridge", name.to_owned()),
        None => {
            let why =
                format!("unplugged, there is no such bridge: name one with --bridge {name}=BRIDGE");
            left("", name, &why);
            link = false;
            // It starts without anything of the host's.
            ("user", String::new())
        }
    };
    let tag = match vlan {
        Some(tag) if draft.put.vlans && kind == "bridge" => {
            let tag = Element::new("tag").with("id", tag.to_string());
            Some(Element::new("vlan").holding(tag))
        }
        Some(tag) => {
            let why = format!(
                "unplugged, as it would be in the wrong network: name a bridge of that VLAN with --bridge {name}.{tag}=BRIDGE"
            );
            left("vlan", &tag.to_string(), &why);
            link = false;
            None
        }
        None => None,
    };
    let mut element = Element::new("interface").with("type", kind);
    if let Some(mac) = &nic.mac {
        element.push(Element::new("mac").with("address", mac));
    }
    if kind != "user" {
        element.push(Element::new("source").with(kind, source));
    }
    element.children.extend(tag.map(Node::Element));
    let model = match NICS.contains(&nic.model.as_str()) {
        true => nic.model.as_str(),
        false => {
            let near = if nic.model.starts_with("e1000") {
                "e1000"
            } else {
                "rtl8139"
            };
            left("model", &nic.model, near);
            near
        }
    };
    element.push(Element::new("model").with("type", model));
    match nic.queues {
        Some(queues) if model == "virtio" && kind != "user" => {
            element.push(Element::new("driver").with("queues", queues.to_string()));
        }
        Some(queues) => left("queues", &queues.to_string(), "one"),
        None => {}
    }
    match nic.mtu {
        Some(mtu) if kind != "user" => {
            element.push(Element::new("mtu").with("size", mtu.to_string()));
        }
        Some(mtu) => left("mtu", &mtu.to_string(), "the network's"),
        None => {}
    }
    if !link {
        element.push(Element::new("link").with("state", "down"));
    }
    if nic.firewall {
        left(
            "firewall",
            "1",
            "none: there is nothing like Proxmox VE's firewall",
        );
    }
    element
}

/// Tablet, TPM, display, watchdog, balloon, random numbers.
pub(super) fn smaller(draft: &mut Draft) {
    let guest = draft.guest;
    if guest.tablet {
        let tablet = Element::new("input")
            .with("type", "tablet")
            .with("bus", "usb");
        draft.devices.push(tablet);
    }
    if let Some(tpm) = &guest.tpm {
        let version = match tpm.version {
            TpmVersion::V12 => "1.2",
            TpmVersion::V20 => "2.0",
        };
        let backend = Element::new("backend")
            .with("type", "emulator")
            .with("version", version);
        let tpm = Element::new("tpm").with("model", "tpm-tis");
        draft.devices.push(tpm.holding(backend));
    }
    display(draft);
    if let Some(watchdog) = &guest.watchdog {
        let action = word(&ACTIONS, &watchdog.action).unwrap_or("none");
        let model = match ["i6300esb", "ib700", "diag288"].contains(&watchdog.model.as_str()) {
            true => watchdog.model.as_str(),
            false => {
                let left = Left::changed("watchdog", &watchdog.model, "i6300esb");
                draft.left.push(left);
                "i6300esb"
            }
        };
        draft.devices.push(
            Element::new("watchdog")
                .with("model", model)
                .with("action", action),
        );
    }
    let balloon = if guest.memory.balloon {
        "virtio"
    } else {
        "none"
    };
    draft
        .devices
        .push(Element::new("memballoon").with("model", balloon));
    if let Some(rng) = &guest.rng {
        let mut element = Element::new("rng").with("model", "virtio");
        if rng.bytes > 0 {
            element.push(
                Element::new("rate")
                    .with("bytes", rng.bytes.to_string())
                    .with("period", rng.period_ms.to_string()),
            );
        }
        let backend = Element::new("backend").with("model", "random");
        element.push(backend.saying(&rng.source));
        draft.devices.push(element);
    }
}

fn display(draft: &mut Draft) {
    let display = &draft.guest.display;
    let (name, heads) = match display.video {
        Video::Qxl(heads) => ("qxl", heads.max(1)),
        Video::Serial(_) | Video::None => ("none", 1),
        Video::VirtioGl => {
            let why = "virtio: 3D needs a display of the host's";
            draft.left.push(Left::changed("display", "virtio-gl", why));
            ("virtio", 1)
        }
        video => (word(&VIDEOS, &video).unwrap_or("vga"), 1),
    };
    let mut model = Element::new("model").with("type", name);
    if name != "none" {
        let graphics = Element::new("graphics")
            .with("type", "vnc")
            .with("port", "-1")
            .with("autoport", "yes")
            .with("listen", "127.0.0.1");
        draft.devices.push(graphics);
        if heads > 1 {
            model.set("heads", heads.to_string());
        }
    }
    match display.memory_mib {
        // More than the usual 16, or it could not be told from that when it is read again.
        Some(mib) if ["vga", "vmvga", "cirrus"].contains(&name) && mib > 16 => {
            model.set("vram", (u64::from(mib) << 10).to_string());
        }
        Some(mib) if mib != 16 && name != "none" => {
            let left = Left::changed("display memory", format!("{mib} MiB"), "the usual");
            draft.left.push(left);
        }
        _ => {}
    }
    draft.devices.push(Element::new("video").holding(model));
}
