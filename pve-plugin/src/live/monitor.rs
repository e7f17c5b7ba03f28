//! What QEMU is told, and asked, of a guest whose memory moves. Each connection is short: the monitor serves one client at
//! a time.

use crate::node::PveTree;
use crate::volid::Vmid;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::hypervisor::GuestState;
use rblocksync::qemu::qmp::Qmp;
use rblocksync::stop::Stop;
use serde_json::{json, Value};
use std::path::Path;
use std::time::{Duration, Instant};

const CONNECT_TIME: Duration = Duration::from_secs(10);
const COMMAND_TIME: Duration = Duration::from_secs(10);
/// Stopping the guest also writes out what QEMU holds back.
const STOP_TIME: Duration = Duration::from_secs(30);
/// How long a migration that was called off may take to end.
const CANCEL_TIME: Duration = Duration::from_secs(10);
/// Pause between two looks at how far the memory is.
const LOOK: Duration = Duration::from_millis(50);
const POLL: Duration = Duration::from_millis(20);
/// Bytes a second: no limit of QEMU's own. The way has its own pace.
const BANDWIDTH: u64 = 1 << 40;

/// Sends the memory of the paused guest to whoever listens on `socket`. Between two looks the monitor is free: the keeper
/// may need it.
pub(super) fn send_memory(tree: &PveTree, vm: Vmid, socket: &Path, stop: &Stop) -> Result<()> {
    Monitor::of(tree, vm)?.begin_sending(socket)?;
    loop {
        std::thread::sleep(LOOK);
        let mut monitor = Monitor::of(tree, vm)?;
        if monitor.has_sent()? {
            return Ok(());
        }
        if let Err(stopped) = stop.check() {
            return Err(match monitor.call_off() {
                Ok(()) => stopped,
                Err(also) => stopped.followed_by(also),
            });
        }
    }
}

/// QEMU's monitor.
pub(super) struct Monitor {
    qmp: Qmp,
    vm: Vmid,
}

impl Monitor {
    pub fn of(tree: &PveTree, vm: Vmid) -> Result<Monitor> {
        let qmp = Qmp::connect(&tree.qmp_socket(vm), CONNECT_TIME)?;
        Ok(Monitor { qmp, vm })
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.qmp.execute(command, arguments, COMMAND_TIME)
    }

    /// Stops a guest that runs.
    pub fn stop(&mut self) -> Result<()> {
        if self.guest()? != GuestState::Running {
            return Err(Error::new(
                Kind::Busy,
                format!("VM {} does not run, but is paused", self.vm),
            )
            .advise("resume it, or move it without --live"));
        }
        self.qmp.stop(STOP_TIME)?;
        match self.guest()? {
            GuestState::Paused => Ok(()),
            state => Err(Error::new(
                Kind::Tool,
                format!(
                    "VM {} is {state:?} although QEMU was told to stop it",
                    self.vm
                ),
            )),
        }
    }

    pub fn guest(&mut self) -> Result<GuestState> {
        let state = self.qmp.status(COMMAND_TIME)?;
        match state.status.as_str() {
            _ if state.running => Ok(GuestState::Running),
            "inmigrate" => Ok(GuestState::Waiting),
            "postmigrate" => Ok(GuestState::Sent),
            "paused" | "prelaunch" | "finish-migrate" | "save-vm" => Ok(GuestState::Paused),
            other => Err(Error::new(
                Kind::Busy,
                format!("VM {} is in the state {other:?}", self.vm),
            )),
        }
    }

    /// Has the guest run, with nothing of it being sent any more.
    pub fn resume(&mut self) -> Result<()> {
        self.call_off()?;
        match self.guest()? {
            GuestState::Running => return Ok(()),
            GuestState::Waiting => {
                return Err(Error::new(
                    Kind::Refused,
                    format!("VM {} waits for its memory, and has none", self.vm),
                ))
            }
            _ => {}
        }
        self.qmp.cont(COMMAND_TIME)?;
        if self.guest()? != GuestState::Running {
            return Err(Error::new(
                Kind::Tool,
                format!(
                    "VM {} does not run although QEMU was told to continue it",
                    self.vm
                ),
            ));
        }
        // Switches learn where its addresses are now. Its network cards have said so already where the guest helps.
        let announce = json!({"initial": 50, "max": 550, "rounds": 5, "step": 100});
        let _ = self.ask("announce-self", announce);
        Ok(())
    }

    /// How the migration stands, if there is or was one.
    fn migration(&mut self) -> Result<(String, Value)> {
        let now = self.ask("query-migrate", json!({}))?;
        let status = now["status"].as_str().unwrap_or("none").to_owned();
        Ok((status, now))
    }

    /// Ends a migration that is under way.
    fn call_off(&mut self) -> Result<()> {
        let under_way =
            |status: &str| !matches!(status, "none" | "completed" | "failed" | "cancelled");
        if self.qmp.status(COMMAND_TIME)?.status == "inmigrate" || !under_way(&self.migration()?.0)
        {
            return Ok(());
        }
        self.ask("migrate_cancel", json!({}))?;
        let until = Instant::now() + CANCEL_TIME;
        while under_way(&self.migration()?.0) {
            if Instant::now() >= until {
                return Err(Error::new(
                    Kind::Timeout,
                    format!("QEMU does not stop sending the memory of VM {}", self.vm),
                ));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Begins to send the memory of the paused guest to whoever listens there.
    fn begin_sending(&mut self, socket: &Path) -> Result<()> {
        if self.guest()? != GuestState::Paused {
            return Err(Error::new(
                Kind::Busy,
                format!("somebody has let VM {} go on", self.vm),
            ));
        }
        self.ask(
            "migrate-set-parameters",
            json!({"max-bandwidth": BANDWIDTH}),
        )?;
        let uri = format!("unix:{}", socket.display());
        self.ask("migrate", json!({"uri": uri})).map(drop)
    }

    /// Whether all of it was sent. An error says why it will not be.
    fn has_sent(&mut self) -> Result<bool> {
        let (status, now) = self.migration()?;
        match status.as_str() {
            "completed" => Ok(true),
            "none" | "failed" | "cancelling" | "cancelled" => Err(Error::new(
                Kind::Tool,
                format!("the memory of VM {} was not sent ({status})", self.vm),
            )
            .because(
                now["error-desc"]
                    .as_str()
                    .unwrap_or("QEMU does not say why"),
            )),
            _ => Ok(false),
        }
    }

    /// The machine type, as `qm start --machine` wants it.
    pub fn machine(&mut self) -> Result<String> {
        let all = self.ask("query-machines", json!({}))?;
        let all = all.as_array().map(Vec::as_slice).unwrap_or_default();
        // Proxmox's QEMU says which one it is, and that it has versions of its own within it.
        let current = all.iter().find(|m| m["is-current"].as_bool() == Some(true));
        if let Some(name) = current.and_then(|m| m["name"].as_str()) {
            let own = all.iter().find_map(|m| m["pve-version"].as_str());
            return Ok(own.map_or_else(|| name.to_owned(), |own| format!("{name}+{own}")));
        }
        let kind = self.ask("qom-get", json!({"path": "/machine", "property": "type"}))?;
        let name = kind.as_str().and_then(|kind| kind.strip_suffix("-machine"));
        name.map(str::to_owned)
            .ok_or_else(|| Error::new(Kind::Protocol, "QEMU does not say which machine type it is"))
    }

    /// QEMU's version: major and minor.
    pub fn version(&mut self) -> Result<(u64, u64)> {
        let version = self.ask("query-version", json!({}))?;
        let number = |name: &str| version["qemu"][name].as_u64();
        match (number("major"), number("minor")) {
            (Some(major), Some(minor)) => Ok((major, minor)),
            _ => Err(Error::new(Kind::Protocol, "QEMU does not say its version")),
        }
    }

    /// The guest's memory in bytes.
    pub fn memory(&mut self) -> Result<u64> {
        let memory = self.ask("query-memory-size-summary", json!({}))?;
        let base = memory["base-memory"].as_u64().unwrap_or(0);
        Ok(base + memory["plugged-memory"].as_u64().unwrap_or(0))
    }
}
