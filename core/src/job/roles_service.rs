//! The agent's part in a change of roles: what its host is for a pair, and what it is told to become.

use super::messages::{HostRequest, Position};
use super::service::value;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::RoleHypervisor;
use crate::journal::Side;
use crate::replica::{self, read_json, source_pairs, source_vms, Layout, Role, TargetPair};
use serde_json::Value;
use uuid::Uuid;

/// Answers a request that concerns roles.
pub(super) fn handle(
    layout: &Layout,
    roles: &dyn RoleHypervisor,
    request: HostRequest,
) -> Result<Value> {
    match request {
        HostRequest::Position { pair } => value(&position(layout, roles, pair)?),
        HostRequest::CheckRoles => value(&()),
        HostRequest::TakeOver(order) => value(&replica::take_over(layout, roles, &order)?),
        HostRequest::Start { vm } => value(&roles.start(&vm)?),
        HostRequest::Answers { vm } => value(&roles.guest_answers(&vm)?),
        _ => Err(Error::new(
            Kind::Protocol,
            "this request has nothing to do with roles",
        )),
    }
}

/// What this host is for `pair`, whichever end it is. Fails with [`Kind::NotFound`] if it has no part in it.
pub fn position(layout: &Layout, roles: &dyn RoleHypervisor, pair: Uuid) -> Result<Position> {
    if let Some(mut target) = read_json::<TargetPair>(&layout.target_pair(pair))? {
        if target.standing.role == Role::Replica && layout.adopting(pair).exists() {
            // It becomes one, and takes nothing before that is done.
            target.standing.role = Role::Retired;
        }
        return Ok(Position {
            side: Side::Target,
            running: roles.is_running(&target.target_vm)?,
            vm: target.target_vm,
            standing: target.standing,
            head: target.head,
        });
    }
    for vm in source_vms(layout)? {
        let pairs = source_pairs(layout, &vm)?;
        if let Some(source) = pairs.iter().find(|p| p.pair == pair) {
            return Ok(Position {
                side: Side::Source,
                running: roles.is_running(&vm)?,
                vm,
                standing: source.standing,
                head: None,
            });
        }
    }
    Err(Error::new(
        Kind::NotFound,
        format!("this host knows nothing of the pair {pair}"),
    ))
}
