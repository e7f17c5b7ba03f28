//! Moving a VM together with its memory, without holding it still: all of its disks are laid over, so that what was written
//! until then stands still and can be sealed on the other host while the guest goes on writing to what lies above. Only that
//! is sent along with its memory, and merged into the disks when it runs there.
//!
//! As in `live.rs`, with S for the host that it leaves and T for the one that it goes to, but:
//!
//! - 2 is S `lay_over`, by the keeper: it lets the guest go on and settles it when the driver dies
//! - 4 is T `receive_seeded`, on a head that was read again and is what was sealed
//! - 5 is S `send_seeded`: the guest runs until almost all is there
//! - behind 7, T `settle`
//!
//! What fails before 6: the same, and S `settle`. What lies over the disks of S goes with `end_paused`: until then it is what
//! S would go on from, if T turned out not to have the guest.

use super::Incoming;
use crate::error::Result;
use crate::hypervisor::LiveProfile;
use crate::replica::{Generation, TargetPair};
use crate::stop::Stop;
use std::path::PathBuf;
use std::time::Instant;

/// What that needs of a host, on either side. Every call but [`SeededHypervisor::send_seeded`] is safe to repeat. None waits
/// without a limit.
pub trait SeededHypervisor {
    // On the host that it leaves.

    /// Refuses a VM that runs, and whose disks cannot all be laid over. Changes nothing.
    fn check_seeding(&self, vm: &str) -> Result<()>;

    /// Has the guest write to something that lies over its disks from now on, all of them in the same instant. From then on
    /// the disks stand still, and hold what they held in that instant; whatever starts the VM finds what lies over them.
    fn lay_over(&self, vm: &str) -> Result<()>;

    /// Sends the guest to where it waits behind `sockets`, of which each leads to the socket of [`Incoming`] with the same
    /// number. Returns when all of it is on the way, and since when it does not run. After an error the guest runs as
    /// before. It may be [`super::GuestState::Off`] here afterwards: see [`super::LiveHypervisor::send_memory`].
    fn send_seeded(&self, vm: &str, sockets: &[PathBuf], stop: &Stop) -> Result<Instant>;

    // On the host that it goes to.

    /// Refuses a replica over whose disks nothing can be laid. Changes nothing.
    fn check_seeded(&self, pair: &TargetPair) -> Result<()>;

    /// [`super::LiveHypervisor::receive`] of a guest that brings what lies over its disks.
    /// [`super::LiveHypervisor::end_received`] ends that as well, and
    /// [`super::LiveHypervisor::promote_received`] must not forget what lies over the disks.
    fn receive_seeded(
        &self,
        pair: &TargetPair,
        generation: &Generation,
        profile: &LiveProfile,
    ) -> Result<Incoming>;

    // On both.

    /// Merges what lies over the VM's disks into them, whether it runs or not; nothing happens if nothing does. A VM that
    /// must not run here is left as it is. Returns notes for the user.
    fn settle(&self, vm: &str) -> Result<Vec<String>>;
}
