//! What is read instead of the disks.

use crate::vm::{launcher, take_disks, Vm, LONG};
use rblocksync::error::Kind;
use rblocksync::lvm::OwnerTag;
use rblocksync::snapshot::{self, Consistency, DiskSource, SnapshotKind, VmRuntime};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use uuid::Uuid;

const MIB: u64 = 1 << 20;

/// A fresh XFS, unmounted when dropped.
struct Xfs {
    dir: tempfile::TempDir,
}

impl Xfs {
    /// `None` with the reason printed where the test may not mount.
    fn mount() -> Option<Xfs> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::File::create(&image)
            .unwrap()
            .set_len(400 * MIB)
            .unwrap();
        let at = dir.path().join("at");
        fs::create_dir(&at).unwrap();
        let run = |name: &str, args: &[&dyn AsRef<std::ffi::OsStr>]| {
            let done = Command::new(name)
                .args(args.iter().map(|a| a.as_ref()))
                .output();
            done.is_ok_and(|d| d.status.success())
        };
        if !run("/usr/sbin/mkfs.xfs", &[&"-q", &image])
            || !run("mount", &[&"-o", &"loop", &image, &at])
        {
            println!("skipped: cannot make and mount an XFS here");
            return None;
        }
        Some(Xfs { dir })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("at").join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join("at")).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let at = self.dir.path().join("at");
        let done = Command::new("umount").arg(&at).status();
        assert!(done.is_ok_and(|s| s.success()) || std::thread::panicking());
    }
}

fn image(path: &Path) -> DiskSource {
    fs::File::create(path).unwrap().set_len(8 * MIB).unwrap();
    DiskSource::Path(path.to_owned())
}

fn byte_at(path: &Path, offset: usize) -> u8 {
    fs::read(path).unwrap()[offset]
}

fn stopped_vm(stopped: &Arc<AtomicBool>) -> VmRuntime {
    let stopped = stopped.clone();
    VmRuntime {
        state: None,
        qmp: None,
        manager: None,
        agent: None,
        stopped: Box::new(move || Ok(stopped.load(Ordering::SeqCst))),
        launcher: launcher(),
    }
}

#[test]
fn clones_of_a_running_vm_show_one_moment_and_go_when_released() {
    let Some(xfs) = Xfs::mount() else { return };
    let (a, b) = (xfs.file("a b.raw"), xfs.file("b.raw"));
    let disks = [image(&a), image(&b)];
    let Some(mut vm) = Vm::start(&[&a, &b]) else {
        return;
    };
    vm.write(0, 0x11, 0, MIB);
    vm.write(1, 0x11, 0, MIB);
    let owner = OwnerTag::new(Uuid::new_v4());
    let mut point = take_disks("run1", &disks, vm.runtime(false), &owner, LONG).unwrap();
    assert_eq!(vm.take_events(), ["STOP", "RESUME"]);
    vm.write(0, 0x22, 0, MIB);
    vm.write(1, 0x22, 0, MIB);

    assert_eq!(point.consistency, Consistency::Crash);
    point.still_valid().unwrap();
    assert_eq!(point.disks[0].path, xfs.file(".a b.raw.rbs-run1"));
    for (disk, source) in point.disks.iter().zip(&disks) {
        assert_eq!((&disk.source, &disk.kind), (source, &SnapshotKind::Clone));
        assert_eq!(fs::metadata(&disk.path).unwrap().len(), 8 * MIB);
        assert_eq!(
            (byte_at(&disk.path, 0), byte_at(&disk.path, 4096)),
            (0x11, 0x11)
        );
    }
    assert_eq!((byte_at(&a, 0), byte_at(&b, 0)), (0x22, 0x22));
    point.release().unwrap();
    point.release().unwrap();
    assert_eq!(xfs.names(), ["a b.raw", "b.raw"]);

    // Dropped without being released.
    drop(take_disks("run2", &disks, vm.runtime(false), &owner, LONG).unwrap());
    assert_eq!(xfs.names(), ["a b.raw", "b.raw"]);
}

#[test]
fn what_a_killed_run_left_is_swept_and_nothing_else() {
    let Some(xfs) = Xfs::mount() else { return };
    let disk = image(&xfs.file("disk"));
    let owner = OwnerTag::new(Uuid::new_v4());
    let stopped = Arc::new(AtomicBool::new(true));
    let take = |run: &str, owner: &OwnerTag| {
        let disks = std::slice::from_ref(&disk);
        take_disks(run, disks, stopped_vm(&stopped), owner, LONG).unwrap()
    };
    std::mem::forget(take("dead", &owner));
    let others = take("live", &OwnerTag::new(Uuid::new_v4()));
    fs::write(xfs.file(".disk.rbs-user"), "made by hand").unwrap();
    assert_eq!(
        xfs.names(),
        [".disk.rbs-dead", ".disk.rbs-live", ".disk.rbs-user", "disk"]
    );

    let gone = DiskSource::Path(xfs.file("gone"));
    let swept = snapshot::sweep(std::slice::from_ref(&owner), &[disk.clone(), gone]).unwrap();
    assert_eq!(
        swept.removed,
        [xfs.file(".disk.rbs-dead").display().to_string()]
    );
    assert!(swept.problems.is_empty());
    assert_eq!(xfs.names(), [".disk.rbs-live", ".disk.rbs-user", "disk"]);
    drop(others);
}

#[test]
fn a_failure_in_the_middle_leaves_nothing_and_the_guest_running() {
    let Some(xfs) = Xfs::mount() else { return };
    let (a, b) = (xfs.file("a"), xfs.file("b"));
    let disks = [image(&a), image(&b)];
    let Some(mut vm) = Vm::start(&[&a, &b]) else {
        return;
    };
    // The name of the second clone is taken, and not by us.
    fs::write(xfs.file(".b.rbs-run1"), "made by hand").unwrap();
    let owner = OwnerTag::new(Uuid::new_v4());
    let error = take_disks("run1", &disks, vm.runtime(false), &owner, LONG).unwrap_err();
    assert!(error.to_string().contains("cannot clone"), "{error}");
    assert_eq!(xfs.names(), [".b.rbs-run1", "a", "b"]);
    assert_eq!(vm.status(), "running");
}

#[test]
fn a_running_vm_on_a_file_system_without_clones_is_refused_untouched() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("disk");
    let disk = image(&path);
    let Some(mut vm) = Vm::start(&[&path]) else {
        return;
    };
    let owner = OwnerTag::new(Uuid::new_v4());
    let error = take_disks("run1", &[disk], vm.runtime(false), &owner, LONG).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    let text = error.to_string();
    assert!(
        text.contains(&format!("disk {}", path.display())) && text.contains("stop the VM"),
        "{text}"
    );
    assert_eq!(vm.take_events(), Vec::<String>::new());
}

#[test]
fn a_stopped_vm_is_read_in_place_and_must_stay_stopped_and_unchanged() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("disk");
    let disks = [image(&path)];
    let owner = OwnerTag::new(Uuid::new_v4());
    let stopped = Arc::new(AtomicBool::new(true));
    let take = || take_disks("run1", &disks, stopped_vm(&stopped), &owner, LONG);

    let mut point = take().unwrap();
    assert_eq!(point.consistency, Consistency::Offline);
    assert_eq!(
        (&point.disks[0].path, &point.disks[0].kind),
        (&path, &SnapshotKind::Direct)
    );
    point.still_valid().unwrap();
    fs::write(&path, "changed").unwrap();
    assert_eq!(point.still_valid().unwrap_err().kind(), Kind::Busy);
    point.release().unwrap();
    assert!(path.exists());

    let point = take().unwrap();
    stopped.store(false, Ordering::SeqCst);
    let error = point.still_valid().unwrap_err();
    assert!(error.to_string().contains("was started"), "{error}");
    assert_eq!(take().unwrap_err().kind(), Kind::Refused);
}

#[test]
fn what_cannot_be_a_disk_or_a_run() {
    let owner = OwnerTag::new(Uuid::new_v4());
    let stopped = Arc::new(AtomicBool::new(true));
    let take = |run: &str, path: &str| {
        let disks = [DiskSource::Path(path.into())];
        let vm = stopped_vm(&stopped);
        take_disks(run, &disks, vm, &owner, LONG)
            .unwrap_err()
            .kind()
    };
    for run in ["", "../x", "A", "a-b", &"x".repeat(33)] {
        assert_eq!(take(run, "/dev/shm/x"), Kind::Usage, "{run}");
    }
    assert_eq!(take("run1", "/dev/shm/no such file"), Kind::NotFound);
    assert_eq!(take("run1", "/dev/null"), Kind::Usage);
}
