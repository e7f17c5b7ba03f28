//! The calls, typed: whatever can carry a request makes all of them.

use super::call::{odd_answer, Call, Transport};
use super::calls::{self, Spec};
use super::names::{Node, Upid};
use super::settings::{Change, NewVm};
use super::types::{
    AgentAnswer, Certificate, ClusterStatus, Guest, HaResource, LogLine, PendingSetting,
    Permissions, ReplicationJob, SnapshotEntry, StatusEntry, StorageEntry, StorageStatus,
    TaskStatus, Text, Version, VmSettings, VmStatus, Volume,
};
use crate::volid::{Vmid, Volid};
use rblocksync::error::Result;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most lines of a task's log that are asked for.
const LOG_LINES: u32 = 500;

/// What the product asks of Proxmox VE.
///
/// A call that changes something gives a task's id: it has been begun, and only [`wait`](super::wait) tells whether it
/// went well. A VM that is locked, for one, takes the call and lets the task fail.
///
/// Errors: `Permission` (with the privilege and path that are lacking, where Proxmox VE names them), `NotFound`,
/// `Busy` (locked), `Refused` (no quorum), `Timeout`, `Protocol` (an answer that makes no sense), `Remote` or `Tool`.
pub trait Pve {
    /// Version of the node that answers.
    fn version(&self) -> Result<Version>;
    /// All VMs and containers of the cluster that may be seen.
    fn guests(&self) -> Result<Vec<Guest>>;
    /// The cluster's quorum and nodes.
    fn cluster_status(&self) -> Result<ClusterStatus>;
    /// An id that no guest has. Somebody else may take it before it is used.
    fn next_id(&self) -> Result<Vmid>;
    /// What the HA stack looks after.
    fn ha_resources(&self) -> Result<Vec<HaResource>>;
    /// The jobs of Proxmox VE's own storage replication.
    fn replication_jobs(&self) -> Result<Vec<ReplicationJob>>;
    /// What we may do on a path (`/vms/101`), with everything that is inherited.
    fn permissions(&self, path: &str) -> Result<Permissions>;
    /// The node's certificates with their fingerprints.
    fn certificates(&self, node: &Node) -> Result<Vec<Certificate>>;
    /// The node's storages that may be seen.
    fn storages(&self, node: &Node) -> Result<Vec<StorageEntry>>;
    /// How one storage stands.
    fn storage_status(&self, node: &Node, storage: &str) -> Result<StorageStatus>;
    /// Path, size and format of a volume.
    fn volume(&self, node: &Node, volid: &Volid) -> Result<Volume>;
    /// The configuration that holds now.
    fn vm_config(&self, node: &Node, vmid: Vmid) -> Result<VmSettings>;
    /// The same setting by setting, with what is pending.
    fn vm_pending(&self, node: &Node, vmid: Vmid) -> Result<Vec<PendingSetting>>;
    /// Whether it runs, and how.
    fn vm_status(&self, node: &Node, vmid: Vmid) -> Result<VmStatus>;
    /// Its snapshots, and the pseudo entry `current`.
    fn vm_snapshots(&self, node: &Node, vmid: Vmid) -> Result<Vec<SnapshotEntry>>;
    /// Starts it.
    fn start(&self, node: &Node, vmid: Vmid) -> Result<Upid>;
    /// Pulls the plug.
    fn stop(&self, node: &Node, vmid: Vmid) -> Result<Upid>;
    /// Asks the guest to shut down, and fails if it has not after that time (whole seconds). Never pulls the plug.
    fn shutdown(&self, node: &Node, vmid: Vmid, limit: Duration) -> Result<Upid>;
    /// Stops its processors; memory stays where it is.
    fn suspend(&self, node: &Node, vmid: Vmid) -> Result<Upid>;
    /// Lets them go on.
    fn resume(&self, node: &Node, vmid: Vmid) -> Result<Upid>;
    /// Makes a VM of volumes that exist.
    fn create_vm(&self, node: &Node, vmid: Vmid, vm: &NewVm) -> Result<Upid>;
    /// Changes the configuration, if it is still the one with that digest. Nothing is returned where there is no task.
    fn set_config(&self, node: &Node, vmid: Vmid, change: &Change) -> Result<Option<Upid>>;
    /// Removes the VM **and all volumes that its configuration names**; volumes that it does not name stay. Jobs and HA
    /// resources of it are not touched, so with these it is refused.
    fn delete_vm(&self, node: &Node, vmid: Vmid) -> Result<Upid>;
    /// Whether the guest agent answers.
    fn agent_ping(&self, node: &Node, vmid: Vmid) -> Result<()>;
    /// Freezes the guest's file systems; how many. They stay so until [`Pve::fsthaw`].
    fn fsfreeze(&self, node: &Node, vmid: Vmid) -> Result<u64>;
    /// Thaws them; how many.
    fn fsthaw(&self, node: &Node, vmid: Vmid) -> Result<u64>;
    /// Whether they are frozen.
    fn fsfreeze_status(&self, node: &Node, vmid: Vmid) -> Result<bool>;
    /// How a task stands.
    fn task_status(&self, upid: &Upid) -> Result<TaskStatus>;
    /// The beginning of its log.
    fn task_log(&self, upid: &Upid) -> Result<Vec<LogLine>>;
}

impl<T: Transport + ?Sized> Pve for T {
    fn version(&self) -> Result<Version> {
        ask(self, Call::new(&calls::VERSION, &[]))
    }

    fn guests(&self) -> Result<Vec<Guest>> {
        ask(self, Call::new(&calls::GUESTS, &[]).with("type", "vm"))
    }

    fn cluster_status(&self) -> Result<ClusterStatus> {
        let entries: Vec<StatusEntry> = ask(self, Call::new(&calls::CLUSTER_STATUS, &[]))?;
        Ok(entries.into())
    }

    fn next_id(&self) -> Result<Vmid> {
        let call = Call::new(&calls::NEXT_ID, &[]);
        let id: Text = ask(self, call.clone())?;
        id.0.parse().map_err(|e| odd_answer(&call, e))
    }

    fn ha_resources(&self) -> Result<Vec<HaResource>> {
        ask(self, Call::new(&calls::HA_RESOURCES, &[]))
    }

    fn replication_jobs(&self) -> Result<Vec<ReplicationJob>> {
        ask(self, Call::new(&calls::REPLICATION_JOBS, &[]))
    }

    fn permissions(&self, path: &str) -> Result<Permissions> {
        ask(self, Call::new(&calls::PERMISSIONS, &[]).with("path", path))
    }

    fn certificates(&self, node: &Node) -> Result<Vec<Certificate>> {
        ask(self, Call::new(&calls::CERTIFICATES, &[node]))
    }

    fn storages(&self, node: &Node) -> Result<Vec<StorageEntry>> {
        ask(self, Call::new(&calls::STORAGES, &[node]))
    }

    fn storage_status(&self, node: &Node, storage: &str) -> Result<StorageStatus> {
        let storage = super::settings::storage_id(storage)?;
        ask(self, Call::new(&calls::STORAGE_STATUS, &[node, &storage]))
    }

    fn volume(&self, node: &Node, volid: &Volid) -> Result<Volume> {
        let call = Call::new(&calls::VOLUME, &[node, &volid.storage(), volid]);
        ask(self, call)
    }

    fn vm_config(&self, node: &Node, vmid: Vmid) -> Result<VmSettings> {
        let call = Call::new(&calls::VM_CONFIG, &[node, &vmid]).with("current", 1);
        let all: BTreeMap<String, Text> = ask(self, call.clone())?;
        VmSettings::read(all).map_err(|e| odd_answer(&call, e))
    }

    fn vm_pending(&self, node: &Node, vmid: Vmid) -> Result<Vec<PendingSetting>> {
        ask(self, Call::new(&calls::VM_PENDING, &[node, &vmid]))
    }

    fn vm_status(&self, node: &Node, vmid: Vmid) -> Result<VmStatus> {
        ask(self, Call::new(&calls::VM_STATUS, &[node, &vmid]))
    }

    fn vm_snapshots(&self, node: &Node, vmid: Vmid) -> Result<Vec<SnapshotEntry>> {
        ask(self, Call::new(&calls::VM_SNAPSHOTS, &[node, &vmid]))
    }

    fn start(&self, node: &Node, vmid: Vmid) -> Result<Upid> {
        begin(self, Call::new(&calls::START, &[node, &vmid]))
    }

    fn stop(&self, node: &Node, vmid: Vmid) -> Result<Upid> {
        begin(self, Call::new(&calls::STOP, &[node, &vmid]))
    }

    fn shutdown(&self, node: &Node, vmid: Vmid, limit: Duration) -> Result<Upid> {
        let call = Call::new(&calls::SHUTDOWN, &[node, &vmid])
            .with("timeout", limit.as_secs())
            .with("forceStop", 0);
        begin(self, call)
    }

    fn suspend(&self, node: &Node, vmid: Vmid) -> Result<Upid> {
        begin(self, Call::new(&calls::SUSPEND, &[node, &vmid]))
    }

    fn resume(&self, node: &Node, vmid: Vmid) -> Result<Upid> {
        begin(self, Call::new(&calls::RESUME, &[node, &vmid]))
    }

    fn create_vm(&self, node: &Node, vmid: Vmid, vm: &NewVm) -> Result<Upid> {
        let mut call = Call::new(&calls::CREATE_VM, &[node]).with("vmid", vmid);
        for (key, value) in vm.settings() {
            call = call.with(key, value);
        }
        begin(self, call)
    }

    fn set_config(&self, node: &Node, vmid: Vmid, change: &Change) -> Result<Option<Upid>> {
        let mut call = Call::new(&calls::SET_CONFIG, &[node, &vmid]);
        for (name, value) in change.params() {
            call = call.with(name, value);
        }
        let answer: Option<String> = ask(self, call.clone())?;
        match answer {
            None => Ok(None),
            Some(upid) => upid.parse().map(Some).map_err(|e| odd_answer(&call, e)),
        }
    }

    fn delete_vm(&self, node: &Node, vmid: Vmid) -> Result<Upid> {
        let call = Call::new(&calls::DELETE_VM, &[node, &vmid])
            // These are off unless told otherwise; a default that changes must not cost anybody a disk.
            .with("purge", 0)
            .with("destroy-unreferenced-disks", 0);
        begin(self, call)
    }

    fn agent_ping(&self, node: &Node, vmid: Vmid) -> Result<()> {
        let call = Call::new(&calls::AGENT_PING, &[node, &vmid]);
        ask::<_, serde_json::Value>(self, call).map(drop)
    }

    fn fsfreeze(&self, node: &Node, vmid: Vmid) -> Result<u64> {
        agent(self, &calls::FSFREEZE, node, vmid)
    }

    fn fsthaw(&self, node: &Node, vmid: Vmid) -> Result<u64> {
        agent(self, &calls::FSTHAW, node, vmid)
    }

    fn fsfreeze_status(&self, node: &Node, vmid: Vmid) -> Result<bool> {
        let word: String = agent(self, &calls::FSFREEZE_STATUS, node, vmid)?;
        match word.as_str() {
            "frozen" => Ok(true),
            "thawed" => Ok(false),
            _ => {
                let call = Call::new(&calls::FSFREEZE_STATUS, &[node, &vmid]);
                let why = format!("\"{}\" is no such state", word.escape_default());
                Err(odd_answer(&call, why))
            }
        }
    }

    fn task_status(&self, upid: &Upid) -> Result<TaskStatus> {
        ask(self, Call::new(&calls::TASK_STATUS, &[upid.node(), upid]))
    }

    fn task_log(&self, upid: &Upid) -> Result<Vec<LogLine>> {
        let call = Call::new(&calls::TASK_LOG, &[upid.node(), upid]).with("limit", LOG_LINES);
        ask(self, call)
    }
}

fn ask<T: Transport + ?Sized, A: DeserializeOwned>(transport: &T, call: Call) -> Result<A> {
    let data = transport.send(&call)?;
    serde_json::from_value(data).map_err(|e| odd_answer(&call, e))
}

/// For a call that starts a task.
fn begin<T: Transport + ?Sized>(transport: &T, call: Call) -> Result<Upid> {
    let upid: String = ask(transport, call.clone())?;
    upid.parse().map_err(|e| odd_answer(&call, e))
}

fn agent<T: Transport + ?Sized, A: DeserializeOwned>(
    transport: &T,
    spec: &'static Spec,
    node: &Node,
    vmid: Vmid,
) -> Result<A> {
    let answer: AgentAnswer<A> = ask(transport, Call::new(spec, &[node, &vmid]))?;
    Ok(answer.result)
}
