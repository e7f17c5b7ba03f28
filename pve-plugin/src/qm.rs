//! Starting and ending VMs through Proxmox's own `qm`, which knows what else is to be done.

use crate::disks::{self, Location};
use crate::drive::DriveTarget;
use crate::node::PveTree;
use crate::volid::Vmid;
use rblocksync::cmd::{Cmd, Tool};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::holders;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Proxmox itself waits for QEMU, longer for VMs with much memory or with devices passed through.
const START_TIME: Duration = Duration::from_secs(600);
/// What qm may take beside what it waits for.
const OVERHEAD: Duration = Duration::from_secs(60);
/// How long QEMU may take to write out and end, once it was told to.
const STOP_TIME: Duration = Duration::from_secs(120);
/// How long a disk may stay open once QEMU is gone.
const CLOSED_WITHIN: Duration = Duration::from_secs(60);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(200);

/// `qm VERB VMID OPTIONS`.
fn qm(verb: &str, vmid: Vmid, options: &[&str], limit: Duration) -> Result<()> {
    let done = Cmd::new(Tool::Qm)
        .args([verb, &vmid.to_string()])
        .args(options)
        .timeout(limit)
        .run();
    done.map(drop).map_err(|e| {
        let said = e.message();
        if said.contains("is locked") {
            e.advise(format!(
                "wait for the running task; if none is left: qm unlock {vmid}"
            ))
        } else if said.contains("must not start on this host") {
            e.advise("'pvesync status' tells the roles")
        } else {
            e
        }
    })
}

/// Starts the VM; one that runs is fine.
pub fn start(tree: &PveTree, vmid: Vmid) -> Result<()> {
    if tree.is_running(vmid)? {
        return Ok(());
    }
    qm("start", vmid, &[], START_TIME)?;
    match tree.is_running(vmid)? {
        true => Ok(()),
        false => Err(Error::new(
            Kind::Tool,
            format!("VM {vmid} does not run, though qm start said nothing"),
        )
        .advise("look at its task log")),
    }
}

/// Starts a QEMU that waits for the guest's memory, in spite of the replica's lock, and returns the socket on which it does.
pub fn start_waiting(tree: &PveTree, vmid: Vmid, machine: &str) -> Result<PathBuf> {
    // It is the configuration of this very node that is wanted.
    let node = tree.local_node()?;
    let options = [
        "--skiplock",
        "1",
        "--migratedfrom",
        &node,
        "--stateuri",
        "unix",
        "--machine",
        machine,
    ];
    qm("start", vmid, &options, START_TIME)?;
    let socket = tree.migrate_socket(vmid);
    match socket.exists() && tree.is_running(vmid)? {
        true => Ok(socket),
        false => Err(Error::new(
            Kind::Tool,
            format!("VM {vmid} does not wait for its memory, though qm start said nothing"),
        )
        .advise("look at its task log")),
    }
}

/// Asks the guest to shut down. False: it still runs after `limit`.
pub fn shut_down(tree: &PveTree, vmid: Vmid, limit: Duration) -> Result<bool> {
    if !tree.is_running(vmid)? {
        return Ok(true);
    }
    let seconds = limit.as_secs().max(1).to_string();
    let asked = qm("shutdown", vmid, &["--timeout", &seconds], limit + OVERHEAD);
    match (asked, tree.is_running(vmid)?) {
        (_, false) => Ok(true),
        (Ok(()), true) => Ok(false),
        (Err(e), true) if e.kind() == Kind::Timeout || e.message().contains("timeout") => Ok(false),
        (Err(e), true) => Err(e),
    }
}

/// Ends the VM and waits until its disks are closed.
pub fn stop(tree: &PveTree, vmid: Vmid) -> Result<()> {
    stop_with(tree, vmid, &[])
}

/// The same for a VM that is locked, as replicas and retired ones are.
pub fn stop_locked(tree: &PveTree, vmid: Vmid) -> Result<()> {
    stop_with(tree, vmid, &["--skiplock", "1"])
}

fn stop_with(tree: &PveTree, vmid: Vmid, options: &[&str]) -> Result<()> {
    if tree.is_running(vmid)? {
        qm("stop", vmid, options, STOP_TIME)?;
    }
    let until = Instant::now() + CLOSED_WITHIN;
    while tree.is_running(vmid)? {
        if Instant::now() >= until {
            return Err(Error::new(
                Kind::Busy,
                format!("VM {vmid} still runs, though qm stop said nothing"),
            ));
        }
        std::thread::sleep(POLL);
    }
    let paths = disk_paths(tree, vmid)?;
    while let Some(holder) = holders::of(&paths)? {
        if Instant::now() >= until {
            return Err(
                Error::new(Kind::Busy, format!("VM {vmid} has ended, but {holder}"))
                    .advise("end whatever still uses the disk"),
            );
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// The VM's disks on this host, those that can be found. A VM without a configuration has none.
fn disk_paths(tree: &PveTree, vmid: Vmid) -> Result<Vec<PathBuf>> {
    let config = match tree.vm_config(vmid) {
        Err(e) if e.kind() == Kind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let storages = tree.storage_cfg()?;
    let mut paths = Vec::new();
    for drive in config.drives() {
        match &drive.target {
            DriveTarget::Volume(volid) if !drive.is_cdrom() => {
                let Some(entry) = storages.get(volid.storage()) else {
                    continue;
                };
                let located = disks::locate(entry, volid);
                paths.extend(
                    located
                        .ok()
                        .map(|(_, location): (_, Location)| location.path()),
                );
            }
            _ => {}
        }
    }
    Ok(paths)
}
