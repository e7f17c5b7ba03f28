//! A node as tests see it: run commands in it, move files, end it.

use super::disks::Loop;
use super::{Background, Error, Output, Result};
use crate::lab::inner::{capture, Context, Keeper, Place};
use crate::lab::RUN_TIMEOUT;
use crate::sshd::processes;
use rustix::process::{kill_process, Pid, Signal};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the first process may take to make the node's files.
const START_TIME: Duration = Duration::from_secs(60);

const INIT: &str = include_str!("node.sh");

/// A node. Dropped, all its processes are gone.
#[derive(Debug)]
pub struct Node {
    name: &'static str,
    number: u8,
    dir: PathBuf,
    unshare: Child,
    init: u32,
    loops: Mutex<Vec<Loop>>,
    // The processes die with it.
    _keeper: Arc<Keeper>,
}

impl Node {
    /// Makes the namespaces and the files over those of `base`, with what is under `own` in `keys` among them. Nothing runs
    /// yet.
    pub(super) fn start(
        name: &'static str,
        number: u8,
        base: &Path,
        run: &Path,
        keys: &Path,
        keeper: &Arc<Keeper>,
    ) -> Result<Node> {
        let dir = run.join(name);
        super::daemon::write_files(&dir.join("own"), &keys.join("own"), name, number)?;
        let log = dir.join("init.log");
        let stderr = File::create(&log).context(|| format!("cannot make {}", log.display()))?;
        let mut unshare = keeper.spawn("unshare", |command| {
            command
                .args(["--mount", "--uts", "--net", "--ipc", "--pid", "--fork"])
                .args(["--kill-child", "--", "/bin/sh", "-c", INIT, "node"])
                .arg(&dir)
                .args([name, &number.to_string()])
                .arg(base)
                .env_clear()
                .env("PATH", PATH)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(stderr);
        })?;
        let stdout = unshare.stdout.take();
        let (sender, ready) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            if let Some(stdout) = stdout {
                // A failure leaves the line empty.
                BufReader::new(stdout).read_line(&mut line).ok();
            }
            sender.send(line).ok();
        });
        let line = ready.recv_timeout(START_TIME).unwrap_or_default();
        let init = processes()
            .iter()
            .find(|(_, process)| process.parent == unshare.id())
            .map(|(pid, _)| *pid);
        let (true, Some(init)) = (line.trim() == "ready", init) else {
            unshare.kill().ok();
            unshare.wait().ok();
            let why = fs::read_to_string(&log).unwrap_or_default();
            return Err(Error::new(format!(
                "the namespaces of {name} are not to be had: {}",
                why.trim()
            )));
        };
        Ok(Node {
            name,
            number,
            dir,
            unshare,
            init,
            loops: Mutex::default(),
            _keeper: Arc::clone(keeper),
        })
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Its address on the link between the nodes.
    pub fn ip(&self) -> String {
        format!("10.77.0.{}", self.number)
    }

    /// Its /var/lib/libvirt/images as this machine sees it.
    pub fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// Its /var/log/libvirt/qemu as this machine sees it.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// A URI by which programs of this machine reach its libvirtd.
    pub fn uri(&self) -> String {
        let socket = self.dir.join("run/libvirt-sock");
        format!("qemu+unix:///system?socket={}", socket.display())
    }

    /// A URI by which the other node reaches its libvirtd without SSH.
    pub fn peer_uri(&self) -> String {
        format!("qemu+tcp://{}/system", self.name)
    }

    /// Its first process, by its id on this machine.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// A program in the node, to be started as one of this process's children; with an environment as root has it
    /// after a login. To kill it is to kill only what started it: see [`spawn`](Self::spawn).
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid"])
            .args(["--root", "--wd", "--", program])
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("USER", "root")
            .env("LC_ALL", "C.UTF-8");
        command
    }

    /// Runs a shell script in the node.
    ///
    /// # Errors
    /// It takes longer than [`RUN_TIMEOUT`].
    pub fn run(&self, script: &str) -> Result<Output> {
        self.run_for(script, RUN_TIMEOUT)
    }

    /// [`run`](Self::run) with a limit of its own.
    ///
    /// # Errors
    /// It takes longer than `limit`.
    pub fn run_for(&self, script: &str, limit: Duration) -> Result<Output> {
        let mut command = self.command("/bin/sh");
        self.finish(command.args(["-c", script]), None, limit)
    }

    /// Bytes that it has sent over its link.
    pub fn sent(&self) -> Result<u64> {
        let text = self.run_ok("cat /sys/class/net/eth0/statistics/tx_bytes")?;
        Ok(text.trim().parse().unwrap_or(0))
    }

    /// Runs a shell script that must succeed, and returns its trimmed standard output.
    ///
    /// # Errors
    /// It fails, or takes longer than [`RUN_TIMEOUT`].
    pub fn run_ok(&self, script: &str) -> Result<String> {
        succeeded(self.name, script, self.run(script)?)
    }

    /// Runs a shell script in the background.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, script: &str) -> Result<Background<'_>> {
        // A session of its own, so that its shell's pid names its process group too.
        let mut command = self.command("setsid");
        Background::start(
            self,
            command.args(["sh", "-c", &format!("echo $$; {script}")]),
        )
    }

    /// Runs virsh with the words of `line`, without a shell.
    ///
    /// # Errors
    /// It takes longer than [`RUN_TIMEOUT`].
    pub fn virsh(&self, line: &str) -> Result<Output> {
        let mut command = self.command("virsh");
        command.args(["-q", "-c", "qemu:///system"]);
        self.finish(command.args(line.split_whitespace()), None, RUN_TIMEOUT)
    }

    /// Runs virsh, which must succeed, and returns its trimmed standard output.
    ///
    /// # Errors
    /// It fails, or takes longer than [`RUN_TIMEOUT`].
    pub fn virsh_ok(&self, line: &str) -> Result<String> {
        succeeded(self.name, &format!("virsh {line}"), self.virsh(line)?)
    }

    /// Has virsh read `text` as the file that its last argument names: "define", "backup-begin web01".
    ///
    /// # Errors
    /// It fails, or takes longer than [`RUN_TIMEOUT`].
    pub fn virsh_with(&self, line: &str, text: &str) -> Result<String> {
        let mut command = self.command("virsh");
        command.args(["-q", "-c", "qemu:///system"]);
        command.args(line.split_whitespace()).arg("/dev/stdin");
        let output = self.finish(&mut command, Some(text.into()), RUN_TIMEOUT)?;
        succeeded(self.name, &format!("virsh {line}"), output)
    }

    /// Replaces a file in the node by way of another directory of its file system, so that it is there whole.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_file(&self, path: &str, bytes: impl Into<Vec<u8>>, mode: u32) -> Result<()> {
        let mut command = self.command("/bin/sh");
        command.args(["-c", WRITE, "write", path, &format!("{mode:o}")]);
        let output = self.finish(&mut command, Some(bytes.into()), RUN_TIMEOUT)?;
        succeeded(self.name, &format!("write {path}"), output).map(drop)
    }

    /// A file of the node.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let mut command = self.command("cat");
        let done = capture(command.args(["--", path]), None, RUN_TIMEOUT)?;
        if done.status.success() {
            return Ok(done.stdout);
        }
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        Err(Error::new(format!("{}: {}", self.name, why.trim())))
    }

    /// Puts a program of this machine where the node has `path`: "/usr/bin/virt-blocksync".
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn install(&self, program: &Path, path: &str) -> Result<()> {
        let bytes = fs::read(program).context(|| format!("cannot read {}", program.display()))?;
        self.write_file(path, bytes, 0o755)
    }

    /// Ends the node at once, as a power cut would.
    ///
    /// # Errors
    /// Its end cannot be waited for.
    pub fn power_cut(&mut self) -> Result<()> {
        // unshare waits for it, and so for all that dies with it.
        let init = i32::try_from(self.init).ok().and_then(Pid::from_raw);
        if init.is_none_or(|init| kill_process(init, Signal::KILL).is_err()) {
            self.unshare.kill().ok();
        }
        // The number may be another process's soon.
        self.init = 0;
        self.unshare
            .wait()
            .map(drop)
            .context(|| format!("cannot wait for the end of {}", self.name))
    }

    pub(super) fn loops(&self) -> MutexGuard<'_, Vec<Loop>> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn finish(
        &self,
        command: &mut Command,
        input: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<Output> {
        let done = capture(command, input, limit).context(|| self.name)?;
        Ok(Output {
            status: done.status.code().unwrap_or(255),
            stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
        })
    }
}

impl Place for Node {
    fn name(&self) -> &str {
        self.name()
    }

    fn signal_group(&self, signal: &str, group: u32) -> Result<()> {
        self.run_ok(&format!("/bin/kill -{signal} -- -{group}"))
            .map(drop)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.power_cut().ok();
    }
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Writes its standard input to $1 with mode $2. Libvirt runs whatever lies in a directory of hooks, also half of it.
const WRITE: &str = r#"
set -eu
mkdir -p "$(dirname "$1")"
cat > "/var/lib/.new.$$"
chmod "$2" "/var/lib/.new.$$"
mv -fT "/var/lib/.new.$$" "$1"
"#;

pub(super) fn succeeded(node: &str, what: &str, output: Output) -> Result<String> {
    if output.success() {
        return Ok(output.stdout.trim().to_owned());
    }
    Err(Error::new(format!(
        "{node}: {what}: exit code {}: {} {}",
        output.status,
        output.stderr.trim(),
        output.stdout.trim()
    )))
}
