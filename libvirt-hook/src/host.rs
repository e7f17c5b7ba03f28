//! What is asked of libvirt on this host, in words of our own: so that what is decided from its answers can be tested
//! without it.

mod libvirt;
#[cfg(test)]
pub(crate) mod memory;
mod stored;

pub use libvirt::Libvirt;
pub use stored::Stored;

use crate::connect::Connection;
use crate::tpm::TpmStore;
use rblocksync::error::Result;
use rblocksync::snapshot::GuestManager;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// A domain as libvirt has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// Its definition, as it will be started the next time, secrets and all; of one that is not defined, as it runs.
    pub xml: String,
    /// As it runs now, if it does.
    pub live: Option<String>,
    /// What it does.
    pub state: State,
    /// It is defined, and not gone when it ends.
    pub persistent: bool,
    /// It starts with the host.
    pub autostart: bool,
    /// Its memory was saved, and will be loaded by the next start.
    pub saved: bool,
}

/// What a domain does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is off.
    Off,
    /// Its guest runs.
    Running,
    /// It was halted: QEMU is there, and the guest does not run.
    Paused,
    /// The guest has crashed, and QEMU was kept for somebody to look at.
    Crashed,
    /// The guest has put itself to sleep.
    Asleep,
    /// The guest shuts down.
    Ending,
}

impl State {
    /// Whether there is a QEMU that has its disks open.
    pub fn is_active(self) -> bool {
        self != State::Off
    }
}

/// A pool of volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolFound {
    /// Its name.
    pub name: String,
    /// Its definition.
    pub xml: String,
    /// It was started.
    pub active: bool,
}

/// libvirt on this host. Every call is bounded in time.
pub trait Host: Send + Sync {
    /// Where libvirt is.
    fn uri(&self) -> &str;

    /// The name of the host.
    fn name(&self) -> Result<String>;

    /// libvirt's version, as it counts: 9.0.0 is 9000000.
    fn version(&self) -> Result<u64>;

    /// The version of QEMU that libvirt uses, if it tells: (9, 2).
    fn qemu(&self) -> Option<(u32, u32)> {
        None
    }

    /// The domain of this name.
    fn domain(&self, name: &str) -> Result<Option<Found>>;

    /// The domain of this UUID.
    fn domain_of(&self, uuid: Uuid) -> Result<Option<Found>>;

    /// All domains.
    fn domains(&self) -> Result<Vec<Found>>;

    /// Whether definitions can be changed: not while libvirt does not run.
    fn defines(&self) -> bool {
        true
    }

    /// Defines a domain, or replaces the definition of the one with its name and UUID.
    fn define(&self, xml: &str) -> Result<()>;

    /// Forgets a domain that is off, and nothing that belongs to it: neither NVRAM nor TPM state. One that is gone is fine.
    fn undefine(&self, name: &str) -> Result<()>;

    /// Whether the domain starts with the host.
    fn set_autostart(&self, name: &str, autostart: bool) -> Result<()>;

    /// Starts a domain.
    fn start(&self, name: &str) -> Result<()>;

    /// Asks the guest to shut down, by its agent or by the power button.
    fn ask_to_shut_down(&self, name: &str) -> Result<()>;

    /// Ends a domain without asking its guest.
    fn destroy(&self, name: &str) -> Result<()>;

    /// Whether the guest's agent answers within `limit`; an error is no answer.
    fn agent_answers(&self, name: &str, limit: Duration) -> bool;

    /// All pools.
    fn pools(&self) -> Result<Vec<PoolFound>>;

    /// The path of a volume.
    fn volume_path(&self, pool: &str, volume: &str) -> Result<String>;

    /// Has a pool look at what is in it.
    fn refresh(&self, pool: &str) -> Result<()>;

    /// Who holds a domain that runs, and keeps what its disks held at an instant.
    fn manager(&self, uuid: Uuid) -> Result<Arc<dyn GuestManager>>;

    /// The connection itself, for what only libvirt can do.
    fn connection(&self) -> Result<Connection>;

    /// Where the states of emulated TPMs are.
    fn tpms(&self) -> TpmStore {
        TpmStore::default()
    }

    /// Names of the networks.
    fn networks(&self) -> Result<Vec<String>>;
}
