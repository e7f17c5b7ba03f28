//! How long a guest waits for its writes while its disk is synced over a slow link: `make bench-latency`.
//!
//! A QEMU without a guest system has a qcow2 and a raw disk, both full of data. A random 4 KiB write after the other is
//! made as the guest would, each of them followed by a flush. First nothing else happens; then a point in time is kept
//! while the engine sends it at 1 MiB/s. A write to a place that was not written since then also waits until the old
//! 64 KiB are in the scratch file. No write ever waits for the link.
#![allow(clippy::unwrap_used)]

use rblocksync::agent::{BlockEnd, Role};
use rblocksync::image::{ImageFormat, TargetOptions};
use rblocksync::qemu::qmp::Qmp;
use rblocksync::qemu::{QemuPoint, ScratchSpace, Wanted};
use rblocksync::stop::Stop;
use rblocksync::sync::{Compress, Geometry, Meter, Params, Tuning};
use rblocksync::wire::Link;
use serde_json::json;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 512 * MIB;
const LINK_BYTES_PER_S: u64 = MIB;
const FOR: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(60);

struct Vm {
    child: Child,
    guest: Qmp,
    state: u64,
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Vm {
    fn start(dir: &Path, disks: &[(PathBuf, ImageFormat)]) -> Vm {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-machine", "q35", "-accel", "tcg", "-m", "64", "-S"])
            .args(["-nodefaults", "-display", "none"]);
        for (i, (path, format)) in disks.iter().enumerate() {
            let driver = match format {
                ImageFormat::Raw => "raw",
                ImageFormat::Qcow2 => "qcow2",
            };
            let node = json!({
                "node-name": format!("n{i}"), "driver": driver, "cache": {"direct": true},
                "file": {"driver": "file", "filename": path, "cache": {"direct": true}},
            });
            qemu.args(["-blockdev", &node.to_string()])
                .args(["-device", &format!("virtio-blk-pci,drive=n{i},id=vd{i}")]);
        }
        for name in ["qmp", "side"] {
            let path = dir.join(name);
            qemu.args([
                "-qmp",
                &format!("unix:{},server=on,wait=off", path.display()),
            ]);
        }
        let child = qemu.spawn().unwrap();
        let until = Instant::now() + LONG;
        let guest = loop {
            match Qmp::connect(&dir.join("side"), LONG) {
                Ok(guest) => break guest,
                Err(e) => assert!(Instant::now() < until, "{e}"),
            }
            std::thread::yield_now();
        };
        Vm {
            child,
            guest,
            state: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// One write and its flush; how long they took.
    fn write(&mut self, disk: usize) -> Duration {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let at = self.state % (DISK_BYTES / 4096) * 4096;
        let line = format!(
            "qemu-io -d /machine/peripheral/vd{disk}/virtio-backend \"write -q -f -P {} {at} 4k\"",
            self.state % 255 + 1
        );
        let began = Instant::now();
        let arguments = json!({"command-line": line});
        let said = self.guest.execute("human-monitor-command", arguments, LONG);
        let took = began.elapsed();
        assert_eq!(said.unwrap().as_str().unwrap().trim(), "");
        took
    }

    fn writes(&mut self, until: impl Fn() -> bool) -> Vec<Duration> {
        let mut took = Vec::new();
        while !until() {
            took.push(self.write(took.len() % 2));
        }
        took.sort();
        took
    }
}

fn report(what: &str, took: &[Duration]) {
    let ms = |part: f64| {
        let at = ((took.len() - 1) as f64 * part) as usize;
        took[at].as_secs_f64() * 1e3
    };
    println!(
        "{what:<44} {:>6} writes, ms: median {:>6.2}  99 % {:>6.2}  99.9 % {:>7.2}  longest {:>7.2}",
        took.len(),
        ms(0.5),
        ms(0.99),
        ms(0.999),
        ms(1.0)
    );
}

fn fill(disks: &[(PathBuf, ImageFormat)]) {
    let raw = &disks[1].0;
    let script = "head -c \"$2\" /dev/urandom > \"$1\"";
    let done = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(raw)
        .arg(DISK_BYTES.to_string())
        .status();
    assert!(done.unwrap().success());
    let done = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .arg(raw)
        .arg(&disks[0].0)
        .status();
    assert!(done.unwrap().success());
}

fn main() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| dir.path().join(name);
    let disks = [
        (at("a.qcow2"), ImageFormat::Qcow2),
        (at("b.raw"), ImageFormat::Raw),
    ];
    fill(&disks);
    let mut vm = Vm::start(dir.path(), &disks);
    let until = Instant::now() + FOR;
    report(
        "nothing else happens",
        &vm.writes(|| Instant::now() >= until),
    );

    let wanted = disks.each_ref().map(|(path, format)| Wanted {
        path: path.clone(),
        format: *format,
        copy: true,
        since: None,
        next: Some("rbs-bench-1".into()),
    });
    let space = ScratchSpace {
        dir: at("scratch"),
        bytes_max: None,
    };
    let mut point = QemuPoint::prepare(&at("qmp"), "bench", "rbs-bench-", &wanted, &space).unwrap();
    let began = Instant::now();
    let transaction = point.transaction();
    vm.guest.execute("transaction", transaction, LONG).unwrap();
    println!(
        "the transaction took {:.1} ms",
        began.elapsed().as_secs_f64() * 1e3
    );
    point.publish().unwrap();
    let stop = Stop::new();
    std::thread::scope(|scope| {
        for index in 0..disks.len() {
            let export = point.export(index).unwrap();
            let (near, far) = UnixStream::pair().unwrap();
            let target = at(&format!("copy{index}"));
            std::fs::File::create(&target)
                .unwrap()
                .set_len(DISK_BYTES)
                .unwrap();
            let tuning = Tuning {
                bytes_per_s_max: Some(LINK_BYTES_PER_S / 2),
                compress: Compress::Off,
                ..Tuning::default()
            };
            let params = Params::new(Geometry::new(DISK_BYTES, 4096).unwrap(), &tuning);
            let link = |end: UnixStream, stop: Stop| {
                let input = end.try_clone().unwrap();
                Link::handshake(input.into(), end.into(), "bench", "peer", stop)
            };
            let (one, other) = (stop.child(), stop.child());
            scope.spawn(move || {
                let (mut end, _) = BlockEnd::target(&target, TargetOptions::default()).unwrap();
                let meter = Arc::new(Meter::new());
                link(far, other)
                    .and_then(|mut l| end.sync(Role::Target, &params, &mut l, &meter, None))
            });
            scope.spawn(move || {
                let (mut end, _) = BlockEnd::export(&export, "the disk".into()).unwrap();
                let meter = Arc::new(Meter::new());
                link(near, one)
                    .and_then(|mut l| end.sync(Role::Source, &params, &mut l, &meter, None))
            });
        }
        let until = Instant::now() + FOR;
        report("a sync at 1 MiB/s", &vm.writes(|| Instant::now() >= until));
        point.check().unwrap();
        stop.stop();
    });
    point.release(false).unwrap();
    let until = Instant::now() + FOR;
    report("after it", &vm.writes(|| Instant::now() >= until));
}
