//! A guest as tests see it: run commands in it, move files, cut its power, boot it again.

use super::artifacts::Artifacts;
use super::background::{Background, Place};
use super::error::{Error, Result};
use super::keeper::Keeper;
use super::machine::{self, Machine, Spec};
use super::qmp::Qmp;
use super::ssh::{self, quote, Master};
use super::tool;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long [`Guest::run`] waits for a command.
pub const RUN_TIMEOUT: Duration = Duration::from_secs(300);

/// What a command in a guest left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; 255 also when ssh lost the guest, 128 + n after signal n of a shell's child.
    pub status: i32,
    /// Standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, invalid UTF-8 replaced.
    pub stderr: String,
}

impl Output {
    /// Whether the exit code is 0.
    pub fn success(&self) -> bool {
        self.status == 0
    }
}

/// What the guests of a lab share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub artifacts: Arc<Artifacts>,
    pub keeper: Keeper,
    pub dir: PathBuf,
    /// Name and ssh port of each guest, the latter 0 until it runs.
    pub ports: Mutex<Vec<(&'static str, u16)>>,
}

/// A hypervisor guest, hva or hvb.
#[derive(Debug)]
pub struct Guest {
    spec: Spec,
    state: Mutex<State>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct State {
    // In this order: the connection ends before what it is connected to.
    master: Option<Master>,
    machine: Option<Machine>,
}

impl Place for Guest {
    fn name(&self) -> &str {
        self.name()
    }

    fn signal_group(&self, signal: &str, group: u32) -> Result<()> {
        self.run_ok(&format!("kill -{signal} -- -{group}"))
            .map(drop)
    }
}

impl Guest {
    pub(crate) fn new(spec: Spec, shared: Arc<Shared>) -> Guest {
        Guest {
            spec,
            state: Mutex::default(),
            shared,
        }
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        self.spec.name
    }

    /// Its address on the link between the guests.
    pub fn ip(&self) -> String {
        format!("10.77.0.{}", self.spec.number)
    }

    /// The pid of its QEMU, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.state().machine.as_ref().map(Machine::pid)
    }

    /// Runs a bash script in the guest as root, stdin empty, for at most [`RUN_TIMEOUT`].
    ///
    /// # Errors
    /// No answer in time, or ssh cannot be started. A script that fails is not an error here.
    pub fn run(&self, script: &str) -> Result<Output> {
        self.run_for(RUN_TIMEOUT, script)
    }

    /// [`run`](Self::run) with a limit of its own.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_for(&self, timeout: Duration, script: &str) -> Result<Output> {
        let done = self.exec(script, None, timeout)?;
        Ok(Output {
            status: done.status.code().unwrap_or(255),
            stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
        })
    }

    /// Runs a script that must succeed; returns its stdout without the final newline.
    ///
    /// # Errors
    /// Also when the script fails; the text has its output.
    pub fn run_ok(&self, script: &str) -> Result<String> {
        let output = self.run(script)?;
        if output.success() {
            return Ok(output.stdout.trim_end_matches('\n').to_owned());
        }
        Err(Error::new(format!(
            "on {}: `{script}` exits with {}\nstdout: {}\nstderr: {}",
            self.name(),
            output.status,
            output.stdout.trim(),
            output.stderr.trim()
        )))
    }

    /// Starts a script in the background. It is a session and a process group of its own.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn spawn(&self, script: &str) -> Result<Background<'_>> {
        // sshd makes the shell the leader of a session and a process group.
        Background::start(self, &mut self.ssh(&format!("echo $$; {script}")))
    }

    /// The bytes of a file or block device.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        self.read_command(&format!("cat -- {}", quote(path)))
    }

    /// The stdout of a script that must succeed, as bytes.
    ///
    /// # Errors
    /// The script fails; the text has its stderr.
    pub fn read_command(&self, script: &str) -> Result<Vec<u8>> {
        let done = self.exec(script, None, RUN_TIMEOUT)?;
        if done.status.success() {
            return Ok(done.stdout);
        }
        let why = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        Err(Error::new(format!(
            "on {}: `{script}` fails: {why}",
            self.name()
        )))
    }

    /// Replaces the content of a file; it keeps its owner and mode, a new one is 0644.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_file(&self, path: &str, content: impl Into<Vec<u8>>) -> Result<()> {
        let script = format!("cat > {}", quote(path));
        let done = self.exec(&script, Some(content.into()), RUN_TIMEOUT)?;
        if done.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        Err(Error::new(format!(
            "cannot write {path} on {}: {why}",
            self.name()
        )))
    }

    /// Connects to the monitor of a VM that runs in this guest. Held until dropped: nobody else gets in meanwhile.
    ///
    /// # Errors
    /// The VM does not run, or another client holds its monitor.
    pub fn qmp(&self, vmid: u32) -> Result<Qmp> {
        let local = self.spec.file(&format!("qmp-{vmid}"));
        let forward = format!("{}:/var/run/qemu-server/{vmid}.qmp", local.display());
        let control = |verb: &str| {
            tool::run(
                Command::new("ssh")
                    .arg("-F")
                    .arg(self.shared.dir.join("ssh_config"))
                    .args(["-O", verb, "-L", &forward, "--", self.name()]),
            )
        };
        control("forward")?;
        let connected = Qmp::connect(&local);
        // The connection made outlives its listener.
        control("cancel")?;
        fs::remove_file(&local).ok();
        connected
    }

    /// Cuts the power: what the guest had not flushed is gone. Returns when it is off.
    pub fn power_cut(&self) {
        let mut state = self.state();
        if let Some(machine) = &mut state.machine {
            machine.kill();
        }
        *state = State::default();
    }

    /// Boots it, on the disks as they are; after [`power_cut`](Self::power_cut), or while it runs (a hard reset).
    ///
    /// # Errors
    /// It does not come up; the text has the end of its console.
    pub fn boot_again(&self) -> Result<()> {
        self.power_cut();
        self.start()?;
        self.wait_up()
    }

    /// Shuts it down in order and returns when it is off. [`boot_again`](Self::boot_again) starts it.
    ///
    /// # Errors
    /// It does not turn off in time.
    pub fn shut_down(&self) -> Result<()> {
        let script = "sync; cd /; umount /var/lib/vz; vgchange -qq -an pve; setsid -f poweroff -f";
        // The answer may be lost with the guest.
        self.run(script)?;
        let mut state = self.state();
        state.master = None;
        if let Some(mut machine) = state.machine.take() {
            machine.wait_end(RUN_TIMEOUT)?;
        }
        Ok(())
    }

    /// The last lines of its serial console.
    pub fn console_tail(&self) -> String {
        machine::tail(&machine::console(&self.spec))
    }

    /// Starts its QEMU.
    pub(crate) fn start(&self) -> Result<()> {
        let machine = Machine::start(&self.spec, &self.shared.artifacts, &self.shared.keeper)?;
        let mut ports = self
            .shared
            .ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (name, port) in ports.iter_mut() {
            if *name == self.spec.name {
                *port = machine.ssh_port;
            }
        }
        ssh::write_config(&self.shared.dir, &ports)?;
        self.state().machine = Some(machine);
        Ok(())
    }

    /// Waits until it is up and takes commands.
    pub(crate) fn wait_up(&self) -> Result<()> {
        let mut state = self.state();
        let Some(machine) = &mut state.machine else {
            return Err(Error::new(format!("{} is off", self.name())));
        };
        machine.wait_ready(&self.spec)?;
        state.master = Some(Master::connect(
            &self.shared.dir,
            self.name(),
            &self.shared.keeper,
        )?);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves nothing half done in here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ssh(&self, script: &str) -> Command {
        let mut command = Command::new("ssh");
        command
            .arg("-F")
            .arg(self.shared.dir.join("ssh_config"))
            .args(["-T", "--", self.name(), script]);
        command
    }

    fn exec(
        &self,
        script: &str,
        input: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Result<tool::Finished> {
        tool::capture(&mut self.ssh(script), input, timeout)
            .map_err(|e| Error::new(format!("on {}: `{script}`: {e}", self.name())))
    }

    /// The run directory of its lab.
    pub fn run_dir(&self) -> &Path {
        &self.shared.dir
    }
}
