//! Processes on the other host: starting them, their three streams, and how they ended.

use super::master::{Master, STOP_LOOK};
use super::words;
use super::HostSpec;
use crate::error::{Error, Kind, Result};
use crate::stop::Stop;
use openssh::{OverSsh, Session, Stdio};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{Command, ExitStatus};
use std::sync::{mpsc, Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::runtime::Runtime;

/// How long opening a session may take.
const START_TIME: Duration = Duration::from_secs(30);
/// The master learns of a lost connection a moment after its sessions do.
const LOSS_SHOWS: Duration = Duration::from_secs(1);
/// A shell's exit code for "command not found"; the openssh crate makes an error of it.
const NOT_FOUND: i32 = 127;

/// A process on the other host with its streams.
#[derive(Debug)]
pub(super) struct Process {
    /// Closing it is the end of file for the process.
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) watch: Watch,
}

/// Follows one process: collects the end of its stderr and learns how it ended.
#[derive(Debug)]
pub(super) struct Watch {
    master: Arc<Master>,
    tail: Arc<Mutex<Tail>>,
    ended: mpsc::Receiver<std::result::Result<ExitStatus, openssh::Error>>,
}

/// How a process on the other host ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It exited by itself, with this status.
    Exited(ExitStatus),
    /// It was killed there while the connection stands. SSH does not tell by which signal.
    Killed,
    /// The connection is gone, with what ssh said about it.
    ConnectionLost(String),
    /// It has not ended in the time given.
    Running,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Exited(status) => match status.code() {
                Some(0) => f.write_str("it ended without an error"),
                Some(code) => write!(f, "it ended with exit code {code}"),
                None => write!(f, "it ended with {status}"),
            },
            Ended::Killed => f.write_str("it was killed by a signal"),
            Ended::ConnectionLost(why) => write!(f, "the SSH connection was lost: {why}"),
            Ended::Running => f.write_str("it is still running"),
        }
    }
}

/// A runtime for one operation or one thread. Not shared: it costs two descriptors for a moment, and
/// spares handing one driver around between the threads that use a connection.
pub(super) fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|e| Error::io("cannot start the runtime for SSH", e))
}

/// Runs a future to its end, unless `limit` passes (`None`) or the stop flag is set.
pub(super) async fn within<T>(
    limit: Duration,
    stop: &Stop,
    work: impl Future<Output = T>,
) -> Result<Option<T>> {
    let deadline = Instant::now() + limit;
    let mut work = pin!(work);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left.min(STOP_LOOK), &mut work).await {
            Ok(done) => return Ok(Some(done)),
            Err(_elapsed) if left.is_zero() => return Ok(None),
            Err(_elapsed) => stop.check()?,
        }
    }
}

/// The command line, quoted for the other host's shell by the openssh crate.
fn command_line(program: &OsStr, args: &[OsString]) -> Result<Command> {
    let refuse = |why: &str| {
        let shown = words::one_line(program.as_bytes());
        Error::new(
            Kind::Usage,
            format!("cannot run \"{shown}\" on another host: {why}"),
        )
    };
    // std would quietly run something else in its place.
    if program.as_bytes().contains(&0) || args.iter().any(|arg| arg.as_bytes().contains(&0)) {
        return Err(refuse("there is a NUL byte in its name or arguments"));
    }
    // A shell takes a first word with an equals sign for an assignment, and the second for the program.
    if program.is_empty() || program.as_bytes().contains(&b'=') {
        return Err(refuse("that is no name of a program"));
    }
    let mut command = Command::new(program);
    command.args(args);
    Ok(command)
}

/// Starts a process on the other host. Of its stderr the last `keep` bytes are kept.
pub(super) fn launch(
    host: &HostSpec,
    master: &Arc<Master>,
    program: &OsStr,
    args: &[OsString],
    keep: usize,
) -> Result<Process> {
    launch_with(host, master, program, args, Tail::new(keep))
}

/// The same, with its stderr going into that tail.
pub(super) fn launch_with(
    host: &HostSpec,
    master: &Arc<Master>,
    program: &OsStr,
    args: &[OsString],
    tail: Tail,
) -> Result<Process> {
    let command = command_line(program, args)?;
    let name = words::one_line(program.as_bytes());
    let socket: Box<std::path::Path> = master.socket().into();
    let runtime = runtime()?;
    let tail = Arc::new(Mutex::new(tail));
    let (started, start) = mpsc::channel();
    let (end, ended) = mpsc::channel();
    let thread_tail = Arc::clone(&tail);
    let body = move || {
        runtime.block_on(async move {
            let session = Session::resume_mux(socket, None);
            let (stdin, stdout, stderr, child) = match spawn(&session, &command).await {
                Ok(parts) => parts,
                Err(e) => {
                    let _ = started.send(Err(e));
                    return;
                }
            };
            let _ = started.send(Ok((stdin, stdout)));
            // The exit status may come before the last output, and `wait` lets go of the session as soon
            // as it has it, upon which the master throws away what it has not yet written to our pipes.
            // It closes stderr last, when all output is delivered: so not a moment earlier.
            collect(stderr, thread_tail).await;
            let _ = end.send(child.wait().await);
        });
    };
    thread::Builder::new()
        .name("ssh-session".to_owned())
        .spawn(body)
        .map_err(|e| Error::io("cannot start a thread", e))?;
    let (stdin, stdout) = match start.recv_timeout(START_TIME) {
        Ok(Ok(fds)) => fds,
        Ok(Err(e)) => return Err(start_error(host, master, &name, e)),
        Err(_) => {
            return Err(Error::new(
                Kind::Timeout,
                format!("{host} does not start {name}, nor say why not"),
            ))
        }
    };
    let watch = Watch {
        master: Arc::clone(master),
        tail,
        ended,
    };
    Ok(Process {
        stdin,
        stdout,
        watch,
    })
}

type Child<'a> = openssh::Child<&'a Session>;

async fn spawn<'a>(
    session: &'a Session,
    command: &Command,
) -> std::result::Result<(OwnedFd, OwnedFd, openssh::ChildStderr, Child<'a>), openssh::Error> {
    let mut child = command
        .over_ssh(session)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .await?;
    let (Some(stdin), Some(stdout), Some(stderr)) = (
        child.stdin().take(),
        child.stdout().take(),
        child.stderr().take(),
    ) else {
        return Err(openssh::Error::ChildIo(
            std::io::ErrorKind::BrokenPipe.into(),
        ));
    };
    let stdin = stdin.into_owned_fd().map_err(openssh::Error::ChildIo)?;
    let stdout = stdout.into_owned_fd().map_err(openssh::Error::ChildIo)?;
    Ok((stdin, stdout, stderr, child))
}

fn start_error(host: &HostSpec, master: &Master, program: &str, e: openssh::Error) -> Error {
    match master.lost_within(LOSS_SHOWS) {
        Some(why) => Error::new(Kind::Remote, format!("cannot run {program} on {host}"))
            .because(Ended::ConnectionLost(why).to_string()),
        None => words::session_error(host, program, e),
    }
}

impl Watch {
    /// Waits up to `limit` for the end of the process.
    pub(super) fn ended_within(&self, limit: Duration) -> Ended {
        let status = match self.ended.recv_timeout(limit) {
            Ok(status) => status,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return match self.master.lost_within(Duration::ZERO) {
                    Some(why) => Ended::ConnectionLost(why),
                    None => Ended::Running,
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(openssh::Error::Disconnected),
        };
        match status {
            Ok(status) => Ended::Exited(status),
            Err(openssh::Error::Remote(_)) => Ended::Exited(ExitStatus::from_raw(NOT_FOUND << 8)),
            Err(_) => match self.master.lost_within(LOSS_SHOWS) {
                Some(why) => Ended::ConnectionLost(why),
                None => Ended::Killed,
            },
        }
    }

    /// The end of what the process has written to stderr so far.
    pub(super) fn stderr(&self) -> Vec<u8> {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.bytes.iter().copied().collect()
    }
}

/// The last bytes of a stream.
#[derive(Debug)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    keep: usize,
    echo: Option<File>,
}

impl Tail {
    pub(super) fn new(keep: usize) -> Tail {
        Tail {
            bytes: VecDeque::new(),
            keep,
            echo: None,
        }
    }

    /// One that passes everything on as it comes.
    pub(super) fn echoing(keep: usize, echo: File) -> Tail {
        Tail {
            echo: Some(echo),
            ..Tail::new(keep)
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(echo) = &mut self.echo {
            // If nobody reads any more, that is no reason to hold up the process there.
            let _ = echo.write_all(bytes);
        }
        let bytes = &bytes[bytes.len().saturating_sub(self.keep)..];
        let excess = (self.bytes.len() + bytes.len()).saturating_sub(self.keep);
        self.bytes.drain(..excess);
        self.bytes.extend(bytes);
    }
}

async fn collect(mut stream: impl AsyncRead + Unpin, tail: Arc<Mutex<Tail>>) {
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut chunk).await {
        tail.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(&chunk[..n]);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_bytes() {
        let mut tail = Tail::new(4);
        for (piece, want) in [
            ("ab", "ab"),
            ("cd", "abcd"),
            ("e", "bcde"),
            ("fghijk", "hijk"),
        ] {
            tail.push(piece.as_bytes());
            assert!(tail.bytes.iter().eq(want.as_bytes()), "{tail:?}");
        }
    }

    #[test]
    fn what_a_shell_or_std_would_change_is_refused() {
        let args = |arg: &str| vec![OsString::from(arg)];
        for (program, args) in [
            ("", args("x")),
            ("A=b", args("x")),
            ("a\0b", args("x")),
            ("a", args("x\0y")),
        ] {
            let e = command_line(OsStr::new(program), &args).unwrap_err();
            assert_eq!(e.kind(), Kind::Usage);
        }
        command_line(OsStr::new("a"), &args("")).unwrap();
    }
}
