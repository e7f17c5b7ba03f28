//! The target's agent: answers a driver's requests about replicas.

use super::messages::HostRequest;
use crate::agent::{while_there, Service};
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{HostDescription, TargetHypervisor};
use crate::replica::{self, Layout, ReplicaTarget};
use crate::wire::{limits, LinkReader};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// An agent whose driver vanished without a word notices that within the links' limit of silence.
const STALE_AGENT_PATIENCE: Duration = Duration::from_secs(limits::SILENCE_S_MAX + 10);

/// Serves replicas on this host through `hypervisor`.
pub struct TargetService<'a> {
    layout: Layout,
    hypervisor: &'a dyn TargetHypervisor,
    open: Option<ReplicaTarget<'a>>,
}

impl<'a> TargetService<'a> {
    /// State is kept under `layout`.
    pub fn new(layout: Layout, hypervisor: &'a dyn TargetHypervisor) -> Self {
        TargetService {
            layout,
            hypervisor,
            open: None,
        }
    }
}

fn value<T: Serialize>(answer: &T) -> Result<Value> {
    serde_json::to_value(answer)
        .map_err(|e| Error::new(Kind::Protocol, "cannot encode an answer").because(e))
}

impl Service for TargetService<'_> {
    fn handle(&mut self, request: Value, driver: &mut LinkReader) -> Result<Value> {
        let request: HostRequest = serde_json::from_value(request)
            .map_err(|e| Error::new(Kind::Protocol, "a request has an unknown form").because(e))?;
        match request {
            HostRequest::Describe { keep } => {
                let (hypervisor, name) = self.hypervisor.describe()?;
                let id = replica::host_id(&self.layout, keep)?;
                value(&HostDescription {
                    id,
                    name,
                    hypervisor,
                })
            }
            HostRequest::Plan(request) => value(&ReplicaTarget::plan(
                &self.layout,
                self.hypervisor,
                &request,
            )?),
            HostRequest::Prepare(request) => {
                let target = ReplicaTarget::open(
                    self.layout.clone(),
                    self.hypervisor,
                    &request,
                    STALE_AGENT_PATIENCE,
                )?;
                let prepared = target.prepare(&request)?;
                self.open = Some(target);
                value(&prepared)
            }
            HostRequest::Seal(generation) => match &mut self.open {
                Some(target) => value(&target.seal(*generation)?),
                None => Err(Error::new(
                    Kind::Protocol,
                    "nothing was prepared to be sealed",
                )),
            },
            HostRequest::Verify { vm, generation } => value(&while_there(driver, |stop| {
                replica::verify(&self.layout, &vm, generation, stop)
            })?),
            HostRequest::Prune {
                vm,
                retention,
                dry_run,
            } => value(&replica::prune(
                &self.layout,
                self.hypervisor,
                &vm,
                retention,
                dry_run,
            )?),
            HostRequest::Pin {
                vm,
                generation,
                pinned,
            } => value(&replica::pin(&self.layout, &vm, generation, pinned)?),
            HostRequest::Generations(vm) => {
                value(&replica::list_generations(&self.layout, vm.as_deref())?)
            }
        }
    }
}
