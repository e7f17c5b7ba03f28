//! Every call, over both transports: it is one that the schema knows, and its answer is understood.

use super::server::Server;
use super::shell::Shell;
use super::world::{World, DIGEST};
use pvesync::api::{preflight, wait, Change, GuestType, NewVm, Node, Pve, TaskEnd, Upid, CALLS};
use pvesync::volid::{Vmid, Volid};
use rblocksync::error::{Kind, Result};
use rblocksync::stop::Stop;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub fn node() -> Node {
    Node::new("pve1").unwrap()
}

pub fn vmid(id: u32) -> Vmid {
    Vmid::new(id).unwrap()
}

fn ends(pve: &dyn Pve, begun: Result<Upid>) -> TaskEnd {
    let deadline = Instant::now() + Duration::from_secs(60);
    wait(pve, &begun.unwrap(), deadline, &Stop::new()).unwrap()
}

fn make_every_call(pve: &dyn Pve) {
    let (node, vm) = (node(), vmid(101));
    assert_eq!(pve.version().unwrap().version, "9.1.7");
    let guests = pve.guests().unwrap();
    assert_eq!(preflight::find_vm(&guests, vm).unwrap().1, &node);
    assert_eq!(guests[0].pool.as_deref(), Some("prod"));
    assert_eq!(guests[1].kind, GuestType::Lxc);
    assert_eq!(guests[2].lock.as_deref(), Some("backup"));
    let status = pve.cluster_status().unwrap();
    preflight::check_quorum(&status).unwrap();
    assert!(status.nodes[0].local && !status.nodes[1].local);
    assert_eq!(pve.next_id().unwrap(), vmid(105));
    assert_eq!(pve.ha_resources().unwrap()[0].sid, "vm:104");
    let jobs = pve.replication_jobs().unwrap();
    preflight::check_not_replicated(vm, &jobs).unwrap();
    preflight::check_not_replicated(vmid(104), &jobs).unwrap_err();
    let held = pve.permissions("/vms/101").unwrap();
    preflight::check_privileges(&held, "/vms/101", &["VM.Audit", "VM.Config.Disk"]).unwrap();
    assert_eq!(pve.certificates(&node).unwrap()[0].san.len(), 2);
    let storages = pve.storages(&node).unwrap();
    assert!(storages[0].status.holds_images() && !storages[1].status.active);
    let status = pve.storage_status(&node, "local-lvm").unwrap();
    assert_eq!(
        (status.total, status.avail),
        (Some(1_000_000), Some(999_999))
    );
    let volid = Volid::parse("local:101/vm-101-disk-0.qcow2").unwrap();
    assert_eq!(pve.volume(&node, &volid).unwrap().size, 32 << 30);
    let config = pve.vm_config(&node, vm).unwrap();
    assert_eq!(
        (config.digest.as_str(), &*config.values["cores"]),
        (DIGEST, "2")
    );
    let pending = pve.vm_pending(&node, vm).unwrap();
    assert_eq!(pending[0].pending.as_deref(), Some("4"));
    assert_eq!(pending[1].delete, Some(1));
    let status = pve.vm_status(&node, vm).unwrap();
    preflight::check_unlocked(vm, &status).unwrap();
    preflight::check_not_ha(vm, &[], &status).unwrap();
    assert!(status.agent && status.running_qemu.as_deref() == Some("9.0.2"));
    assert_eq!(pve.vm_snapshots(&node, vm).unwrap()[1].name, "current");
    assert_eq!(ends(pve, pve.start(&node, vm)), TaskEnd::Done);
    assert_eq!(ends(pve, pve.stop(&node, vm)), TaskEnd::Done);
    let shutdown = pve.shutdown(&node, vm, Duration::from_secs(180));
    assert_eq!(ends(pve, shutdown), TaskEnd::Warnings(2));
    assert_eq!(ends(pve, pve.suspend(&node, vm)), TaskEnd::Done);
    assert_eq!(ends(pve, pve.resume(&node, vm)), TaskEnd::Done);
    let settings = [
        ("name", "web replica & co"),
        ("scsi0", "local-lvm:vm-105-disk-0,discard=on,iothread=1"),
        ("scsihw", "virtio-scsi-single"),
        ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0"),
        ("onboot", "0"),
        ("lock", "migrate"),
        ("description", "--of 100% +1\nsecond line"),
    ];
    let settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned()));
    let new = NewVm::new(BTreeMap::from(settings)).unwrap();
    assert_eq!(
        ends(pve, pve.create_vm(&node, vmid(105), &new)),
        TaskEnd::Done
    );
    let change = Change::of(&config.digest).unwrap().delete("lock").unwrap();
    assert!(pve.set_config(&node, vm, &change).unwrap().is_none());
    let change = change.set("scsi1", "local-lvm:vm-101-disk-1").unwrap();
    let upid = pve.set_config(&node, vm, &change).unwrap().unwrap();
    assert_eq!(ends(pve, Ok(upid)), TaskEnd::Done);
    assert_eq!(ends(pve, pve.delete_vm(&node, vm)), TaskEnd::Done);
    pve.agent_ping(&node, vm).unwrap();
    assert_eq!(pve.fsfreeze(&node, vm).unwrap(), 3);
    assert!(pve.fsfreeze_status(&node, vm).unwrap());
    assert_eq!(pve.fsthaw(&node, vm).unwrap(), 3);
    // A locked VM takes the call, and only the task tells. Its log is read for the reason.
    let upid = pve.start(&node, vmid(103)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let e = wait(pve, &upid, deadline, &Stop::new()).unwrap_err();
    assert_eq!(e.kind(), Kind::Busy, "{e}");
    assert!(
        e.to_string()
            .contains("VM is locked (backup); its log ends: trying"),
        "{e}"
    );
}

/// All calls of the table came, and nothing that Proxmox VE would not understand.
fn assert_all_seen(world: &World) {
    assert_eq!(world.violations(), [""; 0]);
    let wanted: BTreeSet<(String, String)> = CALLS
        .iter()
        .map(|c| (c.method.http().to_owned(), c.template.to_owned()))
        .collect();
    assert_eq!(world.seen(), wanted);
    // What was to arrive as it is did.
    let texts = world.requests().join("\n");
    assert!(
        texts.contains(r#"("description", "--of 100% +1\nsecond line")"#),
        "{texts}"
    );
    assert!(texts.contains(r#"("name", "web replica & co")"#), "{texts}");
}

#[test]
fn every_call_goes_over_https() {
    let server = Server::start();
    make_every_call(&server.client());
    assert_all_seen(&server.world);
}

#[test]
fn every_call_goes_through_pvesh() {
    let shell = Shell::start();
    make_every_call(&shell.client());
    assert_all_seen(&shell.world);
}
