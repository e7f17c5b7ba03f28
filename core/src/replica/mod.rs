//! Replicas: pairs of a VM and a target host, and the generations that the target keeps of it.
//!
//! A *generation* is a sealed set of all the VM's disks and its configuration of one point in time. The
//! target receives each disk into a *fork* of the newest generation; only when all of them are complete
//! and proved does sealing turn the forks into a generation, and make that the *head*, which is what
//! boots. The step of no return is one durable file, `sealing.json`: before it, everything can be thrown
//! away; after it, recovery finishes what it says.

mod adopt;
mod block_map;
mod checked;
mod file;
mod guard;
mod head_digest;
mod heads;
mod in_place;
mod inspect;
mod landing;
mod layout;
mod listing;
mod manifest;
mod maps;
mod mend;
mod own;
mod plan;
mod proof;
mod prune;
mod replicas;
mod retention;
mod reverse;
mod role;
mod seal;
mod stand;
mod steps;
mod store;
mod takeover;
mod target;
mod thick;
mod thin;
mod told;
mod trial;
mod verify;
mod volume;

pub use adopt::{adopt, note_written, reserve, Adopt, Adopted, SharedDisk};
pub use block_map::{block_maps, BlockMap};
pub use checked::{checked, Checked};
pub use guard::{clear_guard, guard_of, set_guard};
pub use inspect::{inspect, Finding};
pub use landing::{end_landing, land, Landing};
pub use layout::{state_dir, Layout};
pub use manifest::{DiskRecord, Generation, GENERATION_PREFIX};
pub use maps::{inverse, mapped, Maps, NameMap, NETWORK};
pub use mend::{Mending, Unsealed};
pub use own::{own_files, PeersPair};
pub use plan::{placed, TargetPlan};
pub use prune::{pin, prune, Pruned};
pub use replicas::{list_generations, shown_generations};
pub use retention::Retention;
pub use reverse::{begin_reverse, decline, know_of, BeginReverse, Decline, Reversed, WayBack};
pub use role::{Role, Standing};
pub use stand::{give_up, has_given_up, newest_epoch, retire, stand, target_pairs, targets_of};
pub(crate) use store::remove;
pub use store::{
    handovers, host_id, keep_sent_tables, newest_sent, note_sent, read_json, sent, sent_bitmaps,
    source_pair, source_pairs, source_pairs_to, source_vms, write_json, write_text, SourcePair,
    TargetPair,
};
pub use takeover::{pending_take_over, take_over, TakeOver, TakenOver};
pub use target::{Fork, Prepared, Proof, ReplicaTarget, SealReport};
pub use thin::POOL_PERCENT_MAX;
pub use told::{note_told, note_verified, told, told_by, Told};
pub use trial::{boot_of, note_boot, trials, Boot, BootSign, Trial};
pub use verify::{verify, Damaged, Verified, VerifiedDisk, VerifyRequest};
pub use volume::Location;

use crate::guest::Described;
use crate::image::ImageFormat;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a source asks of a target: keep a replica of this VM.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaRequest {
    /// Random id of the run.
    pub run: Uuid,
    /// The pair of VM and target; owner of all volumes made for it.
    pub pair: Uuid,
    /// Random id of the source host.
    pub source_host: Uuid,
    /// Its name, for people.
    pub source_name: String,
    /// Hypervisor's id of the VM on the source: a VMID or a domain name.
    pub vm: String,
    /// Id it shall have on the target; the same if `None`.
    pub target_vm: Option<String>,
    /// The hypervisor's own configuration text.
    pub config: String,
    /// The same in the form of no hypervisor in particular, for a target that has another one.
    #[serde(default)]
    pub described: Option<Box<Described>>,
    /// Disks to be replicated.
    pub disks: Vec<DiskSpec>,
    /// Names of disks left out, so that the target's configuration leaves them out too.
    pub excluded: Vec<String>,
    /// Source storage to target storage, where they differ.
    pub storage_map: Vec<(String, String)>,
    /// What else is called otherwise there.
    #[serde(default)]
    pub maps: Maps,
    /// Disk keys to formats, for disks that are new there and are to have another one than usual.
    #[serde(default)]
    pub formats: Vec<(String, ImageFormat)>,
    /// Generations to keep.
    pub retention: Retention,
    /// Overwrite the newest generation where it would have to be copied as a whole.
    pub in_place: bool,
    /// The epoch that the source is in.
    pub epoch: u64,
    /// The newest generation that the source knows of: for a target that has lost its state.
    pub newest: Option<Generation>,
    /// Keys of the disks of which the source knows what changed since that. Their forks are made anew, and it is
    /// found out whether they are what was sealed.
    #[serde(default)]
    pub tracked: Vec<String>,
}

/// A disk of the VM as the source has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// The disk's key in the configuration: "scsi0".
    pub key: String,
    /// The hypervisor's name of the source volume.
    pub volume: String,
    /// Size of the guest's disk in bytes, which is what is synced.
    pub size: u64,
    /// Bytes that it takes at most: what is allocated on the source.
    pub used: u64,
    /// What the bytes are.
    pub format: ImageFormat,
}

/// Where a disk goes on the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The disk's key.
    pub key: String,
    /// The hypervisor's name of the target volume.
    pub volume: String,
    /// What that is on the host.
    pub location: Location,
}
