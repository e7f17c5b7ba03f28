//! Which requests about replicas a policy allows.

use super::messages::HostRequest;
use crate::agent::restrict::{not_allowed, Policy};
use crate::error::{Error, Kind, Result};
use crate::hypervisor::TargetHypervisor;
use crate::replica::{
    self, read_json, source_pairs_to, source_vms, target_pairs, Generation, Layout, PeersPair,
    Placement, ReplicaRequest, Retention, TargetPair,
};
use serde_json::Value;
use uuid::Uuid;

/// Whoever may only add generations has none pruned.
const KEEP_ALL: Retention = Retention {
    keep: u32::MAX,
    within_s: None,
};

/// What of an answer is for the driver.
pub(super) enum Shown {
    /// All of it.
    All,
    /// Of a list of replicas those that the policy is about.
    PeersPairs,
}

impl Shown {
    /// The answer, as the driver may see it.
    pub fn of(&self, policy: &Policy, answer: Value) -> Result<Value> {
        match self {
            Shown::All => Ok(answer),
            Shown::PeersPairs => {
                let cannot = |e| Error::new(Kind::Protocol, "cannot encode an answer").because(e);
                let mut pairs: Vec<(TargetPair, Vec<Generation>)> =
                    serde_json::from_value(answer).map_err(cannot)?;
                pairs.retain(|(pair, _)| pair.is_allowed(policy));
                serde_json::to_value(pairs).map_err(cannot)
            }
        }
    }
}

/// Judges requests by a policy.
pub(super) struct Judge<'a> {
    pub policy: &'a Policy,
    pub layout: &'a Layout,
    pub hypervisor: &'a dyn TargetHypervisor,
}

impl Judge<'_> {
    /// The request as it may be answered, or why not. Every kind of request is named here: a new one has to be.
    pub fn admit(&self, mut request: HostRequest) -> Result<(HostRequest, Shown)> {
        match &mut request {
            HostRequest::Describe { .. } => {}
            HostRequest::Plan(wanted) | HostRequest::Prepare(wanted) => self.bind(wanted)?,
            HostRequest::PrepareOnHeads(wanted) => {
                // For a guest that comes with its memory, whose disks are written where they are.
                self.must_change_roles()?;
                self.must_overwrite()?;
                self.bind(wanted)?;
            }
            // Only what this very connection has prepared is sealed.
            HostRequest::Seal(_) => self.must_add()?,
            HostRequest::Generations(_) => return Ok((request, Shown::PeersPairs)),
            HostRequest::Verify(wanted) => self.check_vm(&wanted.vm)?,
            HostRequest::Unseal { vm, .. } => {
                self.must_overwrite()?;
                self.check_vm(vm)?;
            }
            HostRequest::Reseal => self.must_overwrite()?,
            HostRequest::Prune { vm, dry_run, .. } => {
                if !*dry_run {
                    self.must_overwrite()?;
                }
                self.check_vm(vm)?;
            }
            HostRequest::Pin { vm, pinned, .. } => {
                match *pinned {
                    true => self.must_add()?,
                    false => self.must_overwrite()?,
                }
                self.check_vm(vm)?;
            }
            HostRequest::Position { pair } => self.check_pair(*pair)?,
            HostRequest::CheckRoles => self.must_change_roles()?,
            HostRequest::BeginReverse(order) => {
                self.must_change_roles()?;
                self.check_pair(order.origin)?;
                self.check_peer(order.host)?;
            }
            HostRequest::Adopt(order) => {
                self.must_change_roles()?;
                self.check_pair(order.origin)?;
                self.check_peer(order.source_host)?;
                self.check_name(&order.target_vm)?;
            }
            HostRequest::Decline(order) => {
                self.must_change_roles()?;
                self.check_pair(order.pair)?;
            }
            HostRequest::CheckIncoming { pair, .. }
            | HostRequest::CheckSeeded { pair, .. }
            | HostRequest::Settle { pair }
            | HostRequest::Arrived { pair }
            | HostRequest::Leave { pair } => {
                self.must_change_roles()?;
                self.check_pair(*pair)?;
            }
            HostRequest::Receive { order, .. }
            | HostRequest::ReceiveEarly { order, .. }
            | HostRequest::Land(order)
            | HostRequest::TakeOver(order) => {
                self.must_change_roles()?;
                self.check_pair(order.pair)?;
            }
            HostRequest::Start { vm } | HostRequest::Answers { vm } => {
                self.must_change_roles()?;
                self.check_vm(vm)?;
            }
        }
        Ok((request, Shown::All))
    }

    /// Refuses a VM of which the policy's peer has no replica here.
    pub fn check_vm(&self, vm: &str) -> Result<()> {
        let pairs = target_pairs(self.layout)?;
        let mut named = pairs.iter().filter(|p| p.vm == vm || p.target_vm == vm);
        // All that have the name: which of them is meant is decided later.
        match named.clone().next().is_some() && named.all(|pair| pair.is_allowed(self.policy)) {
            true => Ok(()),
            false => Err(not_allowed(&format!("anything with VM {vm}"))),
        }
    }

    /// A replica request, bound to what the policy names and may do.
    fn bind(&self, wanted: &mut ReplicaRequest) -> Result<()> {
        self.must_add()?;
        self.check_peer(wanted.source_host)?;
        if let Some(pair) = read_json::<TargetPair>(&self.layout.target_pair(wanted.pair))? {
            self.check_known(&pair)?;
        }
        if !self.policy.access.overwrites() {
            if wanted.in_place {
                return Err(not_allowed("to overwrite a generation in place"));
            }
            wanted.retention = KEEP_ALL;
        }
        // What a driver says of a target's lost state names volumes here.
        wanted.newest = None;
        let (vm, placements) = replica::placed(self.layout, self.hypervisor, wanted)?;
        self.check_name(&vm)?;
        placements.iter().try_for_each(|p| self.check_place(p))
    }

    fn check_place(&self, placement: &Placement) -> Result<()> {
        let storage = placement.volume.split_once(':').map(|(storage, _)| storage);
        let pool = match &placement.location {
            replica::Location::ThinLv { pool, .. } => pool.to_string(),
            replica::Location::ThickLv { lv } => lv.vg().to_owned(),
            replica::Location::File { path, .. } => {
                let dir = path.parent().unwrap_or(path);
                dir.display().to_string()
            }
        };
        let storages = storage.into_iter().chain([pool.as_str()]);
        let on_storage = storages.into_iter().any(|s| self.policy.allows_storage(s));
        let is_named = match &placement.location {
            replica::Location::ThinLv { lv, .. } | replica::Location::ThickLv { lv } => {
                self.policy.allows_lv(lv)
            }
            replica::Location::File { path, .. } => self.policy.allows_path(path),
        };
        match on_storage || is_named {
            true => Ok(()),
            false => Err(not_allowed(&format!(
                "replicas on {} (disk {})",
                storage.unwrap_or(&pool),
                placement.key
            ))),
        }
    }

    /// The pair is with the peer, whichever end this host is.
    fn check_pair(&self, id: Uuid) -> Result<()> {
        if let Some(pair) = read_json::<TargetPair>(&self.layout.target_pair(id))? {
            return self.check_known(&pair);
        }
        for vm in source_vms(self.layout)? {
            for (host, pair) in source_pairs_to(self.layout, &vm)? {
                if pair.pair == id {
                    self.check_peer(host)?;
                    return self.check_name(&vm);
                }
            }
        }
        Err(Error::new(
            Kind::NotFound,
            format!("this host knows nothing of the pair {id}"),
        ))
    }

    fn check_known(&self, pair: &TargetPair) -> Result<()> {
        match pair.is_allowed(self.policy) {
            true => Ok(()),
            false => Err(not_allowed(&format!(
                "anything with the replica of VM {} of {}",
                pair.target_vm, pair.source_name
            ))),
        }
    }

    fn check_peer(&self, host: Uuid) -> Result<()> {
        match self.policy.peer.is_none_or(|peer| peer == host) {
            true => Ok(()),
            false => Err(not_allowed(&format!("replicas of the host {host}"))),
        }
    }

    fn check_name(&self, vm: &str) -> Result<()> {
        match self.policy.allows_vm(vm) {
            true => Ok(()),
            false => Err(not_allowed(&format!("a replica as VM {vm}"))),
        }
    }

    fn must_add(&self) -> Result<()> {
        match self.policy.access.adds() {
            true => Ok(()),
            false => Err(not_allowed("to add generations")),
        }
    }

    fn must_overwrite(&self) -> Result<()> {
        match self.policy.access.overwrites() {
            true => Ok(()),
            false => Err(not_allowed(
                "to overwrite, remove or release sealed generations",
            )),
        }
    }

    fn must_change_roles(&self) -> Result<()> {
        match self.policy.roles {
            true => Ok(()),
            false => Err(not_allowed("changes of roles")),
        }
    }
}
