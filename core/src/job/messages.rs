//! What a driver asks of a target's agent about replicas.

use crate::hypervisor::LiveProfile;
use crate::journal::Side;
use crate::replica::{
    Adopt, BeginReverse, Decline, Generation, ReplicaRequest, Retention, Standing, TakeOver,
    VerifyRequest,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A request to the agent on a target host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum HostRequest {
    /// Who are you? Answers [`crate::hypervisor::HostDescription`]. A host that is asked for the first time
    /// makes up its id, and keeps it if it may.
    Describe {
        /// It may.
        keep: bool,
    },
    /// What would you do? Changes nothing; answers [`crate::replica::TargetPlan`].
    Plan(Box<ReplicaRequest>),
    /// Take the lock and make forks; answers [`crate::replica::Prepared`].
    Prepare(Box<ReplicaRequest>),
    /// The same, but the heads are to be written where they are, if they can be: a guest is to wait on them meanwhile.
    /// [`crate::replica::Prepared::on_heads`] says whether they will be.
    PrepareOnHeads(Box<ReplicaRequest>),
    /// Seal the forks; answers [`crate::replica::SealReport`].
    Seal(Box<Generation>),
    /// Read a generation again and compare it with what was sealed; answers [`crate::replica::Verified`].
    Verify(VerifyRequest),
    /// Make disks of a generation writable, to put them right; answers a list of [`crate::replica::Unsealed`].
    Unseal {
        /// The VM's id, there or at the source.
        vm: String,
        /// The generation's number.
        generation: u64,
        /// Keys of the disks.
        disks: Vec<String>,
    },
    /// Seal them again; answers notes.
    Reseal,
    /// Drop the generations that the retention does not keep; answers [`crate::replica::Pruned`].
    Prune {
        /// The VM's id, there or at the source.
        vm: String,
        /// What stays.
        retention: Retention,
        /// Only tell.
        dry_run: bool,
    },
    /// Keep a generation from being pruned, or no longer do.
    Pin {
        /// The VM's id, there or at the source.
        vm: String,
        /// The generation's number.
        generation: u64,
        /// Keep it.
        pinned: bool,
    },
    /// Which generations are there, of one VM or of all?
    Generations(Option<String>),
    /// You have taken a VM over: prepare the way back; answers [`crate::replica::Reversed`].
    BeginReverse(Box<BeginReverse>),
    /// You have given a VM up: become a replica host of it; answers [`crate::replica::Adopted`].
    Adopt(Box<Adopt>),
    /// Obey no order to take a VM over that is older than this.
    Decline(Decline),
    /// What are you for this pair, whichever end you are? Changes nothing; answers [`Position`].
    Position {
        /// The pair.
        pair: Uuid,
    },
    /// Would you take a VM over at all? Changes nothing.
    CheckRoles,
    /// Could a guest like this go on at your place, on this replica? Changes nothing; answers notes.
    CheckIncoming {
        /// The pair.
        pair: Uuid,
        /// What it needs.
        profile: Box<LiveProfile>,
    },
    /// Could it also bring what lies over its disks? Changes nothing.
    CheckSeeded {
        /// The pair.
        pair: Uuid,
        /// What it needs.
        profile: Box<LiveProfile>,
    },
    /// Merge what lies over the disks of the VM that has landed; answers notes.
    Settle {
        /// The pair.
        pair: Uuid,
    },
    /// Have the guest wait for its memory, as long as this connection lasts; answers [`crate::hypervisor::Incoming`].
    Receive {
        /// What it is to become.
        order: TakeOver,
        /// What it needs.
        profile: Box<LiveProfile>,
        /// It brings what lies over its disks.
        seeded: bool,
    },
    /// The same while the heads are brought up to date by another connection, for which [`HostRequest::PrepareOnHeads`] was
    /// asked. `order` is for the generation that they become.
    ReceiveEarly {
        /// What it is to become.
        order: TakeOver,
        /// What it needs.
        profile: Box<LiveProfile>,
    },
    /// Tell when it has all of its memory; fails if it does not get it.
    Arrived {
        /// The pair.
        pair: Uuid,
    },
    /// Make the replica the VM, and have its guest go on, which has its memory; answers [`crate::replica::TakenOver`].
    /// Fails with `NotFound` if it has not.
    Land(TakeOver),
    /// End a guest that waits, or has its memory and has not landed.
    Leave {
        /// The pair.
        pair: Uuid,
    },
    /// Make the replica the VM, without starting it; answers [`crate::replica::TakenOver`].
    TakeOver(TakeOver),
    /// Start the VM; nothing happens if it runs.
    Start {
        /// Its id there.
        vm: String,
    },
    /// Does the guest's agent answer? Answers a truth value, or nothing if the VM has no agent.
    Answers {
        /// The VM's id there.
        vm: String,
    },
}

/// What a host is for a pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which end it is.
    pub side: Side,
    /// The VM's id there.
    pub vm: String,
    /// What the host is for the VM.
    pub standing: Standing,
    /// Number of the newest generation, or of the one that was taken over; only the target knows.
    pub head: Option<u64>,
    /// Whether the VM runs there.
    pub running: bool,
}
