//! What must be so before anything is changed. Each check takes what the API answered, and asks nothing itself.

use super::names::Node;
use super::refusal::NO_QUORUM;
use super::types::{
    ClusterStatus, Guest, GuestType, HaResource, Permissions, ReplicationJob, VmStatus,
};
use crate::volid::Vmid;
use rblocksync::error::{Error, Kind, Result};

/// Refuses a cluster without a quorum: its configuration could not be written. A node in no cluster needs none.
pub fn check_quorum(status: &ClusterStatus) -> Result<()> {
    match &status.cluster {
        Some((name, false)) => {
            let down: Vec<&str> = status
                .nodes
                .iter()
                .filter(|n| !n.online)
                .map(|n| n.name.as_str())
                .collect();
            let error = Error::new(
                Kind::Refused,
                format!("the cluster {} has no quorum", name.escape_default()),
            );
            Err(match down.is_empty() {
                true => error,
                false => error.because(format!("offline: {}", down.join(", "))),
            }
            .advise(NO_QUORUM))
        }
        _ => Ok(()),
    }
}

/// Refuses a VM that the HA stack looks after: it would start again what is stopped, on a node of its choice.
///
/// Both are asked because a token may not be allowed to see the resources (pass none of them then), and the VM's status
/// tells it as well.
pub fn check_not_ha(vmid: Vmid, resources: &[HaResource], status: &VmStatus) -> Result<()> {
    let sid = format!("vm:{vmid}");
    let resource = resources.iter().find(|r| r.sid == sid);
    if resource.is_none() && !status.ha.managed {
        return Ok(());
    }
    let state = resource
        .and_then(|r| r.state.as_deref())
        .or(status.ha.state.as_deref())
        .unwrap_or("unknown");
    Err(Error::new(
        Kind::Refused,
        format!(
            "VM {vmid} is managed by HA, in the state {}",
            state.escape_default()
        ),
    )
    .advise(format!(
        "take it out for the time being: `ha-manager set {sid} --state ignored`, or `ha-manager remove {sid}`"
    )))
}

/// Refuses a VM whose configuration is locked.
pub fn check_unlocked(vmid: Vmid, status: &VmStatus) -> Result<()> {
    match &status.lock {
        None => Ok(()),
        Some(lock) => Err(Error::new(
            Kind::Busy,
            format!("VM {vmid} is locked ({})", lock.escape_default()),
        )
        .advise(format!(
            "wait for it to end; if nothing is at work any more, `qm unlock {vmid}`"
        ))),
    }
}

/// Refuses a VM that Proxmox VE itself replicates: removing or moving it is not for us to do.
pub fn check_not_replicated(vmid: Vmid, jobs: &[ReplicationJob]) -> Result<()> {
    match jobs.iter().find(|job| job.guest == vmid) {
        None => Ok(()),
        Some(job) => Err(Error::new(
            Kind::Refused,
            format!(
                "VM {vmid} is replicated to {} by Proxmox VE's job {}",
                job.target,
                job.id.escape_default()
            ),
        )
        .advise("remove the job first: `pvesr delete`")),
    }
}

/// Refuses if one of the privileges is lacking on the path that `held` was asked for.
pub fn check_privileges(held: &Permissions, path: &str, privileges: &[&str]) -> Result<()> {
    let lacking: Vec<&str> = privileges
        .iter()
        .copied()
        .filter(|p| !held.has(path, p))
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let lacking = lacking.join(", ");
    Err(Error::new(
        Kind::Permission,
        format!("the API token lacks {lacking} on {path}"),
    )
    .advise(format!(
        "`pveum acl modify {path} --tokens 'USER@REALM!ID' --roles ROLE`, with a role that has it"
    )))
}

/// The VM with this id, or why there is none.
pub fn find_vm(guests: &[Guest], vmid: Vmid) -> Result<(&Guest, &Node)> {
    let Some(guest) = guests.iter().find(|g| g.vmid == vmid) else {
        return Err(Error::new(
            Kind::NotFound,
            format!("there is no VM {vmid} in this cluster"),
        )
        .advise("if there is, the token may not see it: it needs VM.Audit on its path"));
    };
    match guest.kind {
        GuestType::Qemu => Ok((guest, &guest.node)),
        GuestType::Lxc => Err(Error::new(
            Kind::Refused,
            format!("{vmid} is a container, on {}", guest.node),
        )
        .advise("only VMs can be replicated")),
        GuestType::Other => Err(Error::new(
            Kind::Refused,
            format!("{vmid} is no VM, on {}", guest.node),
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::types::StatusEntry;
    use super::*;
    use serde_json::json;

    fn vmid() -> Vmid {
        Vmid::new(101).unwrap()
    }

    fn vm_status(value: serde_json::Value) -> VmStatus {
        serde_json::from_value(value).unwrap()
    }

    fn cluster(value: serde_json::Value) -> ClusterStatus {
        let entries: Vec<StatusEntry> = serde_json::from_value(value).unwrap();
        entries.into()
    }

    #[test]
    fn a_lost_quorum_names_who_is_missing() {
        let node = |name: &str, online| json!({"type": "node", "id": "node/x", "name": name, "online": online});
        let lost = cluster(json!([
            {"type": "cluster", "id": "cluster", "name": "home", "quorate": 0, "nodes": 2},
            node("pve1", 1), node("pve2", 0)
        ]));
        let e = check_quorum(&lost).unwrap_err();
        assert_eq!(e.kind(), Kind::Refused);
        assert!(
            e.to_string().contains("home") && e.to_string().contains("pve2"),
            "{e}"
        );
        assert!(!e.message().contains("pve1"), "{e}");
        let whole = json!([{"type": "cluster", "id": "cluster", "name": "home", "quorate": 1}]);
        check_quorum(&cluster(whole)).unwrap();
        check_quorum(&cluster(json!([node("pve1", 1)]))).unwrap();
    }

    #[test]
    fn ha_is_seen_in_the_resources_and_in_the_status() {
        let plain = vm_status(json!({"status": "running", "ha": {"managed": 0}}));
        let managed =
            vm_status(json!({"status": "running", "ha": {"managed": 1, "state": "started"}}));
        let resource: HaResource =
            serde_json::from_value(json!({"sid": "vm:101", "state": "stopped"})).unwrap();
        let other: HaResource = serde_json::from_value(json!({"sid": "vm:1011"})).unwrap();
        check_not_ha(vmid(), &[other], &plain).unwrap();
        for e in [
            check_not_ha(vmid(), &[resource], &plain).unwrap_err(),
            check_not_ha(vmid(), &[], &managed).unwrap_err(),
        ] {
            assert!(e.to_string().contains("vm:101"), "{e}");
            assert_eq!(e.kind(), Kind::Refused);
        }
    }

    #[test]
    fn a_lock_and_a_job_are_named() {
        let locked = vm_status(json!({"status": "stopped", "lock": "backup"}));
        let e = check_unlocked(vmid(), &locked).unwrap_err();
        assert!(e.to_string().contains("backup"), "{e}");
        assert_eq!(e.kind(), Kind::Busy);
        let job: ReplicationJob =
            serde_json::from_value(json!({"id": "101-0", "guest": "101", "target": "pve2"}))
                .unwrap();
        let e = check_not_replicated(vmid(), &[job]).unwrap_err();
        assert!(e.to_string().contains("101-0"), "{e}");
        check_not_replicated(vmid(), &[]).unwrap();
    }

    #[test]
    fn lacking_privileges_are_named_with_their_path() {
        let held: Permissions =
            serde_json::from_value(json!({"/vms/101": {"VM.Audit": 1, "VM.Console": 0}})).unwrap();
        check_privileges(&held, "/vms/101", &["VM.Audit"]).unwrap();
        assert!(held.propagates("/vms/101", "VM.Audit"));
        assert!(!held.propagates("/vms/101", "VM.Console"));
        let e = check_privileges(&held, "/vms/101", &["VM.Audit", "VM.PowerMgmt"]).unwrap_err();
        assert!(
            e.to_string().contains("lacks VM.PowerMgmt on /vms/101"),
            "{e}"
        );
        check_privileges(&held, "/vms/102", &["VM.Audit"]).unwrap_err();
    }

    #[test]
    fn a_vm_is_found_and_a_container_is_none() {
        let guests: Vec<Guest> = serde_json::from_value(json!([
            {"vmid": 101, "type": "qemu", "node": "pve2", "id": "qemu/101"},
            {"vmid": "102", "type": "lxc", "node": "pve1", "id": "lxc/102"},
        ]))
        .unwrap();
        assert_eq!(find_vm(&guests, vmid()).unwrap().1.as_str(), "pve2");
        let container = find_vm(&guests, Vmid::new(102).unwrap()).unwrap_err();
        assert!(container.to_string().contains("container"), "{container}");
        let missing = find_vm(&guests, Vmid::new(103).unwrap()).unwrap_err();
        assert_eq!(missing.kind(), Kind::NotFound);
    }
}
