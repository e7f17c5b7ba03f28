//! Bringing a VM back to a host that it was taken over from: what is there becomes a generation of a replica, what differs
//! is sent, and then it is a planned migration.

use super::handover::Handover;
use super::messages::{HostRequest, Position};
use super::migrate::{migrate_holding, Migration};
use super::sync::{self, beginning, open_journal, sync_holding, LEAF_BYTES};
use super::vm::{Context, SourceVm};
use crate::agent::Client;
use crate::crash;
use crate::driver::{RemoteAgent, Streams};
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{HostDescription, RoleHypervisor};
use crate::journal::{Run, Side, State};
use crate::lock::Lock;
use crate::remote::Remote;
use crate::replica::{
    self, host_id, know_of, source_pair, targets_of, Adopt, Adopted, Layout, Role, SharedDisk,
    SourcePair, Standing, TargetPair, WayBack,
};
use crate::runbook::Runbook;
use crate::stop::Stop;
use serde_json::json;
use uuid::Uuid;

/// Makes the context's host a replica host of the VM that runs here, and moves the VM there unless only the first was asked
/// for.
pub fn failback(migration: &Migration, and_migrate: bool) -> Result<()> {
    let context = migration.context;
    let lock = sync::lock(context, migration.vm)?;
    if Handover::pending(context.layout, migration.vm)?.is_some() {
        // It is on its way already.
        return migrate_holding(migration, &lock);
    }
    let journal = open_journal(context)?;
    let run = journal.begin(&beginning(context, migration.vm, ""))?;
    let turned = turn_round(migration, &run);
    sync::finish(run, turned)?;
    if and_migrate {
        return migrate_holding(migration, &lock);
    }
    let (vm, runtime) = (migration.look)()?;
    sync_holding(context, &vm, runtime, migration.sync, &lock).map(drop)
}

/// Has the other host become a replica host, unless it is one.
fn turn_round(migration: &Migration, run: &Run) -> Result<()> {
    let Context {
        host, ssh, stop, ..
    } = migration.context;
    run.enter(State::Plan)?;
    Remote::during(host, ssh, |session| {
        let agent = RemoteAgent::start(session, migration.program, Streams::Fixed(1), stop)?;
        agent.during(|agent| turn(migration, run, agent.client()))
    })
}

fn turn(migration: &Migration, run: &Run, client: &mut Client) -> Result<()> {
    let (layout, here) = (migration.context.layout, migration.vm);
    let host: HostDescription = client.host(&HostRequest::Describe { keep: true })?;
    let known = source_pair(layout, here, host.id)?;
    if let Some(known) = &known {
        if known.standing.role == Role::Primary && is_replica(client, known)? {
            return Ok(());
        }
    }
    let origin = origin(layout, here, &host)?;
    let position: Position = client.host(&HostRequest::Position { pair: origin.pair })?;
    check_there(&origin, &position, &host)?;
    client.host::<_, ()>(&HostRequest::CheckRoles)?;
    let (vm, _) = (migration.look)()?;
    let epoch = origin.standing.epoch;
    let pair = SourcePair {
        pair: known.map_or_else(Uuid::new_v4, |known| known.pair),
        vm_identity: vm.identity.clone(),
        target_name: host.name.clone(),
        address: Some(migration.context.host.to_string()),
        standing: Standing {
            role: Role::Primary,
            epoch,
        },
    };
    // First, so that the same pair is asked for again if this is cut off.
    know_of(layout, here, host.id, &pair, None)?;
    crash::point("failback pair");
    run.is_of(pair.pair, host.id)?;
    run.enter(State::Adopt)?;
    let order = order(migration, &vm, &origin, &position, pair.pair)?;
    let adopted: Adopted = client.host(&HostRequest::Adopt(Box::new(order)))?;
    crash::point("failback adopted");
    replica::stand(layout, here, pair.standing)?;
    know_of(layout, here, host.id, &pair, Some(&adopted.generation))?;
    let reporter = migration.context.reporter;
    let names: Vec<&str> = adopted.read.iter().map(String::as_str).collect();
    reporter.say(
        format!(
            "{} is a replica host of VM {here} now: its own disks stay there as generation {}{}",
            host.name,
            adopted.generation.name(),
            match names.is_empty() {
                true => String::new(),
                false => format!("; read to be compared: {}", names.join(", ")),
            }
        ),
        json!({
            "event": "adopted",
            "vm": here,
            "target": host.name,
            "epoch": epoch,
            "generation": adopted.generation.name(),
            "read": adopted.read,
        }),
    );
    reporter.notes(&adopted.notes);
    Ok(())
}

/// Whether the other host is a replica host in this pair already.
fn is_replica(client: &mut Client, pair: &SourcePair) -> Result<bool> {
    match client.host::<_, Position>(&HostRequest::Position { pair: pair.pair }) {
        Ok(position) => Ok(position.side == Side::Target
            && position.standing.role == Role::Replica
            && position.head.is_some()),
        Err(e) if e.kind() == Kind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// The pair by which this host got the VM from the other one.
fn origin(layout: &Layout, vm: &str, host: &HostDescription) -> Result<TargetPair> {
    let mut found = targets_of(layout, vm)?;
    found.retain(|pair| pair.source_host == host.id);
    let newest = found.into_iter().max_by_key(|pair| pair.standing.epoch);
    match newest {
        Some(pair) if pair.standing.role == Role::Primary => Ok(pair),
        Some(pair) => Err(Error::new(
            Kind::Refused,
            format!(
                "this host is {} for VM {vm} since epoch {}, so the VM is not its to give",
                pair.standing.role, pair.standing.epoch
            ),
        )
        .advise("run it on the host that is primary; 'status' tells the roles")),
        None => Err(Error::new(
            Kind::NotFound,
            format!("VM {vm} did not come from {}", host.name),
        )
        .advise("to have a replica there, sync to it; to move the VM there, migrate it")),
    }
}

/// Refuses a host on which the VM runs, or which has seen a newer change of roles.
fn check_there(origin: &TargetPair, position: &Position, host: &HostDescription) -> Result<()> {
    let (name, vm) = (&host.name, &position.vm);
    if position.running {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "VM {vm} runs on {name} as well: both hosts have written to their own disks.\n\
                 \x20 what is here is to be kept        shut VM {vm} down on {name}, and run this again: what it has written\n\
                 \x20                                  stays there as a generation\n\
                 \x20 what is on {name} is to be kept    shut VM {} down here, and sync from {name} to another VM id here",
                origin.target_vm
            ),
        )
        .advise("decide which one has what is to be kept; nothing was changed")
        .see(Runbook::SplitBrain));
    }
    if position.standing.epoch > origin.standing.epoch {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "{name} is {} for VM {vm} since epoch {}, and this host is primary since epoch {} only",
                position.standing.role, position.standing.epoch, origin.standing.epoch
            ),
        )
        .advise("the newer epoch counts: 'status' on both hosts tells the roles")
        .see(Runbook::SplitBrain));
    }
    Ok(())
}

fn order(
    migration: &Migration,
    vm: &SourceVm,
    origin: &TargetPair,
    position: &Position,
    pair: Uuid,
) -> Result<Adopt> {
    let mut disks = Vec::new();
    let mut excluded: Vec<String> = vm.excluded.iter().map(|(key, _)| key.clone()).collect();
    for disk in &vm.disks {
        let mut volumes = origin.volumes.iter();
        match volumes.find(|(_, here)| **here == disk.spec.volume) {
            Some((there, here)) => disks.push(SharedDisk {
                key: disk.spec.key.clone(),
                // As the other host will see it.
                there: here.clone(),
                here: there.clone(),
            }),
            None => excluded.push(disk.spec.key.clone()),
        }
    }
    Ok(Adopt {
        origin: origin.pair,
        pair,
        epoch: origin.standing.epoch,
        source_host: host_id(migration.context.layout, true)?,
        source_name: vm.host.clone(),
        vm: migration.vm.to_owned(),
        target_vm: position.vm.clone(),
        config: vm.config.clone(),
        described: vm.described.clone(),
        excluded,
        disks,
        back: WayBack::of(origin),
        hash: migration.sync.tuning.hash,
        leaf_bytes: LEAF_BYTES,
    })
}

/// The other host's part: under the VM's lock there. A migration away from it that was not finished is, by this.
pub(super) fn adopt(
    layout: &Layout,
    roles: &dyn RoleHypervisor,
    order: &Adopt,
    stop: &Stop,
) -> Result<Adopted> {
    let vm = &order.target_vm;
    let _lock = Lock::take(&layout.vm_lock(vm), &format!("VM {vm}"))?;
    let adopted = replica::adopt(layout, roles, order, stop)?;
    if Handover::pending(layout, vm)?.is_some_and(|handover| handover.epoch <= order.epoch) {
        Handover::forget(layout, vm)?;
    }
    Ok(adopted)
}
