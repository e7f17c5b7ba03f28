//! Points in time of the lab's VMs, whose guests number their writes over all disks.

use crate::{lv, owner, path, sh, INSIDE, PROGRAM};
use rblocksync::buf::AlignedBuf;
use rblocksync::error::{Kind, Result};
use rblocksync::image::{Image, NbdImage, NbdOptions};
use rblocksync::lvm::{self, OwnerTag};
use rblocksync::qemu::qmp::Qmp;
use rblocksync::qemu::ScratchSpace;
use rblocksync::snapshot::{
    self, Consistency, DiskSource, PointInTime, Request, SnapshotKind, VmRuntime, WatchdogLauncher,
};
use rblocksync::thin;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::lab::pattern;

/// The name under which this program plays the run that is killed.
pub const VICTIM: &str = "victim";

const LONG: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(8);

fn qmp(vmid: u32) -> std::path::PathBuf {
    path(&format!("/var/run/qemu-server/{vmid}.qmp"))
}

fn status(vmid: u32) -> String {
    let mut monitor = Qmp::connect(&qmp(vmid), LONG).expect("a monitor");
    monitor.status(LONG).expect("a status").status
}

fn runtime(vmid: u32) -> VmRuntime {
    VmRuntime {
        state: None,
        qmp: Some(qmp(vmid)),
        manager: None,
        agent: None,
        stopped: Box::new(|| Ok(false)),
        launcher: WatchdogLauncher::this_executable(),
    }
}

fn disks_of_102() -> Vec<DiskSource> {
    vec![
        DiskSource::Lv(lv("vm-102-disk-0")),
        DiskSource::Path(path("/dev/pve/vm-102-disk-1")),
    ]
}

/// How many writes the images show, which must be of one moment.
fn writes(paths: &[&Path]) -> u32 {
    let mut files: Vec<File> = paths
        .iter()
        .map(|p| File::open(p).expect("opened"))
        .collect();
    let report = pattern::check(&mut files).expect("of one moment");
    assert!(report.writes > 0);
    report.writes
}

fn writes_of(point: &PointInTime) -> u32 {
    writes(
        &point
            .disks
            .iter()
            .map(|d| d.path.as_path())
            .collect::<Vec<_>>(),
    )
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts the VM, and waits until its guest has begun to write.
fn start(vmid: u32, disk: &str) {
    sh(&format!("qm start {vmid}"));
    let wrote = |b: &[u8]| b.iter().any(|b| *b != 0);
    until("a write", || {
        let at = pattern::REGION.start / 512;
        let script = format!("dd if={disk} bs=512 skip={at} count=1 iflag=direct status=none | od -An -tx1 -v | tr -d ' 0\\n'");
        wrote(sh(&script).as_bytes())
    });
}

fn take(
    run: &str,
    disks: &[DiskSource],
    vm: VmRuntime,
    owner: &OwnerTag,
    hold_max: Duration,
) -> Result<PointInTime> {
    let request = Request {
        run,
        disks: disks.iter().cloned().map(Into::into).collect(),
        owner,
        hold_max,
        scratch: None,
        bitmaps: "rbs-test-".into(),
        bitmap_next: None,
    };
    snapshot::take(&request, vm)
}

fn snapshots() -> Vec<String> {
    let lvs = lvm::list("pve").expect("listed");
    let names = lvs.into_iter().map(|lv| lv.id.name().to_owned());
    names.filter(|n| n.contains("_rbs")).collect()
}

pub fn thin_volumes_of_a_running_vm() {
    start(102, "/dev/pve/vm-102-disk-0");
    let mut last = 0;
    for run in ["one", "two"] {
        let mut point =
            take(run, &disks_of_102(), runtime(102), &owner(), DEADLINE).expect("taken");
        assert_eq!(status(102), "running");
        assert_eq!(point.consistency, Consistency::Crash);
        assert!(
            point.held_ms > 0 && point.held_ms < 8000,
            "{} ms",
            point.held_ms
        );
        println!("held for {} ms", point.held_ms);
        let now = writes_of(&point);
        assert!(now > last, "it went on in between");
        last = now;
        assert_eq!(writes_of(&point), now, "it does not go on in the snapshots");
        for disk in &point.disks {
            let SnapshotKind::Thin(id) = &disk.kind else {
                panic!("{:?}", disk.kind)
            };
            let lv = lvm::get(id).expect("there");
            assert!(lv.read_only && lv.active && lv.is_owned_by(&owner()));
            let mapped = thin::mapped(&lv).expect("mapped");
            assert!(mapped.total() > 0 && mapped.total() < lv.size / 2);
        }
        point.still_valid().expect("valid");
        point.release().expect("released");
        assert!(snapshots().is_empty());
    }
    sh("qm stop 102");
}

pub fn a_thin_volume_and_a_file_of_a_running_vm() {
    let file = "/var/lib/vz/images/101/vm-101-disk-0.raw";
    let disks = [
        DiskSource::Path(path("/dev/pve/vm-101-disk-0")),
        DiskSource::Path(path(file)),
    ];
    start(101, file);
    let mut point = take("mixed", &disks, runtime(101), &owner(), DEADLINE).expect("taken");
    assert_eq!(status(101), "running");
    println!("held for {} ms", point.held_ms);
    assert!(matches!(point.disks[0].kind, SnapshotKind::Thin(_)));
    assert_eq!(point.disks[1].kind, SnapshotKind::Clone);
    writes_of(&point);
    point.release().expect("released");
    assert!(snapshots().is_empty());
    assert_eq!(
        sh("ls -A /var/lib/vz/images/101 | grep -c rbs || true"),
        "0"
    );

    // A disk that cannot be had is refused before anything is done to the VM.
    sh("truncate -s 1M /dev/shm/plain.raw");
    let mut more = disks.to_vec();
    more.push(DiskSource::Path(path("/dev/shm/plain.raw")));
    let error = take("mixed", &more, runtime(101), &owner(), DEADLINE).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(snapshots().is_empty());
    // As is one of which only the snapshot fails: the name is taken.
    sh("lvcreate -qq -y -V 4m -n snap_vm-101-disk-0_rbstaken --thinpool pve/data");
    let taken = take("taken", &disks, runtime(101), &owner(), DEADLINE).unwrap_err();
    assert!(taken.to_string().contains("vm-101-disk-0"), "{taken}");
    assert_eq!(status(101), "running");
    assert_eq!(
        snapshots(),
        ["snap_vm-101-disk-0_rbstaken"],
        "not ours, not removed"
    );
    sh("lvremove -qq -y pve/snap_vm-101-disk-0_rbstaken; qm stop 101; rm /dev/shm/plain.raw");
}

pub fn a_thick_volume_is_kept_by_qemu() {
    sh("lvcreate -qq -y -L 64m -n vm-180-thick pve; lvcreate -qq -V 64m -n vm-180-disk-0 --thinpool pve/data
        dd if=/dev/zero of=/dev/pve/vm-180-thick bs=1M oflag=direct status=none || true
        printf 'name: thick\\nscsi0: /dev/pve/vm-180-thick\\nscsi1: local-lvm:vm-180-disk-0\\n' > /etc/pve/qemu-server/180.conf");
    start(180, "/dev/pve/vm-180-thick");
    let scratch = || ScratchSpace {
        dir: path("/var/lib/scratch"),
        bytes_max: None,
    };
    let owner = owner();
    let request = |next: u64| Request {
        run: "thick",
        disks: ["vm-180-thick", "vm-180-disk-0"]
            .map(|name| snapshot::Wanted {
                since: (next > 1).then(|| format!("rbs-test-{}", next - 1)),
                ..DiskSource::Lv(lv(name)).into()
            })
            .into(),
        owner: &owner,
        hold_max: DEADLINE,
        scratch: Some(scratch()),
        bitmaps: "rbs-test-".into(),
        bitmap_next: Some(format!("rbs-test-{next}")),
    };
    let mut last = 0;
    for next in [1, 2] {
        let mut point = snapshot::take(&request(next), runtime(180)).expect("taken");
        let SnapshotKind::Export(export) = &point.disks[0].kind else {
            panic!("{:?}", point.disks[0].kind)
        };
        let options = NbdOptions {
            bitmap: export.changed.clone(),
            ..NbdOptions::default()
        };
        let image = NbdImage::connect(&export.socket, &export.name, options).expect("exported");
        let region = || {
            let mut region = AlignedBuf::zeroed((pattern::SLOTS * pattern::SLOT) as usize);
            let read = image.read_at(&mut region, pattern::REGION.start);
            read.expect("read");
            region.to_vec()
        };
        let thin = sh(&format!(
            "dd if={} bs=1M skip=1 count=2 status=none > /tmp/region; echo /tmp/region",
            point.disks[1].path.display()
        ));
        let now = region();
        let both = [now.clone(), std::fs::read(thin).expect("read")];
        let report = pattern::check_regions(&both).expect("of one moment");
        assert!(report.writes > last, "{} writes", report.writes);
        last = report.writes;
        assert_eq!(region(), now, "it does not go on");
        if next == 2 {
            let dirty = image.dirty().expect("known");
            assert!(!dirty.is_empty() && dirty.total() <= 2 << 20, "{dirty:?}");
        }
        point.still_valid().expect("valid");
        point.keep_as_bases(next).expect("kept");
        drop(image);
        point.release().expect("released");
        sh("lvremove -qq -y $(lvs --noheadings -o lv_name pve | awk '/180-disk-0_rbs/ { print \"pve/\" $1 }')");
    }
    sh("qm stop 180; rm /etc/pve/qemu-server/180.conf; lvremove -qq -y pve/vm-180-thick pve/vm-180-disk-0");
}

pub fn a_stopped_vm() {
    start(102, "/dev/pve/vm-102-disk-0");
    sh("qm stop 102; lvchange -qq -an pve/vm-102-disk-0 pve/vm-102-disk-1");
    let stopped = || VmRuntime {
        state: None,
        qmp: None,
        manager: None,
        stopped: Box::new(|| Ok(sh("qm status 102") == "status: stopped")),
        ..runtime(102)
    };
    let point = take("off", &disks_of_102(), stopped(), &owner(), DEADLINE);
    let mut point = point.expect("taken, though the volumes are inactive");
    assert_eq!(
        (point.consistency, point.held_ms),
        (Consistency::Offline, 0)
    );
    writes_of(&point);
    point.release().expect("released");

    sh("qm start 102");
    let error = take("off", &disks_of_102(), stopped(), &owner(), DEADLINE).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(snapshots().is_empty());
    sh("qm stop 102");
}

/// Keeps lvm2 from doing anything to the group, as another lvm2 command that takes long does.
fn lock_group() -> File {
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open("/run/lock/lvm/V_pve")
        .expect("opened");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    lock
}

fn lvcreate_waits() -> bool {
    sh("pgrep -x -c lvcreate || true") != "0"
}

/// Takes a point in time of VM 102, but goes on with the guest held only when `/tmp/locked` is there.
fn take_held_up(run: &str, deadline: Duration) -> rblocksync::error::Result<PointInTime> {
    let script = format!(
        r#"exec 3<&0
        {PROGRAM} watchdog "$@" <&3 | {{
            read -r found; echo "$found"
            read -r held; touch /tmp/held
            while [ ! -e /tmp/locked ]; do sleep 0.02; done
            echo "$held"; cat
        }}"#
    );
    let launcher = WatchdogLauncher {
        exe: "/bin/bash".into(),
        args: vec!["-c".into(), script.into(), "launch".into()],
    };
    let vm = VmRuntime {
        state: None,
        launcher,
        ..runtime(102)
    };
    take(run, &disks_of_102(), vm, &owner(), deadline)
}

/// To be called after [`take_held_up`] was started: returns when the guest is held and an lvcreate waits
/// for the lock it returns.
fn hold_up() -> File {
    until("the guest is held", || Path::new("/tmp/held").exists());
    let lock = lock_group();
    sh("touch /tmp/locked");
    until("lvcreate waits", lvcreate_waits);
    sh("rm /tmp/held /tmp/locked");
    lock
}

pub fn slow_storage_does_not_hold_the_guest() {
    start(102, "/dev/pve/vm-102-disk-0");
    let taking = std::thread::spawn(|| take_held_up("slow", Duration::from_secs(4)).map(drop));
    let lock = hold_up();
    // The monitor is free again only when the watchdog has gone, by itself.
    assert_eq!(status(102), "running");
    assert!(
        lvcreate_waits(),
        "and that is not because lvcreate was done"
    );
    drop(lock);
    let error = taking.join().expect("no panic").unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout, "{error}");
    assert!(snapshots().is_empty());
    sh("qm stop 102");
}

/// Takes a point in time and is killed meanwhile.
pub fn victim() {
    let taken = take_held_up("dead", LONG);
    panic!("it was to be killed before: {taken:?}");
}

pub fn a_killed_run_does_not_hold_the_guest_and_is_swept() {
    start(102, "/dev/pve/vm-102-disk-0");
    let mut victim = Command::new(PROGRAM)
        .env(INSIDE, VICTIM)
        .stdin(Stdio::null())
        .spawn()
        .expect("started");
    let lock = hold_up();
    victim.kill().expect("killed");
    victim.wait().expect("waited");
    assert_eq!(status(102), "running");
    assert!(lvcreate_waits(), "it is not because lvcreate was done");
    drop(lock);
    until("the orphaned lvcreate has ended", || !lvcreate_waits());
    assert_eq!(snapshots(), ["snap_vm-102-disk-0_rbsdead"]);
    let swept = snapshot::sweep(&[owner()], &disks_of_102()).expect("swept");
    assert_eq!(swept.removed, ["pve/snap_vm-102-disk-0_rbsdead"]);
    assert!(swept.problems.is_empty());
    assert!(snapshots().is_empty());
    assert!(lvm::find(&lv("vm-102-disk-0")).expect("looked").is_some());
    sh("qm stop 102");
}
