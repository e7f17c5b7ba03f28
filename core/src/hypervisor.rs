//! What a front end provides about its hypervisor, so that the workflows are written once.

mod live;
mod seeded;

pub use live::{GuestState, Incoming, LiveHypervisor, LiveProfile};
pub use seeded::SeededHypervisor;

use crate::error::Result;
use crate::guest::Described;
use crate::image::ImageFormat;
use crate::replica::{Generation, Location, Placement, ReplicaRequest, TargetPair, Trial};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
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
    /// The form of its configurations, as in [`Described::form`].
    #[serde(default)]
    pub form: String,
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

    /// What the form of its configurations is called: as in [`Described::form`]. VMs of another form come translated.
    fn form(&self) -> &'static str {
        ""
    }

    /// Decides where the disks go: `known` holds what was decided before, source volume to target volume.
    /// Changes nothing. Refuses when the VM's id is taken by another VM, a replica was taken over, or a
    /// storage is missing or unfit.
    fn place(
        &self,
        request: &ReplicaRequest,
        known: &BTreeMap<String, String>,
    ) -> Result<Vec<Placement>>;

    /// What will be missing here that the VM asks for, once it is to run: no reason to refuse a replica.
    fn remarks(&self, _request: &ReplicaRequest) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Keeps the replica from being started or taken over while its head is replaced. Refuses if that has
    /// happened already, or if its id is another VM's by now.
    fn hold(&self, pair: &TargetPair) -> Result<Box<dyn Hold>>;

    /// Makes the replica known to the hypervisor: bootable, but not by accident. Oldest generation first,
    /// the last one is the head. Safe to repeat. Returns notes for the user.
    fn publish(&self, pair: &TargetPair, generations: &[Published]) -> Result<Vec<String>>;
}

/// What a change of roles needs of a VM's host, on either side. Every call is safe to repeat.
pub trait RoleHypervisor: TargetHypervisor {
    /// Whether the VM runs here.
    fn is_running(&self, vm: &str) -> Result<bool>;

    /// Makes the head of a replica the VM itself, with the configuration of `generation`: the guard goes, it may be
    /// started. That this host is primary is durable when this is called. Returns notes for the user.
    fn promote(&self, pair: &TargetPair, generation: &Generation) -> Result<Vec<String>>;

    /// Keeps the VM from being started here, by accident or on purpose; `why` is told to whoever tries. Refuses a VM that
    /// runs. Returns notes for the user.
    fn retire(&self, vm: &str, why: &str) -> Result<Vec<String>>;

    /// Takes [`RoleHypervisor::retire`] back.
    fn reinstate(&self, vm: &str) -> Result<Vec<String>>;

    /// Keeps the VM from being started until [`RoleHypervisor::let_start`], while it is not known whether this host may run
    /// it; `why` is told to whoever tries. Less than [`RoleHypervisor::retire`] where the hypervisor can do with less.
    /// Returns notes for the user.
    fn keep_off(&self, vm: &str, why: &str) -> Result<Vec<String>> {
        self.retire(vm, why)
    }

    /// Takes [`RoleHypervisor::keep_off`] back. It does not start the VM.
    fn let_start(&self, vm: &str) -> Result<Vec<String>> {
        self.reinstate(vm)
    }

    /// The configuration that the VM has here.
    fn config(&self, vm: &str) -> Result<String>;

    /// What else belongs to the VM here, beside its disks and its configuration: the state of its TPM, where that is no disk.
    fn state(&self, vm: &str) -> Result<Option<String>> {
        let _ = vm;
        Ok(None)
    }

    /// What a configuration of this hypervisor's says in the form of no hypervisor in particular. `None`: no other kind of
    /// hypervisor can take its VMs.
    fn described(&self, config: &str) -> Option<Described> {
        let _ = config;
        None
    }

    /// What one of this host's volumes is, and the size of the guest's disk in it in bytes.
    fn locate(&self, volume: &str) -> Result<(Location, u64)>;

    /// Lets [`TargetHypervisor::publish`] put a replica of `pair` in the place of a VM that was retired here.
    fn yield_to(&self, vm: &str, pair: Uuid) -> Result<()>;

    /// Starts the VM.
    fn start(&self, vm: &str) -> Result<()>;

    /// Asks the guest to shut down. False: it still runs after `limit`.
    fn shut_down(&self, vm: &str, limit: Duration) -> Result<bool>;

    /// Ends the VM without asking its guest, and waits until nobody has its disks open any more.
    fn stop(&self, vm: &str) -> Result<()>;

    /// Whether the guest's agent answers; `None` if it has none.
    fn guest_answers(&self, vm: &str) -> Result<Option<bool>>;
}

/// The sockets of a VM that runs.
pub struct VmSockets {
    /// QEMU's monitor.
    pub monitor: PathBuf,
    /// The guest's agent.
    pub agent: PathBuf,
}

/// What a test of a replica needs of its host: a clone that is a VM of its own.
pub trait TrialHypervisor: RoleHypervisor {
    /// An id that no guest has: `wanted`, or any. Refuses one that is taken.
    fn spare_vm(&self, wanted: Option<&str>) -> Result<String>;

    /// Where clones of the generation's disks go, as disks of `vm` in these formats, beside the originals.
    fn place_clones(
        &self,
        vm: &str,
        generation: &Generation,
        formats: &[ImageFormat],
    ) -> Result<Vec<Placement>>;

    /// Makes the clone known, so that it can be started: without links to any network, without the host's devices.
    /// Refuses an id that was taken meanwhile. Returns notes for the user.
    fn show_clone(
        &self,
        pair: &TargetPair,
        generation: &Generation,
        trial: &Trial,
    ) -> Result<Vec<String>>;

    /// Stops the clone and forgets it. Another VM that has its id is left alone; so is what is gone.
    fn end_clone(&self, trial: &Trial) -> Result<()>;

    /// The sockets of a VM.
    fn sockets(&self, vm: &str) -> Result<VmSockets>;
}
