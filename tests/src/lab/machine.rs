//! One guest's QEMU process: its command line, its start, and the wait until it is up.

use super::artifacts::Artifacts;
use super::error::{Context, Error, Result};
use super::keeper::Keeper;
use super::qmp::Qmp;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long a guest may take from start to "LAB ready". Idle it takes 5 s; the machine may be busy.
const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(10);

/// What distinguishes a guest.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// Host name: hva or hvb.
    pub name: &'static str,
    /// Name of the other guest.
    pub peer: &'static str,
    /// Last byte of its address on the link between the guests, and of its MAC.
    pub number: u8,
    /// Fixture VMs it makes at its first boot.
    pub vms: &'static str,
    pub memory_mib: u32,
    /// The run directory.
    pub dir: PathBuf,
}

impl Spec {
    /// The path of one of its own files in the run directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{}.{name}", self.name))
    }
}

/// A running QEMU.
#[derive(Debug)]
pub(crate) struct Machine {
    process: Child,
    /// The port on 127.0.0.1 that leads to its sshd.
    pub ssh_port: u16,
}

impl Machine {
    /// Starts QEMU; returns when its monitor answers, long before the guest is up.
    pub fn start(spec: &Spec, artifacts: &Artifacts, keeper: &Keeper) -> Result<Machine> {
        for leftover in ["console", "monitor", "net"] {
            // Not there at the first start.
            std::fs::remove_file(spec.file(leftover)).ok();
        }
        let log = std::fs::File::create(spec.file("qemu.log"))
            .context(|| format!("cannot make {}", spec.file("qemu.log").display()))?;
        let process = keeper.spawn("qemu-system-x86_64", |command| {
            command
                .args(arguments(spec, artifacts))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log);
        })?;
        let mut machine = Machine {
            process,
            ssh_port: 0,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut monitor = loop {
            machine.check_alive(spec)?;
            match Qmp::connect(&spec.file("monitor")) {
                Ok(monitor) => break monitor,
                Err(e) if Instant::now() > deadline => return Err(e),
                Err(_) => std::thread::sleep(POLL),
            }
        };
        machine.ssh_port = forwarded_port(&mut monitor)?;
        Ok(machine)
    }

    /// Waits for the boot script's last line on the console.
    pub fn wait_ready(&mut self, spec: &Spec) -> Result<()> {
        let deadline = Instant::now() + BOOT_TIMEOUT;
        loop {
            let console = console(spec);
            let said = |what: &str| {
                console
                    .lines()
                    .any(|line| line.starts_with("LAB ") && line.contains(what))
            };
            if said(" ready") {
                return Ok(());
            }
            if said("failed: ") || Instant::now() > deadline {
                return Err(Error::new(format!(
                    "guest {} did not come up; its console ends:\n{}",
                    spec.name,
                    tail(&console)
                )));
            }
            self.check_alive(spec)?;
            std::thread::sleep(POLL);
        }
    }

    /// Kills it as a power cut would and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only if it is gone already.
        self.process.kill().ok();
        self.process.wait().ok();
    }

    /// Waits until it ends by itself, as at a guest's poweroff.
    pub fn wait_end(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !matches!(self.process.try_wait(), Ok(Some(_))) {
            if Instant::now() > deadline {
                return Err(Error::new(format!("a guest is still on after {limit:?}")));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn check_alive(&mut self, spec: &Spec) -> Result<()> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let log = std::fs::read_to_string(spec.file("qemu.log")).unwrap_or_default();
                Err(Error::new(format!(
                    "QEMU of guest {} ended ({status}): {}\n{}",
                    spec.name,
                    log.trim(),
                    tail(&console(spec))
                )))
            }
            Err(e) => Err(Error::new(format!("cannot ask for QEMU's state: {e}"))),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All of what the guest's current boot wrote to its serial console.
pub(crate) fn console(spec: &Spec) -> String {
    let bytes = std::fs::read(spec.file("console")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

/// The last lines of a console.
pub(crate) fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

/// An emulated CPU copies strings a byte at a time if it is said to do that fast, and walks page tables of five levels.
const CPU: &str = "max,erms=off,fsrm=off,la57=off";
/// What makes Linux cheap to emulate. QEMU translates code for the address it runs at: without `norandmaps` all of a program,
/// and of its libraries, anew at each start. 112 is `rep_good`: copies by loops instead of string instructions.
const CHEAP: &str =
    "mitigations=off nokaslr norandmaps init_on_alloc=0 clearcpuid=112 random.trust_cpu=on tsc=reliable no_timer_check";

fn arguments(spec: &Spec, artifacts: &Artifacts) -> Vec<String> {
    let path = |path: &Path| path.display().to_string().replace(',', ",,");
    let mut args: Vec<String> = [
        "-M",
        "q35",
        "-accel",
        "tcg,thread=multi,tb-size=256",
        "-cpu",
        CPU,
        "-smp",
        "1",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-device",
        "virtio-rng-pci",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
    option("-name", spec.name.into());
    option("-m", spec.memory_mib.to_string());
    option("-kernel", path(&artifacts.kernel()));
    option("-initrd", path(&artifacts.initrd()));
    option(
        "-append",
        format!(
            "console=ttyS0 quiet loglevel=3 panic=-1 {CHEAP} lab.name={} lab.ip=10.77.0.{} lab.vms={}",
            spec.name, spec.number, spec.vms
        ),
    );
    option(
        "-chardev",
        format!("file,id=console,path={}", path(&spec.file("console"))),
    );
    option("-serial", "chardev:console".into());
    option(
        "-qmp",
        format!("unix:{},server=on,wait=off", path(&spec.file("monitor"))),
    );
    // vda to vde, in the order initramfs-init expects.
    let disks = [
        (spec.file("vda"), "discard=unmap"),
        (spec.file("vdb"), "discard=unmap"),
        (spec.file("vdc"), "discard=unmap"),
        (artifacts.tools(), "readonly=on"),
        (spec.dir.join("own.ext4"), "readonly=on"),
    ];
    for (i, (file, flags)) in disks.iter().enumerate() {
        option(
            "-drive",
            format!("if=none,id=d{i},format=raw,{flags},file={}", path(file)),
        );
        option("-device", format!("virtio-blk-pci,drive=d{i}"));
    }
    // Port 0: the system picks a free one, and the monitor tells which.
    option(
        "-netdev",
        "user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22".into(),
    );
    option("-device", "virtio-net-pci,netdev=n0,romfile=".into());
    option(
        "-netdev",
        format!(
            "dgram,id=n1,local.type=unix,local.path={},remote.type=unix,remote.path={}",
            path(&spec.file("net")),
            path(&spec.dir.join(format!("{}.net", spec.peer)))
        ),
    );
    option(
        "-device",
        format!(
            "virtio-net-pci,netdev=n1,mac=52:54:00:77:00:0{},romfile=",
            spec.number
        ),
    );
    args
}

/// Reads the chosen host port from "info usernet": `TCP[HOST_FORWARD]  fd  127.0.0.1 PORT  10.0.2.15 22 ...`.
fn forwarded_port(monitor: &mut Qmp) -> Result<u16> {
    let answer = monitor.execute(
        "human-monitor-command",
        json!({ "command-line": "info usernet" }),
    )?;
    let text = answer.as_str().unwrap_or_default();
    text.lines()
        .find(|line| line.contains("HOST_FORWARD"))
        .and_then(|line| line.split_whitespace().nth(3)?.parse().ok())
        .ok_or_else(|| Error::new(format!("QEMU names no forwarded port: {text}")))
}
