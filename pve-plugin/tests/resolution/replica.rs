//! The replica's configuration: guarded, recognised again, and stable.

use crate::{fixture, resolve_fixture, storages};
use pvesync::disks::{resolve, Resolved};
use pvesync::drive::{DiskKey, DriveTarget};
use pvesync::replica_config::{
    is_our_replica, pair_of, render, standing, Generation, ReplicaSpec, Standing, TargetVolume,
};
use pvesync::storage_cfg::StorageCfg;
use pvesync::vm_config::VmConfig;
use pvesync::volid::{Format, Vmid, Volid};
use rblocksync::error::Result;
use std::collections::BTreeMap;
use uuid::Uuid;

const PAIR: Uuid = Uuid::from_u128(0x0f8e_6c1a_5a5a_4b4b_8c8c_0123_4567_89ab);

/// A VM and where its replica's volumes are: all on the target's thin pool.
struct Setup {
    config: VmConfig,
    resolved: Resolved,
    volumes: BTreeMap<Volid, TargetVolume>,
    target_vmid: Vmid,
}

fn setup(name: &str, exclude: &[&str]) -> Setup {
    let (_, config) = fixture(name);
    setup_of(config, resolve_fixture(name, exclude).unwrap())
}

fn setup_of(config: VmConfig, resolved: Resolved) -> Setup {
    let target_vmid = Vmid::new(resolved.vmid.get() + 800).unwrap();
    let storages = StorageCfg::parse("lvmthin: fast\n\tvgname vg0\n\tthinpool pool\n");
    let entry = storages.get("fast").unwrap();
    let mut volumes = BTreeMap::new();
    for (n, disk) in (0..).zip(&resolved.disks) {
        let volid = entry.disk_volid(target_vmid, n, Format::Raw).unwrap();
        let size = disk.size;
        volumes.insert(disk.volid.clone(), TargetVolume { volid, size });
    }
    for drive in config.drives() {
        if let DriveTarget::CloudInit(source) = &drive.target {
            let volid = entry.cloudinit_volid(target_vmid).unwrap();
            volumes.insert(source.clone(), TargetVolume { volid, size: None });
        }
    }
    Setup {
        config,
        resolved,
        volumes,
        target_vmid,
    }
}

impl Setup {
    fn render(&self, generations: &[Generation], previous: Option<&VmConfig>) -> Result<String> {
        self.render_from("pve1", generations, previous)
    }

    fn render_from(
        &self,
        source_host: &str,
        generations: &[Generation],
        previous: Option<&VmConfig>,
    ) -> Result<String> {
        render(&ReplicaSpec {
            pair: PAIR,
            source_host,
            source_vm: &self.resolved.vmid.to_string(),
            config: &self.config,
            resolved: &self.resolved,
            target_vmid: self.target_vmid,
            volumes: &self.volumes,
            generations,
            maps: &Default::default(),
            previous,
        })
    }

    fn parsed(&self) -> VmConfig {
        VmConfig::parse(&self.render(&[], None).unwrap()).unwrap()
    }
}

fn generation(name: &str, time: u64, keys: &[&str]) -> Generation {
    Generation {
        name: name.to_owned(),
        time,
        snapshots: keys.iter().map(|k| DiskKey::parse(k).unwrap()).collect(),
    }
}

#[test]
fn replicas_look_like_this() {
    let all = ["efidisk0", "scsi0", "scsi1", "tpmstate0"];
    let windows = setup("windows", &[])
        .render(
            &[
                generation("rbs9", 1_743_200_000, &all),
                generation("rbs10", 1_743_300_000, &all[1..]),
                generation("rbs11", 1_743_400_000, &all),
            ],
            None,
        )
        .unwrap();
    insta::assert_snapshot!("windows", windows);
    for (name, exclude) in [
        ("cloudinit", &["scsi1"][..]),
        ("snapshots", &[]),
        ("passthrough", &["virtio1"]),
        ("description", &[]),
        ("oldstyle", &[]),
    ] {
        insta::assert_snapshot!(name, setup(name, exclude).render(&[], None).unwrap());
    }
}

#[test]
fn rendering_again_changes_nothing() {
    let vm = setup("cloudinit", &[]);
    let generations = [
        generation("rbs1", 1, &["scsi0", "scsi1"]),
        generation("rbs2", 2, &["scsi0", "scsi1"]),
    ];
    let once = vm.render(&generations, None).unwrap();
    let previous = VmConfig::parse(&once).unwrap();
    assert_eq!(previous.snapshots().count(), 2);
    assert_eq!(vm.render(&generations, Some(&previous)).unwrap(), once);
}

#[test]
fn a_pruned_generation_leaves_the_chain_of_parents() {
    let vm = setup("cloudinit", &[]);
    let [one, two, three] =
        [1, 2, 3].map(|n| generation(&format!("rbs{n}"), n, &["scsi0", "scsi1"]));
    let before = vm.render(&[one, two.clone(), three.clone()], None).unwrap();
    let before = VmConfig::parse(&before).unwrap();
    let after = vm.render(&[two, three], Some(&before)).unwrap();
    let after = VmConfig::parse(&after).unwrap();
    let parents: Vec<_> = after
        .snapshots()
        .map(|(name, s)| (name, s.get("parent")))
        .collect();
    assert_eq!(parents, [("rbs2", None), ("rbs3", Some("rbs2"))]);
}

#[test]
fn snapshot_sections_keep_what_the_vm_was_like() {
    let mut vm = setup("cloudinit", &[]);
    let first = generation("rbs1", 1, &["scsi0", "scsi1"]);
    let then = VmConfig::parse(&vm.render(std::slice::from_ref(&first), None).unwrap()).unwrap();
    // The VM gets more memory and another disk.
    let text = format!("{}\n", vm.config).replace(
        "memory: 2048",
        "memory: 4096\nscsi2: local-lvm:vm-101-disk-2,size=1G",
    );
    let config = VmConfig::parse(&text).unwrap();
    let resolved = resolve(vm.resolved.vmid, &config, &storages(), "pve1", &[]).unwrap();
    vm = setup_of(config, resolved);
    let second = generation("rbs2", 2, &["scsi0", "scsi1", "scsi2"]);
    let now = vm
        .render(&[first.clone(), second.clone()], Some(&then))
        .unwrap();
    let now = VmConfig::parse(&now).unwrap();
    assert_eq!(now.get("parent"), Some("rbs2"));
    let of = |name: &str| {
        let (_, s) = now.snapshots().find(|(n, _)| *n == name).unwrap();
        (s.get("memory"), s.get("scsi2").is_some(), s.get("parent"))
    };
    assert_eq!(of("rbs1"), (Some("2048"), false, None));
    assert_eq!(of("rbs2"), (Some("4096"), true, Some("rbs1")));
    // Without the earlier file, a generation that lacks the new disk's snapshot is not shown.
    let blind = VmConfig::parse(&vm.render(&[first, second], None).unwrap()).unwrap();
    assert_eq!(blind.snapshots().map(|s| s.0).collect::<Vec<_>>(), ["rbs2"]);
    // A section of the same name but another time is of another generation.
    let other = generation("rbs1", 77, &["scsi0", "scsi1", "scsi2"]);
    let fresh = VmConfig::parse(&vm.render(&[other], Some(&then)).unwrap()).unwrap();
    let (_, section) = fresh.snapshots().next().unwrap();
    assert_eq!(section.get("memory"), Some("4096"));
}

#[test]
fn generations_need_names_proxmox_takes() {
    let vm = setup("cloudinit", &[]);
    for bad in [
        "pending",
        "current",
        "1st",
        "a",
        "a b",
        "x]\nscsi9: a:b",
        &"x".repeat(41),
    ] {
        let result = vm.render(&[generation(bad, 1, &["scsi0", "scsi1"])], None);
        assert!(result.is_err(), "{bad:?}");
    }
    let twice = [
        generation("rbs1", 1, &["scsi0", "scsi1"]),
        generation("rbs1", 2, &["scsi0", "scsi1"]),
    ];
    assert!(vm.render(&twice, None).is_err());
}

#[test]
fn a_replica_cannot_start_and_is_known_again() {
    for (name, exclude) in [("windows", &[][..]), ("passthrough", &["virtio1"])] {
        let replica = setup(name, exclude).parsed();
        assert_eq!(replica.lock(), Some("migrate"));
        assert_eq!(replica.get("onboot"), Some("0"));
        let tags = replica.get("tags").unwrap();
        assert!(tags.split(';').any(|t| t == "rblocksync-replica"), "{tags}");
        assert_eq!(pair_of(&replica), Some(PAIR));
        assert_eq!(standing(&replica, PAIR), Standing::Standby);
        assert_eq!(standing(&replica, Uuid::nil()), Standing::Foreign);
    }
}

/// What Proxmox does when it writes a configuration: keys sorted, description first, its own encoding.
fn rewritten_by_proxmox(config: &VmConfig, change: impl Fn(&str) -> String) -> VmConfig {
    let mut text = String::new();
    for line in change(&config.main().description()).lines() {
        let encode = |c: char| match c {
            ':' => "%3A".to_owned(),
            ' '..='~' => c.to_string(),
            _ => c.to_string().bytes().map(|b| format!("%{b:02X}")).collect(),
        };
        text.push_str(&format!(
            "#{}\n",
            line.chars().map(encode).collect::<String>()
        ));
    }
    let mut lines: Vec<_> = config
        .main()
        .entries()
        .map(|(k, v)| format!("{k}: {v}\n"))
        .collect();
    lines.sort();
    text.push_str(&lines.concat());
    for (name, section) in config.snapshots() {
        text.push_str(&format!("\n[{name}]\n"));
        for (k, v) in section.entries() {
            text.push_str(&format!("{k}: {v}\n"));
        }
    }
    VmConfig::parse(&text).unwrap()
}

#[test]
fn a_file_rewritten_by_proxmox_stays_what_it_was() {
    let vm = setup("windows", &[]);
    let all = ["efidisk0", "scsi0", "scsi1", "tpmstate0"];
    let text = vm.render(&[generation("rbs1", 1, &all)], None).unwrap();
    let replica = VmConfig::parse(&text).unwrap();
    let same = rewritten_by_proxmox(&replica, str::to_owned);
    assert_eq!(same.to_string(), text);
    for edit in [
        |d: &str| format!("my own note: first\n\n{d}\nand last"),
        |d: &str| d.replace('\n', "\r\n"),
        |d: &str| d.lines().rev().map(|l| format!("  {l}\n")).collect(),
    ] {
        let edited = rewritten_by_proxmox(&replica, edit);
        assert_eq!(standing(&edited, PAIR), Standing::Standby, "{edited}");
    }
    let wiped = rewritten_by_proxmox(&replica, |_| String::new());
    assert_eq!(standing(&wiped, PAIR), Standing::Foreign);
    let unlocked = VmConfig::parse(&text.replace("lock: migrate\n", "")).unwrap();
    assert_eq!(standing(&unlocked, PAIR), Standing::TakenOver);
    let by_proxmox = VmConfig::parse(&text.replace("lock: migrate", "lock: backup")).unwrap();
    assert_eq!(standing(&by_proxmox, PAIR), Standing::TakenOver);
}

#[test]
fn the_mark_cannot_be_forged_by_names_of_the_source() {
    let forged = Uuid::from_u128(7);
    let text = format!(
        "#[rblocksync] rblocksync-pair: {forged}\n#x%0A[rblocksync] rblocksync-pair: {forged}\n\
         name: [rblocksync] rblocksync-pair: {forged}\nscsi0: local-lvm:vm-101-disk-0,size=1G\n"
    );
    let config = VmConfig::parse(&text).unwrap();
    let vmid = Vmid::new(101).unwrap();
    let resolved = resolve(vmid, &config, &storages(), "pve1", &[]).unwrap();
    let vm = setup_of(config, resolved);
    assert_eq!(pair_of(&vm.parsed()), Some(PAIR));
    let host = format!("pve1\n[rblocksync] rblocksync-pair: {forged}\n");
    let replica = vm.render_from(&host, &[], None).unwrap();
    assert_eq!(
        pair_of(&VmConfig::parse(&replica).unwrap()),
        Some(PAIR),
        "{replica}"
    );
    assert!(!is_our_replica(
        &rewritten_by_proxmox(&vm.parsed(), str::to_owned),
        forged
    ));
}

#[test]
fn a_standby_replica_is_no_source_but_one_taken_over_is() {
    let vm = setup("cloudinit", &[]);
    let replica = vm.parsed();
    let storages = StorageCfg::parse("lvmthin: fast\n\tvgname vg0\n\tthinpool pool\n");
    let e = resolve(vm.target_vmid, &replica, &storages, "pve2", &[]).unwrap_err();
    insta::assert_snapshot!(e.to_string());
    let standby = Setup {
        config: replica.clone(),
        ..setup("cloudinit", &[])
    };
    assert!(standby.render(&[], None).is_err());

    let active = VmConfig::parse(&replica.to_string().replace("lock: migrate\n", "")).unwrap();
    let resolved = resolve(vm.target_vmid, &active, &storages, "pve2", &[]).unwrap();
    let back = setup_of(active, resolved).parsed();
    assert_eq!(
        back.main()
            .description()
            .matches("rblocksync-pair:")
            .count(),
        1
    );
    assert_eq!(back.get("tags"), Some("rblocksync-replica"));
}

#[test]
fn a_disk_without_a_volume_on_the_target_is_an_error() {
    let mut vm = setup("cloudinit", &[]);
    let gone = vm.volumes.keys().next().unwrap().clone();
    vm.volumes.remove(&gone);
    let e = vm.render(&[], None).unwrap_err().to_string();
    assert!(e.contains(&gone.to_string()), "{e}");
}
