//! A QEMU to hold still.

use rblocksync::error::Result;
use rblocksync::lvm::OwnerTag;
use rblocksync::qemu::qmp::Qmp;
use rblocksync::snapshot::{self, DiskSource, PointInTime, Request, VmRuntime, WatchdogLauncher};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const LONG: Duration = Duration::from_secs(60);

/// Why tests that need a QEMU cannot run, if so.
pub fn qemu() -> Option<&'static Path> {
    let program = Path::new("/usr/bin/qemu-system-x86_64");
    if program.exists() {
        return Some(program);
    }
    println!("skipped: {} is not installed", program.display());
    None
}

/// Takes a point in time of disks whose bytes are their own.
pub fn take_disks(
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

/// The program whose subcommand `watchdog` is the watchdog.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_rblocksync");

pub fn launcher() -> WatchdogLauncher {
    WatchdogLauncher {
        exe: PROGRAM.into(),
        args: vec!["watchdog".into()],
    }
}

/// A running VM with two monitors: one for the code under test, which serves one client at a time as on
/// Proxmox, one to look from the side. Ended when dropped.
pub struct Vm {
    child: Child,
    pub dir: tempfile::TempDir,
    side: Qmp,
}

impl Vm {
    /// Starts it; `images` become its disks n0, n1... `None` if there is no QEMU.
    pub fn start(images: &[&Path]) -> Option<Vm> {
        let raw: Vec<_> = images.iter().map(|image| (*image, "raw")).collect();
        Vm::start_with(&raw, &[])
    }

    /// The same with images of these formats, and more words on the command line.
    pub fn start_with(images: &[(&Path, &str)], more: &[&str]) -> Option<Vm> {
        let program = qemu()?;
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command
            .args(["-machine", "q35", "-accel", "tcg", "-m", "16"])
            .args(["-nodefaults", "-display", "none"])
            .args(more);
        for (i, (image, format)) in images.iter().enumerate() {
            let node = json!({
                "node-name": format!("n{i}"), "driver": format,
                "file": {"driver": "file", "filename": image, "locking": "off"},
            });
            command.args(["-blockdev", &node.to_string()]);
            command.args(["-device", &format!("virtio-blk-pci,drive=n{i},id=vd{i}")]);
        }
        for name in ["qmp", "side"] {
            let path = dir.path().join(name);
            command.args([
                "-qmp",
                &format!("unix:{},server=on,wait=off", path.display()),
            ]);
        }
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + LONG;
        let side = loop {
            match Qmp::connect(&dir.path().join("side"), LONG) {
                Ok(side) => break side,
                Err(e) => {
                    assert!(child.try_wait().unwrap().is_none(), "QEMU has ended");
                    assert!(Instant::now() < deadline, "{e}");
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        };
        let vm = Vm { child, dir, side };
        Some(vm)
    }

    pub fn qmp_path(&self) -> PathBuf {
        self.dir.path().join("qmp")
    }

    pub fn agent_path(&self) -> PathBuf {
        self.dir.path().join("qga")
    }

    /// How the library gets at it.
    pub fn runtime(&self, agent: bool) -> VmRuntime {
        VmRuntime {
            state: None,
            qmp: Some(self.qmp_path()),
            manager: None,
            agent: agent.then(|| self.agent_path()),
            stopped: Box::new(|| Ok(false)),
            launcher: launcher(),
        }
    }

    pub fn status(&mut self) -> String {
        self.side.status(LONG).unwrap().status
    }

    pub fn side(&mut self) -> &mut Qmp {
        &mut self.side
    }

    /// Whether it was paused since the last call.
    pub fn take_events(&mut self) -> Vec<String> {
        self.status();
        self.side.take_events()
    }

    /// Writes to disk `vdN` as the guest would.
    pub fn write(&mut self, disk: usize, pattern: u8, offset: u64, len: u64) {
        let said = self.try_write(disk, pattern, offset, len);
        assert!(!said.contains("rror"), "{said}");
    }

    /// The same, and what QEMU says of it.
    pub fn try_write(&mut self, disk: usize, pattern: u8, offset: u64, len: u64) -> String {
        let line = format!(
            "qemu-io -d /machine/peripheral/vd{disk}/virtio-backend \"write -P {pattern} {offset} {len}\""
        );
        let arguments = json!({"command-line": line});
        let said = self.side.execute("human-monitor-command", arguments, LONG);
        said.unwrap().as_str().unwrap_or_default().to_owned()
    }

    /// Ends it as a shutdown would.
    pub fn quit(&mut self) {
        let _ = self.side.execute("quit", json!({}), LONG);
        self.child.wait().unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
