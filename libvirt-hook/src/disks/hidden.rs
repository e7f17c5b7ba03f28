//! What else belongs to a domain, besides its disks: other places where its data can be, and what ties it to its host.

use super::{COMMANDLINE, NVDIMM};
use crate::domain::Domain;
use crate::xml::Element;

/// Data that no disk tells of.
pub(super) struct Hidden {
    pub key: &'static str,
    pub what: String,
}

/// Options of QEMU's that bring a drive.
const DRIVES: [&str; 10] = [
    "drive", "blockdev", "hda", "hdb", "hdc", "hdd", "sd", "mtdblock", "pflash", "cdrom",
];

pub(super) fn hidden(domain: &Domain) -> Vec<Hidden> {
    let mut found = Vec::new();
    let words = domain
        .root()
        .elements()
        .filter(|e| e.name == "qemu:commandline" || e.name.ends_with(":commandline"))
        .flat_map(Element::elements)
        .filter_map(|e| e.attribute("value"));
    for word in words {
        let option = word.trim_start_matches('-');
        if word.starts_with('-') && DRIVES.contains(&option) {
            found.push(Hidden {
                key: COMMANDLINE,
                what: format!(
                    "<qemu:commandline> gives QEMU a drive that libvirt does not know ({word})"
                ),
            });
            break;
        }
    }
    let is_file =
        |device: &&Element| device.name == "memory" && device.at(&["source", "path"]).is_some();
    if domain.devices().any(|device| is_file(&device)) {
        found.push(Hidden {
            key: NVDIMM,
            what: "it has memory that is kept in a file of this host, which cannot be replicated"
                .into(),
        });
    }
    found
}

/// What ties it to its host, and does not go with it.
pub(super) fn notes(domain: &Domain) -> Vec<String> {
    let mut notes = Vec::new();
    for device in domain.devices() {
        match device.name.as_str() {
            "hostdev" => notes.push(format!("{} stays behind", hostdev(device))),
            "interface" if device.attribute("type") == Some("hostdev") => {
                notes.push(
                    "a network device of this host that is passed through stays behind".into(),
                );
            }
            "filesystem" => {
                let dir = device.child("source").and_then(|s| s.attribute("dir"));
                notes.push(format!(
                    "the directory {} that the guest shares with this host is not replicated",
                    dir.unwrap_or("of a file system")
                ));
            }
            _ => {}
        }
    }
    if let Some(os) = domain.root().child("os") {
        for name in ["kernel", "initrd", "dtb"] {
            if let Some(file) = os.child(name) {
                notes.push(format!(
                    "it is started with the {name} {}, which the other host must have as well",
                    file.text()
                ));
            }
        }
    }
    notes
}

/// A device of the host, in words.
pub(crate) fn hostdev(device: &Element) -> String {
    let kind = device.attribute("type").unwrap_or("unknown");
    let address = device.at(&["source", "address"]);
    let of = |name: &str| {
        address
            .and_then(|a| a.attribute(name))
            .map(|v| v.trim_start_matches("0x"))
    };
    let place = match (kind, of("bus"), of("slot"), of("function")) {
        ("pci", Some(bus), Some(slot), Some(function)) => format!(" {bus}:{slot}.{function}"),
        _ => String::new(),
    };
    format!("the {kind} device{place} of this host that is passed through")
}
