//! Running guests whose QEMU is somebody else's: a manager, as libvirt's daemon, that keeps the monitor to itself.
//!
//! Without one, we tell QEMU's monitor and the guest's agent what to do ([`super::VmRuntime::qmp`]). With one, the manager is
//! asked for the same: to hold the guest still, by the watchdog, and to keep what its disks held at an instant. So there is
//! a trait for each: [`HeldGuest`] is what the watchdog needs, [`GuestManager`] and [`Keeper`] what whoever takes a point in
//! time does.

use super::guest::{Held, Released};
use crate::error::{Error, Kind, Result};
use crate::image::ImageFormat;
use crate::qemu::{BitmapRecord, Export, QemuPoint, ScratchSpace, Wanted};
use serde_json::Value;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// A guest that the watchdog holds still.
pub trait HeldGuest {
    /// Freezes its file systems, if its agent can do that within half of `budget`, and stops its vCPUs. After an error,
    /// too, [`HeldGuest::release`] is due.
    fn hold(&mut self, budget: Duration) -> Result<Held>;

    /// Undoes that, trying again for a while if need be. A guest that was not running is left so.
    fn release(&mut self) -> Released;

    /// Runs a monitor command while it is held.
    fn execute(&mut self, command: &str, arguments: Value, left: Duration) -> Result<Value> {
        let (_, _) = (arguments, left);
        Err(Error::new(
            Kind::Usage,
            format!("this guest has no monitor to be told {command}"),
        ))
    }
}

/// Keeps what disks of a running guest held at an instant, as [`QemuPoint`] does. Disks are known by their number among
/// those that it was asked for.
pub trait Keeper: Send + Sync {
    /// The instant: called while the guest is held still. `monitor` runs a command of QEMU's.
    fn instant(&mut self, monitor: &mut dyn FnMut(&str, Value) -> Result<Value>) -> Result<()>;

    /// Makes it readable. The guest goes on already.
    fn publish(&mut self) -> Result<()>;

    /// What can be read of a disk.
    fn export(&self, index: usize) -> Option<Export>;

    /// Why what changed of a disk is not known although it was asked for.
    fn doubt(&self, index: usize) -> Option<&str>;

    /// The record of what changes of a disk from the instant on.
    fn next(&self, index: usize) -> Option<&BitmapRecord>;

    /// Fails if the old content of all disks was not kept up to now.
    fn check(&self) -> Result<()>;

    /// Takes everything away again, but the record of what changes since the instant if `sealed`, else the one since the
    /// generation before. Can be repeated.
    fn release(&mut self, sealed: bool) -> Result<()>;
}

/// Who has a running guest's QEMU.
pub trait GuestManager: Send + Sync {
    /// What the watchdog is told, behind the launcher's own arguments, so that it finds the guest.
    fn watchdog_args(&self) -> Vec<OsString>;

    /// Makes a guest run again that did, and whose watchdog has died.
    fn rescue(&self) -> Released;

    /// Refuses what [`GuestManager::prepare`] would. Changes nothing.
    fn check(&self, wanted: &[Wanted], space: &ScratchSpace) -> Result<()>;

    /// Makes all ready to keep these disks; nothing is held or copied yet. `run` tells this run from others, `bitmaps` is
    /// what the names begin with of records of changes that are ours to remove. What killed runs left is removed first.
    fn prepare(
        &self,
        run: &str,
        bitmaps: &str,
        wanted: &[Wanted],
        space: &ScratchSpace,
    ) -> Result<Box<dyn Keeper>>;

    /// Bytes of a disk that record `name` marks as changed, if it can be trusted.
    fn dirty_bytes(
        &self,
        path: &Path,
        format: ImageFormat,
        name: &str,
    ) -> Result<std::result::Result<u64, String>>;
}

impl Keeper for QemuPoint {
    fn instant(&mut self, monitor: &mut dyn FnMut(&str, Value) -> Result<Value>) -> Result<()> {
        monitor("transaction", self.transaction()).map(drop)
    }

    fn publish(&mut self) -> Result<()> {
        QemuPoint::publish(self)
    }

    fn export(&self, index: usize) -> Option<Export> {
        QemuPoint::export(self, index)
    }

    fn doubt(&self, index: usize) -> Option<&str> {
        QemuPoint::doubt(self, index)
    }

    fn next(&self, index: usize) -> Option<&BitmapRecord> {
        QemuPoint::next(self, index)
    }

    fn check(&self) -> Result<()> {
        QemuPoint::check(self)
    }

    fn release(&mut self, sealed: bool) -> Result<()> {
        QemuPoint::release(self, sealed)
    }
}
