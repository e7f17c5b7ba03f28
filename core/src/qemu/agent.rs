//! A client of the agent in the guest, as far as freezing file systems needs it.
//!
//! The socket belongs to QEMU and accepts us whether or not an agent runs in the guest; what an earlier
//! client left unread may still come. So every connection starts with `guest-sync-delimited`: all up to
//! its reply, which follows a byte 0xFF, is thrown away.

use super::socket::LineSocket;
use crate::error::{Error, Kind, Result};
use serde_json::{json, Value};
use std::path::Path;
use std::time::{Duration, Instant};

/// The byte no JSON text contains: makes the agent drop half a request, and marks its reply to a sync.
const SENTINEL: u8 = 0xff;

/// So long an agent that is there may take for a trivial command. The limit of Proxmox's guest-ping.
pub const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// An agent that has answered.
pub struct GuestAgent {
    socket: LineSocket,
    /// The agent may still be busy with a command whose answer we did not wait for.
    unanswered: bool,
    next_sync: u64,
}

/// Whether the guest's file systems take writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeStatus {
    /// They do.
    Thawed,
    /// At least one is frozen.
    Frozen,
}

impl GuestAgent {
    /// Connects and waits for the agent to show that it is there: [`Kind::Timeout`] if it does not.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self> {
        let deadline = Instant::now() + timeout;
        let mut agent = GuestAgent {
            socket: LineSocket::connect(path, deadline)?,
            unanswered: false,
            // Differs from what an earlier client of ours may have left unanswered.
            next_sync: u64::from(std::process::id()) << 16,
        };
        agent.sync(deadline)?;
        Ok(agent)
    }

    /// Whether it answers at all.
    pub fn ping(&mut self) -> Result<()> {
        self.execute("guest-ping", PING_TIMEOUT).map(drop)
    }

    /// Whether file systems are frozen.
    pub fn freeze_status(&mut self) -> Result<FreezeStatus> {
        match self
            .execute("guest-fsfreeze-status", PING_TIMEOUT)?
            .as_str()
        {
            Some("thawed") => Ok(FreezeStatus::Thawed),
            Some("frozen") => Ok(FreezeStatus::Frozen),
            _ => Err(self.odd("guest-fsfreeze-status")),
        }
    }

    /// Flushes and freezes all file systems; returns how many. After an error, a timeout above all, some
    /// may be frozen or become so later: [`GuestAgent::thaw`] is due.
    pub fn freeze(&mut self, timeout: Duration) -> Result<u64> {
        let frozen = self.execute("guest-fsfreeze-freeze", timeout)?;
        frozen
            .as_u64()
            .ok_or_else(|| self.odd("guest-fsfreeze-freeze"))
    }

    /// Thaws all file systems. With none frozen it does nothing.
    pub fn thaw(&mut self, timeout: Duration) -> Result<()> {
        self.execute("guest-fsfreeze-thaw", timeout).map(drop)
    }

    fn execute(&mut self, command: &str, timeout: Duration) -> Result<Value> {
        let deadline = Instant::now() + timeout;
        self.exchange(command, deadline)
            .map_err(|e| e.context(format!("guest agent, {command}")))
    }

    fn exchange(&mut self, command: &str, deadline: Instant) -> Result<Value> {
        if self.unanswered {
            self.sync(deadline)?;
        }
        self.unanswered = true;
        let request = json!({"execute": command});
        self.socket
            .send(format!("{request}\n").as_bytes(), deadline)?;
        let line = self.socket.read_line(deadline)?;
        self.unanswered = false;
        let mut reply: Value =
            serde_json::from_slice(&line).map_err(|e| self.odd(command).because(e))?;
        if let Some(error) = reply.get("error") {
            let said = error.get("desc").and_then(Value::as_str);
            return Err(Error::new(Kind::Tool, "it refused")
                .because(said.unwrap_or("no reason given").to_owned()));
        }
        reply
            .get_mut("return")
            .map(Value::take)
            .ok_or_else(|| self.odd(command))
    }

    fn sync(&mut self, deadline: Instant) -> Result<()> {
        let id = self.next_sync;
        self.next_sync += 1;
        self.unanswered = true;
        let request = json!({"execute": "guest-sync-delimited", "arguments": {"id": id}});
        let mut bytes = vec![SENTINEL];
        bytes.extend_from_slice(format!("{request}\n").as_bytes());
        self.socket.send(&bytes, deadline)?;
        loop {
            let line = self.socket.read_line(deadline)?;
            let Some(at) = line.iter().rposition(|b| *b == SENTINEL) else {
                continue;
            };
            let reply: Option<Value> = serde_json::from_slice(&line[at + 1..]).ok();
            if reply.is_some_and(|r| r["return"].as_u64() == Some(id)) {
                self.unanswered = false;
                return Ok(());
            }
        }
    }

    fn odd(&self, command: &str) -> Error {
        Error::new(
            Kind::Protocol,
            format!(
                "{} answered {command} in an unexpected way",
                self.socket.path().display()
            ),
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
