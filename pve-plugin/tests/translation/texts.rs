//! Real configurations, and what becomes of them.

use super::{able, from_pve, libvirt, pve, to_libvirt_on, to_pve};
use pvesync::volid::Volid;
use rblocksync::guest::{Guest, Left};
use std::collections::BTreeSet;

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

fn lab(name: &str) -> String {
    let path = format!(
        "{}/../tests/fixtures/pve/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read_to_string(path).unwrap()
}

fn told(guest: &Guest, left: &[Left]) -> String {
    let all = guest.unknown.iter().chain(left);
    all.map(|left| format!("  {left}\n")).collect()
}

fn domain_of(text: &str, host: &libvirt::Put) -> String {
    let guest = from_pve(text);
    let written = to_libvirt_on(&guest, host);
    format!("{}left:\n{}", written.domain, told(&guest, &written.left))
}

fn config_of(text: &str, put: impl FnOnce(&mut pve::Put)) -> String {
    let domain = libvirt_domain::xml::Element::parse("a domain", text).unwrap();
    let guest = libvirt::read(&domain).unwrap();
    let mut volumes = pve::Put::default();
    for (number, disk) in guest.disks.iter().enumerate() {
        let volid = Volid::parse(&format!("local-lvm:vm-101-disk-{number}")).unwrap();
        volumes
            .volumes
            .insert(disk.key.clone(), (volid, Some(8 << 30)));
    }
    put(&mut volumes);
    let written = pve::write(&guest, &volumes).unwrap();
    format!("{}left:\n{}", written.text, told(&guest, &written.left))
}

#[test]
fn a_windows_vm_becomes_a_domain() {
    insta::assert_snapshot!(domain_of(&fixture("windows.conf"), &able()));
}

#[test]
fn a_web_server_becomes_a_domain_of_an_older_host() {
    let host = libvirt::Put {
        machines: Some((7, 2)),
        present: Some(BTreeSet::from(["br0".to_owned()])),
        bridges: vec![("vmbr0".into(), "br0".into())],
        ..libvirt::Put::default()
    };
    insta::assert_snapshot!(domain_of(&lab("101.conf"), &host));
}

#[test]
fn what_a_host_lacks_unplugs_a_card_and_nothing_worse() {
    let host = libvirt::Put {
        present: Some(BTreeSet::new()),
        ..libvirt::Put::default()
    };
    insta::assert_snapshot!(domain_of(&lab("102.conf"), &host));
}

#[test]
fn a_vm_full_of_its_hosts_devices_is_told_piece_by_piece() {
    let guest = from_pve(&fixture("passthrough.conf"));
    insta::assert_snapshot!(told(&guest, &to_libvirt_on(&guest, &able()).left));
}

#[test]
fn a_domain_becomes_a_configuration() {
    insta::assert_snapshot!(config_of(&fixture("db01.xml"), |put| {
        put.bridges = vec![("default".into(), "vmbr1".into())];
        put.present = Some(BTreeSet::from(["vmbr0".into(), "vmbr1".into()]));
    }));
}

#[test]
fn vlans_become_bridges_where_a_map_says_so() {
    let text = "net0: virtio=BC:24:11:00:00:01,bridge=vmbr0,tag=20\nmemory: 64\n";
    let mapped = libvirt::Put {
        bridges: vec![("vmbr0.20".into(), "br20".into())],
        ..libvirt::Put::default()
    };
    for (host, plugged) in [
        (mapped, true),
        (able(), true),
        (libvirt::Put::default(), false),
    ] {
        let domain = domain_of(text, &host);
        assert_eq!(!domain.contains("state='down'"), plugged, "{domain}");
        assert_eq!(domain.contains("<tag id='20'/>"), host.vlans, "{domain}");
    }
}

#[test]
fn old_configurations_say_their_order_in_another_way() {
    for (text, order) in [
        (
            "scsi1: a1:b\nscsi0: a1:c\nide2: none,media=cdrom\nnet0: e1000\n",
            "scsi0 ide2 net0",
        ),
        (
            "boot: dc\nbootdisk: virtio1\nvirtio1: a1:b\nscsi0: a1:c\nide2: none\n",
            "ide2 virtio1",
        ),
        (
            "boot: order=net0;scsi0;gone\nscsi0: a1:b\nnet0: virtio\n",
            "net0 scsi0",
        ),
        ("boot: order=\nscsi0: a1:b\n", ""),
    ] {
        assert_eq!(from_pve(text).boot.join(" "), order, "{text}");
    }
}

#[test]
fn only_plain_pcs_are_translated() {
    let refused = |text: &str| {
        let domain = libvirt_domain::xml::Element::parse("a domain", text).unwrap();
        libvirt::read(&domain).unwrap_err().to_string()
    };
    let domain = |kind: &str, os: &str| {
        format!("<domain type='{kind}'><name>a</name><vcpu>1</vcpu><os>{os}</os></domain>")
    };
    for (text, why) in [
        (domain("xen", "<type>hvm</type>"), "xen"),
        (
            domain("kvm", "<type arch='aarch64' machine='virt'>hvm</type>"),
            "aarch64",
        ),
        (
            domain("kvm", "<type arch='x86_64' machine='microvm'>hvm</type>"),
            "microvm",
        ),
        (domain("kvm", "<type>linux</type>"), "x86_64"),
        ("<network/>".to_owned(), "network"),
    ] {
        let said = refused(&text);
        assert!(said.contains(why), "{said} lacks {why}");
    }
    let arm = pvesync::vm_config::VmConfig::parse("arch: aarch64\n").unwrap();
    assert!(pve::read(&arm).unwrap_err().to_string().contains("aarch64"));
}

#[test]
fn names_and_lines_that_are_none_here_are_made_some() {
    let guest = Guest {
        name: Some("-My VM_1/\u{e4}.x-".into()),
        description: "one\n[PENDING]\nscsi0: x:y".into(),
        tags: vec!["ok".into(), "no good".into()],
        ..Guest::default()
    };
    let written = to_pve(&guest);
    assert!(
        written.text.contains("\nname: My-VM-1.x\n"),
        "{}",
        written.text
    );
    assert!(written.text.contains("\ntags: ok\n"));
    assert_eq!(from_pve(&written.text).description, guest.description);
    assert_eq!(written.left.len(), 2, "{:?}", written.left);
}
