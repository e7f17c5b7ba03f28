//! Disks of one format whose replica is of another: names, sizes, and what the replica's configuration says.
#![allow(clippy::unwrap_used)]

mod node;
mod storages;

use node::*;
use pvesync::source;
use pvesync::volid::Vmid;
use rblocksync::error::Kind;
use rblocksync::image::ImageFormat;
use rblocksync::replica::ReplicaRequest;
use std::fs;

#[test]
fn the_storage_decides_and_else_the_source() {
    let node = Node::new();
    let disks = [
        ("scsi0", "local:101/vm-101-disk-0.qcow2", ImageFormat::Qcow2),
        ("scsi1", "local:101/vm-101-disk-1.raw", ImageFormat::Raw),
        (
            "scsi2",
            "other:100/base-100-disk-0.qcow2/101/vm-101-disk-4.qcow2",
            ImageFormat::Qcow2,
        ),
        ("scsi3", "thin:vm-101-disk-5", ImageFormat::Raw),
    ];
    let map = [("local", "ssd"), ("other", "fast"), ("thin", "ssd")];
    let mut request = request(&disks, &map);
    let placed = |request: &ReplicaRequest| -> Vec<(String, ImageFormat)> {
        let placed = node.place(request, &[]).unwrap().into_iter();
        placed.map(|p| (p.volume, p.location.format())).collect()
    };
    let said = |volumes: [(&str, ImageFormat); 4]| volumes.map(|(v, f)| (v.to_owned(), f)).to_vec();
    assert_eq!(
        placed(&request),
        said([
            ("ssd:101/vm-101-disk-0.qcow2", ImageFormat::Qcow2),
            ("ssd:101/vm-101-disk-1.raw", ImageFormat::Raw),
            ("fast:vm-101-disk-4", ImageFormat::Raw),
            ("ssd:101/vm-101-disk-5.raw", ImageFormat::Raw),
        ])
    );
    request.formats = vec![
        ("scsi0".into(), ImageFormat::Raw),
        ("scsi1".into(), ImageFormat::Qcow2),
        ("scsi3".into(), ImageFormat::Qcow2),
    ];
    assert_eq!(
        placed(&request),
        said([
            ("ssd:101/vm-101-disk-0.raw", ImageFormat::Raw),
            ("ssd:101/vm-101-disk-1.qcow2", ImageFormat::Qcow2),
            ("fast:vm-101-disk-4", ImageFormat::Raw),
            ("ssd:101/vm-101-disk-5.qcow2", ImageFormat::Qcow2),
        ])
    );
    // Thin volumes are raw, and a replica that is there stays what it is.
    request.formats = vec![("scsi2".into(), ImageFormat::Qcow2)];
    assert_eq!(node.place(&request, &[]).unwrap_err().kind(), Kind::Refused);
    request.formats = vec![("scsi1".into(), ImageFormat::Qcow2)];
    let known = [("local:101/vm-101-disk-1.raw", "ssd:101/vm-101-disk-1.raw")];
    assert_eq!(
        node.place(&request, &known).unwrap_err().kind(),
        Kind::Refused
    );
}

#[test]
fn the_replicas_configuration_names_the_disk_and_its_size() {
    let node = Node::new();
    let disks = [("scsi0", "local:101/vm-101-disk-0.raw", ImageFormat::Raw)];
    let mut request = request(&disks, &[("local", "ssd")]);
    request.config = "scsi0: local:101/vm-101-disk-0.raw,format=raw,size=1G\n".into();
    request.formats = vec![("scsi0".into(), ImageFormat::Qcow2)];
    let placed = node.place(&request, &[]).unwrap();
    node.publish(&request, &placed[0], disks[0].1);
    let config = node.tree.vm_config(Vmid::new(101).unwrap()).unwrap();
    assert_eq!(
        config.get("scsi0"),
        Some("ssd:101/vm-101-disk-0.qcow2,size=64M")
    );
}

#[test]
fn of_a_qcow2_disk_the_guests_size_counts() {
    let node = Node::new();
    let conf = node
        .dir
        .path()
        .join("etc/pve/nodes/pve1/qemu-server/101.conf");
    let clone = "ssd:100/base-100-disk-0.qcow2/101/vm-101-disk-1.qcow2";
    fs::write(
        conf,
        format!("scsi0: ssd:101/vm-101-disk-0.qcow2\nscsi1: {clone}\n"),
    )
    .unwrap();
    let (base, images) = (node.images("100"), node.images("101"));
    create(&images.join("vm-101-disk-0.qcow2"), &[], "96M");
    create(&base.join("base-100-disk-0.qcow2"), &[], "32M");
    let behind = ["-b", "../100/base-100-disk-0.qcow2", "-F", "qcow2"];
    create(&images.join("vm-101-disk-1.qcow2"), &behind, "64M");
    let vmid = Vmid::new(101).unwrap();
    let vm = source::resolve(&node.tree, vmid, &[]).unwrap();
    let found: Vec<_> = vm
        .disks
        .iter()
        .map(|d| (d.spec.size, d.spec.format))
        .collect();
    assert_eq!(
        found,
        [
            (96 * MIB, ImageFormat::Qcow2),
            (64 * MIB, ImageFormat::Qcow2)
        ]
    );
    assert!(vm
        .disks
        .iter()
        .all(|d| d.spec.used > 0 && d.spec.used < MIB));
    // What is behind it is gone: half a disk is none.
    fs::remove_file(base.join("base-100-disk-0.qcow2")).unwrap();
    let error = source::resolve(&node.tree, vmid, &[]).err().unwrap();
    assert!(
        error.message().contains("disk scsi1") && error.message().contains("backing file"),
        "{error}"
    );
}
