//! A command that runs in a guest of the lab, or in a node of the bed, while the test goes on.

use super::error::{Context, Error, Result};
use super::guest::{Output, RUN_TIMEOUT};
use super::tool::drain;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Where a command runs.
pub(crate) trait Place {
    /// Its name.
    fn name(&self) -> &str;

    /// Sends a signal to a process group there. Fails if nobody answers, or the group is gone.
    fn signal_group(&self, signal: &str, group: u32) -> Result<()>;
}

/// A command running somewhere else. Dropped, its whole process group is killed.
pub struct Background<'a> {
    place: &'a dyn Place,
    pid: u32,
    process: Child,
    outputs: [Receiver<Vec<u8>>; 2],
}

impl Background<'_> {
    /// `command` runs a shell at `place` that leads a session and a process group, and whose first line of output is its
    /// pid, which names them too.
    pub(crate) fn start<'a>(place: &'a dyn Place, command: &mut Command) -> Result<Background<'a>> {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(|| format!("cannot start {}", command.get_program().display()))?;
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
                place.name(),
                String::from_utf8_lossy(&why).trim()
            )));
        };
        Ok(Background {
            place,
            pid,
            process,
            outputs: [stdout, stderr],
        })
    }

    /// Its pid there: the script's shell, leader of its process group and session.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal ("KILL", "TERM", "INT" ...) to its process group.
    ///
    /// # Errors
    /// Nobody answers there, or the group is gone.
    pub fn signal(&self, signal: &str) -> Result<()> {
        self.place.signal_group(signal, self.pid)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The state of the local process cannot be had.
    pub fn is_running(&mut self) -> Result<bool> {
        self.process
            .try_wait()
            .map(|status| status.is_none())
            .context(|| "cannot ask for its state")
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
        let status = self.process.wait().context(|| "cannot wait for it")?.code();
        let stderr = texts.pop().unwrap_or_default();
        let stdout = texts.pop().unwrap_or_default();
        Ok(Output {
            // What gets us there may end by the signal that ended the command.
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
        // Nobody is left to hear of a failure; the end of where it runs ends it too.
        self.signal("KILL").ok();
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
