//! What a front end provides about its hypervisor, so that the workflows are written once.

use crate::error::Result;
use crate::replica::{Generation, Placement, ReplicaRequest, TargetPair};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A host, as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDescription {
    /// Random id of the host.
    pub id: Uuid,
    /// Its name, for people.
    pub name: String,
    /// What runs there: "Proxmox VE".
    pub hypervisor: String,
}

/// A generation and the keys of its disks that the hypervisor sees a snapshot of.
pub struct Published<'a> {
    /// The generation.
    pub generation: &'a Generation,
    /// Disks with a snapshot of their own for it.
    pub snapshots: BTreeSet<String>,
}

/// Keeps a replica from being started or taken over as long as it lives.
pub trait Hold {}

/// The target's side of a replication.
pub trait TargetHypervisor {
    /// The hypervisor's name, and this host's.
    fn describe(&self) -> Result<(String, String)>;

    /// Decides where the disks go: `known` holds what was decided before, source volume to target volume.
    /// Changes nothing. Refuses when the VM's id is taken by another VM, a replica was taken over, or a
    /// storage is missing or unfit.
    fn place(
        &self,
        request: &ReplicaRequest,
        known: &BTreeMap<String, String>,
    ) -> Result<Vec<Placement>>;

    /// Keeps the replica from being started or taken over while its head is replaced. Refuses if that has
    /// happened already, or if its id is another VM's by now.
    fn hold(&self, pair: &TargetPair) -> Result<Box<dyn Hold>>;

    /// Makes the replica known to the hypervisor: bootable, but not by accident. Oldest generation first,
    /// the last one is the head. Safe to repeat. Returns notes for the user.
    fn publish(&self, pair: &TargetPair, generations: &[Published]) -> Result<Vec<String>>;
}
