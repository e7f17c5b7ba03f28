//! The one ssh process behind a connection: started with the user's own configuration, watched, and
//! ended with us.
//!
//! It is started here and not by the openssh crate, which then runs its sessions over the control socket:
//! the crate can neither set all the options below nor give up on a connect that hangs.
//!
//! How the master ends:
//! * `close` or drop: told to exit over the control socket, and killed if it does not listen.
//! * we are killed: our [`Hold`] closes, the sessions end, and `ControlPersist` ends the idle master after
//!   [`SshOptions::idle_exit`].
//! * Ctrl-C: it goes to the terminal's foreground process group. The master is in a session, and until
//!   it has logged in in a process group, of its own, as are the jump hosts' ssh processes below it.

use super::cipher::Cipher;
use super::control::ControlDir;
use super::keys::key_for;
use super::mux::Hold;
use super::words;
use super::HostSpec;
use crate::error::{Error, Kind, Result};
use crate::stop::Stop;
use crate::sys;
use rustix::process::{kill_process, kill_process_group, Pid, Signal};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{mpsc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Logging in may involve a hardware key or a slow directory service, after ssh's own `ConnectTimeout`.
const LOGIN_TIME: Duration = Duration::from_secs(30);
/// How long the master may take to answer on its socket, and to exit when told.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How often a wait looks at the stop flag.
pub(super) const STOP_LOOK: Duration = Duration::from_millis(100);

/// How to connect. What is not here comes from the user's own ssh configuration: keys, jump hosts,
/// host aliases.
#[derive(Clone)]
pub struct SshOptions {
    /// Read this instead of the user's and the system's ssh configuration (`ssh -F`).
    pub config_file: Option<PathBuf>,
    /// Which ciphers to offer.
    pub cipher: Cipher,
    /// The directory of our own keys: one that is for the host is used before those that ssh is configured with.
    pub keys: Option<PathBuf>,
    /// Take and remember the key of a host never seen before. A changed key is refused all the same.
    pub accept_new_host_key: bool,
    /// For the TCP connection and the key exchange; logging in may take 30 s more.
    pub connect_timeout: Duration,
    /// After this much silence the server is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// After this many unanswered questions the connection is given up.
    pub keepalive_count: u32,
    /// How long the master may outlive us if we are killed. It is also the time we have to take hold of it
    /// after the login, so not too short.
    pub idle_exit: Duration,
    /// When set, connecting, commands and uploads give up at once. Cleaning up still happens.
    pub stop: Stop,
}

impl Default for SshOptions {
    fn default() -> Self {
        SshOptions {
            config_file: None,
            cipher: Cipher::default(),
            keys: None,
            accept_new_host_key: false,
            connect_timeout: Duration::from_secs(15),
            keepalive_interval: Duration::from_secs(5),
            keepalive_count: 3,
            idle_exit: Duration::from_secs(10),
            stop: Stop::new(),
        }
    }
}

/// A logged-in master. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Master {
    socket: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Up {
        hold: Hold,
        control: ControlDir,
    },
    /// Ended by us.
    Down,
}

impl Master {
    /// Starts ssh and waits until it has logged in.
    pub(super) fn start(host: &HostSpec, options: &SshOptions) -> Result<Master> {
        let control = ControlDir::create()?;
        // What is said before the log is open, and the server's banner, which is why it is kept apart.
        let stray = control.log().with_extension("stderr");
        let stderr = File::create(&stray)
            .map_err(|e| Error::io(format!("cannot create {}", stray.display()), e))?;
        let status = run_ssh(host, arguments(host, options, &control), stderr, options)?;
        if !status.is_some_and(|status| status.success()) {
            let mut said = words::log_tail(&control.log());
            if said.is_empty() {
                said = words::log_tail(&stray);
            }
            if status.is_none() {
                said = format!("the login timed out; {said}");
            }
            return Err(words::connect_error(host, &said));
        }
        let socket = control.socket();
        let hold = Hold::open(&socket, ANSWER_TIME).map_err(|e| {
            kill_stray(&socket);
            let what = format!("ssh connected to {host}, but cannot be reached itself");
            Error::new(Kind::Remote, what).because(e)
        })?;
        let state = Mutex::new(State::Up { hold, control });
        Ok(Master { socket, state })
    }

    /// The control socket, for the openssh crate.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// If the connection is gone, waiting for that up to `wait`: what ssh said about it.
    pub(super) fn lost_within(&self, wait: Duration) -> Option<String> {
        match &*self.lock() {
            State::Up { hold, control } if hold.gone_within(wait) => {
                Some(match words::log_tail(&control.log()) {
                    said if said.is_empty() => "closed by the other side".to_owned(),
                    said => said,
                })
            }
            State::Up { .. } => None,
            State::Down => Some("closed by us".to_owned()),
        }
    }

    /// Ends the master, and with it whatever still runs over the connection. Safe to repeat.
    pub(super) fn stop(&self) -> Result<()> {
        let State::Up { hold, control } = std::mem::replace(&mut *self.lock(), State::Down) else {
            return Ok(());
        };
        hold.terminate();
        if !hold.gone_within(ANSWER_TIME) {
            // Its end of our socket is open, so the id is still its own.
            if let Some(pid) = i32::try_from(hold.pid()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
            if !hold.gone_within(ANSWER_TIME) {
                return Err(Error::new(
                    Kind::Remote,
                    format!("the ssh master process {} does not end", hold.pid()),
                ));
            }
        }
        drop(control);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        // Whoever wants to hear of an error has called `stop` before.
        let _ = self.stop();
    }
}

fn arguments(host: &HostSpec, options: &SshOptions, control: &ControlDir) -> Vec<OsString> {
    let seconds = |time: Duration| time.as_secs().max(1);
    let mut args: Vec<OsString> = vec!["-E".into(), control.log().into()];
    args.extend(["-S".into(), control.socket().into()]);
    // Master, no command, to the background once logged in; no terminal, no forwarding of agent or X11.
    args.extend(["-M", "-N", "-f", "-T", "-a", "-x"].map(OsString::from));
    let check = if options.accept_new_host_key {
        "accept-new"
    } else {
        "yes"
    };
    for option in [
        "BatchMode=yes".to_owned(),
        format!("StrictHostKeyChecking={check}"),
        format!("ConnectTimeout={}", seconds(options.connect_timeout)),
        format!(
            "ServerAliveInterval={}",
            seconds(options.keepalive_interval)
        ),
        format!("ServerAliveCountMax={}", options.keepalive_count.max(1)),
        // ssh counts whole ticks of the clock: one more, or a second could be over at once.
        format!("ControlPersist={}", seconds(options.idle_exit) + 1),
        "LogLevel=INFO".to_owned(),
        // A port forwarding or command configured for the interactive use of that host is not for us.
        "ClearAllForwardings=yes".to_owned(),
        "RemoteCommand=none".to_owned(),
        // The stream is compressed already.
        "Compression=no".to_owned(),
    ] {
        args.extend(["-o".into(), option.into()]);
    }
    if let Some(key) = key_for(options.keys.as_deref(), host) {
        args.extend(["-i".into(), key.into()]);
        args.extend(["-o", "IdentitiesOnly=yes"].map(OsString::from));
    }
    if let Some(ciphers) = options.cipher.choice(host, options) {
        args.extend(["-o".into(), format!("Ciphers={ciphers}").into()]);
    }
    args.extend(host_arguments(host, options));
    args
}

/// The arguments that say which host, and whose configuration.
pub(super) fn host_arguments(host: &HostSpec, options: &SshOptions) -> Vec<OsString> {
    let mut args = Vec::new();
    if let Some(file) = &options.config_file {
        args.extend(["-F".into(), file.into()]);
    }
    if let Some(port) = host.port() {
        args.extend(["-p".into(), port.to_string().into()]);
    }
    if let Some(user) = host.user() {
        args.extend(["-l".into(), user.into()]);
    }
    args.extend(["--".into(), host.host().into()]);
    args
}

/// Runs ssh until it has gone to the background or failed; `None` if it took too long.
fn run_ssh(
    host: &HostSpec,
    args: Vec<OsString>,
    stderr: File,
    options: &SshOptions,
) -> Result<Option<ExitStatus>> {
    let mut command = Command::new("ssh");
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    let mut child = sys::apart(&mut command).spawn().map_err(|e| {
        Error::io(format!("cannot run ssh to reach {host}"), e)
            .advise("install the package openssh-client")
    })?;
    let group = Pid::from_child(&child);
    let (done, waited) = mpsc::channel();
    thread::spawn(move || done.send(child.wait()));
    let deadline = Instant::now() + options.connect_timeout + LOGIN_TIME;
    loop {
        match waited.recv_timeout(STOP_LOOK) {
            Ok(status) => {
                return status
                    .map(Some)
                    .map_err(|e| Error::io(format!("cannot wait for ssh to {host}"), e))
            }
            Err(_) if options.stop.is_stopped() || Instant::now() >= deadline => {
                let _ = kill_process_group(group, Signal::KILL);
                options.stop.check()?;
                return Ok(None);
            }
            Err(_) => {}
        }
    }
}

/// Kills the ssh that was started with this control socket but does not listen on it, say for want of
/// space: it would stay for ever. Its arguments name the socket, whose random name nobody else knows.
fn kill_stray(socket: &Path) {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return;
    };
    for entry in entries.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let args = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let names_it = args
            .split(|&b| b == 0)
            .any(|arg| arg == socket.as_os_str().as_bytes());
        if let (true, Some(pid)) = (names_it, pid.and_then(Pid::from_raw)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_stray_ssh_is_found_by_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("master");
        // What it says proves that it runs: right after the spawn it may have no arguments yet.
        let start = |socket: &Path| {
            let mut command = Command::new("sh");
            command.args(["-c", "echo here; read forever; exit 7", "ssh", "-S"]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.arg(socket).spawn().unwrap();
            let mut said = [0; 5];
            child
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut said)
                .unwrap();
            child
        };
        let mut stray = start(&socket);
        let mut other = start(&dir.path().join("other"));
        kill_stray(&socket);
        assert_eq!(stray.wait().unwrap().signal(), Some(9));
        assert_eq!(other.wait().unwrap().code(), Some(7));
    }
}
