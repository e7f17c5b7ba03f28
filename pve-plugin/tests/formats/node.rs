//! A node as a file tree, and what is asked of it.

use pvesync::node::PveTree;
use pvesync::target::PveTarget;
use rblocksync::digest::{Digest, HashKind};
use rblocksync::error::Result;
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

pub const MIB: u64 = 1 << 20;
pub const PAIR: Uuid = Uuid::from_u128(7);

/// A node with storages of several kinds.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub tree: PveTree,
}

impl Node {
    pub fn new() -> Node {
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

    pub fn images(&self, vmid: &str) -> PathBuf {
        let images = self.dir.path().join("ssd/images").join(vmid);
        fs::create_dir_all(&images).unwrap();
        images
    }

    pub fn target(&self) -> PveTarget {
        PveTarget::new(
            self.tree.clone(),
            Layout::new(self.dir.path().join("state")),
        )
    }

    /// Publishes the first generation of a VM with one disk.
    pub fn publish(
        &self,
        request: &ReplicaRequest,
        placed: &Placement,
        source: &str,
    ) -> Vec<String> {
        let generation = Generation {
            state: None,
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
            described: None,
        };
        let pair = TargetPair {
            pair: PAIR,
            source_host: Uuid::nil(),
            source_name: "there".into(),
            vm: "101".into(),
            target_vm: "101".into(),
            volumes: BTreeMap::new(),
            storage_map: request.storage_map.clone(),
            maps: request.maps.clone(),
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

    pub fn place(
        &self,
        request: &ReplicaRequest,
        known: &[(&str, &str)],
    ) -> Result<Vec<Placement>> {
        let own = |(from, to): &(&str, &str)| ((*from).to_owned(), (*to).to_owned());
        self.target()
            .place(request, &known.iter().map(own).collect())
    }
}

pub fn qemu_img<'a>(args: impl IntoIterator<Item = &'a OsStr>) {
    let out = Command::new("qemu-img").args(args).output().unwrap();
    assert!(out.status.success(), "{out:?}");
}

pub fn create(path: &Path, options: &[&str], size: &str) {
    let options = options.iter().map(OsStr::new);
    let args = ["create", "-q", "-f", "qcow2"].map(OsStr::new).into_iter();
    qemu_img(
        args.chain(options)
            .chain([path.as_os_str(), OsStr::new(size)]),
    );
}

pub fn request(
    disks: &[(&str, &str, ImageFormat)],
    storage_map: &[(&str, &str)],
) -> ReplicaRequest {
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
        described: None,
        storage_map: storage_map
            .iter()
            .map(|(a, b)| ((*a).into(), (*b).into()))
            .collect(),
        maps: Default::default(),
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

pub fn write_config(node: &Node, text: &str) {
    let path = node
        .dir
        .path()
        .join("etc/pve/nodes/pve1/qemu-server/101.conf");
    fs::write(path, text).unwrap();
}
