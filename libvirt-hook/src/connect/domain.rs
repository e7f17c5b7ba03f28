//! A domain: its state, its XML, what is done to it.

use super::{bounded, Connection, DomainState, State, VirResult, CALL_TIME};
use crate::ffi;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::stop::Stop;
use std::fmt;
use std::time::{Duration, Instant};
use uuid::Uuid;
use virt::domain::Domain as VirDomain;
use virt::error::ErrorNumber;
use virt_sys as sys;

/// Pause between two looks at a domain that is waited for.
const POLL: Duration = Duration::from_millis(200);

/// A domain of a libvirt.
#[derive(Debug, Clone)]
pub struct Domain {
    connection: Connection,
    handle: VirDomain,
    name: String,
    uuid: Uuid,
}

/// What libvirt does to a domain for a while, and what keeps all others waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// It starts.
    Start,
    /// It is saved to a file.
    Save,
    /// It is restored from one.
    Restore,
    /// It comes from another host.
    MigrationIn,
    /// It goes to another host.
    MigrationOut,
    /// A snapshot is made or gone back to.
    Snapshot,
    /// Its memory is dumped.
    Dump,
    /// A backup of its disks.
    Backup,
    /// Something else.
    Other,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Job::Start => "its start",
            Job::Save => "its being saved",
            Job::Restore => "its being restored",
            Job::MigrationIn => "its migration to this host",
            Job::MigrationOut => "its migration to another host",
            Job::Snapshot => "a snapshot",
            Job::Dump => "a dump of its memory",
            Job::Backup => "a backup",
            Job::Other => "something",
        })
    }
}

impl Domain {
    pub(super) fn new(connection: &Connection, handle: VirDomain) -> Result<Domain> {
        // Both are in the handle: nobody is asked.
        let name = handle.get_name();
        let uuid = handle.get_uuid_string();
        let odd = |e: virt::error::Error| super::explain("tell a domain's name", &e);
        let text = uuid.map_err(odd)?;
        let uuid = Uuid::parse_str(&text).map_err(|e| {
            Error::new(
                Kind::Protocol,
                format!("libvirt says that {text} is a domain's UUID"),
            )
            .because(e)
        })?;
        Ok(Domain {
            connection: connection.clone(),
            name: name.map_err(odd)?,
            handle,
            uuid,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Where it is.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Uses the handle in a call that is bounded in time already.
    pub(crate) fn with_handle<T>(&self, act: impl FnOnce(&VirDomain) -> T) -> T {
        act(&self.handle)
    }

    /// Makes any other call of the `virt` crate, bounded in time. `what` completes "cannot ... the domain NAME".
    pub fn call<T: Send + 'static>(
        &self,
        what: &str,
        call: impl FnOnce(&VirDomain) -> VirResult<T> + Send + 'static,
    ) -> Result<T> {
        self.call_within(CALL_TIME, what, call)
    }

    /// The same with a limit of its own.
    pub fn call_within<T: Send + 'static>(
        &self,
        limit: Duration,
        what: &str,
        call: impl FnOnce(&VirDomain) -> VirResult<T> + Send + 'static,
    ) -> Result<T> {
        let whole = self.clone();
        bounded(
            &format!("{what} the domain {}", self.name),
            limit,
            move || call(&whole.handle),
        )
    }

    /// What it is doing.
    pub fn state(&self) -> Result<DomainState> {
        let (state, reason) = self.call("ask for the state of", |d| d.get_state())?;
        Ok(DomainState::new(state, reason))
    }

    /// Whether there is a QEMU for it: its guest may be paused, asleep or crashed.
    pub fn is_active(&self) -> Result<bool> {
        self.call("ask for the state of", |d| d.is_active())
    }

    /// Whether it stays when it ends: a transient one is forgotten then.
    pub fn is_persistent(&self) -> Result<bool> {
        self.call("ask for the state of", |d| d.is_persistent())
    }

    /// Its number among those that run: another one after each start.
    pub fn running_id(&self) -> Option<u32> {
        self.handle.get_id()
    }

    /// The XML of what runs, or of the definition if it is off. With passwords, so not for people's eyes.
    pub fn live_xml(&self) -> Result<String> {
        self.call("read the XML of", |d| {
            d.get_xml_desc(sys::VIR_DOMAIN_XML_SECURE)
        })
    }

    /// The XML of its definition: what it will be when it is started next.
    pub fn inactive_xml(&self) -> Result<String> {
        self.call("read the XML of", |d| {
            d.get_xml_desc(sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_INACTIVE)
        })
    }

    /// The XML of what runs in the form in which it can be given to a migration.
    pub fn migratable_xml(&self) -> Result<String> {
        self.call("read the XML of", |d| {
            d.get_xml_desc(sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_MIGRATABLE)
        })
    }

    /// Stops its vCPUs. QEMU writes out what it has cached.
    pub fn suspend(&self) -> Result<()> {
        self.call("suspend", |d| d.suspend().map(drop))
    }

    /// Lets its vCPUs go on.
    pub fn resume(&self) -> Result<()> {
        self.call("resume", |d| d.resume().map(drop))
    }

    /// Starts it.
    pub fn start(&self) -> Result<()> {
        self.call_within(Duration::from_secs(180), "start", |d| d.create().map(drop))
    }

    /// Starts it with its vCPUs stopped.
    pub fn start_paused(&self) -> Result<()> {
        self.call_within(Duration::from_secs(180), "start", |d| {
            d.create_with_flags(sys::VIR_DOMAIN_START_PAUSED).map(drop)
        })
    }

    /// Asks its guest to shut down; it takes its time.
    pub fn ask_to_shut_down(&self) -> Result<()> {
        self.call("shut down", |d| d.shutdown().map(drop))
    }

    /// Ends its QEMU. Success, too, if it is off.
    pub fn destroy(&self) -> Result<()> {
        match self.call("switch off", |d| d.destroy()) {
            Err(e) if !self.is_active()? => {
                // It was off before, or ended by itself.
                drop(e);
                Ok(())
            }
            done => done,
        }
    }

    /// Forgets its definition. Its disks stay, and its NVRAM file; of checkpoints and saved memory only what libvirt knows goes.
    pub fn undefine(&self) -> Result<()> {
        let flags = sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
            | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE;
        self.call("undefine", move |d| d.undefine_flags(flags))
    }

    /// Whether it starts with its host.
    pub fn autostart(&self) -> Result<bool> {
        self.call("ask for the autostart of", |d| d.get_autostart())
    }

    /// Lets it start with its host, or not.
    pub fn set_autostart(&self, on: bool) -> Result<()> {
        self.call("change the autostart of", move |d| {
            d.set_autostart(on).map(drop)
        })
    }

    /// What libvirt does to it at the moment, if anything that lasts.
    pub fn job(&self) -> Result<Option<Job>> {
        let found = self.call("ask for the job of", |d| match ffi::job_stats(d) {
            Ok(stats) => Ok(Some(stats)),
            // It is off.
            Err(e) if super::code_of(&e) == ErrorNumber::OperationInvalid => Ok(None),
            Err(e) => Err(e),
        })?;
        let Some((kind, operation)) = found else {
            return Ok(None);
        };
        // What has ended can still be asked for, but not by this call; libvirt says so all the same.
        if matches!(
            kind,
            sys::VIR_DOMAIN_JOB_NONE
                | sys::VIR_DOMAIN_JOB_COMPLETED
                | sys::VIR_DOMAIN_JOB_FAILED
                | sys::VIR_DOMAIN_JOB_CANCELLED
        ) {
            return Ok(None);
        }
        Ok(Some(match operation {
            Some(sys::VIR_DOMAIN_JOB_OPERATION_START) => Job::Start,
            Some(sys::VIR_DOMAIN_JOB_OPERATION_SAVE) => Job::Save,
            Some(sys::VIR_DOMAIN_JOB_OPERATION_RESTORE) => Job::Restore,
            Some(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN) => Job::MigrationIn,
            Some(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT) => Job::MigrationOut,
            Some(
                sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT
                | sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT
                | sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_DELETE,
            ) => Job::Snapshot,
            Some(sys::VIR_DOMAIN_JOB_OPERATION_DUMP) => Job::Dump,
            Some(sys::VIR_DOMAIN_JOB_OPERATION_BACKUP) => Job::Backup,
            _ => Job::Other,
        }))
    }

    /// Waits until libvirt does nothing to it. Fails with [`Kind::Busy`], and says what it is, if that takes longer.
    pub fn wait_idle(&self, limit: Duration, stop: &Stop) -> Result<()> {
        let until = Instant::now() + limit;
        while let Some(job) = self.job()? {
            if Instant::now() >= until {
                return Err(Error::new(
                    Kind::Busy,
                    format!("{job} is under way of the domain {}", self.name),
                )
                .advise("run again when it is over; 'virsh domjobinfo' shows how far it is, 'virsh domjobabort' ends it"));
            }
            self.pause(stop)?;
        }
        Ok(())
    }

    /// Waits until it is off. False: it still is not after `limit`.
    pub fn wait_off(&self, limit: Duration, stop: &Stop) -> Result<bool> {
        let until = Instant::now() + limit;
        while self.state()?.state != State::Off {
            if Instant::now() >= until {
                return Ok(false);
            }
            self.pause(stop)?;
        }
        Ok(true)
    }

    fn pause(&self, stop: &Stop) -> Result<()> {
        stop.check()?;
        std::thread::sleep(POLL);
        Ok(())
    }
}
