//! The target's agent: answers a driver's requests about replicas.

use super::messages::HostRequest;
use super::restricted::Judge;
use super::{landing_service, reverse_service, roles_service};
use crate::agent::restrict::{not_allowed, OwnFiles, Policy};
use crate::agent::{while_there, Service};
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{HostDescription, LiveHypervisor, RoleHypervisor, TargetHypervisor};
use crate::journal::{Beginning, Journal, Run, Sealed, Side, State};
use crate::replica::{
    self, Generation, Landing, Layout, Mending, Prepared, ReplicaRequest, ReplicaTarget, SealReport,
};
use crate::wire::{limits, LinkReader};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// An agent whose driver vanished without a word notices that within the links' limit of silence.
const STALE_AGENT_PATIENCE: Duration = Duration::from_secs(limits::SILENCE_S_MAX + 10);

/// Serves replicas on this host through `hypervisor`.
pub struct TargetService<'a> {
    layout: Layout,
    hypervisor: &'a dyn TargetHypervisor,
    roles: Option<&'a dyn RoleHypervisor>,
    live: Option<&'a dyn LiveHypervisor>,
    landing: Option<Landing<'a>>,
    open: Option<Open<'a>>,
    mending: Option<Mending>,
}

/// A replica that forks were made for, and its page in the journal.
struct Open<'a> {
    target: ReplicaTarget<'a>,
    run: Run,
}

impl<'a> TargetService<'a> {
    /// State is kept under `layout`.
    pub fn new(layout: Layout, hypervisor: &'a dyn TargetHypervisor) -> Self {
        TargetService {
            layout,
            hypervisor,
            roles: None,
            live: None,
            landing: None,
            open: None,
            mending: None,
        }
    }

    /// Serves also what a change of roles asks for.
    pub fn with_roles(mut self, roles: &'a dyn RoleHypervisor) -> Self {
        self.roles = Some(roles);
        self
    }

    /// Takes VMs over also while they run.
    pub fn with_live(mut self, live: &'a dyn LiveHypervisor) -> Self {
        self.live = Some(live);
        self
    }
}

impl TargetService<'_> {
    fn prepare(&mut self, request: &ReplicaRequest, on_heads: bool) -> Result<Prepared> {
        self.give_up();
        let on_heads = on_heads && self.live.is_some_and(|live| live.receives_early());
        if let Some(live) = self.live {
            // One that a killed run left would keep the replica from being brought up to date.
            replica::end_landing(&self.layout, live, request.pair)?;
        }
        let (journal, note) = Journal::open(&self.layout.journal())?;
        let run = journal.begin(&Beginning {
            id: request.run,
            side: Side::Target,
            vm: &request.vm,
            name: "",
            peer: &request.source_name,
        })?;
        let prepared = run
            .is_of(request.pair, request.source_host)
            .and_then(|()| run.enter(State::Fork))
            .and_then(|()| {
                let layout = self.layout.clone();
                ReplicaTarget::open(layout, self.hypervisor, request, STALE_AGENT_PATIENCE)
            })
            .and_then(|mut target| {
                let prepared = match on_heads {
                    true => target.prepare_on_heads(request)?,
                    false => target.prepare(request)?,
                };
                Ok((prepared, target))
            });
        match prepared {
            Ok((mut prepared, target)) => {
                prepared.notes.extend(note);
                self.open = Some(Open { target, run });
                Ok(prepared)
            }
            Err(e) => Err(run.fail(e)),
        }
    }

    /// Ends the putting right of a generation, if there is one.
    fn reseal(&mut self) -> Result<Vec<String>> {
        match self.mending.take() {
            Some(mending) => mending.finish(self.hypervisor),
            None => Ok(Vec::new()),
        }
    }

    /// The driver is done, and has not sealed what was prepared.
    fn give_up(&mut self) {
        if let Some(open) = self.open.take() {
            let error = Error::new(Kind::Cancelled, "the source ended the run before its seal");
            // Who would be told? The run is over, and looks as if it had been cut off.
            let _ = open.run.end(Some(&error));
        }
    }
}

impl Drop for TargetService<'_> {
    fn drop(&mut self) {
        self.give_up();
        // If this fails, the next run does it.
        let _ = self.reseal();
    }
}

fn seal(open: Open, generation: Generation) -> Result<SealReport> {
    let sealed = Sealed {
        generation: generation.number,
        taken_at: generation.taken_at,
        changed: generation.disks.iter().map(|d| d.changed).sum(),
        wire: None,
    };
    let Open { mut target, run } = open;
    match run
        .enter(State::Seal)
        .and_then(|()| target.seal(generation))
    {
        Err(e) => Err(run.fail(e)),
        Ok(mut report) => {
            let noted = run.sealed(&sealed).and_then(|()| run.end(None));
            report.notes.extend(noted.err().map(|e| e.to_string()));
            Ok(report)
        }
    }
}

pub(super) fn value<T: Serialize>(answer: &T) -> Result<Value> {
    serde_json::to_value(answer)
        .map_err(|e| Error::new(Kind::Protocol, "cannot encode an answer").because(e))
}

impl Service for TargetService<'_> {
    fn handle_under(
        &mut self,
        policy: &Policy,
        request: Value,
        driver: &mut LinkReader,
    ) -> Result<Value> {
        let request: HostRequest = decoded(request)?;
        let judge = Judge {
            policy,
            layout: &self.layout,
            hypervisor: self.hypervisor,
        };
        let (request, shown) = judge.admit(request)?;
        let answer = self.answer(request, driver)?;
        shown.of(policy, answer)
    }

    fn own_files(&mut self, policy: &Policy) -> Result<OwnFiles> {
        replica::own_files(&self.layout, policy)
    }

    fn may_pour(&mut self, policy: &Policy, socket: &Path) -> Result<()> {
        let vm = self.live.and_then(|live| live.vm_of_incoming(socket));
        let vm = vm.filter(|_| policy.roles);
        let judge = Judge {
            policy,
            layout: &self.layout,
            hypervisor: self.hypervisor,
        };
        match vm {
            Some(vm) => judge.check_vm(&vm),
            None => Err(not_allowed(&format!("to reach {}", socket.display()))),
        }
    }

    fn handle(&mut self, request: Value, driver: &mut LinkReader) -> Result<Value> {
        self.answer(decoded(request)?, driver)
    }
}

fn decoded(request: Value) -> Result<HostRequest> {
    serde_json::from_value(request)
        .map_err(|e| Error::new(Kind::Protocol, "a request has an unknown form").because(e))
}

impl TargetService<'_> {
    fn answer(&mut self, request: HostRequest, driver: &mut LinkReader) -> Result<Value> {
        match request {
            HostRequest::Describe { keep } => {
                let (hypervisor, name) = self.hypervisor.describe()?;
                let id = replica::host_id(&self.layout, keep)?;
                value(&HostDescription {
                    id,
                    name,
                    hypervisor,
                    form: self.hypervisor.form().to_owned(),
                })
            }
            HostRequest::Plan(request) => value(&ReplicaTarget::plan(
                &self.layout,
                self.hypervisor,
                &request,
            )?),
            HostRequest::Prepare(request) => value(&self.prepare(&request, false)?),
            HostRequest::PrepareOnHeads(request) => value(&self.prepare(&request, true)?),
            HostRequest::Seal(generation) => match self.open.take() {
                Some(open) => value(&seal(open, *generation)?),
                None => Err(Error::new(
                    Kind::Protocol,
                    "nothing was prepared to be sealed",
                )),
            },
            HostRequest::Verify(request) => value(&while_there(driver, |stop| {
                replica::verify(&self.layout, &request, stop)
            })?),
            HostRequest::Unseal {
                vm,
                generation,
                disks,
            } => {
                self.reseal()?;
                let begun = Mending::begin(&self.layout, self.hypervisor, &vm, generation, &disks)?;
                self.mending = Some(begun.0);
                value(&begun.1)
            }
            HostRequest::Reseal => value(&self.reseal()?),
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
                value(&replica::shown_generations(&self.layout, vm.as_deref())?)
            }
            request @ (HostRequest::CheckIncoming { .. }
            | HostRequest::CheckSeeded { .. }
            | HostRequest::Settle { .. }
            | HostRequest::Receive { .. }
            | HostRequest::ReceiveEarly { .. }
            | HostRequest::Arrived { .. }
            | HostRequest::Land(_)
            | HostRequest::Leave { .. }) => match self.live {
                Some(live) => {
                    self.give_up();
                    let layout = &self.layout;
                    landing_service::handle(layout, live, &mut self.landing, request, driver)
                }
                None => Err(Error::new(
                    Kind::Protocol,
                    "this agent takes over no VMs while they run",
                )),
            },
            request => match self.roles {
                Some(roles) => match request {
                    HostRequest::BeginReverse(_)
                    | HostRequest::Adopt(_)
                    | HostRequest::Decline(_) => {
                        reverse_service::handle(&self.layout, roles, request, driver)
                    }
                    request => {
                        if matches!(request, HostRequest::TakeOver(_)) {
                            // What was prepared and not sealed would be in its way.
                            self.give_up();
                        }
                        roles_service::handle(&self.layout, roles, request)
                    }
                },
                None => Err(Error::new(
                    Kind::Protocol,
                    "this agent does not take part in changes of roles",
                )),
            },
        }
    }
}
