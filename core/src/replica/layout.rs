//! Where state lives on a host.

use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Directory of all state: `/var/lib/rblocksync`, or what `RBLOCKSYNC_STATE_DIR` names.
pub fn state_dir() -> PathBuf {
    match std::env::var_os("RBLOCKSYNC_STATE_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from("/var/lib/rblocksync"),
    }
}

/// The files under a state directory.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Under `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Layout { root: root.into() }
    }

    /// This host's random id.
    pub fn host_id(&self) -> PathBuf {
        self.root.join("host-id")
    }

    /// Keys of ours, each for a restricted agent on another host.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// The journal of runs on this host.
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal.db")
    }

    /// Lock of a VM on its source host. `vm` is a plain word.
    pub fn vm_lock(&self, vm: &str) -> PathBuf {
        self.root.join("lock").join(format!("vm-{vm}"))
    }

    /// Lock of a pair on the target.
    pub fn pair_lock(&self, pair: Uuid) -> PathBuf {
        self.root.join("lock").join(format!("pair-{pair}"))
    }

    /// What the source knows of the pair of `vm` and the target host `target`.
    pub fn source_pair(&self, vm: &str, target: Uuid) -> PathBuf {
        self.source_pairs(vm).join(format!("{target}.json"))
    }

    /// Manifests of the generations of `vm` that the host `target` has.
    pub fn sent(&self, vm: &str, target: Uuid) -> PathBuf {
        self.source_pairs(vm).join(target.to_string())
    }

    /// One of them.
    pub fn sent_generation(&self, vm: &str, target: Uuid, number: u64) -> PathBuf {
        self.sent(vm, target).join(format!("{number:012}.json"))
    }

    /// What the host `target` told last of them.
    pub fn told(&self, vm: &str, target: Uuid) -> PathBuf {
        self.sent(vm, target).join("told")
    }

    /// The digests of the segments of disk `index` of `vm`, while it is sent to `target`.
    pub fn sending_table(&self, vm: &str, target: Uuid, index: usize) -> PathBuf {
        self.sent(vm, target).join(format!("{index}.digests"))
    }

    /// Those of a generation that was sealed there.
    pub fn sent_table(&self, vm: &str, target: Uuid, number: u64, index: usize) -> PathBuf {
        let name = format!("{number:012}-{index}.digests");
        self.sent(vm, target).join(name)
    }

    /// What QEMU's bitmap of that disk is called that tells what changed since.
    pub fn sent_bitmap(&self, vm: &str, target: Uuid, number: u64, index: usize) -> PathBuf {
        let name = format!("{number:012}-{index}.bitmap");
        self.sent(vm, target).join(name)
    }

    /// Where QEMU may keep what the guest of `vm` overwrites while it is synced, unless another directory is named.
    pub fn scratch(&self, vm: &str) -> PathBuf {
        self.root.join("scratch").join(vm)
    }

    /// Whether the hypervisor's hook lets `vm` start.
    pub fn guard(&self, vm: &str) -> PathBuf {
        self.root.join("guard").join(vm)
    }

    /// A test of a replica, by the id of the VM that is made for it.
    pub fn trial(&self, vm: &str) -> PathBuf {
        self.trials().join(format!("{vm}.json"))
    }

    /// All tests that are under way, or were cut off.
    pub fn trials(&self) -> PathBuf {
        self.root.join("trials")
    }

    /// Lock of a test.
    pub fn trial_lock(&self, vm: &str) -> PathBuf {
        self.root.join("lock").join(format!("trial-{vm}"))
    }

    /// Lock of the process that holds the guest of `vm` still while its memory moves.
    pub fn keeper_lock(&self, vm: &str) -> PathBuf {
        self.root.join("lock").join(format!("keeper-{vm}"))
    }

    /// A guest waits here for its memory, or has it, and does not run.
    pub fn landing(&self, pair: Uuid) -> PathBuf {
        self.replica(pair).join("landing.json")
    }

    /// A change of roles of `vm` that this host has begun, until it is done.
    pub fn handover(&self, vm: &str) -> PathBuf {
        self.handovers().join(format!("{vm}.json"))
    }

    /// All of them.
    pub fn handovers(&self) -> PathBuf {
        self.root.join("handover")
    }

    /// The configuration that `vm` had here when it left in `epoch`.
    pub fn retired_config(&self, vm: &str, epoch: u64) -> PathBuf {
        self.root.join("retired").join(format!("{vm}.conf.{epoch}"))
    }

    /// The number of the generation that a VM's own disks are about to become.
    pub fn adopting(&self, pair: Uuid) -> PathBuf {
        self.replica(pair).join("adopting.json")
    }

    /// When the file of disk `index` of `vm` had been written last when it was sent as generation `number`.
    pub fn sent_stamp(&self, vm: &str, target: Uuid, number: u64, index: usize) -> PathBuf {
        let name = format!("{number:012}-{index}.written");
        self.sent(vm, target).join(name)
    }

    /// All pairs of which `vm` is the source.
    pub fn source_pairs(&self, vm: &str) -> PathBuf {
        self.pairs().join(vm)
    }

    /// All pairs of which this host is the source, by VM.
    pub fn pairs(&self) -> PathBuf {
        self.root.join("pairs")
    }

    /// All replicas on this host.
    pub fn replicas(&self) -> PathBuf {
        self.root.join("replicas")
    }

    /// Directory of one replica.
    pub fn replica(&self, pair: Uuid) -> PathBuf {
        self.replicas().join(pair.to_string())
    }

    /// What the target knows of a pair.
    pub fn target_pair(&self, pair: Uuid) -> PathBuf {
        self.replica(pair).join("replica.json")
    }

    /// The generation being sealed.
    pub fn sealing(&self, pair: Uuid) -> PathBuf {
        self.replica(pair).join("sealing.json")
    }

    /// The take-over that is not finished.
    pub fn take_over(&self, pair: Uuid) -> PathBuf {
        self.replica(pair).join("takeover.json")
    }

    /// The generation that is being put right.
    pub fn mending(&self, pair: Uuid) -> PathBuf {
        self.replica(pair).join("mending.json")
    }

    /// Up to where the slices have come that are verified from time to time.
    pub fn scrubbed(&self, pair: Uuid) -> PathBuf {
        self.replica(pair).join("scrubbed.json")
    }

    /// Manifest of a sealed generation.
    pub fn generation(&self, pair: Uuid, number: u64) -> PathBuf {
        self.generations(pair).join(format!("{number:012}.json"))
    }

    /// The digests of the segments of disk `index` in the generation that is being received.
    pub fn fork_table(&self, pair: Uuid, index: usize) -> PathBuf {
        self.replica(pair).join(format!("fork-{index}.digests"))
    }

    /// Those of disk `index` in a sealed generation.
    pub fn table(&self, pair: Uuid, number: u64, index: usize) -> PathBuf {
        let name = format!("{number:012}-{index}.digests");
        self.generations(pair).join(name)
    }

    /// What QEMU's bitmap is called that tells what the VM has changed of that disk since it was taken over.
    pub fn taken_bitmap(&self, pair: Uuid, number: u64, index: usize) -> PathBuf {
        let name = format!("{number:012}-{index}.bitmap");
        self.generations(pair).join(name)
    }

    /// When the volume of disk `index` in a sealed generation was written last.
    pub fn stamp(&self, pair: Uuid, number: u64, index: usize) -> PathBuf {
        let name = format!("{number:012}-{index}.stamp");
        self.generations(pair).join(name)
    }

    /// That a sealed generation was seen to boot.
    pub fn boot(&self, pair: Uuid, number: u64) -> PathBuf {
        self.generations(pair).join(format!("{number:012}.boot"))
    }

    /// What the last verification of a sealed generation found.
    pub fn checked(&self, pair: Uuid, number: u64) -> PathBuf {
        self.generations(pair).join(format!("{number:012}.checked"))
    }

    /// Where the disks of a sealed generation have data, for people.
    pub fn block_maps(&self, pair: Uuid, number: u64) -> PathBuf {
        self.generations(pair).join(format!("{number:012}.map"))
    }

    /// Directory of the manifests.
    pub fn generations(&self, pair: Uuid) -> PathBuf {
        self.replica(pair).join("generations")
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
}
