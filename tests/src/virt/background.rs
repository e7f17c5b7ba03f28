//! A command that runs in a node while the test goes on.

use super::node::{Node, RUN_TIMEOUT};
use super::{Error, Output, Result};
use crate::lab::inner::{drain, Context};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// A command running in a node. Dropped, its whole process group is killed.
#[derive(Debug)]
pub struct Background<'a> {
    node: &'a Node,
    pid: u32,
    process: Child,
    outputs: [Receiver<Vec<u8>>; 2],
}

impl Background<'_> {
    pub(super) fn start<'a>(node: &'a Node, script: &str) -> Result<Background<'a>> {
        // A session of its own, so that its shell's pid names its process group too.
        let mut process = node
            .command("setsid")
            .args(["sh", "-c", &format!("echo $$; {script}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(|| "cannot start nsenter")?;
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
                node.name(),
                String::from_utf8_lossy(&why).trim()
            )));
        };
        Ok(Background {
            node,
            pid,
            process,
            outputs: [stdout, stderr],
        })
    }

    /// Its pid in the node: the script's shell, leader of its process group and session.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal ("KILL", "TERM", "INT" ...) to its process group.
    ///
    /// # Errors
    /// The group is gone.
    pub fn signal(&self, signal: &str) -> Result<()> {
        self.node
            .run_ok(&format!("/bin/kill -{signal} -- -{}", self.pid))
            .map(drop)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// Its state cannot be had.
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
            // nsenter ends by the signal that ended its child.
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
        // Nobody is left to hear of a failure; the node's end ends it too.
        self.signal("KILL").ok();
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
