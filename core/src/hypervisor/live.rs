//! What moving a VM together with its memory needs of a hypervisor: `migrate --live`.
//!
//! The guest is paused, not shut down. What is left of its disks is synced and sealed, then its memory goes over, and the
//! guest goes on where it stood. In this order, with S for the host that it leaves and T for the one that it goes to:
//!
//! 1. S `profile`, T `check_incoming`: everything that can be refused is refused while the guest runs
//! 2. S `pause`, by a process of its own, the *keeper*: it lets the guest go on when the driver dies, hangs or is late
//! 3. the last sync, sealed on T; the head there is that generation
//! 4. T `receive`: the guest is there, without memory, and does not run
//! 5. S `send_memory`; T `guest` says [`GuestState::Paused`]
//! 6. S is retired, durably: the point of no return. The keeper lets nothing go any more; S `retire_paused`
//! 7. T is primary, durably; T `resume`, T `promote_received`
//! 8. S `end_paused`
//!
//! Where [`LiveHypervisor::receives_early`], and the heads can be written where they are, 4 comes before 2: the guest waits on
//! the heads while they are brought up to date, and starting it takes none of the time in which nobody runs.
//!
//! What fails before 6: T `end_received`, S `resume`. What fails at 7: T is asked to decline, then the same. A host that
//! was killed in between is looked at by `guest`. The guest may only ever run on S before 6, and on T after 7.

use super::{Hold, RoleHypervisor, SeededHypervisor};
use crate::error::Result;
use crate::replica::{Generation, TargetPair};
use crate::stop::Stop;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What the guest sees of its host and QEMU, which must be the same on the other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveProfile {
    /// Its memory in bytes: the most that has to be sent.
    pub memory: u64,
    /// The rest, in a form that only the same hypervisor's front end on the other host has to understand.
    pub details: String,
}

/// What a VM's guest does on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestState {
    /// It is not there.
    Off,
    /// It runs.
    Running,
    /// It is there with all its memory and does not run. [`LiveHypervisor::resume`] lets it.
    Paused,
    /// The same, and its memory has been sent to another host. It has closed its disks; `resume` opens them again.
    Sent,
    /// It waits for its memory.
    Waiting,
}

/// A guest without memory that waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incoming {
    /// The unix sockets on which it does, on its host. The other host reaches each by one of its own.
    pub sockets: Vec<PathBuf>,
}

/// What moving a running VM needs of its host, on either side. Every call but [`LiveHypervisor::send_memory`] is safe to
/// repeat. None waits without a limit.
pub trait LiveHypervisor: RoleHypervisor {
    // On the host that it leaves.

    /// What the other host must be able to give the guest. Refuses a VM that cannot be moved while it runs: one that uses
    /// devices of this host, say. Changes nothing.
    fn profile(&self, vm: &str) -> Result<LiveProfile>;

    /// Stops the guest's processors, and has what it has written reach its disks. As long as the value lives, others are
    /// kept from letting it run, as far as this hypervisor can do that. Called by the keeper. Fails, and leaves it running,
    /// if the guest does not run.
    fn pause(&self, vm: &str) -> Result<Box<dyn Hold>>;

    /// Sends the memory of the paused guest to the one that waits behind `sockets`, of which each leads to the socket of
    /// [`Incoming`] with the same number. Returns when all of it is on the way; whether it has arrived the other host is
    /// asked. After an error the guest is paused as before, and nothing is being sent. The guest may be
    /// [`GuestState::Off`] here afterwards, if the hypervisor will have it so: then this must not succeed before the other
    /// side has all, and there is no way but forward.
    fn send_memory(&self, vm: &str, sockets: &[PathBuf], stop: &Stop) -> Result<()>;

    /// [`RoleHypervisor::retire`] of a VM whose guest is there, and does not run: from now on this hypervisor refuses to let
    /// it run. The guest itself is left as it is.
    fn retire_paused(&self, vm: &str, why: &str) -> Result<Vec<String>>;

    /// Ends a guest that does not run, without anything being written to its disks. Refuses one that runs.
    fn end_paused(&self, vm: &str) -> Result<()>;

    // On the host that it goes to.

    /// Refuses a guest that could not go on here. Changes nothing. Returns notes for the user.
    fn check_incoming(&self, pair: &TargetPair, profile: &LiveProfile) -> Result<Vec<String>>;

    /// Has the guest be there on the head of the replica, which is `generation`, without memory and waiting for it. Nobody
    /// else can start or change the replica meanwhile, and its guard lets just this through. Called under the pair's lock.
    fn receive(
        &self,
        pair: &TargetPair,
        generation: &Generation,
        profile: &LiveProfile,
    ) -> Result<Incoming>;

    /// The VM whose guest waits on this socket, as one of [`Incoming`]'s, if nothing else can be reached by it. Only such
    /// sockets are open to a driver that may do only what a policy allows.
    fn vm_of_incoming(&self, socket: &Path) -> Option<String> {
        let _ = socket;
        None
    }

    /// Whether [`LiveHypervisor::receive`] may come before the last sync, so that volumes are written which the guest there has
    /// open and has not read yet. What it shows of the hardware must then depend on their size alone.
    fn receives_early(&self) -> bool {
        false
    }

    /// Ends a guest that [`LiveHypervisor::receive`] has begun and that has never run here: nothing is left of it but the
    /// replica. Refuses one that runs.
    fn end_received(&self, pair: &TargetPair) -> Result<()>;

    /// [`RoleHypervisor::promote`] while the guest is there. It runs already, so that it need not wait for this.
    fn promote_received(&self, pair: &TargetPair, generation: &Generation) -> Result<Vec<String>>;

    // On both.

    /// What is needed to move guests without holding them still, if this hypervisor can do that.
    fn seeded(&self) -> Option<&dyn SeededHypervisor> {
        None
    }

    /// What the guest does here.
    fn guest(&self, vm: &str) -> Result<GuestState>;

    /// Has the guest run, if it is [`GuestState::Paused`], [`GuestState::Sent`], or runs already. On the way its memory is
    /// no longer sent. Tries again for a while where that may help. Refuses one without memory.
    fn resume(&self, vm: &str) -> Result<()>;
}
