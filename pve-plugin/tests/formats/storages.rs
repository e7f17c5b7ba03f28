//! Storages of all kinds, as a source and as a target.

use crate::node::*;
use pvesync::disks::Choice;
use pvesync::source;
use pvesync::volid::Vmid;
use rblocksync::error::Kind;
use rblocksync::image::ImageFormat;
use rblocksync::replica::{Location, Placement};
use std::fs;

#[test]
fn each_kind_of_storage_gets_its_own_kind_of_volume() {
    let node = Node::new();
    let disks = [
        ("efidisk0", "from-a:vm-101-disk-0", ImageFormat::Raw),
        (
            "scsi0",
            "from-b:101/vm-101-disk-0.qcow2",
            ImageFormat::Qcow2,
        ),
        (
            "scsi1",
            "from-c:base-100-disk-0/vm-101-disk-1",
            ImageFormat::Raw,
        ),
    ];
    let placed = |to: &str| {
        let map: Vec<_> = ["from-a", "from-b", "from-c"]
            .map(|from| (from, to))
            .to_vec();
        node.place(&request(&disks, &map), &[])
    };
    let volumes =
        |placed: &[Placement]| placed.iter().map(|p| p.volume.clone()).collect::<Vec<_>>();
    let thick = placed("san").unwrap();
    assert_eq!(
        volumes(&thick),
        [
            "san:vm-101-disk-0",
            "san:vm-101-disk-1",
            "san:vm-101-disk-2"
        ],
        "numbers that are taken are passed over"
    );
    assert_eq!(thick[0].location.to_string(), "san/vm-101-disk-0");
    let btrfs = placed("data").unwrap();
    assert_eq!(btrfs[1].volume, "data:101/vm-101-disk-1.raw");
    let file = node
        .dir
        .path()
        .join("data/images/101/vm-101-disk-1/disk.raw");
    assert_eq!(
        btrfs[1].location,
        Location::File {
            path: file,
            format: ImageFormat::Raw,
            subvolume: true
        }
    );
    for (storage, said) in [
        ("tank", "ZFS volumes are only read"),
        ("ceph", "RBD images"),
        ("fc", "other hosts"),
        // Nothing is mounted there.
        ("nas", "not available"),
    ] {
        let error = placed(storage).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_templates_disks_are_bases_where_there_can_be_any() {
    let node = Node::new();
    let disks = [
        ("scsi0", "from-a:100/base-100-disk-4.raw", ImageFormat::Raw),
        (
            "scsi1",
            "from-a:100/base-100-disk-5.qcow2",
            ImageFormat::Qcow2,
        ),
    ];
    let placed = node
        .place(&request(&disks, &[("from-a", "ssd")]), &[])
        .unwrap();
    assert_eq!(placed[0].volume, "ssd:101/base-101-disk-4.raw");
    assert_eq!(placed[1].volume, "ssd:101/base-101-disk-5.qcow2");
    let placed = node
        .place(&request(&disks, &[("from-a", "fast")]), &[])
        .unwrap();
    assert_eq!(placed[1].volume, "fast:base-101-disk-5");
    let error = node
        .place(&request(&disks, &[("from-a", "san")]), &[])
        .unwrap_err();
    assert!(
        error.to_string().contains("cannot hold templates"),
        "{error}"
    );
}

#[test]
fn a_chain_of_snapshots_is_read_through_its_top() {
    let node = Node::new();
    write_config(
        &node,
        "scsi0: ssd:101/vm-101-disk-0.qcow2\nparent: s1\n\n[s1]\nsnaptime: 1\n",
    );
    let images = node.images("101");
    create(&images.join("snap-s1-vm-101-disk-0.qcow2"), &[], "64M");
    let over = ["-b", "snap-s1-vm-101-disk-0.qcow2", "-F", "qcow2"];
    create(&images.join("vm-101-disk-0.qcow2"), &over, "96M");
    let vmid = Vmid::new(101).unwrap();
    let vm = source::resolve(&node.tree, vmid, &[]).unwrap();
    assert_eq!(vm.disks[0].spec.size, 96 * MIB);
    assert!(vm
        .notes
        .iter()
        .any(|n| n.contains("snapshots stay behind: s1")));
    fs::remove_file(images.join("snap-s1-vm-101-disk-0.qcow2")).unwrap();
    let error = source::resolve(&node.tree, vmid, &[]).err().unwrap();
    assert!(error.message().contains("backing file"), "{error}");
}

#[test]
fn a_change_while_disks_are_read_in_place_is_noticed() {
    let node = Node::new();
    write_config(&node, "scsi0: ssd:101/vm-101-disk-0.raw\n");
    let vmid = Vmid::new(101).unwrap();
    let runtime = source::runtime(&node.tree, vmid).unwrap();
    assert!((runtime.stopped)().unwrap());
    // As a rollback leaves it: the same text, written anew.
    let path = node.tree.vm_config_path(vmid).unwrap();
    let later =
        fs::metadata(&path).unwrap().modified().unwrap() + std::time::Duration::from_secs(1);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(later)
        .unwrap();
    let error = (runtime.stopped)().unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    let runtime = source::runtime(&node.tree, vmid).unwrap();
    write_config(&node, "lock: rollback\nscsi0: ssd:101/vm-101-disk-0.raw\n");
    assert_eq!((runtime.stopped)().unwrap_err().kind(), Kind::Busy);
}

#[test]
fn volumes_that_are_not_there_are_named_with_the_disk() {
    let node = Node::new();
    let vmid = Vmid::new(101).unwrap();
    for (line, said) in [
        ("scsi0: tank:vm-101-disk-0", "is the pool imported"),
        ("scsi0: ssd:101/vm-101-disk-0.raw", "cannot stat"),
        (
            "scsi0: data:101/vm-101-disk-0.raw",
            "vm-101-disk-0/disk.raw",
        ),
    ] {
        write_config(&node, &format!("{line}\n"));
        let error = source::resolve(&node.tree, vmid, &[]).err().unwrap();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        let text = error.to_string();
        assert!(text.contains("disk scsi0") && text.contains(said), "{text}");
    }
}

#[test]
fn a_base_that_is_here_as_well_is_told() {
    let node = Node::new();
    let clone = "ssd:100/base-100-disk-0.qcow2/101/vm-101-disk-1.qcow2";
    let disks = [("scsi0", clone, ImageFormat::Qcow2)];
    let request = request(&disks, &[]);
    let placed = node.place(&request, &[]).unwrap();
    assert_eq!(
        placed[0].volume, "ssd:101/vm-101-disk-1.qcow2",
        "no clone itself"
    );
    let told = || node.publish(&request, &placed[0], clone);
    assert!(told().is_empty());
    fs::write(node.images("100").join("base-100-disk-0.qcow2"), "").unwrap();
    let notes = told();
    assert!(
        notes[0].contains("linked clone of ssd:100/base-100-disk-0.qcow2"),
        "{notes:?}"
    );
}

#[test]
fn unattached_volumes_of_a_running_vm_must_have_snapshots_of_their_own() {
    let node = Node::new();
    write_config(&node, "unused0: ssd:101/vm-101-disk-3.raw\n");
    let file = fs::File::create(node.images("101").join("vm-101-disk-3.raw")).unwrap();
    file.set_len(MIB).unwrap();
    let vmid = Vmid::new(101).unwrap();
    let choice = Choice {
        include_unused: true,
        ..Choice::default()
    };
    let vm = source::resolve_with(&node.tree, vmid, &choice).unwrap();
    assert_eq!(vm.disks[0].spec.key, "unused0");
    let process = node.dir.path().join("proc/4711");
    fs::create_dir(&process).unwrap();
    fs::write(
        process.join("cmdline"),
        "/usr/bin/kvm\0-id\x00101\0-daemonize\0",
    )
    .unwrap();
    let error = source::resolve_with(&node.tree, vmid, &choice)
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("--exclude unused0"), "{error}");
}
