//! A client of the QEMU monitor protocol: one command at a time, events noted by name.
//!
//! Protocol: QEMU's "QMP protocol specification": a greeting, `qmp_capabilities`, then commands whose
//! replies carry the id they were sent with, with events in between.

use super::socket::{busy, LineSocket};
use crate::error::{Error, Kind, Result};
use serde_json::{json, Value};
use std::path::Path;
use std::time::{Duration, Instant};

/// More events than this are not kept; nobody reads that many.
const EVENTS_MAX: usize = 1000;

/// A monitor that is ready for commands.
pub struct Qmp {
    socket: LineSocket,
    next_id: u64,
    events: Vec<String>,
}

/// What `query-status` says of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunState {
    /// Its vCPUs run.
    pub running: bool,
    /// QEMU's word for the state: `running`, `paused`, `prelaunch`, `io-error`...
    pub status: String,
}

impl Qmp {
    /// Connects and negotiates. Queues up for at most `timeout` behind another client, then fails with
    /// [`Kind::Busy`]; fails with [`Kind::NotFound`] if there is no socket.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self> {
        let deadline = Instant::now() + timeout;
        let mut socket = LineSocket::connect(path, deadline)?;
        // The greeting comes when it is our turn.
        let greeting = socket.read_line(deadline).map_err(|e| match e.kind() {
            Kind::Timeout => busy(path),
            _ => e,
        })?;
        let greeting = parse(path, &greeting)?;
        if greeting.get("QMP").is_none() {
            return Err(Error::new(
                Kind::Protocol,
                format!("{} is no QEMU monitor (QMP)", path.display()),
            ));
        }
        let mut qmp = Qmp {
            socket,
            next_id: 1,
            events: Vec::new(),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        qmp.execute("qmp_capabilities", json!({}), left)?;
        Ok(qmp)
    }

    /// Runs one command and returns what it returned. Fails with [`Kind::Tool`] and QEMU's text if QEMU
    /// refuses, with [`Kind::Timeout`] if there is no answer; the connection is usable afterwards.
    pub fn execute(&mut self, command: &str, arguments: Value, timeout: Duration) -> Result<Value> {
        let deadline = Instant::now() + timeout;
        let id = self.next_id;
        self.next_id += 1;
        let mut request = json!({"execute": command, "id": id});
        if arguments.as_object().is_some_and(|a| !a.is_empty()) {
            request["arguments"] = arguments;
        }
        let path = self.socket.path().to_owned();
        let doing = |e: Error| e.context(format!("QMP {command}"));
        self.socket
            .send(format!("{request}\r\n").as_bytes(), deadline)
            .map_err(doing)?;
        loop {
            let line = self.socket.read_line(deadline).map_err(doing)?;
            let mut reply = parse(&path, &line).map_err(doing)?;
            if let Some(event) = reply.get("event").and_then(Value::as_str) {
                if self.events.len() < EVENTS_MAX {
                    self.events.push(event.to_owned());
                }
                continue;
            }
            let answered = reply.get("id").and_then(Value::as_u64);
            // A late reply to a command that timed out.
            if answered.is_some_and(|other| other != id) {
                continue;
            }
            if let Some(error) = reply.get("error") {
                let said = error.get("desc").and_then(Value::as_str);
                return Err(Error::new(
                    Kind::Tool,
                    format!("QEMU at {} refused {command}", path.display()),
                )
                .because(said.unwrap_or("no reason given").to_owned()));
            }
            return match reply.get_mut("return") {
                Some(value) if answered.is_some() => Ok(value.take()),
                _ => Err(doing(not_qmp(&path))),
            };
        }
    }

    /// The state the VM is in.
    pub fn status(&mut self, timeout: Duration) -> Result<RunState> {
        let status = self.execute("query-status", json!({}), timeout)?;
        match (status["running"].as_bool(), status["status"].as_str()) {
            (Some(running), Some(status)) => Ok(RunState {
                running,
                status: status.to_owned(),
            }),
            _ => Err(not_qmp(self.socket.path()).context("QMP query-status")),
        }
    }

    /// Stops the vCPUs, waits for I/O under way and flushes the images, also if they were stopped already.
    pub fn stop(&mut self, timeout: Duration) -> Result<()> {
        self.execute("stop", json!({}), timeout).map(drop)
    }

    /// Lets the vCPUs run again.
    pub fn cont(&mut self, timeout: Duration) -> Result<()> {
        self.execute("cont", json!({}), timeout).map(drop)
    }

    /// The names of the events that came in so far, oldest first, and forgets them.
    pub fn take_events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }
}

fn parse(path: &Path, line: &[u8]) -> Result<Value> {
    serde_json::from_slice(line).map_err(|e| not_qmp(path).because(e))
}

fn not_qmp(path: &Path) -> Error {
    Error::new(
        Kind::Protocol,
        format!("{} does not speak QMP as expected", path.display()),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
