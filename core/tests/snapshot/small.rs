//! Disks that QEMU cannot keep, and what lies behind a stopped VM's images.

use crate::vm::{launcher, Vm, LONG};
use rblocksync::agent::BlockEnd;
use rblocksync::error::Kind;
use rblocksync::image::{ImageFormat, TargetOptions};
use rblocksync::lvm::OwnerTag;
use rblocksync::qemu::ScratchSpace;
use rblocksync::snapshot::{self, DiskSource, PointInTime, Request, SnapshotKind, VmRuntime};
use rblocksync::stop::Stop;
use rblocksync::sync::{Geometry, Meter, Params, Tuning};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use uuid::Uuid;

const MIB: u64 = 1 << 20;

fn raw(path: &Path, size: u64, byte: u8) {
    fs::write(path, vec![byte; size as usize]).unwrap();
}

fn take(
    disks: &[(&Path, ImageFormat)],
    vm: VmRuntime,
    scratch: &Path,
) -> rblocksync::error::Result<PointInTime> {
    let owner = OwnerTag::new(Uuid::new_v4());
    let request = Request {
        run: "run1",
        disks: disks
            .iter()
            .map(|(path, format)| snapshot::Wanted {
                source: DiskSource::Path(path.to_path_buf()),
                format: *format,
                since: None,
            })
            .collect(),
        owner: &owner,
        hold_max: LONG,
        scratch: Some(ScratchSpace {
            dir: scratch.to_owned(),
            bytes_max: Some(256 * MIB),
        }),
        bitmaps: "rbs-test-".into(),
        bitmap_next: None,
    };
    snapshot::take(&request, vm)
}

#[test]
fn firmware_and_tpm_of_a_running_vm_are_copied_while_it_is_held() {
    // No reflinks there.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let [efi, tpm, data] = ["efi", "tpm", "data"].map(|name| dir.path().join(name));
    raw(&efi, 528 << 10, 1);
    raw(&tpm, 4 * MIB, 1);
    raw(&data, 64 * MIB, 1);
    // The TPM's belongs to another program.
    let Some(mut vm) = Vm::start(&[&efi, &data]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    // As a killed run leaves it.
    let left = scratch.path().join("rbs-dead-small");
    fs::create_dir(&left).unwrap();
    vm.write(0, 2, 0, 4096);
    let disks = [&efi, &tpm, &data].map(|path| (path.as_path(), ImageFormat::Raw));
    let mut point = take(&disks, vm.runtime(false), scratch.path()).unwrap();
    let mut events = vm.take_events();
    events.retain(|event| event != "JOB_STATUS_CHANGE");
    assert_eq!(events, ["STOP", "RESUME"]);
    assert!(!left.exists());
    vm.write(0, 3, 0, 4096);
    raw(&tpm, 4 * MIB, 3);
    let kinds: Vec<_> = point.disks.iter().map(|disk| &disk.kind).collect();
    assert!(
        matches!(
            kinds[..],
            [
                SnapshotKind::Copy,
                SnapshotKind::Copy,
                SnapshotKind::Export(_)
            ]
        ),
        "{kinds:?}"
    );
    let copy = fs::read(&point.disks[0].path).unwrap();
    assert_eq!((copy.len(), copy[0], copy[4096]), (528 << 10, 2, 1));
    assert_eq!(fs::read(&point.disks[1].path).unwrap(), vec![1; 4 << 20]);
    point.still_valid().unwrap();
    point.release().unwrap();
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn small_disks_alone_need_no_help_of_qemus() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let efi = dir.path().join("efi");
    raw(&efi, 4 * MIB, 1);
    let Some(vm) = Vm::start(&[&efi]) else { return };
    let scratch = dir.path().join("scratch");
    fs::create_dir_all(scratch.join("rbs-dead-small")).unwrap();
    let disks = [(efi.as_path(), ImageFormat::Raw)];
    let point = take(&disks, vm.runtime(false), &scratch).unwrap();
    assert_eq!(point.disks[0].kind, SnapshotKind::Copy);
    assert_eq!(
        fs::read_dir(&scratch).unwrap().count(),
        1,
        "what was left is swept"
    );
    drop(point);
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
}

fn qemu_img(dir: &Path, args: &[&str]) -> bool {
    let mut command = Command::new("qemu-img");
    let done = command.current_dir(dir).args(args).output();
    match done {
        Ok(out) => {
            assert!(out.status.success(), "{out:?}");
            true
        }
        Err(e) => {
            println!("skipped: no qemu-img: {e}");
            false
        }
    }
}

fn stopped() -> VmRuntime {
    VmRuntime {
        state: None,
        qmp: None,
        manager: None,
        agent: None,
        stopped: Box::new(|| Ok(true)),
        launcher: launcher(),
    }
}

#[test]
fn a_snapshot_behind_a_stopped_vms_image_must_stay_as_it_is() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let (snap, top): (PathBuf, PathBuf) = (dir.path().join("snap.qcow2"), dir.path().join("top"));
    let made = qemu_img(
        dir.path(),
        &["create", "-q", "-f", "qcow2", "snap.qcow2", "8M"],
    ) && qemu_img(
        dir.path(),
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            "snap.qcow2",
            "-F",
            "qcow2",
            "top",
        ],
    );
    if !made {
        return;
    }
    let disks = [(top.as_path(), ImageFormat::Qcow2)];
    let scratch = dir.path().join("scratch");
    let mut point = take(&disks, stopped(), &scratch).unwrap();
    point.still_valid().unwrap();
    // As the removal of the snapshot does it.
    qemu_img(dir.path(), &["commit", "-q", "-d", "top"]);
    fs::File::options()
        .append(true)
        .open(&snap)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &[0; 512]))
        .unwrap();
    let error = point.still_valid().unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.message().contains("snap.qcow2"), "{error}");
    point.release().unwrap();
}

/// A snapshot as Proxmox VE 9 takes it where snapshots are chains: what the guest has written so far becomes the backing
/// image of a new one.
#[test]
fn of_a_running_vms_chain_all_is_kept_and_a_new_snapshot_ends_what_is_known() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let create = |args: &[&str]| {
        qemu_img(
            dir.path(),
            &[&["create", "-q", "-f", "qcow2"], args].concat(),
        )
    };
    if !create(&["snap.qcow2", "32M"]) {
        return;
    }
    let over = |top: &str, below: &str| create(&["-b", below, "-F", "qcow2", top]);
    over("top.qcow2", "snap.qcow2");
    let write = |file: &str, command: &str| {
        let mut io = Command::new("qemu-io");
        let out = io
            .args(["-f", "qcow2", "-c", command])
            .arg(dir.path().join(file));
        assert!(out.output().unwrap().status.success());
    };
    write("snap.qcow2", "write -P 1 0 2M");
    let top = dir.path().join("top.qcow2");
    let Some(mut vm) = Vm::start_with(&[(&top, "qcow2")], &[]) else {
        return;
    };
    vm.write(0, 2, MIB, 4096);
    let scratch = dir.path().join("scratch");
    let take = |vm: &Vm, path: &Path, since: Option<&str>| {
        let owner = OwnerTag::new(Uuid::new_v4());
        let request = Request {
            run: "run1",
            disks: vec![snapshot::Wanted {
                source: DiskSource::Path(path.to_owned()),
                format: ImageFormat::Qcow2,
                since: since.map(str::to_owned),
            }],
            owner: &owner,
            hold_max: LONG,
            scratch: Some(ScratchSpace {
                dir: scratch.clone(),
                bytes_max: Some(256 * MIB),
            }),
            bitmaps: "rbs-test-".into(),
            bitmap_next: Some("rbs-test-1".into()),
        };
        snapshot::take(&request, vm.runtime(false)).unwrap()
    };
    let read = |point: &PointInTime, at: u64| {
        let SnapshotKind::Export(export) = &point.disks[0].kind else {
            panic!("{:?}", point.disks[0].kind)
        };
        let (mut end, opened) = BlockEnd::export(export, "disk".into()).unwrap();
        assert_eq!(opened.size, 32 * MIB);
        let copy = dir.path().join("copy");
        let options = TargetOptions {
            create: true,
            ..TargetOptions::default()
        };
        let (mut target, _) = BlockEnd::target(&copy, options).unwrap();
        target.resize(opened.size).unwrap();
        let params = Params::new(
            Geometry::new(opened.size, 4096).unwrap(),
            &Tuning::default(),
        );
        target
            .sync_from(&mut end, &params, &Meter::new(), &Stop::new())
            .unwrap();
        target.commit().unwrap();
        let byte = fs::read(&copy).unwrap()[at as usize];
        fs::remove_file(copy).unwrap();
        byte
    };
    let mut point = take(&vm, &top, None);
    vm.write(0, 9, 0, 3 * MIB);
    assert_eq!(read(&point, 512 << 10), 1, "what is behind the top");
    assert_eq!(read(&point, MIB), 2, "what is in it");
    point.keep_as_bases(1).unwrap();
    point.release().unwrap();

    over("new.qcow2", "top.qcow2");
    let new = dir.path().join("new.qcow2");
    let node = json!({
        "node-name": "new", "driver": "qcow2", "backing": null,
        "file": {"driver": "file", "filename": new},
    });
    let side = vm.side();
    side.execute("blockdev-add", node, LONG).unwrap();
    let snapshot = json!({"node": "n0", "overlay": "new"});
    side.execute("blockdev-snapshot", snapshot, LONG).unwrap();
    vm.write(0, 3, 4 * MIB, 4096);
    let mut point = take(&vm, &new, Some("rbs-test-1"));
    let doubt = point.changed_since(&point.disks[0]).unwrap().unwrap_err();
    assert!(doubt.contains("no bitmap"), "{doubt}");
    assert_eq!(read(&point, 4 * MIB), 3);
    assert_eq!(read(&point, 2 * MIB), 9);
    point.release().unwrap();
}
