//! VMs of Proxmox VE's as domains of libvirt's, and back.
#![allow(clippy::unwrap_used)]

mod any;
mod properties;
#[path = "../api/schema.rs"]
mod schema;
mod texts;

use libvirt_domain::guest as libvirt;
use pvesync::guest as pve;
use pvesync::vm_config::VmConfig;
use pvesync::volid::Volid;
use rblocksync::guest::{Bus, DiskUse, Guest};
use rblocksync::image::ImageFormat;

/// The configuration of a VM, all disks of which have a volume.
pub(crate) fn to_pve(guest: &Guest) -> pve::Written {
    let mut put = pve::Put::default();
    for (number, disk) in guest.disks.iter().enumerate() {
        let volid = Volid::parse(&format!("local-lvm:vm-101-disk-{number}")).unwrap();
        put.volumes.insert(disk.key.clone(), (volid, Some(8 << 30)));
    }
    pve::write(guest, &put).unwrap()
}

pub(crate) fn from_pve(text: &str) -> Guest {
    pve::read(&VmConfig::parse(text).unwrap()).unwrap()
}

/// The domain of a VM, on a host that can do everything.
pub(crate) fn to_libvirt(guest: &Guest) -> libvirt::Written {
    to_libvirt_on(guest, &able())
}

pub(crate) fn able() -> libvirt::Put {
    libvirt::Put {
        kvm: true,
        vlans: true,
        ..libvirt::Put::default()
    }
}

pub(crate) fn to_libvirt_on(guest: &Guest, host: &libvirt::Put) -> libvirt::Written {
    let mut put = host.clone();
    for (number, disk) in guest.disks.iter().enumerate() {
        let volume = libvirt::Volume {
            path: format!("/var/lib/libvirt/images/vm-101-disk-{number}.raw").into(),
            is_block: false,
            format: ImageFormat::Raw,
        };
        put.volumes.insert(disk.key.clone(), volume);
    }
    libvirt::write(guest, &put).unwrap()
}

/// Reads what was written, as text.
pub(crate) fn from_libvirt(written: &libvirt::Written) -> Guest {
    let text = written.domain.to_string();
    let again = libvirt_domain::xml::Element::parse("a domain", &text).unwrap();
    assert_eq!(again, written.domain);
    libvirt::read(&again).unwrap()
}

/// The same VM with its disks in Proxmox VE's order, which is also that of disks that no boot order names.
pub(crate) fn in_order(mut guest: Guest) -> Guest {
    guest.disks.sort_by_key(|d| match d.role {
        DiskUse::Data { bus, slot } => (0, rank(bus), slot),
        DiskUse::Vars => (1, 0, 0),
        DiskUse::Tpm => (2, 0, 0),
        DiskUse::Unused => (3, 0, 0),
    });
    guest
}

fn rank(bus: Bus) -> u8 {
    match bus {
        Bus::Ide => 0,
        Bus::Scsi => 1,
        Bus::Virtio => 2,
        Bus::Sata => 3,
    }
}

/// The same VM with devices in an order, and under keys, that do not depend on where it was read, and without its volumes.
pub(crate) fn plain(guest: Guest) -> Guest {
    let mut guest = in_order(guest);
    guest.unknown.clear();
    guest.cds.sort_by_key(|cd| (rank(cd.bus), cd.slot));
    // libvirt has a BIOS look at no disk that is not in its order: there the rest comes last.
    for disk in &guest.disks {
        let is_data = matches!(disk.role, DiskUse::Data { .. });
        if is_data && !guest.boot.contains(&disk.key) {
            guest.boot.push(disk.key.clone());
        }
    }
    let mut names = std::collections::BTreeMap::new();
    for (n, disk) in guest.disks.iter().enumerate() {
        names.insert(disk.key.clone(), format!("disk {n}"));
    }
    for (n, cd) in guest.cds.iter().enumerate() {
        names.insert(cd.key.clone(), format!("cd {n}"));
    }
    for (n, nic) in guest.nics.iter().enumerate() {
        names.insert(nic.key.clone(), format!("nic {n}"));
    }
    guest.rename(|key| names[key].clone());
    for disk in &mut guest.disks {
        disk.volume.clear();
        disk.storage = None;
    }
    if let rblocksync::guest::Firmware::Uefi { vars: Some(vars) } = &mut guest.firmware {
        vars.disk.clear();
    }
    if let Some(tpm) = &mut guest.tpm {
        tpm.disk = tpm.disk.take().map(|_| String::new());
    }
    guest
}
