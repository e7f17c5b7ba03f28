//! Domains that run: held still for an instant, and what their disks held then.
//!
//! libvirt has QEMU's monitor and the guest's agent, and keeps them. So what core does to a guest by their sockets is done
//! here by libvirt's calls: `held` is the watchdog's hand on the guest, `point` has QEMU keep what disks held.

mod disks;
mod held;
mod point;

pub use held::watchdog_main;
pub(crate) use point::{
    end_leftover as end_own_backup, forget_checkpoints, remove_checkpoints, taken_name,
};

use crate::connect::{over_restarts, Connection, Domain};
use held::Grip;
use point::BackupPoint;
use rblocksync::error::Result;
use rblocksync::image::ImageFormat;
use rblocksync::qemu::{ScratchSpace, Wanted};
use rblocksync::snapshot::{GuestManager, Keeper, Released};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Who holds the domain of this UUID, which runs, at the libvirt that `uri` names. The watchdog's executable must give
/// [`watchdog_main`] what comes behind the subcommand.
pub fn manager(uri: &str, uuid: Uuid) -> Arc<dyn GuestManager> {
    Arc::new(Managed {
        uri: uri.to_owned(),
        uuid,
    })
}

/// A domain whose QEMU is libvirt's. It connects anew for whatever is asked of it, and waits for a libvirt that is restarted.
struct Managed {
    uri: String,
    uuid: Uuid,
}

impl Managed {
    /// Does what can be done twice.
    fn with<T>(&self, act: impl Fn(Domain) -> Result<T>) -> Result<T> {
        let uuid = self.uuid.to_string();
        over_restarts(|| act(Connection::open(&self.uri)?.domain(&uuid)?))
    }
}

impl GuestManager for Managed {
    fn watchdog_args(&self) -> Vec<OsString> {
        let uuid = self.uuid.to_string();
        let args = ["--uri", &self.uri, "--domain", &uuid];
        args.map(OsString::from).to_vec()
    }

    fn rescue(&self) -> Released {
        Grip::rescue(&self.uri, self.uuid)
    }

    fn check(&self, wanted: &[Wanted], space: &ScratchSpace) -> Result<()> {
        self.with(|domain| point::check(&domain, wanted, space))
    }

    fn prepare(
        &self,
        run: &str,
        bitmaps: &str,
        wanted: &[Wanted],
        space: &ScratchSpace,
    ) -> Result<Box<dyn Keeper>> {
        let point =
            self.with(|domain| BackupPoint::prepare(domain, run, bitmaps, wanted, space))?;
        Ok(Box::new(point))
    }

    fn dirty_bytes(
        &self,
        path: &Path,
        format: ImageFormat,
        name: &str,
    ) -> Result<std::result::Result<u64, String>> {
        self.with(|domain| point::dirty_bytes(&domain, path, format, name))
    }
}
