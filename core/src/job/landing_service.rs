//! The agent's part in taking over a VM while its guest lives: the guest waits here for its memory, and then goes on.

use super::messages::HostRequest;
use super::seeded::{seeder, settle};
use super::service::value;
use crate::agent::while_there;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{GuestState, LiveHypervisor};
use crate::replica::{self, read_json, Landing, Layout, TargetPair};
use crate::stop::Stop;
use crate::wire::LinkReader;
use serde_json::Value;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long the guest may still wait once all of its memory was sent.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Answers a request that concerns a guest with its memory. `landing` is what waits here for this driver.
pub(super) fn handle<'a>(
    layout: &Layout,
    live: &'a dyn LiveHypervisor,
    landing: &mut Option<Landing<'a>>,
    request: HostRequest,
    driver: &mut LinkReader,
) -> Result<Value> {
    match request {
        HostRequest::CheckIncoming { pair, profile } => {
            value(&live.check_incoming(&pair_of(layout, pair)?, &profile)?)
        }
        HostRequest::CheckSeeded { pair, profile } => {
            let pair = pair_of(layout, pair)?;
            seeder(live)?.check_seeded(&pair)?;
            value(&live.check_incoming(&pair, &profile).map(drop)?)
        }
        HostRequest::Settle { pair } => {
            seeder(live)?;
            // Not while it moves on from here, and what is merged is being read.
            value(&settle(layout, live, &pair_of(layout, pair)?.target_vm)?)
        }
        HostRequest::Receive {
            order,
            profile,
            seeded,
        } => {
            *landing = None;
            let seeded = seeded.then(|| seeder(live)).transpose()?;
            let (prepared, incoming) = while_there(driver, |stop| {
                Landing::prepare(layout, live, seeded, &order, &profile, stop)
            })?;
            *landing = Some(prepared);
            value(&incoming)
        }
        HostRequest::ReceiveEarly { order, profile } => {
            *landing = None;
            let (prepared, incoming) = Landing::prepare_early(layout, live, &order, &profile)?;
            *landing = Some(prepared);
            value(&incoming)
        }
        HostRequest::Arrived { pair } => {
            let vm = pair_of(layout, pair)?.target_vm;
            value(&while_there(driver, |stop| arrived(live, &vm, stop))?)
        }
        HostRequest::Land(order) => value(&match landing.take() {
            Some(landing) => landing.land(&order)?,
            None => replica::land(layout, live, &order)?,
        }),
        HostRequest::Leave { pair } => {
            *landing = None;
            value(&replica::end_landing(layout, live, pair)?)
        }
        _ => Err(Error::new(
            Kind::Protocol,
            "this request has nothing to do with a guest's memory",
        )),
    }
}

fn pair_of(layout: &Layout, pair: Uuid) -> Result<TargetPair> {
    read_json(&layout.target_pair(pair))?.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            format!("there is no replica {pair} on this host"),
        )
    })
}

fn arrived(live: &dyn LiveHypervisor, vm: &str, stop: &Stop) -> Result<()> {
    let until = Instant::now() + ARRIVES_WITHIN;
    loop {
        match live.guest(vm)? {
            GuestState::Paused => return Ok(()),
            GuestState::Waiting if Instant::now() < until => {}
            state => {
                return Err(Error::new(
                    Kind::Tool,
                    format!("the memory of VM {vm} has not arrived: its guest is {state:?} there"),
                ))
            }
        }
        stop.check()?;
        std::thread::sleep(POLL);
    }
}
