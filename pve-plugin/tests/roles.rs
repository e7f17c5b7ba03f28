//! What a change of roles does to the files of a node: a tree of them, as a node has it.
#![allow(clippy::unwrap_used)]

use pvesync::node::PveTree;
use pvesync::replica_config::{standing, Standing as ConfigStanding};
use pvesync::target::PveTarget;
use pvesync::vm_config::VmConfig;
use rblocksync::digest::{Digest, HashKind};
use rblocksync::error::Kind;
use rblocksync::hypervisor::{Published, RoleHypervisor, TargetHypervisor, TrialHypervisor};
use rblocksync::image::ImageFormat;
use rblocksync::replica::{
    DiskRecord, Generation, Layout, Location, Placement, Role, Standing, TargetPair, Trial,
};
use rblocksync::snapshot::Consistency;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use uuid::Uuid;

const PAIR: Uuid = Uuid::from_u128(0x1234);
const CONFIG: &str = "#the web\n#server\nboot: order=scsi0\nhookscript: local:snippets/own.sh\nname: web\nnet0: virtio=BC:24:11:5A:10:02,bridge=vmbr0\n\
                      onboot: 1\nscsi0: local-lvm:vm-101-disk-0,size=8M\nsmbios1: uuid=6d0f7a52-1f5b-4c1e-9b8e-0a6f6b3d1101\ntags: prod;web\n";

struct Node {
    dir: tempfile::TempDir,
    target: PveTarget,
    layout: Layout,
}

impl Node {
    /// pve1 of a cluster with pve2, or alone.
    fn new(clustered: bool) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let pve = dir.path().join("etc/pve");
        for sub in ["nodes/pve1/qemu-server", "nodes/pve2/qemu-server"] {
            fs::create_dir_all(pve.join(sub)).unwrap();
        }
        std::os::unix::fs::symlink("nodes/pve1", pve.join("local")).unwrap();
        fs::write(
            pve.join("storage.cfg"),
            "dir: local\n\tpath /var/lib/vz\n\tcontent images,snippets\n\nlvmthin: local-lvm\n\tvgname pve\n\tthinpool data\n\tcontent images\n",
        )
        .unwrap();
        if clustered {
            fs::write(pve.join("corosync.conf"), "").unwrap();
        }
        fs::create_dir_all(dir.path().join("proc")).unwrap();
        let layout = Layout::new(dir.path().join("state"));
        let target = PveTarget::new(PveTree::new(dir.path()), layout.clone());
        Node {
            dir,
            target,
            layout,
        }
    }

    fn path(&self, node: &str, vmid: u32) -> PathBuf {
        let file = format!("etc/pve/nodes/{node}/qemu-server/{vmid}.conf");
        self.dir.path().join(file)
    }

    fn write(&self, node: &str, vmid: u32, text: &str) {
        fs::write(self.path(node, vmid), text).unwrap();
    }

    fn text(&self, vmid: u32) -> String {
        fs::read_to_string(self.path("pve1", vmid)).unwrap()
    }

    fn config(&self, vmid: u32) -> VmConfig {
        VmConfig::parse(&self.text(vmid)).unwrap()
    }

    fn runs(&self, vmid: u32) {
        let process = self.dir.path().join("proc/77");
        fs::create_dir_all(&process).unwrap();
        fs::write(
            process.join("cmdline"),
            format!("/usr/bin/kvm\0-id\0{vmid}\0"),
        )
        .unwrap();
    }

    fn guard(&self, vmid: u32) -> String {
        fs::read_to_string(self.layout.guard(&vmid.to_string())).unwrap_or_default()
    }
}

fn pair(role: Role, epoch: u64) -> TargetPair {
    TargetPair {
        pair: PAIR,
        source_host: Uuid::nil(),
        source_name: "pve2".into(),
        vm: "101".into(),
        target_vm: "101".into(),
        volumes: BTreeMap::new(),
        storage_map: Vec::new(),
        maps: Default::default(),
        forks: Vec::new(),
        pinned: BTreeSet::new(),
        head: Some(2),
        last: 0,
        standing: Standing { role, epoch },
    }
}

fn generation(number: u64, config: &str) -> Generation {
    let lv = |name: &str| rblocksync::lvm::LvId::new("pve", name).unwrap();
    Generation {
        state: None,
        version: Generation::VERSION,
        pair: PAIR,
        epoch: 1,
        number,
        parent: None,
        taken_at: jiff::Timestamp::UNIX_EPOCH,
        consistency: Consistency::Crash,
        notes: Vec::new(),
        disks: vec![DiskRecord {
            key: "scsi0".into(),
            source: "local-lvm:vm-101-disk-0".into(),
            target: "local-lvm:vm-101-disk-0".into(),
            location: Location::ThinLv {
                lv: lv("vm-101-disk-0"),
                pool: lv("data"),
            },
            size: 8 << 20,
            digest: Digest([0; 32]),
            hash: HashKind::Blake3,
            leaf_bytes: 4096,
            changed: 0,
        }],
        excluded: Vec::new(),
        config: config.into(),
        described: None,
    }
}

fn publish(node: &Node) {
    let generations = [generation(1, CONFIG), generation(2, CONFIG)];
    let published: Vec<Published> = generations
        .iter()
        .map(|generation| Published {
            generation,
            snapshots: ["scsi0".to_owned()].into(),
        })
        .collect();
    node.target
        .publish(&pair(Role::Replica, 1), &published)
        .unwrap();
}

#[test]
fn a_replica_is_guarded_beyond_its_lock_until_it_is_promoted() {
    let node = Node::new(false);
    publish(&node);
    let replica = node.config(101);
    assert_eq!(replica.lock(), Some("migrate"));
    assert_eq!(
        replica.get("hookscript"),
        Some("local:snippets/pvesync-guard.sh")
    );
    let script = node.dir.path().join("var/lib/vz/snippets/pvesync-guard.sh");
    assert!(script.is_file());
    assert!(node
        .guard(101)
        .starts_with("replica 1 it is the replica of VM 101 on pve2"));

    let primary = pair(Role::Primary, 2);
    let notes = node
        .target
        .promote(&primary, &generation(1, CONFIG))
        .unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let text = node.text(101);
    let vm = VmConfig::parse(&text).unwrap();
    assert_eq!(vm.lock(), None);
    for (key, value) in [
        ("onboot", Some("1")),
        ("tags", Some("prod;web")),
        ("hookscript", Some("local:snippets/pvesync-guard.sh")),
        ("parent", Some("rbs1")),
        ("name", Some("web")),
    ] {
        assert_eq!(vm.get(key), value, "{key}");
    }
    let names: Vec<&str> = vm.snapshots().map(|(name, _)| name).collect();
    assert_eq!(names, ["rbs1", "rbs2"]);
    let description = vm.main().description();
    assert!(description.ends_with("the web\nserver"), "{description}");
    assert!(description.contains("Taken over in epoch 2 from generation rbs1"));
    assert!(!description.contains("do not start"));
    // Whatever lock Proxmox puts on it later, it is nobody's standby any more.
    let locked = VmConfig::parse(&format!("lock: migrate\n{text}")).unwrap();
    assert_eq!(standing(&locked, PAIR), ConfigStanding::TakenOver);
    // Again: nothing changes, also while it runs.
    node.runs(101);
    node.target
        .promote(&primary, &generation(1, CONFIG))
        .unwrap();
    assert_eq!(node.text(101), text);
}

#[test]
fn what_is_not_the_replica_is_not_promoted() {
    let node = Node::new(false);
    let promote = || {
        node.target
            .promote(&pair(Role::Primary, 2), &generation(2, CONFIG))
    };
    node.write("pve1", 101, "name: other\n");
    assert_eq!(promote().unwrap_err().kind(), Kind::Refused);
    assert_eq!(node.text(101), "name: other\n");
    fs::remove_file(node.path("pve1", 101)).unwrap();
    publish(&node);
    node.runs(101);
    let text = node.text(101);
    assert_eq!(promote().unwrap_err().kind(), Kind::Busy);
    assert_eq!(node.text(101), text);
}

#[test]
fn a_replicas_configuration_that_was_lost_is_made_again() {
    let node = Node::new(false);
    let promoted = node
        .target
        .promote(&pair(Role::Primary, 2), &generation(2, CONFIG));
    promoted.unwrap();
    assert_eq!(node.config(101).name(), Some("web"));
}

#[test]
fn in_a_cluster_the_id_moves_only_once_its_vm_is_retired() {
    let node = Node::new(true);
    node.write("pve2", 101, CONFIG);
    publish(&node);
    assert!(!node.path("pve1", 101).exists(), "it is kept aside");
    let promote = || {
        node.target
            .promote(&pair(Role::Primary, 2), &generation(2, CONFIG))
    };
    let refused = promote().unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(refused.advice().unwrap().contains("mv /etc/pve/nodes/pve2"));
    assert!(!node.path("pve1", 101).exists());
    let retired = format!("#[rblocksync] rblocksync-retired%3A gone\nlock: migrate\n{CONFIG}");
    node.write("pve2", 101, &retired);
    promote().unwrap();
    assert!(!node.path("pve2", 101).exists());
    let vm = node.config(101);
    assert_eq!((vm.lock(), vm.name()), (None, Some("web")));
    assert!(vm.main().description().contains("Taken over in epoch 2"));
    promote().unwrap();

    // Moved by hand, as the advice says.
    let node = Node::new(true);
    node.write("pve2", 101, CONFIG);
    publish(&node);
    fs::rename(node.path("pve2", 101), node.path("pve1", 101)).unwrap();
    node.target
        .promote(&pair(Role::Primary, 2), &generation(2, CONFIG))
        .unwrap();
    assert!(node.text(101).contains("Taken over in epoch 2"));
}

#[test]
fn retiring_is_taken_back_to_the_byte() {
    let node = Node::new(false);
    let with_snapshot = format!("{CONFIG}\n[before]\nname: web\nonboot: 1\n");
    node.write("pve1", 101, &with_snapshot);
    node.target
        .retire("101", "it went to pve2\nlock: none")
        .unwrap();
    let retired = node.config(101);
    assert_eq!(retired.lock(), Some("migrate"));
    for (key, value) in [
        ("onboot", "0"),
        ("tags", "prod;web;rblocksync-retired"),
        ("hookscript", "local:snippets/pvesync-guard.sh"),
        ("name", "web"),
    ] {
        assert_eq!(retired.get(key), Some(value), "{key}");
    }
    assert!(retired
        .main()
        .description()
        .contains("it went to pve2 lock: none"));
    let chain = fs::read_to_string(node.layout.guard("101.chain")).unwrap();
    assert_eq!(chain, "/var/lib/vz/snippets/own.sh\n");
    let text = node.text(101);
    node.target.retire("101", "again").unwrap();
    assert_eq!(node.text(101), text);
    // Unlocked by somebody: locked again, and what was before is not forgotten.
    node.write("pve1", 101, &text.replace("lock: migrate\n", ""));
    node.target.retire("101", "it went to pve2").unwrap();
    assert_eq!(node.config(101).lock(), Some("migrate"));
    for _ in 0..2 {
        node.target.reinstate("101").unwrap();
        assert_eq!(node.text(101), with_snapshot);
        assert!(!node.layout.guard("101.chain").exists());
    }
}

#[test]
fn a_vm_that_runs_or_is_worked_on_is_not_retired() {
    let node = Node::new(false);
    let locked = format!("{CONFIG}lock: backup\n");
    node.write("pve1", 101, &locked);
    let refused = node.target.retire("101", "x").unwrap_err();
    assert!(refused.kind() == Kind::Busy && refused.message().contains("backup"));
    assert_eq!(node.text(101), locked);
    node.write("pve1", 101, CONFIG);
    node.runs(101);
    let refused = node.target.retire("101", "x").unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy);
    assert_eq!(node.text(101), CONFIG);
}

#[test]
fn without_snippets_the_lock_remains_and_that_is_said() {
    let node = Node::new(false);
    let storage = node.dir.path().join("etc/pve/storage.cfg");
    let text = fs::read_to_string(&storage).unwrap();
    fs::write(&storage, text.replace(",snippets", "")).unwrap();
    let own = CONFIG.replace("hookscript: local:snippets/own.sh\n", "");
    node.write("pve1", 101, &own);
    let notes = node.target.retire("101", "x").unwrap();
    assert!(notes[0].contains("no hookscript"), "{notes:?}");
    let retired = node.config(101);
    assert_eq!(
        (retired.lock(), retired.get("hookscript")),
        (Some("migrate"), None)
    );
    node.target.reinstate("101").unwrap();
    assert_eq!(node.text(101), own);
}

#[test]
fn a_clone_has_an_id_and_a_mark_of_its_own() {
    let node = Node::new(false);
    publish(&node);
    let replica = node.text(101);
    node.write("pve2", 90000, "name: far away\n");
    assert_eq!(node.target.spare_vm(None).unwrap(), "90001");
    assert_eq!(
        node.target.spare_vm(Some("90000")).unwrap_err().kind(),
        Kind::Refused
    );
    let generation = generation(2, CONFIG);
    let placed = node
        .target
        .place_clones("90001", &generation, &[ImageFormat::Raw])
        .unwrap();
    assert_eq!(placed[0].volume, "local-lvm:vm-90001-disk-0");
    let trial = |disks: Vec<Placement>| Trial {
        id: Uuid::from_u128(7),
        pair: PAIR,
        generation: 2,
        replica: "101".into(),
        vm: "90001".into(),
        disks,
    };
    let trial = trial(placed);
    let pair = pair(Role::Replica, 1);
    let meminfo = node.dir.path().join("proc/meminfo");
    fs::write(&meminfo, "MemAvailable:     300000 kB\n").unwrap();
    let refused = node
        .target
        .show_clone(&pair, &generation, &trial)
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::Space);
    fs::write(&meminfo, "MemAvailable:     600000 kB\n").unwrap();
    node.target.show_clone(&pair, &generation, &trial).unwrap();
    let clone = node.config(90001);
    for (key, value) in [
        ("name", Some("web-test")),
        ("onboot", Some("0")),
        ("lock", None),
        ("hookscript", None),
        (
            "net0",
            Some("virtio=BC:24:11:5A:10:02,bridge=vmbr0,link_down=1"),
        ),
        ("scsi0", Some("local-lvm:vm-90001-disk-0,size=8M")),
    ] {
        assert_eq!(clone.get(key), value, "{key}");
    }
    let again = node
        .target
        .show_clone(&pair, &generation, &trial)
        .unwrap_err();
    assert_eq!(again.kind(), Kind::Refused);
    assert_eq!(node.text(101), replica);
    assert!(
        !node.guard(90001).contains("replica"),
        "nobody keeps it from starting"
    );
    // Another VM under its id is not ended.
    let other = Trial {
        id: Uuid::from_u128(8),
        ..trial.clone()
    };
    node.target.end_clone(&other).unwrap();
    assert!(node.path("pve1", 90001).exists());
    node.target.end_clone(&trial).unwrap();
    assert!(!node.path("pve1", 90001).exists());
    node.target.end_clone(&trial).unwrap();
}

#[test]
fn a_vm_is_kept_off_by_the_hook_until_it_may_start() {
    let node = Node::new(false);
    node.write("pve1", 101, CONFIG);
    let notes = node
        .target
        .keep_off("101", "pve2 could not be asked")
        .unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let held = node.config(101);
    assert_eq!(held.lock(), None);
    assert_eq!(held.get("onboot"), Some("1"));
    assert_eq!(
        held.get("hookscript"),
        Some("local:snippets/pvesync-guard.sh")
    );
    let chain = fs::read_to_string(node.layout.guard("101.chain")).unwrap();
    assert_eq!(chain, "/var/lib/vz/snippets/own.sh\n");
    let text = node.text(101);
    node.target.keep_off("101", "again").unwrap();
    assert_eq!(node.text(101), text);
    assert_eq!(
        fs::read_to_string(node.layout.guard("101.chain")).unwrap(),
        chain
    );
    node.target.let_start("101").unwrap();
    assert_eq!(node.text(101), text, "the hook stays, and lets it start");
    node.runs(101);
    assert_eq!(
        node.target.keep_off("101", "x").unwrap_err().kind(),
        Kind::Busy
    );
}

#[test]
fn without_a_place_for_the_hook_it_is_locked() {
    let node = Node::new(false);
    let storages = node.dir.path().join("etc/pve/storage.cfg");
    fs::write(
        &storages,
        "dir: local\n\tpath /var/lib/vz\n\tcontent images\n",
    )
    .unwrap();
    node.write("pve1", 101, CONFIG);
    let notes = node
        .target
        .keep_off("101", "pve2 could not be asked")
        .unwrap();
    assert!(notes[0].contains("no hookscript"), "{notes:?}");
    assert_eq!(node.config(101).lock(), Some("migrate"));
    node.target.let_start("101").unwrap();
    assert_eq!(node.text(101), CONFIG);
    // A lock that is not ours is nobody's business, and keeps it off as well.
    let locked = format!("{CONFIG}lock: backup\n");
    node.write("pve1", 101, &locked);
    node.target.keep_off("101", "x").unwrap();
    node.target.let_start("101").unwrap();
    assert_eq!(node.text(101), locked);
    // What was kept off may turn out to have gone.
    node.write("pve1", 101, CONFIG);
    node.target
        .keep_off("101", "pve2 could not be asked")
        .unwrap();
    node.target.retire("101", "it has gone to pve2").unwrap();
    let retired = node.config(101);
    assert_eq!(retired.get("onboot"), Some("0"));
    let description = retired.main().description();
    assert!(!description.contains("rblocksync-held"), "{description}");
    node.target.reinstate("101").unwrap();
    assert_eq!(node.config(101).lock(), None);
}

#[test]
fn names_of_the_other_host_are_put_in_when_it_is_published_and_promoted() {
    let node = Node::new(false);
    let mut replica = pair(Role::Replica, 1);
    let names = |from: &str, to: &str| vec![(from.to_owned(), to.to_owned())];
    replica.maps.networks = names("vmbr0", "vmbr1");
    replica.maps.cpus = names("kvm64", "x86-64-v2-AES");
    let generation = generation(2, CONFIG);
    let published = [Published {
        generation: &generation,
        snapshots: ["scsi0".to_owned()].into(),
    }];
    node.target.publish(&replica, &published).unwrap();
    let there = |config: &VmConfig| {
        let net = config.get("net0").unwrap().to_owned();
        (net, config.get("cpu").unwrap().to_owned())
    };
    let expected = (
        "virtio=BC:24:11:5A:10:02,bridge=vmbr1".to_owned(),
        "x86-64-v2-AES".to_owned(),
    );
    let config = node.config(101);
    assert_eq!(there(&config), expected);
    let (_, snapshot) = config.snapshots().next().unwrap();
    assert!(
        snapshot.get("net0").unwrap().ends_with("vmbr1"),
        "a rollback too"
    );
    let primary = TargetPair {
        standing: Standing {
            role: Role::Primary,
            epoch: 2,
        },
        ..replica
    };
    node.target.promote(&primary, &generation).unwrap();
    assert_eq!(there(&node.config(101)), expected);
}
