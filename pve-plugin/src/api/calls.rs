//! Every call of Proxmox VE's API that the product makes: method, path, what a token must be allowed, and what for.
//!
//! This table is what docs/permissions.md shows and what the tests count. A request that is not in it cannot be made:
//! [`Call`](super::Call) is built from an entry.

use std::fmt;

/// The four methods of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Post,
    Put,
    Delete,
}

impl Method {
    /// As HTTP writes it.
    pub fn http(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
        }
    }

    /// The word of `pvesh` for it.
    pub fn pvesh(self) -> &'static str {
        match self {
            Method::Get => "get",
            Method::Post => "create",
            Method::Put => "set",
            Method::Delete => "delete",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.http())
    }
}

/// One call of the API.
#[derive(Debug, PartialEq, Eq)]
pub struct Spec {
    /// The method of [`Pve`](super::Pve) that makes it.
    pub name: &'static str,
    /// How it is asked for.
    pub method: Method,
    /// The path, with `{name}` for what differs.
    pub template: &'static str,
    /// The privilege that a token needs, and on which path.
    pub needs: &'static str,
    /// What it is for.
    pub purpose: &'static str,
}

const fn get(
    name: &'static str,
    template: &'static str,
    needs: &'static str,
    purpose: &'static str,
) -> Spec {
    Spec {
        name,
        method: Method::Get,
        template,
        needs,
        purpose,
    }
}

const fn post(
    name: &'static str,
    template: &'static str,
    needs: &'static str,
    purpose: &'static str,
) -> Spec {
    Spec {
        name,
        method: Method::Post,
        template,
        needs,
        purpose,
    }
}

const ANY: &str = "any token";
const FIND: &str = "`--api`: find the VM's node";
const LOOK: &str = "look at the VM";
const PREFLIGHT: &str = "checks before anything is changed";
const POWER: &str = "move a VM: stop it here, start it there";
const FREEZE: &str = "hold the guest's file systems for a snapshot";
const ROLES: &str = "replicas as VMs: create, change, remove";
const TASKS: &str = "learn how a task ended";
const AUDIT: &str = "VM.Audit on /vms/{vmid}";
const AGENT: &str = "VM.GuestAgent.FileSystemMgmt on /vms/{vmid} (before 9: VM.Monitor)";

pub(super) static VERSION: Spec = get("version", "/version", ANY, PREFLIGHT);
pub(super) static GUESTS: Spec = get(
    "guests",
    "/cluster/resources",
    "VM.Audit on /vms/{vmid}; other guests are left out of the answer",
    FIND,
);
pub(super) static CLUSTER_STATUS: Spec = get(
    "cluster_status",
    "/cluster/status",
    "Sys.Audit on /",
    "`--api`: find the node's address; quorum",
);
pub(super) static NEXT_ID: Spec = get("next_id", "/cluster/nextid", ANY, ROLES);
pub(super) static HA_RESOURCES: Spec = get(
    "ha_resources",
    "/cluster/ha/resources",
    "Sys.Audit on /",
    PREFLIGHT,
);
pub(super) static REPLICATION_JOBS: Spec = get(
    "replication_jobs",
    "/cluster/replication",
    "VM.Audit on /vms/{vmid}; other VMs' jobs are left out of the answer",
    PREFLIGHT,
);
pub(super) static PERMISSIONS: Spec = get("permissions", "/access/permissions", ANY, PREFLIGHT);
pub(super) static CERTIFICATES: Spec = get(
    "certificates",
    "/nodes/{node}/certificates/info",
    ANY,
    "tell a node's fingerprint",
);
pub(super) static STORAGES: Spec = get(
    "storages",
    "/nodes/{node}/storage",
    "Datastore.Audit or Datastore.AllocateSpace on /storage/{storage}; others are left out of the answer",
    "choose storages",
);
pub(super) static STORAGE_STATUS: Spec = get(
    "storage_status",
    "/nodes/{node}/storage/{storage}/status",
    "Datastore.Audit or Datastore.AllocateSpace on /storage/{storage}",
    "see whether there is room",
);
pub(super) static VOLUME: Spec = get(
    "volume",
    "/nodes/{node}/storage/{storage}/content/{volume}",
    "Datastore.Audit on /storage/{storage} and VM.Config.Disk on /vms/{vmid}, or Datastore.Allocate on /storage/{storage}",
    "path and size of a disk",
);
pub(super) static VM_CONFIG: Spec =
    get("vm_config", "/nodes/{node}/qemu/{vmid}/config", AUDIT, LOOK);
pub(super) static VM_PENDING: Spec = get(
    "vm_pending",
    "/nodes/{node}/qemu/{vmid}/pending",
    AUDIT,
    LOOK,
);
pub(super) static VM_STATUS: Spec = get(
    "vm_status",
    "/nodes/{node}/qemu/{vmid}/status/current",
    AUDIT,
    LOOK,
);
pub(super) static VM_SNAPSHOTS: Spec = get(
    "vm_snapshots",
    "/nodes/{node}/qemu/{vmid}/snapshot",
    AUDIT,
    LOOK,
);
pub(super) static START: Spec = post(
    "start",
    "/nodes/{node}/qemu/{vmid}/status/start",
    "VM.PowerMgmt on /vms/{vmid}",
    POWER,
);
pub(super) static STOP: Spec = post(
    "stop",
    "/nodes/{node}/qemu/{vmid}/status/stop",
    "VM.PowerMgmt on /vms/{vmid}",
    POWER,
);
pub(super) static SHUTDOWN: Spec = post(
    "shutdown",
    "/nodes/{node}/qemu/{vmid}/status/shutdown",
    "VM.PowerMgmt on /vms/{vmid}",
    POWER,
);
pub(super) static SUSPEND: Spec = post(
    "suspend",
    "/nodes/{node}/qemu/{vmid}/status/suspend",
    "VM.PowerMgmt on /vms/{vmid}",
    POWER,
);
pub(super) static RESUME: Spec = post(
    "resume",
    "/nodes/{node}/qemu/{vmid}/status/resume",
    "VM.PowerMgmt on /vms/{vmid}",
    POWER,
);
pub(super) static CREATE_VM: Spec = post(
    "create_vm",
    "/nodes/{node}/qemu",
    "VM.Allocate and the VM.Config.* of what is set on /vms/{vmid}, Datastore.AllocateSpace on /storage/{storage}",
    ROLES,
);
pub(super) static SET_CONFIG: Spec = post(
    "set_config",
    "/nodes/{node}/qemu/{vmid}/config",
    "the VM.Config.* of what is set on /vms/{vmid}",
    ROLES,
);
pub(super) static DELETE_VM: Spec = Spec {
    name: "delete_vm",
    method: Method::Delete,
    template: "/nodes/{node}/qemu/{vmid}",
    needs: "VM.Allocate on /vms/{vmid}",
    purpose: ROLES,
};
pub(super) static AGENT_PING: Spec = post(
    "agent_ping",
    "/nodes/{node}/qemu/{vmid}/agent/ping",
    "VM.GuestAgent.Audit on /vms/{vmid} (before 9: VM.Monitor)",
    FREEZE,
);
pub(super) static FSFREEZE: Spec = post(
    "fsfreeze",
    "/nodes/{node}/qemu/{vmid}/agent/fsfreeze-freeze",
    AGENT,
    FREEZE,
);
pub(super) static FSTHAW: Spec = post(
    "fsthaw",
    "/nodes/{node}/qemu/{vmid}/agent/fsfreeze-thaw",
    AGENT,
    FREEZE,
);
pub(super) static FSFREEZE_STATUS: Spec = post(
    "fsfreeze_status",
    "/nodes/{node}/qemu/{vmid}/agent/fsfreeze-status",
    AGENT,
    FREEZE,
);
pub(super) static TASK_STATUS: Spec = get(
    "task_status",
    "/nodes/{node}/tasks/{upid}/status",
    "its own tasks: any token; others': Sys.Audit on /nodes/{node}",
    TASKS,
);
pub(super) static TASK_LOG: Spec = get(
    "task_log",
    "/nodes/{node}/tasks/{upid}/log",
    "its own tasks: any token; others': Sys.Audit on /nodes/{node}",
    TASKS,
);

/// All of them, in the order of the documentation.
pub static CALLS: [&Spec; 29] = [
    &VERSION,
    &GUESTS,
    &CLUSTER_STATUS,
    &NEXT_ID,
    &HA_RESOURCES,
    &REPLICATION_JOBS,
    &PERMISSIONS,
    &CERTIFICATES,
    &STORAGES,
    &STORAGE_STATUS,
    &VOLUME,
    &VM_CONFIG,
    &VM_PENDING,
    &VM_STATUS,
    &VM_SNAPSHOTS,
    &START,
    &STOP,
    &SHUTDOWN,
    &SUSPEND,
    &RESUME,
    &CREATE_VM,
    &SET_CONFIG,
    &DELETE_VM,
    &AGENT_PING,
    &FSFREEZE,
    &FSTHAW,
    &FSFREEZE_STATUS,
    &TASK_STATUS,
    &TASK_LOG,
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The rows of the table in docs/permissions.md, as they must be.
    fn rows() -> Vec<String> {
        CALLS
            .iter()
            .map(|c| {
                format!(
                    "| `{}` | `{} {}` | {} | {} |",
                    c.name, c.method, c.template, c.needs, c.purpose
                )
            })
            .collect()
    }

    #[test]
    fn the_documentation_lists_exactly_these_calls() {
        let text = include_str!("../../../docs/permissions.md");
        let listed: Vec<&str> = text.lines().filter(|l| l.starts_with("| `")).collect();
        assert_eq!(listed, rows(), "docs/permissions.md is to have these rows");
    }

    #[test]
    fn names_and_requests_are_unique() {
        for (at, a) in CALLS.iter().enumerate() {
            for b in &CALLS[at + 1..] {
                assert_ne!(a.name, b.name);
                assert!(a.template != b.template || a.method != b.method, "{a:?}");
            }
        }
    }
}
