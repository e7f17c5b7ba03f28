//! qemu-nbd as a child that serves one image to this process, over a unix socket in a directory that only this user
//! can enter.
//!
//! How it ends:
//! * its only client, which is us, disconnects: it closes the image and exits (it runs without `--persistent`).
//! * we are killed: so our connection is closed, which is the same; and before there is one, it gets SIGTERM (see
//!   [`sys::spawn_tied`]).
//! * it is dropped: SIGTERM, upon which it closes the image properly, and SIGKILL if that does not help.

use crate::cmd::{failure, one_line, Tool, STDERR_MAX_BYTES};
use crate::error::{Error, Kind, Result};
use crate::sys;
use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};
use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{mpsc, Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// An image that was not closed properly is looked through before it is served.
const START_TIME: Duration = Duration::from_secs(120);
/// From the last request to the exit: what is left to write then is metadata.
const CLOSE_TIME: Duration = Duration::from_secs(120);
const TERM_GRACE: Duration = Duration::from_secs(10);
const KILL_GRACE: Duration = Duration::from_secs(5);
/// Between two looks at whether it is ready; its end is noticed at once.
const READY_POLL: Duration = Duration::from_millis(5);
/// Longest path of a socket: `sun_path` holds 108 bytes with the closing NUL.
const SOCKET_PATH_MAX: usize = 107;

/// How an image is to be served.
#[derive(Debug, Clone, Default)]
pub(super) struct Export {
    /// The image as QEMU's options: `driver=qcow2,file.driver=file,...`.
    pub image: OsString,
    /// What messages call it.
    pub name: String,
    /// Writes are taken.
    pub writable: bool,
    /// Past the page cache.
    pub direct: bool,
    /// The internal snapshot that is to be served instead of the present state.
    pub snapshot: Option<String>,
    /// A persistent bitmap to be told of.
    pub bitmap: Option<String>,
}

/// The running program.
pub(super) struct NbdServer {
    name: String,
    socket: PathBuf,
    dir: Option<TempDir>,
    process: OwnedFd,
    life: Arc<Life>,
}

/// What is known of the process; a thread of its own looks after it.
#[derive(Default)]
struct Life {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    said: Vec<u8>,
    ended: Option<ExitStatus>,
}

impl Life {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it ended, or `None` if it has not within `limit`.
    fn ended_within(&self, limit: Duration) -> Option<ExitStatus> {
        let running = |state: &mut State| state.ended.is_none();
        let (state, _) = self
            .changed
            .wait_timeout_while(self.state(), limit, running)
            .unwrap_or_else(PoisonError::into_inner);
        state.ended
    }

    fn said(&self) -> String {
        one_line(&self.state().said)
    }

    /// Takes in all that it says, and then how it ended.
    fn follow(&self, mut child: Child) {
        if let Some(mut stderr) = child.stderr.take() {
            let mut chunk = [0; 1024];
            while let Ok(len @ 1..) = stderr.read(&mut chunk) {
                let said = &mut self.state().said;
                let room = STDERR_MAX_BYTES.saturating_sub(said.len());
                said.extend_from_slice(&chunk[..len.min(room)]);
            }
        }
        if let Ok(status) = child.wait() {
            self.state().ended = Some(status);
            self.changed.notify_all();
        }
    }
}

/// In QEMU's lists of options a comma is written twice; all other bytes stand for themselves.
pub(super) fn escaped(value: &OsStr) -> OsString {
    let mut out = Vec::new();
    for &byte in value.as_bytes() {
        out.push(byte);
        if byte == b',' {
            out.push(byte);
        }
    }
    OsString::from_vec(out)
}

fn joined(option: &str, value: &OsStr) -> OsString {
    let mut whole = OsString::from(option);
    whole.push(value);
    whole
}

impl Export {
    fn command(&self, socket: &Path, ready: &Path) -> Result<Command> {
        let mut command = Tool::QemuNbd.command()?;
        command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .arg(joined("--socket=", socket.as_os_str()))
            .arg(joined("--pid-file=", ready.as_os_str()))
            // Zeros free what they replace, whoever sends them as data.
            .args(["--discard=unmap", "--detect-zeroes=unmap"]);
        command.arg(match self.direct {
            true => "--cache=none",
            false => "--cache=writeback",
        });
        if !self.writable {
            command.arg("--read-only");
        }
        if let Some(name) = &self.snapshot {
            let name = escaped(OsStr::new(name));
            command.arg(joined("--load-snapshot=snapshot.name=", &name));
        }
        if let Some(name) = &self.bitmap {
            command.arg(format!("--bitmap={name}"));
        }
        command.args(["--image-opts", "--"]).arg(&self.image);
        Ok(command)
    }
}

impl NbdServer {
    /// Starts it and waits until it serves the image. Fails with what it says if it ends instead: [`Kind::Busy`] if another QEMU
    /// uses the image.
    pub fn start(export: &Export) -> Result<NbdServer> {
        let dir = socket_dir()?;
        let socket = dir.path().join("nbd");
        let ready = dir.path().join("pid");
        let mut command = export.command(&socket, &ready)?;
        let life = Arc::new(Life::default());
        let (tell, told) = mpsc::channel();
        let follower = Arc::clone(&life);
        let failed = |e| Error::io(format!("cannot run qemu-nbd for {}", export.name), e);
        // It starts the process and stays until that ends, as the tie between the two is the thread's.
        std::thread::Builder::new()
            .name("qemu-nbd".into())
            .spawn(move || {
                let started = sys::spawn_tied(&mut command);
                // It holds our end of a pipe.
                drop(command);
                let child = match started {
                    Ok(child) => child,
                    Err(e) => return drop(tell.send(Err(e))),
                };
                let _ = tell.send(handle_of(&child));
                follower.follow(child);
            })
            .map_err(failed)?;
        let gone = || std::io::Error::other("the thread that starts it ended");
        let process = told
            .recv()
            .unwrap_or_else(|_| Err(gone()))
            .map_err(failed)?;
        let server = NbdServer {
            name: export.name.clone(),
            socket,
            dir: Some(dir),
            process,
            life,
        };
        server.await_ready(&ready)?;
        Ok(server)
    }

    /// It listens before it opens the image, and writes its process id when both is done.
    fn await_ready(&self, ready: &Path) -> Result<()> {
        let until = Instant::now() + START_TIME;
        loop {
            if let Some(error) = self.ended(READY_POLL) {
                return Err(error);
            }
            if ready.exists() && listens(&self.socket) {
                return Ok(());
            }
            if Instant::now() >= until {
                let what = format!("qemu-nbd for {} did not begin to serve in time", self.name);
                return Err(Error::new(Kind::Timeout, what).because(self.life.said()));
            }
        }
    }

    /// Where it listens, for one client.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// To be called once we are connected: nobody else can, and nothing will be left to be cleared away.
    pub fn close_door(&mut self) {
        // What cannot be removed is an empty directory.
        drop(self.dir.take());
    }

    /// How it ended, and what it said, if it has ended or does so now.
    pub fn ended(&self, within: Duration) -> Option<Error> {
        let status = self.life.ended_within(within)?;
        let what = format!("qemu-nbd for {}", self.name);
        Some(failure(&what, status, self.life.said()))
    }

    /// To be called when its client has disconnected: waits for its exit. Fails if that was no clean one.
    pub fn finish(self) -> Result<()> {
        let what = format!("qemu-nbd for {}", self.name);
        match self.life.ended_within(CLOSE_TIME) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(failure(&what, status, self.life.said())),
            None => Err(Error::new(Kind::Timeout, format!("{what} does not end"))),
        }
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        for (signal, grace) in [(Signal::TERM, TERM_GRACE), (Signal::KILL, KILL_GRACE)] {
            if self.life.ended_within(Duration::ZERO).is_some() {
                return;
            }
            // Fails only if it has just ended.
            let _ = pidfd_send_signal(&self.process, signal);
            self.life.ended_within(grace);
        }
    }
}

/// A handle that means this process and no other, also after its end.
fn handle_of(child: &Child) -> std::io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| std::io::Error::other("it has no process id"))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// A directory that only this user can enter, with a short enough path.
fn socket_dir() -> Result<TempDir> {
    let fits = |base: &PathBuf| {
        base.is_absolute()
            && base.as_os_str().len() + "/rblocksync-nbd-XXXXXX/nbd".len() <= SOCKET_PATH_MAX
    };
    let base = Some(std::env::temp_dir())
        .filter(fits)
        .unwrap_or_else(|| "/tmp".into());
    tempfile::Builder::new()
        .prefix("rblocksync-nbd-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(&base)
        .map_err(|e| Error::io(format!("cannot make a directory in {}", base.display()), e))
}

/// Whether somebody listens on this socket. Connecting would tell as well, but the server takes its first client for the
/// last one: proc_net(5), where the flag is `__SO_ACCEPTCON` of linux/net.h.
fn listens(socket: &Path) -> bool {
    const ACCEPTS: u32 = 1 << 16;
    let Ok(table) = std::fs::read("/proc/net/unix") else {
        return socket.exists();
    };
    table.split(|b| *b == b'\n').any(|line| {
        let mut fields = line.split(|b| *b == b' ').filter(|field| !field.is_empty());
        let flags = fields.nth(3).and_then(|f| std::str::from_utf8(f).ok());
        line.ends_with(socket.as_os_str().as_bytes())
            && flags.is_some_and(|f| u32::from_str_radix(f, 16).is_ok_and(|f| f & ACCEPTS != 0))
    })
}
