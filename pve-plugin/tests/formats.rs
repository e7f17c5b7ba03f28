//! Disks of one format whose replica is of another: names, sizes, and what the replica's configuration says.
#![allow(clippy::unwrap_used)]

use pvesync::node::PveTree;
use pvesync::source;
use pvesync::target::PveTarget;
use pvesync::volid::Vmid;
use rblocksync::digest::{Digest, HashKind};
use rblocksync::error::{Kind, Result};
use rblocksync::hypervisor::{Published, TargetHypervisor};
use rblocksync::image::ImageFormat;
use rblocksync::replica::{
    DiskRecord, DiskSpec, Generation, Layout, Placement, ReplicaRequest, Retention, Standing,
    TargetPair,
};
use rblocksync::snapshot::Consistency;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const PAIR: Uuid = Uuid::from_u128(7);

/// A node with two directory storages and one of thin volumes.
struct Node {
    dir: tempfile::TempDir,
    tree: PveTree,
}

impl Node {
    fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let pve = dir.path().join("etc/pve");
        for sub in [
            "etc/pve/nodes/pve1/qemu-server",
            "etc/pve/nodes/pve1/lxc",
            "var/run/qemu-server",
            "proc",
            "ssd",
        ] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        fs::create_dir_all(dir.path().join("var/lock/qemu-server")).unwrap();
        std::os::unix::fs::symlink("nodes/pve1", pve.join("local")).unwrap();
        let ssd = dir.path().join("ssd");
        let storages = format!(
            "dir: ssd\n\tpath {}\n\tcontent images\n\nlvmthin: fast\n\tvgname vg0\n\tthinpool pool\n\tcontent images\n",
            ssd.display()
        );
        fs::write(pve.join("storage.cfg"), storages).unwrap();
        let tree = PveTree::new(dir.path());
        Node { dir, tree }
    }

    fn images(&self, vmid: &str) -> PathBuf {
        let images = self.dir.path().join("ssd/images").join(vmid);
        fs::create_dir_all(&images).unwrap();
        images
    }

    fn target(&self) -> PveTarget {
        PveTarget::new(
            self.tree.clone(),
            Layout::new(self.dir.path().join("state")),
        )
    }

    fn place(&self, request: &ReplicaRequest, known: &[(&str, &str)]) -> Result<Vec<Placement>> {
        let own = |(from, to): &(&str, &str)| ((*from).to_owned(), (*to).to_owned());
        self.target()
            .place(request, &known.iter().map(own).collect())
    }
}

fn qemu_img<'a>(args: impl IntoIterator<Item = &'a OsStr>) {
    let out = Command::new("qemu-img").args(args).output().unwrap();
    assert!(out.status.success(), "{out:?}");
}

fn create(path: &Path, options: &[&str], size: &str) {
    let options = options.iter().map(OsStr::new);
    let args = ["create", "-q", "-f", "qcow2"].map(OsStr::new).into_iter();
    qemu_img(
        args.chain(options)
            .chain([path.as_os_str(), OsStr::new(size)]),
    );
}

fn request(disks: &[(&str, &str, ImageFormat)], storage_map: &[(&str, &str)]) -> ReplicaRequest {
    ReplicaRequest {
        run: Uuid::nil(),
        pair: PAIR,
        source_host: Uuid::nil(),
        source_name: "there".into(),
        vm: "101".into(),
        target_vm: None,
        config: disks
            .iter()
            .map(|(key, volume, _)| format!("{key}: {volume},size=64M\n"))
            .collect(),
        disks: disks
            .iter()
            .map(|(key, volume, format)| DiskSpec {
                key: (*key).into(),
                volume: (*volume).into(),
                size: 64 * MIB,
                used: MIB,
                format: *format,
            })
            .collect(),
        excluded: Vec::new(),
        storage_map: storage_map
            .iter()
            .map(|(a, b)| ((*a).into(), (*b).into()))
            .collect(),
        formats: Vec::new(),
        retention: Retention {
            keep: 3,
            within_s: None,
        },
        in_place: false,
        epoch: 1,
        newest: None,
        tracked: Vec::new(),
    }
}

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
    let generation = Generation {
        version: Generation::VERSION,
        pair: PAIR,
        epoch: 1,
        number: 1,
        parent: None,
        taken_at: jiff::Timestamp::UNIX_EPOCH,
        consistency: Consistency::Offline,
        notes: Vec::new(),
        disks: vec![DiskRecord {
            key: "scsi0".into(),
            source: disks[0].1.into(),
            target: placed[0].volume.clone(),
            location: placed[0].location.clone(),
            size: 64 * MIB,
            digest: Digest([0; 32]),
            hash: HashKind::Blake3,
            leaf_bytes: 4096,
            changed: 0,
        }],
        excluded: Vec::new(),
        config: request.config.clone(),
    };
    let pair = TargetPair {
        pair: PAIR,
        source_host: Uuid::nil(),
        source_name: "there".into(),
        vm: "101".into(),
        target_vm: "101".into(),
        volumes: BTreeMap::new(),
        storage_map: request.storage_map.clone(),
        forks: Vec::new(),
        pinned: BTreeSet::new(),
        head: Some(1),
        last: 0,
        standing: Standing::replica(),
    };
    let published = Published {
        generation: &generation,
        snapshots: BTreeSet::new(),
    };
    node.target().publish(&pair, &[published]).unwrap();
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
