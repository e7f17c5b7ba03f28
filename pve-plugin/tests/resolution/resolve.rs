//! Which disks are replicated, skipped or refused.

use crate::{fixture, resolve_fixture, storages};
use pvesync::disks::{resolve, Location, Resolved, SkipReason};
use pvesync::vm_config::VmConfig;
use pvesync::volid::Vmid;
use rblocksync::error::Kind;
use rblocksync::image::ImageFormat;
use std::path::PathBuf;

fn disks(resolved: &Resolved) -> Vec<(String, PathBuf, Option<u64>)> {
    let tell = |d: &pvesync::disks::Disk| (d.key.to_string(), d.location.path(), d.size);
    resolved.disks.iter().map(tell).collect()
}

fn skipped(resolved: &Resolved) -> Vec<(&str, &SkipReason)> {
    resolved
        .skipped
        .iter()
        .map(|s| (s.key.as_str(), &s.reason))
        .collect()
}

fn refusal(name: &str, exclude: &[&str]) -> (Kind, String) {
    let e = resolve_fixture(name, exclude).unwrap_err();
    (e.kind(), e.to_string())
}

#[test]
fn efi_tpm_thin_and_file_disks_are_all_replicated() {
    let resolved = resolve_fixture("windows", &[]).unwrap();
    assert_eq!(
        disks(&resolved),
        [
            (
                "efidisk0".into(),
                "/dev/pve/vm-110-disk-0".into(),
                Some(4 << 20)
            ),
            (
                "scsi0".into(),
                "/dev/pve/vm-110-disk-1".into(),
                Some(64 << 30)
            ),
            (
                "scsi1".into(),
                "/mnt/ssd/images/110/vm-110-disk-0.qcow2".into(),
                Some(200 << 30)
            ),
            (
                "tpmstate0".into(),
                "/dev/pve/vm-110-disk-2".into(),
                Some(4 << 20)
            ),
        ]
    );
    assert_eq!(
        skipped(&resolved),
        [("ide0", &SkipReason::Cd), ("ide2", &SkipReason::Empty)]
    );
    assert_eq!(
        resolved.disks[0].location,
        Location::LvmThin {
            vg: "pve".into(),
            lv: "vm-110-disk-0".into(),
            pool: "data".into()
        }
    );
    assert!(matches!(
        resolved.disks[2].location,
        Location::File {
            format: ImageFormat::Qcow2,
            ..
        }
    ));
}

#[test]
fn a_cloud_init_drive_is_left_to_proxmox() {
    let resolved = resolve_fixture("cloudinit", &[]).unwrap();
    assert_eq!(
        disks(&resolved),
        [
            (
                "scsi0".into(),
                "/dev/pve/vm-101-disk-0".into(),
                Some(32 << 30)
            ),
            (
                "scsi1".into(),
                "/mnt/ssd/images/101/vm-101-disk-1.raw".into(),
                Some(10 << 30)
            ),
        ]
    );
    assert_eq!(skipped(&resolved), [("ide2", &SkipReason::CloudInit)]);
    assert!(resolved.notes.is_empty(), "{:?}", resolved.notes);
}

#[test]
fn pending_changes_and_snapshots_are_told_not_followed() {
    let resolved = resolve_fixture("snapshots", &[]).unwrap();
    assert_eq!(
        disks(&resolved),
        [
            (
                "scsi0".into(),
                "/dev/pve/vm-120-disk-3".into(),
                Some(40 << 30)
            ),
            (
                "scsi1".into(),
                "/dev/pve/vm-120-disk-1".into(),
                Some(100 << 30)
            ),
        ]
    );
    assert_eq!(skipped(&resolved), [("unused0", &SkipReason::Unused)]);
    insta::assert_snapshot!(resolved.notes.join("\n"));
}

#[test]
fn old_spellings_are_understood() {
    let resolved = resolve_fixture("oldstyle", &[]).unwrap();
    assert_eq!(
        disks(&resolved),
        [
            (
                "ide0".into(),
                "/mnt/ssd/images/160/vm-160-disk-1.qcow2".into(),
                Some(10 << 30)
            ),
            (
                "ide1".into(),
                "/mnt/ssd/images/160/data.raw".into(),
                Some(5 << 30)
            ),
        ]
    );
    assert_eq!(skipped(&resolved), [("ide2", &SkipReason::Cd)]);
    let without = resolve_fixture("oldstyle", &["cdrom", "ide1"]).unwrap();
    assert_eq!(without.disks.len(), 1);
}

#[test]
fn every_disk_in_the_way_is_named_with_the_way_out() {
    let (kind, text) = refusal("troubles", &[]);
    assert_eq!(kind, Kind::Refused);
    insta::assert_snapshot!(text);
}

#[test]
fn what_is_excluded_is_listed_as_skipped() {
    let exclude = [
        "args", "efidisk0", "ide3", "nvme0", "sata0", "sata1", "sata2", "sata3", "sata4", "sata5",
        "scsi1", "scsi2", "scsi3", "scsi4", "scsi5", "scsi6", "scsi7", "scsi8",
    ];
    let resolved = resolve_fixture("troubles", &exclude).unwrap();
    assert_eq!(disks(&resolved).len(), 1);
    let excluded: Vec<_> = resolved
        .skipped
        .iter()
        .filter(|s| s.reason == SkipReason::Excluded)
        .map(|s| s.key.as_str())
        .collect();
    let mut sorted = excluded.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, exclude);
    assert!(resolved
        .skipped
        .iter()
        .any(|s| s.key == "scsi9" && s.reason == SkipReason::ReplicateOff));
    // One forgotten, and it is an error again.
    for (at, key) in exclude.iter().enumerate() {
        let mut fewer = exclude.to_vec();
        fewer.remove(at);
        let (_, text) = refusal("troubles", &fewer);
        assert!(
            text.contains(&format!("(to go without, say so: --exclude {key})")),
            "{text}"
        );
    }
}

#[test]
fn an_exclusion_must_name_a_disk_of_the_vm() {
    for wrong in ["scsi5", "name", "", "scsi0,scsi1", "memory"] {
        let (kind, text) = refusal("cloudinit", &["scsi1", wrong]);
        assert_eq!(kind, Kind::Usage, "{text}");
        assert!(
            text.ends_with("(its disks are ide2, scsi0, scsi1)"),
            "{text}"
        );
    }
    let (kind, text) = refusal("cloudinit", &["scsi0", "scsi1"]);
    assert_eq!(
        (kind, text.as_str()),
        (Kind::Refused, "VM 101 has no disk to replicate")
    );
}

#[test]
fn locked_vms_are_refused() {
    let texts: Vec<String> = ["locked", "suspended"]
        .map(|name| {
            let (kind, text) = refusal(name, &[]);
            format!("{kind:?}: {text}")
        })
        .to_vec();
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn skipped_lines_of_the_file_are_told() {
    let config = VmConfig::parse("scsi0: local-lvm:vm-101-disk-0\nodd line\n").unwrap();
    let vmid = Vmid::new(101).unwrap();
    let resolved = resolve(vmid, &config, &storages(), "pve1", &[]).unwrap();
    assert_eq!(
        resolved.notes,
        ["configuration line 2: \"odd line\" is skipped: not understood"]
    );
}

#[test]
fn qemu_arguments_that_name_no_drive_are_no_disk() {
    for (args, is_disk) in [
        ("-device vhost-vsock-pci,guest-cid=3", false),
        ("-cpu host,-hda", false),
        ("--drive file=/x", true),
        ("-blockdev driver=file,filename=/x", true),
        ("-hda /dev/sdb", true),
    ] {
        let text = format!("args: {args}\nscsi0: local-lvm:vm-101-disk-0\n");
        let config = VmConfig::parse(&text).unwrap();
        let found = resolve(Vmid::new(101).unwrap(), &config, &storages(), "pve1", &[]);
        assert_eq!(found.is_err(), is_disk, "{args}");
    }
}

#[test]
fn a_description_brings_no_disks() {
    let (_, config) = fixture("description");
    assert!(config.to_string().contains("vm-140-disk-7"));
    let resolved = resolve_fixture("description", &[]).unwrap();
    assert_eq!(resolved.disks.len(), 1);
    assert!(resolved.skipped.is_empty());
}

#[test]
fn a_linked_clone_is_a_disk_like_any_other() {
    let volid = "ssd:100/base-100-disk-0.qcow2/101/vm-101-disk-5.qcow2";
    let config = VmConfig::parse(&format!("scsi0: {volid},size=1G\n")).unwrap();
    let vmid = Vmid::new(101).unwrap();
    let resolved = resolve(vmid, &config, &storages(), "pve1", &[]).unwrap();
    assert_eq!(
        resolved.disks[0].location,
        Location::File {
            path: "/mnt/ssd/images/101/vm-101-disk-5.qcow2".into(),
            format: ImageFormat::Qcow2,
        }
    );
}
