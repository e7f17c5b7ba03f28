//! What a domain is doing, in libvirt's words.

use std::fmt;
use virt_sys as sys;

/// What a domain is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its guest runs.
    Running,
    /// QEMU is there, its guest stands still.
    Paused,
    /// Its guest is shutting down.
    ShuttingDown,
    /// It is off.
    Off,
    /// Its guest has crashed. QEMU is there if the domain keeps crashed guests.
    Crashed,
    /// Its guest sleeps (ACPI S3). QEMU is there.
    Sleeping,
    /// libvirt does not know.
    Unknown,
}

/// What a domain is doing, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainState {
    /// What.
    pub state: State,
    /// Why: a number that means something else for each state.
    pub reason: u32,
}

impl DomainState {
    pub(crate) fn new(state: sys::virDomainState, reason: i32) -> DomainState {
        let state = match state {
            sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => State::Running,
            sys::VIR_DOMAIN_PAUSED => State::Paused,
            sys::VIR_DOMAIN_SHUTDOWN => State::ShuttingDown,
            sys::VIR_DOMAIN_SHUTOFF => State::Off,
            sys::VIR_DOMAIN_CRASHED => State::Crashed,
            sys::VIR_DOMAIN_PMSUSPENDED => State::Sleeping,
            _ => State::Unknown,
        };
        DomainState {
            state,
            reason: u32::try_from(reason).unwrap_or(0),
        }
    }

    /// The guest stands still because somebody asked for that.
    pub fn is_paused_by_user(&self) -> bool {
        (self.state, self.reason) == (State::Paused, sys::VIR_DOMAIN_PAUSED_USER)
    }

    /// It has gone to another host, or is on its way from or to one.
    pub fn is_migrating(&self) -> bool {
        matches!(
            (self.state, self.reason),
            (State::Paused, sys::VIR_DOMAIN_PAUSED_MIGRATION)
                | (State::Paused, sys::VIR_DOMAIN_PAUSED_STARTING_UP)
                | (State::Paused, sys::VIR_DOMAIN_PAUSED_POSTCOPY)
                | (State::Paused, sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED)
        )
    }

    /// QEMU is there, and its guest is not yet: it starts, or waits for what comes from another host.
    pub fn is_starting(&self) -> bool {
        (self.state, self.reason) == (State::Paused, sys::VIR_DOMAIN_PAUSED_STARTING_UP)
    }

    /// It is off because it has gone to another host.
    pub fn has_migrated(&self) -> bool {
        (self.state, self.reason) == (State::Off, sys::VIR_DOMAIN_SHUTOFF_MIGRATED)
    }

    fn why(&self) -> Option<&'static str> {
        Some(match (self.state, self.reason) {
            (State::Paused, sys::VIR_DOMAIN_PAUSED_USER) => "by a user",
            (State::Paused, sys::VIR_DOMAIN_PAUSED_MIGRATION) => "for a migration",
            (State::Paused, sys::VIR_DOMAIN_PAUSED_SAVE) => "while it is saved",
            (State::Paused, sys::VIR_DOMAIN_PAUSED_DUMP) => "while its memory is dumped",
            (State::Paused, sys::VIR_DOMAIN_PAUSED_IOERROR) => "after an I/O error",
            (State::Paused, sys::VIR_DOMAIN_PAUSED_WATCHDOG) => "by its watchdog device",
            (State::Paused, sys::VIR_DOMAIN_PAUSED_FROM_SNAPSHOT) => "since it was rolled back",
            (State::Paused, sys::VIR_DOMAIN_PAUSED_SHUTTING_DOWN) => "while it shuts down",
            (State::Paused, sys::VIR_DOMAIN_PAUSED_SNAPSHOT) => "for a snapshot",
            (State::Paused, sys::VIR_DOMAIN_PAUSED_CRASHED) => "after a crash of its guest",
            (State::Paused, sys::VIR_DOMAIN_PAUSED_STARTING_UP) => "while it starts",
            (State::Off, sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN) => "shut down",
            (State::Off, sys::VIR_DOMAIN_SHUTOFF_DESTROYED) => "switched off",
            (State::Off, sys::VIR_DOMAIN_SHUTOFF_CRASHED) => "after a crash",
            (State::Off, sys::VIR_DOMAIN_SHUTOFF_MIGRATED) => "migrated to another host",
            (State::Off, sys::VIR_DOMAIN_SHUTOFF_SAVED) => "saved",
            (State::Off, sys::VIR_DOMAIN_SHUTOFF_FAILED) => "it failed to start",
            (State::Off, sys::VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT) => "rolled back",
            _ => return None,
        })
    }
}

impl fmt::Display for DomainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Running => "running",
            State::Paused => "paused",
            State::ShuttingDown => "shutting down",
            State::Off => "off",
            State::Crashed => "crashed",
            State::Sleeping => "sleeping",
            State::Unknown => "in an unknown state",
        })?;
        match self.why() {
            Some(why) => write!(f, " ({why})"),
            None => Ok(()),
        }
    }
}
