//! Short commands on the other host: bounded in time and output.

use super::process::{self, Ended};
use super::{words, Remote};
use crate::error::{Error, Kind, Result};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// What a command may cost.
#[derive(Debug, Clone, Copy)]
pub struct RunLimits {
    /// From start to end.
    pub time: Duration,
    /// Bytes of stdout.
    pub stdout: usize,
}

impl Default for RunLimits {
    fn default() -> Self {
        RunLimits {
            time: Duration::from_secs(60),
            stdout: 16 << 20,
        }
    }
}

/// Of stderr only the end is kept; it is for people.
const STDERR_KEPT: usize = 64 << 10;

/// What a command on the other host left behind.
#[derive(Debug, Clone)]
pub struct RunOutput {
    /// How it exited.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// The last 64 KiB of its standard error.
    pub stderr: Vec<u8>,
}

impl RunOutput {
    /// Standard error on one line, fit for an error message.
    pub fn stderr_line(&self) -> String {
        words::one_line(&self.stderr)
    }
}

impl Remote {
    /// Runs a command with the default [`RunLimits`]. Any exit status is a result, not an error; 127 is the
    /// other shell's "command not found".
    ///
    /// The arguments arrive as they are: they are quoted for the login shell there, which must be one of
    /// the Bourne family. On a timeout the command is left with closed streams; SSH cannot kill it.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: &str,
        args: &[A],
        stdin: Option<&[u8]>,
    ) -> Result<RunOutput> {
        self.run_with(program, args, stdin, RunLimits::default())
    }

    /// As [`Remote::run`], with limits.
    pub fn run_with<A: AsRef<OsStr>>(
        &self,
        program: &str,
        args: &[A],
        stdin: Option<&[u8]>,
        limits: RunLimits,
    ) -> Result<RunOutput> {
        let args: Vec<OsString> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        self.run_os(OsStr::new(program), &args, stdin, limits)
    }

    pub(super) fn run_os(
        &self,
        program: &OsStr,
        args: &[OsString],
        stdin: Option<&[u8]>,
        limits: RunLimits,
    ) -> Result<RunOutput> {
        let deadline = Instant::now() + limits.time;
        let name = words::one_line(program.as_encoded_bytes());
        let host = self.host();
        let too_long = || {
            Error::new(
                Kind::Timeout,
                format!(
                    "{name} on {host} did not end within {} s",
                    limits.time.as_secs()
                ),
            )
        };
        let process = process::launch(host, &self.master, program, args, STDERR_KEPT)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let exchanged = process::runtime()?.block_on(async {
            let work = exchange(process.stdin, process.stdout, stdin, limits.stdout);
            process::within(left, &self.options.stop, work).await
        })?;
        let stdout = match exchanged {
            None => return Err(too_long()),
            Some(Err(e)) => return Err(Error::io(format!("cannot talk to {name} on {host}"), e)),
            Some(Ok(None)) => {
                return Err(Error::new(
                    Kind::Remote,
                    format!("{name} on {host} writes more than {} bytes", limits.stdout),
                ))
            }
            Some(Ok(Some(stdout))) => stdout,
        };
        // Never less than a moment: the streams have just ended, and so will the process.
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(100));
        let ended = process.watch.ended_within(left);
        let stderr = process.watch.stderr();
        match ended {
            Ended::Exited(status) => Ok(RunOutput {
                status,
                stdout,
                stderr,
            }),
            Ended::Running => Err(too_long()),
            ended => {
                let said = words::one_line(&stderr);
                Err(Error::new(Kind::Remote, format!("{name} on {host} failed"))
                    .because(format!("{ended}; {said}").trim_end_matches("; ").to_owned()))
            }
        }
    }
}

/// Feeds stdin and reads stdout to its end; `None` if there is more than `most`.
async fn exchange(
    stdin: OwnedFd,
    stdout: OwnedFd,
    input: Option<&[u8]>,
    most: usize,
) -> std::io::Result<Option<Vec<u8>>> {
    match input {
        None => drop(stdin),
        Some(input) => {
            let mut stdin = pipe::Sender::from_owned_fd(stdin)?;
            let input = input.to_vec();
            // A command need not read all it is given, so an error here is none.
            tokio::spawn(async move { stdin.write_all(&input).await });
        }
    }
    let mut output = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX - 1) + 1;
    pipe::Receiver::from_owned_fd(stdout)?
        .take(limit)
        .read_to_end(&mut output)
        .await?;
    Ok((output.len() <= most).then_some(output))
}
