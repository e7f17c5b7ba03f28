//! One consistent point in time over all disks of a VM.
//!
//! [`take`] gives something to read for every disk, all of the same instant:
//!
//! | disk | running VM | stopped VM |
//! |---|---|---|
//! | LVM-thin volume | thin snapshot | thin snapshot |
//! | file on XFS, btrfs... | reflink clone beside it, hidden | reflink clone |
//! | disk of at most 8 MiB that is none of these (firmware, TPM) | copied | read in place |
//! | other file or device, qcow2 image | QEMU keeps what is overwritten, see [`crate::qemu::QemuPoint`] | read in place, checked by [`PointInTime::still_valid`]; a qcow2 file on XFS... cloned |
//!
//! Where QEMU has the disk open, it also notes from then on what the guest writes (a dirty bitmap), and tells what it
//! has written since the last time.
//!
//! A running VM is held still meanwhile: file systems frozen by the guest agent if there is one, then all
//! vCPUs stopped, which also makes QEMU write out its caches. Another process does that and undoes it, also
//! if we hang or are killed: see [`watchdog`]. What consistency was reached, and why not a better one, is in
//! the result.
//!
//! Everything created carries the owner's mark and a second one that makes it a point in time of one run;
//! [`sweep`] finds by them what a killed run left. Callers hold the VM's lock around all of this.

mod active;
mod base;
mod direct;
mod disk;
mod guest;
mod managed;
mod measure;
mod reflink;
pub(crate) mod reports;
mod small;
mod sweep;
mod take;
mod thin;
pub mod watchdog;

pub use active::ActiveChain;
pub use base::{base_in, base_of, drop_bases, drop_bases_in, keep_as_base};
pub use guest::{Found, Held, Released};
pub use managed::{GuestManager, HeldGuest, Keeper};
pub use measure::{device_bytes, file_bytes, measure, measure_lv, Measured};
pub use sweep::{leftovers, sweep, sweep_in, Swept};
pub use take::{check, make_readable, take, take_at_once, take_in, Request, Wanted};
pub use watchdog::WatchdogLauncher;

use crate::error::{Error, Kind, Result};
use crate::lvm::{self, LvId, OwnerTag};
use crate::qemu::{BitmapRecord, Export};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A disk of the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSource {
    /// A logical volume.
    Lv(LvId),
    /// An image file, a device, or a link to one.
    Path(PathBuf),
}

impl fmt::Display for DiskSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskSource::Lv(id) => id.fmt(f),
            DiskSource::Path(path) => path.display().fmt(f),
        }
    }
}

/// Tells whether the VM is stopped, by asking its hypervisor anew each time.
pub type StoppedCheck = Box<dyn Fn() -> Result<bool> + Send + Sync>;

/// Reads what belongs to the VM beside disks and configuration, if there is something: see
/// [`Generation::state`](crate::replica::Generation::state).
pub type StateReader = Box<dyn Fn() -> Result<Option<String>> + Send + Sync>;

/// How to get at the VM.
pub struct VmRuntime {
    /// The monitor socket of its QEMU; `None` if the VM is stopped, or has a manager.
    pub qmp: Option<PathBuf>,
    /// The socket of the guest agent, if the VM is configured to have one.
    pub agent: Option<PathBuf>,
    /// Who keeps its QEMU's monitor to itself, if somebody does; `None` if the VM is stopped.
    pub manager: Option<Arc<dyn GuestManager>>,
    /// Whether it is stopped. Asked before and after, where it is said to be.
    pub stopped: StoppedCheck,
    /// Reads what else belongs to a point in time, while the guest is held still.
    pub state: Option<StateReader>,
    /// How to start the process that guards the guest.
    pub launcher: WatchdogLauncher,
}

impl VmRuntime {
    /// Whether it has a QEMU.
    pub fn runs(&self) -> bool {
        self.qmp.is_some() || self.manager.is_some()
    }
}

/// In what state the disks are, as the guest sees them when it boots from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// The guest agent had flushed and frozen the file systems.
    Filesystem,
    /// As after a power cut: the vCPUs were stopped between two instructions.
    Crash,
    /// The VM was off.
    Offline,
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Consistency::Filesystem => "filesystem",
            Consistency::Crash => "crash",
            Consistency::Offline => "offline",
        })
    }
}

/// What stands for a disk at the point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotKind {
    /// A read-only thin snapshot; nobody writes it, so what [`crate::thin::mapped`] says stays true.
    Thin(LvId),
    /// A clone that shares the file's blocks.
    Clone,
    /// The disk itself.
    Direct,
    /// A copy of a small disk.
    Copy,
    /// QEMU shows it as it was.
    Export(Export),
}

/// One disk at the point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotDisk {
    /// The disk, as it was given.
    pub source: DiskSource,
    /// What to read instead: a device or a file with the disk's format.
    pub path: PathBuf,
    /// What that is.
    pub kind: SnapshotKind,
    /// Its number among the disks that QEMU was asked about.
    qemu: Option<usize>,
}

/// A point in time over all disks. Dropped, it is released as well as possible.
pub struct PointInTime {
    /// The disks, in the order they were given.
    pub disks: Vec<SnapshotDisk>,
    /// What was reached.
    pub consistency: Consistency,
    /// What the user should know: why it is not better, what was unusual.
    pub notes: Vec<String>,
    /// When it was taken.
    pub taken_at: jiff::Timestamp,
    /// How long the guest was held still, in milliseconds; 0 if it was not running.
    pub held_ms: u64,
    /// What else belongs to the VM.
    pub state: Option<String>,
    vm: VmRuntime,
    run: String,
    owner: OwnerTag,
    qemu: Option<Box<dyn Keeper>>,
    /// It became a generation, of which QEMU's bitmaps now tell what changed since.
    sealed: bool,
    /// For the disks read in place: what they looked like.
    fingerprints: Vec<(PathBuf, direct::Fingerprint)>,
    /// The same for the images behind a qcow2 image of a stopped VM. They may stay as they are when it is started.
    behind: Vec<(PathBuf, direct::Fingerprint)>,
    /// What was made readable for it.
    active: Vec<ActiveChain>,
    /// Earlier points in time that were made readable with it.
    bases: Vec<LvId>,
    /// Its snapshots were readable when they were made.
    at_once: bool,
    /// Of small disks.
    copies: Option<small::Copies>,
}

impl fmt::Debug for PointInTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PointInTime")
            .field("disks", &self.disks)
            .field("consistency", &self.consistency)
            .field("notes", &self.notes)
            .field("taken_at", &self.taken_at)
            .finish_non_exhaustive()
    }
}

impl PointInTime {
    /// Whether QEMU keeps something of it, and must be there to let go of that.
    pub fn is_in_qemu(&self) -> bool {
        self.qemu.is_some()
    }

    /// To be called when everything has been read, before it is relied on: fails with [`Kind::Busy`] if a
    /// disk that was read in place has changed, or its VM was started.
    pub fn still_valid(&self) -> Result<()> {
        if let Some(qemu) = &self.qemu {
            qemu.check()?;
        }
        for (path, before) in &self.behind {
            direct::check_unchanged(path, before)?;
        }
        if self.fingerprints.is_empty() {
            return Ok(());
        }
        for (path, before) in &self.fingerprints {
            direct::check_unchanged(path, before)?;
        }
        if !(self.vm.stopped)()? {
            return Err(started());
        }
        Ok(())
    }

    /// Where QEMU tells what changed of a disk since the bitmap that was asked for; the reason if it cannot; nothing
    /// if it was not asked.
    pub fn changed_since(
        &self,
        disk: &SnapshotDisk,
    ) -> Option<std::result::Result<Export, String>> {
        let (qemu, index) = (self.qemu.as_ref()?, disk.qemu?);
        if let Some(why) = qemu.doubt(index) {
            return Some(Err(why.to_owned()));
        }
        let export = qemu.export(index)?;
        export.changed.is_some().then_some(Ok(export))
    }

    /// The bitmap of what the guest writes to a disk from the point in time on.
    pub fn bitmap_of(&self, disk: &SnapshotDisk) -> Option<&BitmapRecord> {
        self.qemu.as_ref()?.next(disk.qemu?)
    }

    fn thin_snapshots(&self) -> Vec<LvId> {
        let disks = self.disks.iter();
        let thin = disks.filter_map(|disk| match &disk.kind {
            SnapshotKind::Thin(id) => Some(id.clone()),
            _ => None,
        });
        thin.collect()
    }

    /// Removes what was created. Can be repeated: what could not be removed is tried again.
    pub fn release(&mut self) -> Result<()> {
        let sealed = self.sealed;
        let ended = self.qemu.as_mut().map(|qemu| qemu.release(sealed));
        let mut first = ended.and_then(Result::err);
        let removed = lvm::remove_all(&self.thin_snapshots(), &self.owner);
        let is_left = removed.is_err();
        if let Err(e) = removed {
            first.get_or_insert(e);
        }
        let owner = &self.owner;
        self.disks.retain(|disk| {
            let removed = match &disk.kind {
                SnapshotKind::Thin(_) => return is_left,
                SnapshotKind::Clone => reflink::remove(&disk.path, owner),
                SnapshotKind::Direct | SnapshotKind::Copy | SnapshotKind::Export(_) => Ok(()),
            };
            match removed {
                Ok(()) => false,
                Err(e) => {
                    first.get_or_insert(e);
                    true
                }
            }
        });
        // They go soon, and do no harm until then.
        let bases = self.bases.iter().filter(|lv| lv.path().exists());
        let _ = lvm::deactivate_all(&bases.cloned().collect::<Vec<_>>());
        self.bases.clear();
        self.fingerprints.clear();
        self.behind.clear();
        self.active.clear();
        self.copies = None;
        match first {
            None => Ok(()),
            Some(e) => Err(e.context("cannot remove a snapshot that is not needed any more")),
        }
    }
}

impl Drop for PointInTime {
    fn drop(&mut self) {
        // Whoever wants to know calls release(); the sweep of the next run gets the rest.
        let _ = self.release();
    }
}

fn started() -> Error {
    Error::new(
        Kind::Busy,
        "the VM was started while its disks were being read",
    )
    .advise("run again; a running VM needs its disks on LVM-thin, XFS or btrfs")
}

/// The name of a run in names and tags. Fails with [`Kind::Usage`].
fn check_run(run: &str) -> Result<()> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if run.is_empty() || run.len() > 32 || !run.bytes().all(fits) {
        return Err(Error::new(
            Kind::Usage,
            format!("{run:?} cannot be the name of a run: 1 to 32 lower-case letters and digits"),
        ));
    }
    Ok(())
}
