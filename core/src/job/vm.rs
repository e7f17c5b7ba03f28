//! What a sync is told: the VM, how to sync it, and where everything is.

use crate::cli::Reporter;
use crate::driver::Streams;
use crate::error::Result;
use crate::guest::Described;
use crate::image::ImageFormat;
use crate::journal::State;
use crate::lvm::{pool_of, Listing, LvId, Pool};
use crate::remote::{HostSpec, SshOptions};
use crate::replica::{DiskSpec, Generation, Layout, Maps, Retention};
use crate::snapshot::DiskSource;
use crate::stop::Stop;
use crate::sync::Tuning;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// A VM on this host, as its hypervisor knows it.
pub struct SourceVm {
    /// The front end's program, which is also the agent's: "pvesync".
    pub program: &'static str,
    /// Its id: a plain word.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// This host's name, for people.
    pub host: String,
    /// What tells it from another VM that gets its id later.
    pub identity: Option<String>,
    /// Its configuration text.
    pub config: String,
    /// What that says in the form of no hypervisor in particular; `None`: only a target of the same hypervisor can take it.
    pub described: Option<Box<Described>>,
    /// Reads that text anew.
    pub config_now: Box<dyn Fn() -> Result<String> + Send + Sync>,
    /// Disks to be replicated.
    pub disks: Vec<SourceDisk>,
    /// Keys of the disks that are left out, and why.
    pub excluded: Vec<(String, String)>,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl SourceVm {
    /// Its disks that are logical volumes.
    pub(super) fn volumes(&self) -> impl Iterator<Item = &LvId> {
        self.disks.iter().filter_map(|d| match &d.source {
            DiskSource::Lv(id) => Some(id),
            DiskSource::Path(_) => None,
        })
    }

    /// The pools that its disks are in, as `listing` knows them.
    pub(super) fn pools(&self, listing: &Listing) -> Result<Vec<Pool>> {
        let mut pools = BTreeSet::new();
        for id in self.volumes() {
            pools.extend(listing.find(id)?.and_then(|lv| lv.pool));
        }
        let pools = pools.iter();
        pools.map(|pool| pool_of(listing.get(pool)?)).collect()
    }
}

/// A disk to be replicated.
pub struct SourceDisk {
    /// What the target is told of it.
    pub spec: DiskSpec,
    /// What it is on this host.
    pub source: DiskSource,
}

/// How to sync.
#[derive(Debug, Clone)]
pub struct SyncOptions {
    /// Id on the target, if another one.
    pub target_vm: Option<String>,
    /// Source storage to target storage.
    pub storage_map: Vec<(String, String)>,
    /// What else is called otherwise on the target.
    pub maps: Maps,
    /// Disk keys to formats on the target, where they are not the usual ones.
    pub formats: Vec<(String, ImageFormat)>,
    /// Generations to keep.
    pub retention: Retention,
    /// Disks at once.
    pub jobs: usize,
    /// Overwrite the newest generation where there is no room to keep it.
    pub in_place: bool,
    /// Keep the snapshot that was sent, where there is one: then the next sync reads only what changed since.
    pub keep_base: bool,
    /// Where QEMU may keep what the guest overwrites during the sync, if not with our state.
    pub scratch: Option<PathBuf>,
    /// Most bytes of that; `None`: a quarter of what is free there.
    pub scratch_bytes_max: Option<u64>,
    /// The VM is to go there, so whoever takes no VMs over is sent nothing.
    pub moves: bool,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Hash function, compression and so on; the rate is that of all disks together.
    pub tuning: Tuning,
    /// Streams for each disk.
    pub streams: Streams,
    /// Past the page cache, also where disks are files.
    pub direct: bool,
    /// Longest time that the guest may be held still.
    pub hold_max: Duration,
    /// How long to try again when the connection is lost in the transfer.
    pub retry_for: Duration,
}

/// What a sync came to.
pub struct SyncOutcome {
    /// The sealed generation; `None` after a dry run.
    pub generation: Option<Generation>,
    /// What was sent for it.
    pub sent: Sent,
    /// What the run did, and how long each step took.
    pub steps: Vec<(State, Duration)>,
}

/// Bytes that a sync moved, over all disks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// That differed, before compression.
    pub changed: u64,
    /// That were read to find out.
    pub compared: u64,
    /// On the wire, both ways.
    pub wire: u64,
}

/// Where a workflow's state is, whom it is about, and who hears of it.
pub struct Context<'a> {
    /// State on this host.
    pub layout: &'a Layout,
    /// The other host.
    pub host: &'a HostSpec,
    /// How it is reached.
    pub ssh: &'a SshOptions,
    /// Who is told what happens.
    pub reporter: &'a Reporter,
    /// Ends it early.
    pub stop: &'a Stop,
}
