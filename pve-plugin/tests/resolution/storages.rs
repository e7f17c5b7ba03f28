//! Every kind of storage, and which disks a user may add or leave out.

use crate::{fixture, storages};
use pvesync::disks::{locate, resolve_with, Choice, Resolved, SkipReason};
use pvesync::drive::DiskKey;
use pvesync::replica_config::{render, Generation, ReplicaSpec, TargetVolume};
use pvesync::vm_config::VmConfig;
use pvesync::volid::{Format, Role, Vmid, Volid};
use rblocksync::error::{Kind, Result};
use std::collections::BTreeMap;
use uuid::Uuid;

fn resolved(name: &str, choice: &Choice) -> Result<Resolved> {
    let (vmid, config) = fixture(name);
    resolve_with(vmid, &config, &storages(), "pve1", choice)
}

fn excluding(exclude: &[&str]) -> Choice {
    let exclude: Vec<String> = exclude.iter().map(|s| s.to_string()).collect();
    Choice::without(&exclude)
}

fn keys(resolved: &Resolved) -> Vec<String> {
    resolved.disks.iter().map(|d| d.key.to_string()).collect()
}

fn skipped(resolved: &Resolved, reason: SkipReason) -> Vec<&str> {
    let skipped = resolved.skipped.iter().filter(|s| s.reason == reason);
    skipped.map(|s| s.key.as_str()).collect()
}

#[test]
fn each_kind_of_storage_has_its_own_places() {
    let choice = Choice {
        include_shared: true,
        include_unused: true,
        ..excluding(&["unused1"])
    };
    let resolved = resolved("storages", &choice).unwrap();
    let mut lines: Vec<String> = resolved
        .disks
        .iter()
        .map(|d| {
            let (path, format) = (d.location.path(), d.location.format());
            format!("{} {} is {} ({format})", d.key, d.volid, path.display())
        })
        .collect();
    lines.extend(resolved.notes);
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn shared_storages_are_refused_unless_they_are_asked_for() {
    let error = resolved("storages", &Choice::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    let text = error.to_string();
    for shared in ["sata1", "sata2", "scsi4", "scsi5"] {
        assert!(text.contains(&format!("--exclude {shared}")), "{text}");
    }
    assert_eq!(text.matches("--include-shared").count(), 4, "{text}");
    assert_eq!(text.matches("--exclude ").count(), 4, "{text}");
}

#[test]
fn disks_without_backup_are_replicated_unless_they_are_to_be_skipped() {
    let shared = ["sata1", "sata2", "scsi4", "scsi5"];
    let usual = resolved("storages", &excluding(&shared)).unwrap();
    assert!(keys(&usual).contains(&"scsi6".to_owned()));
    let without = Choice {
        skip_no_backup: true,
        ..excluding(&shared)
    };
    let without = resolved("storages", &without).unwrap();
    assert_eq!(skipped(&without, SkipReason::NoBackup), ["scsi6"]);
    assert_eq!(keys(&without).len() + 1, keys(&usual).len());
    assert_eq!(skipped(&usual, SkipReason::Unused), ["unused0", "unused1"]);
}

#[test]
fn unattached_volumes_are_disks_if_they_are_asked_for_but_saved_memory_is_not() {
    let mut choice = Choice {
        include_unused: true,
        ..excluding(&["sata1", "sata2", "scsi4", "scsi5"])
    };
    let error = resolved("storages", &choice).unwrap_err().to_string();
    assert!(
        error.contains("unused1 (local-lvm:vm-180-state-before): is saved memory, not a disk"),
        "{error}"
    );
    choice.exclude.push("unused1".into());
    let resolved = resolved("storages", &choice).unwrap();
    assert!(keys(&resolved).contains(&"unused0".to_owned()));

    // Such a line has no options, and no place in a snapshot.
    let (_, config) = fixture("storages");
    let text = replica_of(&config, &resolved, true);
    let replica = VmConfig::parse(&text).unwrap();
    assert_eq!(replica.get("unused0"), Some("ssd:980/vm-980-disk-9.raw"));
    assert!(replica.get("unused1").is_none());
    let (_, section) = replica.snapshots().next().unwrap();
    assert!(section.get("unused0").is_none() && section.get("scsi0").is_some());
    // Firmware and TPM keep their options.
    assert_eq!(
        replica.get("efidisk0"),
        Some("ssd:980/vm-980-disk-0.raw,efitype=4m,pre-enrolled-keys=1,size=528K")
    );
    let tpm = replica.get("tpmstate0").unwrap();
    assert!(tpm.ends_with(",size=4M,version=v2.0"), "{tpm}");
}

/// A replica on the directory storage, with one generation if it is to have snapshots.
fn replica_of(config: &VmConfig, resolved: &Resolved, with_snapshots: bool) -> String {
    let storages = storages();
    let entry = storages.get("ssd").unwrap();
    let target_vmid = Vmid::new(resolved.vmid.get() + 800).unwrap();
    let mut volumes = BTreeMap::new();
    for (n, disk) in (0..).zip(&resolved.disks) {
        let volid = match config.is_template() {
            true => entry.base_volid(target_vmid, n, Format::Raw).unwrap(),
            false => entry.disk_volid(target_vmid, n, Format::Raw).unwrap(),
        };
        let size = match disk.key.to_string().as_str() {
            "efidisk0" => Some(528 << 10),
            _ => disk.size.or(Some(1 << 30)),
        };
        volumes.insert(disk.volid.clone(), TargetVolume { volid, size });
    }
    let generation = Generation {
        name: "rbs1".into(),
        time: 1,
        snapshots: resolved.disks.iter().map(|d| d.key).collect(),
    };
    let generations = match with_snapshots {
        true => vec![generation],
        false => Vec::new(),
    };
    render(&ReplicaSpec {
        pair: Uuid::from_u128(7),
        source_host: "pve1",
        source_vm: &resolved.vmid.to_string(),
        config,
        resolved,
        target_vmid,
        volumes: &volumes,
        generations: &generations,
        maps: &Default::default(),
        previous: None,
    })
    .unwrap()
}

#[test]
fn a_template_is_replicated_as_one_and_has_no_snapshots() {
    let (_, config) = fixture("template");
    let resolved = resolved("template", &Choice::default()).unwrap();
    assert_eq!(keys(&resolved), ["scsi0", "scsi1"]);
    assert_eq!(
        resolved.notes,
        ["it is a template, and so will be the replica"]
    );
    let text = replica_of(&config, &resolved, true);
    let replica = VmConfig::parse(&text).unwrap();
    assert!(replica.is_template() && replica.lock() == Some("migrate"));
    assert_eq!(replica.snapshots().count(), 0);
    assert!(replica
        .get("scsi0")
        .unwrap()
        .starts_with("ssd:900/base-900-disk-0.raw,"));
    insta::assert_snapshot!(replica.main().description());

    // Somebody else's base is none of this VM's disks.
    let stranger = config.to_string().replace("template: 1\n", "");
    let stranger = VmConfig::parse(&stranger).unwrap();
    let vmid = Vmid::new(100).unwrap();
    let error = resolve_with(vmid, &stranger, &storages(), "pve1", &Choice::default());
    assert!(error
        .unwrap_err()
        .to_string()
        .contains("is the base image of a template"));
}

#[test]
fn whoever_only_looks_passes_over_what_is_in_the_way() {
    let all = resolved("troubles", &Choice::everything()).unwrap();
    assert!(keys(&all).contains(&"scsi0".to_owned()));
    let passed = skipped(&all, SkipReason::LeftOut);
    for key in ["efidisk0", "sata0", "scsi1"] {
        assert!(passed.contains(&key), "{passed:?}");
    }
}

#[test]
fn a_disk_on_a_renamed_storage_names_those_there_are() {
    let config = VmConfig::parse("scsi0: local-lvm2:vm-101-disk-0,size=1G\n").unwrap();
    let vmid = Vmid::new(101).unwrap();
    let error = resolve_with(vmid, &config, &storages(), "pve1", &Choice::default());
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("storage local-lvm2 does not exist; there are local, local-lvm, ssd"),
        "{text}"
    );
}

#[test]
fn names_that_no_such_storage_has_are_refused() {
    let storages = storages();
    for (storage, volname) in [
        ("san", "101/vm-101-disk-0.raw"),
        ("san", "snap_vm-101-disk-0_s1"),
        ("san", "vm-101-disk-0.qcow2"),
        ("tank", "vm-100-disk-0/vm-101-disk-0"),
        ("tank", "base-100-disk-0/../vm-101-disk-0x"),
        ("tank", "base-100-disk-0/base-100-disk-1/vm-101-disk-0"),
        ("ceph", "vm-101-disk-0@snap"),
        ("ceph", "data"),
        ("data", "vm-101-disk-0"),
        ("data", "101/vm-101-disk-0.subvol"),
        ("smb", "101/vm-101-disk-0.vmdk"),
    ] {
        let entry = storages.get(storage).unwrap();
        let found = Volid::new(storage, volname).and_then(|volid| locate(entry, &volid));
        assert!(found.is_err(), "{storage}:{volname} is {found:?}");
    }
    let base = Volid::new("tank", "base-100-disk-0").unwrap();
    let (volume, _) = locate(storages.get("tank").unwrap(), &base).unwrap();
    assert_eq!(volume.role, Role::Base);
    assert!(DiskKey::parse("unused256").is_none());
}
