//! The one door to external programs: every process of the suite starts here, except ssh, the guest
//! watchdog and qemu-nbd, which live longer than a call.
//!
//! A program is named by [`Tool`], never by a string, and looked for in a fixed list of directories, never
//! in `$PATH`. It runs in the C locale, without stdin, in its own process group and under a time limit;
//! when it fails, what it said on stderr is in the error.

use crate::error::{Error, Kind, Result};
use crate::sys;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{kill_process_group, Pid, Signal};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, PipeReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Where programs are looked for, in this order.
const DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
const STDOUT_MAX_BYTES: usize = 16 << 20;
pub(crate) const STDERR_MAX_BYTES: usize = 8 << 10;

/// From SIGTERM to SIGKILL. LVM puts off SIGTERM while it has devices suspended; killed right there it
/// would leave a guest's disk suspended, so it gets time to come out.
const TERM_GRACE: Duration = Duration::from_secs(10);
/// How long a killed process may take to vanish, and pipes to close, before we stop waiting for it.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// The programs we run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Tool {
    Btrfs,
    Dmsetup,
    Getent,
    Lvchange,
    Lvcreate,
    Lvextend,
    Lvremove,
    Lvrename,
    Lvs,
    Pvesh,
    Pvesm,
    Qemu,
    QemuImg,
    QemuNbd,
    Qm,
    SshKeygen,
    Systemctl,
    SystemdAnalyze,
    ThinDelta,
    ThinDump,
    Vgs,
}

impl Tool {
    /// File name, and the Debian package it is in.
    fn spec(self) -> (&'static str, &'static str) {
        match self {
            Tool::Btrfs => ("btrfs", "btrfs-progs"),
            Tool::Dmsetup => ("dmsetup", "dmsetup"),
            Tool::Getent => ("getent", "libc-bin"),
            Tool::Lvchange => ("lvchange", "lvm2"),
            Tool::Lvcreate => ("lvcreate", "lvm2"),
            Tool::Lvextend => ("lvextend", "lvm2"),
            Tool::Lvremove => ("lvremove", "lvm2"),
            Tool::Lvrename => ("lvrename", "lvm2"),
            Tool::Lvs => ("lvs", "lvm2"),
            Tool::Pvesh => ("pvesh", "pve-manager"),
            Tool::Pvesm => ("pvesm", "libpve-storage-perl"),
            Tool::Qemu => ("qemu-system-x86_64", "pve-qemu-kvm or qemu-system-x86"),
            Tool::QemuImg => ("qemu-img", "qemu-utils"),
            Tool::QemuNbd => ("qemu-nbd", "qemu-utils"),
            Tool::Qm => ("qm", "qemu-server"),
            Tool::SshKeygen => ("ssh-keygen", "openssh-client"),
            Tool::Systemctl => ("systemctl", "systemd"),
            Tool::SystemdAnalyze => ("systemd-analyze", "systemd"),
            Tool::ThinDelta => ("thin_delta", "thin-provisioning-tools"),
            Tool::ThinDump => ("thin_dump", "thin-provisioning-tools"),
            Tool::Vgs => ("vgs", "lvm2"),
        }
    }

    /// The absolute path of the program, or an error that names the package to install.
    pub fn path(self) -> Result<PathBuf> {
        self.path_in(&DIRS)
    }

    /// For a program that lives longer than a call: with the environment that all of them get, no stdin, and a process
    /// group of its own.
    pub(crate) fn command(self) -> Result<Command> {
        let mut command = Command::new(self.path()?);
        command
            .stdin(Stdio::null())
            .env("LC_ALL", "C")
            .env("PATH", DIRS.join(":"));
        sys::apart(&mut command);
        Ok(command)
    }

    fn path_in(self, dirs: &[&str]) -> Result<PathBuf> {
        let (name, package) = self.spec();
        dirs.iter()
            .map(|dir| Path::new(dir).join(name))
            .find(|p| {
                p.metadata()
                    .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
            })
            .ok_or_else(|| {
                Error::new(Kind::Tool, format!("{name} is not installed"))
                    .advise(format!("install the package {package}"))
            })
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec().0)
    }
}

/// What a program that succeeded printed.
#[derive(Debug)]
pub struct Output {
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// The beginning of stderr, on one line: warnings.
    pub stderr: String,
    /// The exit code: 0, or one that was accepted.
    pub code: i32,
}

/// One call of a [`Tool`].
#[derive(Debug, Clone)]
pub struct Cmd {
    tool: Tool,
    args: Vec<OsString>,
    timeout: Duration,
    accepted: Vec<i32>,
    stand_in: Option<PathBuf>,
}

impl Cmd {
    /// A call without arguments, limited to one minute.
    pub fn new(tool: Tool) -> Self {
        Cmd {
            tool,
            args: Vec::new(),
            timeout: TIMEOUT_DEFAULT,
            accepted: Vec::new(),
            stand_in: None,
        }
    }

    /// Runs the program in this file in the tool's place: for tests of what is built on tools that are not here.
    pub fn stand_in(mut self, program: Option<PathBuf>) -> Self {
        self.stand_in = program;
        self
    }

    /// Adds one argument, passed as it is.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments, passed as they are.
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.args
            .extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets the time after which the process group is ended.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Takes these exit codes for an answer, and not for a failure.
    pub fn accept(mut self, codes: &[i32]) -> Self {
        self.accepted.extend(codes);
        self
    }

    /// Runs it to its end and collects what it printed (16 MiB at most).
    ///
    /// Fails unless it exits with 0 or a code that is accepted: [`Kind::Timeout`], or what stderr clearly says
    /// ([`Kind::Space`], [`Kind::Busy`], [`Kind::NotFound`], [`Kind::Permission`]), else [`Kind::Tool`].
    pub fn run(&self) -> Result<Output> {
        let what = self.to_string();
        self.start(move |stdout| read_limited(stdout, &what))
            .map(|(stdout, stderr, code)| Output {
                stdout,
                stderr,
                code,
            })
    }

    /// Runs it while `consume` reads its stdout, of whatever size, in another thread. `consume` must read
    /// to the end. Errors as in [`Cmd::run`], or the error of `consume`.
    pub fn stream<T: Send>(
        &self,
        consume: impl FnOnce(&mut dyn Read) -> Result<T> + Send,
    ) -> Result<T> {
        self.start(consume).map(|(value, ..)| value)
    }

    fn start<T: Send>(
        &self,
        consume: impl FnOnce(&mut dyn Read) -> Result<T> + Send,
    ) -> Result<(T, String, i32)> {
        let program = match &self.stand_in {
            Some(program) => program.clone(),
            None => self.tool.path()?,
        };
        execute(
            &program,
            &self.args,
            (self.timeout, &self.accepted),
            &self.to_string(),
            consume,
        )
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tool)?;
        for arg in &self.args {
            let text = arg.to_string_lossy();
            let plain = |c: char| c.is_ascii_alphanumeric() || "+-_./=:,@%".contains(c);
            if !text.is_empty() && text.chars().all(plain) {
                write!(f, " {text}")?;
            } else {
                write!(f, " {text:?}")?;
            }
        }
        Ok(())
    }
}

/// How a program ended that the user has named.
#[derive(Debug)]
pub struct Named {
    what: String,
    code: i32,
    said: String,
}

impl Named {
    /// Its exit code.
    pub fn code(&self) -> i32 {
        self.code
    }

    /// What it said on stdout and stderr, on one line.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// An error, with what it said, unless it exited with 0. `what` is what it is to us.
    pub fn check(&self, what: &str) -> Result<()> {
        if self.code == 0 {
            return Ok(());
        }
        let error = Error::new(
            Kind::Tool,
            format!("{what} {} failed with exit code {}", self.what, self.code),
        );
        Err(match self.said.is_empty() {
            true => error,
            false => error.because(self.said.clone()),
        })
    }
}

/// Runs a program that the user has named, by its absolute path, with these variables in its environment besides what
/// every program gets. Whatever its exit code: fails only if it cannot be run, is ended by a signal, or takes longer
/// than `timeout`.
pub fn run_named(
    program: &Path,
    args: &[OsString],
    variables: &[(&str, &str)],
    timeout: Duration,
) -> Result<Named> {
    let what = program.display().to_string();
    if !program.is_absolute() {
        return Err(
            Error::new(Kind::Usage, format!("{what} is not an absolute path"))
                .advise("name the program by its whole path"),
        );
    }
    let all: Vec<i32> = (0..=255).collect();
    let (stdout, stderr, code) =
        execute_with(program, args, variables, (timeout, &all), &what, |stdout| {
            read_limited(stdout, &what)
        })?;
    let mut said = one_line(&stdout[..stdout.len().min(STDERR_MAX_BYTES)]);
    if !said.is_empty() && !stderr.is_empty() {
        said.push_str("; ");
    }
    said.push_str(&stderr);
    Ok(Named { what, code, said })
}

/// Runs `program`; returns what `consume` made of its stdout, its stderr, and its exit code: 0 or one of `accepted`.
fn execute<T: Send>(
    program: &Path,
    args: &[OsString],
    (timeout, accepted): (Duration, &[i32]),
    what: &str,
    consume: impl FnOnce(&mut dyn Read) -> Result<T> + Send,
) -> Result<(T, String, i32)> {
    execute_with(program, args, &[], (timeout, accepted), what, consume)
}

/// The same with variables in its environment.
fn execute_with<T: Send>(
    program: &Path,
    args: &[OsString],
    variables: &[(&str, &str)],
    (timeout, accepted): (Duration, &[i32]),
    what: &str,
    consume: impl FnOnce(&mut dyn Read) -> Result<T> + Send,
) -> Result<(T, String, i32)> {
    let no_pipe = |e| Error::io(format!("cannot make a pipe for {what}"), e);
    let (stdout, stdout_end) = io::pipe().map_err(no_pipe)?;
    let (stderr, stderr_end) = io::pipe().map_err(no_pipe)?;
    let mut expression = duct::cmd(program, args)
        .stdin_null()
        .stdout_file(stdout_end)
        .stderr_file(stderr_end)
        .env("LC_ALL", "C")
        .env("LVM_SUPPRESS_FD_WARNINGS", "1")
        .env("PATH", DIRS.join(":"))
        .before_spawn(|c| {
            sys::apart(c);
            Ok(())
        })
        .unchecked();
    for (name, value) in variables {
        expression = expression.env(name, value);
    }
    let started = Instant::now();
    let handle = expression
        .start()
        .map_err(|e| Error::io(format!("cannot run {}", program.display()), e))?;
    // It holds our copies of the pipes' write ends: they must be gone for the readers to see the end.
    drop(expression);

    let pipes_until = started + timeout + TERM_GRACE + KILL_GRACE;
    let (ended, consumed, said) = std::thread::scope(|scope| {
        let consumer = scope.spawn(move || {
            consume(&mut DeadlineReader {
                pipe: stdout,
                until: pipes_until,
            })
        });
        let listener = scope.spawn(move || {
            read_stderr(DeadlineReader {
                pipe: stderr,
                until: pipes_until,
            })
        });
        let ended = wait(&handle, started + timeout);
        (ended, consumer.join(), listener.join())
    });
    let said = said.unwrap_or_default();
    let consumed = consumed.unwrap_or_else(|_| {
        Err(Error::new(
            Kind::Tool,
            format!("the reader of {what} panicked"),
        ))
    });

    match ended.map_err(|e| Error::io(format!("cannot wait for {what}"), e))? {
        None => {
            let error = Error::new(
                Kind::Timeout,
                format!("{what} did not finish within {} s", timeout.as_secs_f32()),
            );
            Err(if said.is_empty() {
                error
            } else {
                error.because(said)
            })
        }
        Some(status)
            if status
                .code()
                .is_some_and(|c| c == 0 || accepted.contains(&c)) =>
        {
            Ok((consumed?, said, status.code().unwrap_or_default()))
        }
        // A consumer that gave up closed the pipe under the program: its reason is the real one.
        Some(status) => match consumed {
            Err(reason) if status.signal() == Some(Signal::PIPE.as_raw()) => Err(reason),
            _ => Err(failure(what, status, said)),
        },
    }
}

/// The exit status, or `None` if the time was up and the process group was ended.
fn wait(handle: &duct::Handle, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    if let Some(output) = handle.wait_deadline(deadline)? {
        return Ok(Some(output.status));
    }
    // The leader is not reaped yet, so its id cannot have gone to another group.
    let group = handle
        .pids()
        .first()
        .and_then(|pid| Pid::from_raw(i32::try_from(*pid).ok()?));
    for (signal, grace) in [(Signal::TERM, TERM_GRACE), (Signal::KILL, KILL_GRACE)] {
        if let Some(group) = group {
            // Fails only if the whole group is gone already.
            let _ = kill_process_group(group, signal);
        }
        if handle.wait_timeout(grace)?.is_some() {
            break;
        }
    }
    Ok(None)
}

/// A program ended with `status`, which is no success, after it had `said` that.
pub(crate) fn failure(what: &str, status: ExitStatus, said: String) -> Error {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".into(),
    };
    let error = Error::new(kind_of_stderr(&said), format!("{what} failed with {how}"));
    if said.is_empty() {
        error
    } else {
        error.because(said)
    }
}

/// The kind of failure where stderr clearly says so. Texts of the kernel (C locale), of lvm2 2.03 and of QEMU.
fn kind_of_stderr(said: &str) -> Kind {
    let tables: [(Kind, &[&str]); 4] = [
        (
            Kind::Space,
            &[
                "No space left on device",
                "nsufficient free space",
                "ree space in thin pool",
                "nsufficient suitable allocatable",
            ],
        ),
        (
            Kind::Busy,
            &[
                " in use",
                "resource busy",
                "is used by another device",
                // QEMU's image locks.
                "Is another process using the image",
                "Failed to lock byte",
            ],
        ),
        (
            Kind::NotFound,
            &[
                "Failed to find logical volume",
                "not found in Volume group",
                "not found in volume group",
                "Device does not exist",
                "No such device or address",
                "Cannot process volume group",
            ],
        ),
        (
            Kind::Permission,
            &["Permission denied", "Operation not permitted"],
        ),
    ];
    tables
        .iter()
        .find(|(_, texts)| texts.iter().any(|t| said.contains(t)))
        .map_or(Kind::Tool, |(kind, _)| *kind)
}

fn read_limited(stdout: &mut dyn Read, what: &str) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    stdout
        .take(STDOUT_MAX_BYTES as u64 + 1)
        .read_to_end(&mut all)
        .map_err(|e| Error::io(format!("cannot read what {what} prints"), e))?;
    if all.len() > STDOUT_MAX_BYTES {
        return Err(Error::new(
            Kind::Tool,
            format!("{what} printed more than {} MiB", STDOUT_MAX_BYTES >> 20),
        ));
    }
    Ok(all)
}

/// The beginning of stderr as one printable line; the rest is read and dropped, so nobody blocks on it.
fn read_stderr(mut pipe: DeadlineReader) -> String {
    let mut kept = Vec::new();
    let _ = (&mut pipe)
        .take(STDERR_MAX_BYTES as u64)
        .read_to_end(&mut kept);
    let _ = io::copy(&mut pipe, &mut io::sink());
    one_line(&kept)
}

/// What a program said, as one printable line.
pub(crate) fn one_line(said: &[u8]) -> String {
    String::from_utf8_lossy(said)
        .lines()
        .map(|l| l.trim().replace(|c: char| c.is_control(), "?"))
        .filter(|l| !l.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

/// A pipe whose reads fail after a point in time: a grandchild that escaped the process group and keeps
/// the write end open must not hang us.
struct DeadlineReader {
    pipe: PipeReader,
    until: Instant,
}

impl Read for DeadlineReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(
                &mut [PollFd::new(&self.pipe, PollFlags::IN)],
                Some(&timeout),
            ) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return self.pipe.read(buf),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
