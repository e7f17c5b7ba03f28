//! A command that runs in a guest while the test goes on.

use super::error::{Context, Error, Result};
use super::guest::{Guest, Output, RUN_TIMEOUT};
use super::tool::drain;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// A command running in a guest. Dropped, its whole process group is killed.
#[derive(Debug)]
pub struct Background<'a> {
    guest: &'a Guest,
    pid: u32,
    process: Child,
    outputs: [Receiver<Vec<u8>>; 2],
}

impl Background<'_> {
    pub(crate) fn start<'a>(guest: &'a Guest, script: &str) -> Result<Background<'a>> {
        // sshd makes the shell the leader of a session and a process group, so its pid names them too.
        let mut process = guest
            .ssh(&format!("echo $$; {script}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(|| "cannot start ssh")?;
        let stderr = drain(process.stderr.take());
        let mut line = String::new();
        let stdout = process.stdout.take().map(BufReader::new);
        let stdout = drain(stdout.map(|mut stdout| {
            // A failure leaves the line empty, which is told below.
            stdout.read_line(&mut line).ok();
            stdout
        }));
        let Ok(pid) = line.trim().parse() else {
            process.kill().ok();
            process.wait().ok();
            let why = stderr.recv().unwrap_or_default();
            return Err(Error::new(format!(
                "{} starts no background command: {}",
                guest.name(),
                String::from_utf8_lossy(&why).trim()
            )));
        };
        Ok(Background {
            guest,
            pid,
            process,
            outputs: [stdout, stderr],
        })
    }

    /// Its pid in the guest: the script's shell, leader of its process group and session.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal ("KILL", "TERM", "INT" ...) to its process group.
    ///
    /// # Errors
    /// The guest does not answer, or the group is gone.
    pub fn signal(&self, signal: &str) -> Result<()> {
        self.guest
            .run_ok(&format!("kill -{signal} -- -{}", self.pid))
            .map(drop)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The state of the local ssh cannot be had.
    pub fn is_running(&mut self) -> Result<bool> {
        self.process
            .try_wait()
            .map(|status| status.is_none())
            .context(|| "cannot ask for ssh's state")
    }

    /// Waits for its end, for at most [`RUN_TIMEOUT`].
    ///
    /// # Errors
    /// It runs on; it is killed then.
    pub fn wait(self) -> Result<Output> {
        self.wait_for(RUN_TIMEOUT)
    }

    /// [`wait`](Self::wait) with a limit of its own.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_for(mut self, limit: Duration) -> Result<Output> {
        let deadline = Instant::now() + limit;
        let mut texts = Vec::new();
        for output in &self.outputs {
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = output.recv_timeout(left).map_err(|_| {
                Error::new(format!("process {} still runs after {limit:?}", self.pid))
            })?;
            texts.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        let status = self
            .process
            .wait()
            .context(|| "cannot wait for ssh")?
            .code();
        let stderr = texts.pop().unwrap_or_default();
        let stdout = texts.pop().unwrap_or_default();
        Ok(Output {
            status: status.unwrap_or(255),
            stdout,
            stderr,
        })
    }
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            return;
        }
        // Nobody is left to hear of a failure; the guest's end ends it too.
        self.signal("KILL").ok();
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
