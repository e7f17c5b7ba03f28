//! Disks and CD drives of a domain, and what they hang on.

use super::words::{word, AIOS, BUSES, CACHES, SCSI};
use super::write::{Draft, Volume};
use crate::xml::Element;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::guest::{Bus, Cache, CdDrive, Chipset, Disk, DiskUse, Left, ScsiController};
use std::collections::BTreeSet;

/// SATA has six ports on a controller; QEMU's IDE has four in all.
const IDE_SLOTS: u16 = 4;

/// Disks on a controller of LSI's.
pub(super) const LSI_SLOTS: u16 = 7;

/// A place for a drive.
struct Place {
    bus: Bus,
    slot: u16,
    dev: String,
}

/// What is taken already.
#[derive(Default)]
struct Taken {
    slots: BTreeSet<(Bus, u16)>,
    devs: BTreeSet<String>,
    /// Controllers of SCSI that there are.
    scsi: u16,
}

/// Writes all disks that have a volume, and all CD drives, empty.
pub(super) fn drives(draft: &mut Draft) -> Result<()> {
    let mut taken = Taken::default();
    for disk in &draft.guest.disks {
        let volume = draft.put.volumes.get(&disk.key).cloned();
        match (disk.role, volume) {
            // With the firmware.
            (DiskUse::Vars, _) => {}
            (DiskUse::Tpm, volume) => tpm_state(draft, disk, volume.as_ref()),
            (DiskUse::Unused, Some(volume)) => {
                let why = format!("kept in {}, and not attached", volume.path.display());
                draft.left.push(Left::changed(&disk.key, &disk.volume, why));
                draft.keys.insert(disk.key.clone(), disk.key.clone());
            }
            (DiskUse::Data { bus, slot }, Some(volume)) => {
                let place = taken.place(draft, &disk.key, bus, slot)?;
                disk_element(draft, disk, &place, &volume, &mut taken);
            }
            (_, None) => {
                let left = Left::changed(&disk.key, &disk.volume, "not replicated");
                draft.left.push(left);
            }
        }
    }
    for cd in &draft.guest.cds {
        let bus = if cd.bus == Bus::Virtio {
            Bus::Sata
        } else {
            cd.bus
        };
        let place = taken.place(draft, &cd.key, bus, cd.slot)?;
        cd_element(draft, cd, &place, &mut taken);
    }
    if taken.scsi == 0 {
        return Ok(());
    }
    controllers(draft, &taken);
    Ok(())
}

/// The state stays beside the domain: QEMU's TPM keeps it in files of its own form here.
fn tpm_state(draft: &mut Draft, disk: &Disk, volume: Option<&Volume>) {
    let what = match volume {
        Some(volume) => {
            draft.keys.insert(disk.key.clone(), disk.key.clone());
            format!(
                "a new TPM: its state is in {}, in another form",
                volume.path.display()
            )
        }
        None => "a new TPM: its state was not replicated".into(),
    };
    let why = format!("{what}. What the guest has sealed with the old one, it will not find");
    draft.left.push(Left::changed(&disk.key, &disk.volume, why));
}

impl Taken {
    fn place(&mut self, draft: &mut Draft, was: &str, bus: Bus, slot: u16) -> Result<Place> {
        let is_q35 = draft.guest.machine.chipset == Chipset::Q35;
        let wanted = bus;
        // Where Proxmox VE says IDE on this board, the guest sees AHCI as well.
        let bus = if is_q35 && bus == Bus::Ide {
            Bus::Sata
        } else {
            bus
        };
        if bus != wanted {
            let why = "sata: there is no IDE on this board";
            draft
                .left
                .push(Left::changed(format!("{was} bus"), "ide", why));
        }
        let limit = if bus == Bus::Ide { IDE_SLOTS } else { 256 };
        let mut free = std::iter::once(slot).chain(0..limit);
        let Some(slot) = free.find(|s| *s < limit && !self.slots.contains(&(bus, *s))) else {
            return Err(Error::new(
                Kind::Refused,
                format!("the VM has more drives on {bus:?} than a domain can have: there is no place for {was}"),
            )
            .advise("leave a disk out with --exclude, or put it on another bus"));
        };
        self.slots.insert((bus, slot));
        let prefix = match bus {
            Bus::Ide => "hd",
            Bus::Virtio => "vd",
            Bus::Sata | Bus::Scsi => "sd",
        };
        // SATA and SCSI share their names.
        let first = if prefix == "sd" { 0 } else { slot };
        let mut devs = (first..).map(|n| format!("{prefix}{}", letters(n)));
        let dev = devs.find(|dev| !self.devs.contains(dev));
        let dev = dev.unwrap_or_default();
        self.devs.insert(dev.clone());
        draft.keys.insert(was.to_owned(), dev.clone());
        Ok(Place { bus, slot, dev })
    }

    /// The address of a drive, by which it keeps its place.
    fn address(&mut self, place: &Place, scsi: ScsiController) -> Option<Element> {
        let slot = place.slot;
        let (controller, bus, target, unit) = match (place.bus, scsi) {
            (Bus::Virtio, _) => return None,
            (Bus::Ide, _) => (0, slot / 2, 0, slot % 2),
            (Bus::Sata, _) => (slot / 6, 0, 0, slot % 6),
            (Bus::Scsi, ScsiController::VirtioSingle) => (self.scsi, 0, 0, slot),
            (Bus::Scsi, ScsiController::Virtio) => (0, 0, 0, slot),
            // The controller is one of the eight on its bus.
            (Bus::Scsi, ScsiController::Lsi | ScsiController::Lsi53c810) => {
                (slot / LSI_SLOTS, 0, 0, slot % LSI_SLOTS)
            }
            (Bus::Scsi, _) => (0, 0, slot, 0),
        };
        if place.bus == Bus::Scsi {
            self.scsi = self.scsi.max(controller + 1);
        }
        Some(
            Element::new("address")
                .with("type", "drive")
                .with("controller", controller.to_string())
                .with("bus", bus.to_string())
                .with("target", target.to_string())
                .with("unit", unit.to_string()),
        )
    }
}

/// 0 is `a`, 25 `z`, 26 `aa`.
fn letters(number: u16) -> String {
    let mut number = u32::from(number) + 1;
    let mut text = Vec::new();
    while number > 0 {
        number -= 1;
        text.push(b'a' + u8::try_from(number % 26).unwrap_or(0));
        number /= 26;
    }
    text.reverse();
    text.into_iter().map(char::from).collect()
}

fn disk_element(draft: &mut Draft, disk: &Disk, place: &Place, volume: &Volume, taken: &mut Taken) {
    let (kind, attribute) = match volume.is_block {
        true => ("block", "dev"),
        false => ("file", "file"),
    };
    let mut element = Element::new("disk")
        .with("type", kind)
        .with("device", "disk");
    let driver = driver(draft, disk, place, volume);
    element.push(driver);
    let path = volume.path.display().to_string();
    element.push(Element::new("source").with(attribute, path));
    let mut target = target(place);
    if disk.ssd {
        match place.bus == Bus::Virtio {
            false => target.set("rotation_rate", "1"),
            true => {
                let left = Left::changed(format!("{} ssd", disk.key), "1", "not on virtio");
                draft.left.push(left);
            }
        }
    }
    element.push(target);
    rates(disk, &mut element);
    // libvirt refuses such disks on IDE and SATA.
    if disk.read_only && matches!(place.bus, Bus::Ide | Bus::Sata) {
        let why = "the disk can be written: only SCSI and virtio can be read-only";
        let left = Left::changed(format!("{} readonly", disk.key), "1", why);
        draft.left.push(left);
    } else if disk.read_only {
        element.push(Element::new("readonly"));
    }
    if let Some(serial) = &disk.serial {
        element.push(Element::new("serial").saying(serial));
    }
    if let Some(wwn) = &disk.wwn {
        match place.bus == Bus::Virtio {
            false => element.push(Element::new("wwn").saying(wwn)),
            true => {
                let left = Left::changed(format!("{} wwn", disk.key), wwn, "not on virtio");
                draft.left.push(left);
            }
        }
    }
    element
        .children
        .extend(draft.boot(&disk.key).map(crate::xml::Node::Element));
    let address = taken.address(place, draft.guest.scsi);
    element
        .children
        .extend(address.map(crate::xml::Node::Element));
    draft.devices.push(element);
}

fn driver(draft: &mut Draft, disk: &Disk, place: &Place, volume: &Volume) -> Element {
    let mut driver = Element::new("driver")
        .with("name", "qemu")
        .with("type", volume.format.name());
    let cache = word(&CACHES, &disk.cache).unwrap_or("none");
    driver.set("cache", cache);
    if let Some(aio) = disk.aio.and_then(|aio| word(&AIOS, &aio)) {
        match aio == "native" && !matches!(disk.cache, Cache::None | Cache::Directsync) {
            true => {
                let why = "it works past the page cache only";
                let left = Left::changed(format!("{} aio", disk.key), aio, why);
                draft.left.push(left);
            }
            false => driver.set("io", aio),
        }
    }
    if disk.discard {
        driver.set("discard", "unmap");
    }
    if let Some(detect) = disk.detect_zeroes {
        let word = match (detect, disk.discard) {
            (false, _) => "off",
            (true, true) => "unmap",
            (true, false) => "on",
        };
        driver.set("detect_zeroes", word);
    }
    if disk.iothread && place.bus == Bus::Virtio {
        draft.iothreads += 1;
        driver.set("iothread", draft.iothreads.to_string());
    } else if disk.iothread && !(place.bus == Bus::Scsi && is_virtio_single(draft)) {
        let why = "needs virtio, or virtio-scsi with a controller for each disk";
        let left = Left::changed(format!("{} iothread", disk.key), "1", why);
        draft.left.push(left);
    }
    driver
}

fn is_virtio_single(draft: &Draft) -> bool {
    draft.guest.scsi == ScsiController::VirtioSingle
}

fn target(place: &Place) -> Element {
    let bus = word(&BUSES, &place.bus).unwrap_or("virtio");
    Element::new("target")
        .with("dev", &place.dev)
        .with("bus", bus)
}

fn rates(disk: &Disk, element: &mut Element) {
    let rates = &disk.rates;
    let mut iotune = Element::new("iotune");
    for (name, rate) in [
        ("total_bytes_sec", rates.bytes),
        ("read_bytes_sec", rates.bytes_read),
        ("write_bytes_sec", rates.bytes_written),
        ("total_iops_sec", rates.operations),
        ("read_iops_sec", rates.reads),
        ("write_iops_sec", rates.writes),
    ] {
        if rate > 0 {
            iotune.push(Element::new(name).saying(rate.to_string()));
        }
    }
    if !iotune.children.is_empty() {
        element.push(iotune);
    }
}

fn cd_element(draft: &mut Draft, cd: &CdDrive, place: &Place, taken: &mut Taken) {
    let mut element = Element::new("disk")
        .with("type", "file")
        .with("device", "cdrom");
    element.push(
        Element::new("driver")
            .with("name", "qemu")
            .with("type", "raw"),
    );
    element.push(target(place));
    element.push(Element::new("readonly"));
    element
        .children
        .extend(draft.boot(&cd.key).map(crate::xml::Node::Element));
    let address = taken.address(place, draft.guest.scsi);
    element
        .children
        .extend(address.map(crate::xml::Node::Element));
    draft.devices.push(element);
}

/// What the SCSI disks hang on: one for all, or one for each, with a thread of its own where that is asked for.
fn controllers(draft: &mut Draft, taken: &Taken) {
    let scsi = draft.guest.scsi;
    let model = match scsi {
        ScsiController::VirtioSingle => "virtio-scsi",
        ScsiController::Lsi53c810 => {
            let why = "lsilogic: the nearest that libvirt knows";
            draft.left.push(Left::changed("scsihw", "lsi53c810", why));
            "lsilogic"
        }
        scsi => word(&SCSI, &scsi).unwrap_or("lsilogic"),
    };
    let is_scsi = |d: &&Disk| {
        matches!(d.role, DiskUse::Data { bus: Bus::Scsi, .. })
            && draft.put.volumes.contains_key(&d.key)
    };
    // In the order of their addresses.
    let threads: Vec<bool> = draft
        .guest
        .disks
        .iter()
        .filter(is_scsi)
        .map(|d| d.iothread)
        .collect();
    for index in 0..taken.scsi {
        let mut controller = Element::new("controller")
            .with("type", "scsi")
            .with("index", index.to_string())
            .with("model", model);
        let own = threads.get(usize::from(index)).copied().unwrap_or(false);
        if own && scsi == ScsiController::VirtioSingle {
            draft.iothreads += 1;
            let thread = draft.iothreads.to_string();
            controller.push(Element::new("driver").with("iothread", thread));
        }
        draft.devices.push(controller);
    }
}

#[cfg(test)]
mod tests {
    use super::letters;

    #[test]
    fn names_go_on_after_z() {
        let names: Vec<String> = [0, 1, 25, 26, 51, 52, 701, 702].map(letters).into();
        assert_eq!(names, ["a", "b", "z", "aa", "az", "ba", "zz", "aaa"]);
    }
}
