//! What the domain is on the host that it comes to: the machine that its guest sees, on that host's disks and networks.

use crate::domain::{disk_key, Domain};
use crate::xml::Element;

/// `live`, as it runs on this host, with what the definition of its replica says of the other host.
pub(super) fn incoming_xml(mut live: Domain, replica: &Domain) -> Domain {
    for disk in live.disks_mut() {
        let key = disk_key(disk).to_owned();
        if let Some(there) = replica.disks().find(|there| disk_key(there) == key) {
            lie_as(disk, there);
        }
    }
    if let Some(nvram) = replica.nvram() {
        live.set_nvram(&nvram);
    }
    let emulator = replica.devices().find(|d| d.name == "emulator");
    if let Some(devices) = live.devices_mut() {
        devices.retain(|d| d.name != "emulator");
        if let Some(emulator) = emulator {
            devices.push(emulator.clone());
        }
        for interface in devices.elements_mut().filter(|d| d.name == "interface") {
            let there = replica.devices().find(|there| {
                there.name == "interface" && mac(there).is_some() && mac(there) == mac(interface)
            });
            if let Some(there) = there {
                attach_as(interface, there);
            }
        }
    }
    live
}

/// The disk is in what `there` is in. What the guest sees of it stays.
fn lie_as(disk: &mut Element, there: &Element) {
    disk.set("type", there.attribute("type").unwrap_or("file"));
    disk.retain(|e| !matches!(e.name.as_str(), "source" | "backingStore" | "mirror"));
    if let Some(source) = there.child("source") {
        disk.push(source.clone());
    }
    let format = there
        .child("driver")
        .and_then(|driver| driver.attribute("type"));
    if let (Some(driver), Some(format)) = (disk.child_mut("driver"), format) {
        driver.set("type", format);
    }
}

fn attach_as(interface: &mut Element, there: &Element) {
    interface.set("type", there.attribute("type").unwrap_or("network"));
    interface.retain(|e| !matches!(e.name.as_str(), "source" | "target"));
    if let Some(source) = there.child("source") {
        interface.push(source.clone());
    }
}

fn mac(interface: &Element) -> Option<&str> {
    interface.child("mac")?.attribute("address")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_sees_the_same_on_other_disks() {
        let live = "<domain type='kvm' id='7'><name>web</name><devices><emulator>/usr/bin/a</emulator>\
            <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/>\
              <source file='/a/x.qcow2' index='2'/><backingStore type='file' index='3'><source file='/a/base'/></backingStore>\
              <target dev='vda' bus='virtio'/><address type='pci' slot='0x05'/></disk>\
            <disk type='file' device='disk'><source file='/usr/share/ro.img'/><target dev='vdz'/><readonly/></disk>\
            <interface type='network'><mac address='52:54:00:00:00:01'/><source network='lan' bridge='br0'/>\
              <target dev='vnet3'/></interface></devices></domain>";
        let replica = "<domain type='kvm'><name>web</name><devices>\
            <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/vg/web'/>\
              <target dev='vda' bus='virtio'/></disk>\
            <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br7'/></interface>\
            </devices></domain>";
        let live = Domain::parse(live).unwrap();
        let there = incoming_xml(live, &Domain::parse(replica).unwrap());
        let disk = there.disks().next().unwrap();
        assert_eq!(disk.attribute("type"), Some("block"));
        let driver = disk.child("driver").unwrap();
        assert_eq!(driver.attribute("type"), Some("raw"));
        assert_eq!(driver.attribute("cache"), Some("none"));
        assert_eq!(
            disk.child("source").unwrap().attribute("dev"),
            Some("/dev/vg/web")
        );
        assert!(disk.child("backingStore").is_none());
        assert_eq!(
            disk.child("address").unwrap().attribute("slot"),
            Some("0x05")
        );
        let kept = there.disks().nth(1).unwrap().child("source").unwrap();
        assert_eq!(kept.attribute("file"), Some("/usr/share/ro.img"));
        assert!(!there.devices().any(|d| d.name == "emulator"));
        let net = there.devices().find(|d| d.name == "interface").unwrap();
        assert_eq!(net.attribute("type"), Some("bridge"));
        assert_eq!(
            net.child("source").unwrap().attribute("bridge"),
            Some("br7")
        );
        assert!(net.child("target").is_none());
    }
}
