//! The agent's part in turning a pair round.

use super::failback;
use super::messages::HostRequest;
use super::service::value;
use crate::agent::while_there;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::RoleHypervisor;
use crate::replica::{self, Layout};
use crate::wire::LinkReader;
use serde_json::Value;

/// Answers a request that concerns the way back. What is read for it ends when the driver does.
pub(super) fn handle(
    layout: &Layout,
    roles: &dyn RoleHypervisor,
    request: HostRequest,
    driver: &mut LinkReader,
) -> Result<Value> {
    match request {
        HostRequest::BeginReverse(order) => value(&replica::begin_reverse(layout, roles, &order)?),
        HostRequest::Adopt(order) => value(&while_there(driver, |stop| {
            failback::adopt(layout, roles, &order, stop)
        })?),
        HostRequest::Decline(order) => value(&replica::decline(layout, roles, &order)?),
        _ => Err(Error::new(
            Kind::Protocol,
            "this request has nothing to do with the way back",
        )),
    }
}
