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
    DiskRecord, DiskSpec, Generation, Layout, Location, Placement, ReplicaRequest, Retention,
    Standing, TargetPair,
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

/// A node with storages of several kinds.
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
            "data",
        ] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        fs::create_dir_all(dir.path().join("var/lock/qemu-server")).unwrap();
        std::os::unix::fs::symlink("nodes/pve1", pve.join("local")).unwrap();
        let ssd = dir.path().join("ssd");
        let storages = format!(
            "dir: ssd\n\tpath {ssd}\n\tcontent images\n\n\
             lvmthin: fast\n\tvgname vg0\n\tthinpool pool\n\tcontent images\n\n\
             lvm: san\n\tvgname san\n\tcontent images\n\tsnapshot-as-volume-chain 1\n\n\
             lvm: fc\n\tvgname fc\n\tcontent images\n\tshared 1\n\n\
             btrfs: data\n\tpath {data}\n\tcontent images\n\n\
             zfspool: tank\n\tpool tank\n\tcontent images\n\n\
             rbd: ceph\n\tpool vms\n\tcontent images\n\n\
             nfs: nas\n\tpath {ssd}\n\tcontent images\n",
            ssd = ssd.display(),
            data = dir.path().join("data").display()
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

    /// Publishes the first generation of a VM with one disk.
    fn publish(&self, request: &ReplicaRequest, placed: &Placement, source: &str) -> Vec<String> {
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
                source: source.into(),
                target: placed.volume.clone(),
                location: placed.location.clone(),
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
        self.target().publish(&pair, &[published]).unwrap()
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
        ("tank", "zvols"),
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

fn write_config(node: &Node, text: &str) {
    let path = node
        .dir
        .path()
        .join("etc/pve/nodes/pve1/qemu-server/101.conf");
    fs::write(path, text).unwrap();
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
