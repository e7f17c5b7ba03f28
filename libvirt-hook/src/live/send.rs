//! Sending a domain's memory, by libvirt's own migration: that of a paused one, whose disks are there, or that of one that
//! runs, with what lies over its disks.

use super::relay::Relay;
use super::xml::incoming_xml;
use crate::connect::{Connection, Domain as Handle, State};
use crate::domain::Domain;
use crate::ffi;
use crate::overlay::{self, Overlay};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::stop::Stop;
use std::path::Path;
use std::time::{Duration, Instant};
use virt::domain::MigrateParameters;
use virt_sys as sys;

/// Longest time that it may take; whoever holds the guest still has a limit of its own, which is less.
const SEND_MAX: Duration = Duration::from_secs(3600);
/// The same for one that runs meanwhile.
const SEEDED_SEND_MAX: Duration = Duration::from_secs(23 * 3600);
const POLL: Duration = Duration::from_millis(20);

/// Where to.
pub(super) struct Way<'a> {
    /// Leads to the libvirt, where the domain is defined already.
    pub daemon: &'a Path,
    /// Leads to where the guest will listen there for its memory.
    pub memory: &'a Path,
    /// What that is called on both hosts.
    pub from: &'a Path,
}

/// What lies over the disks of a domain that runs, and the way for it.
pub(super) struct Over<'a> {
    pub overlays: &'a [Overlay],
    /// Leads to where QEMU will listen for it there.
    pub disks: &'a Path,
    /// What that is called on both hosts.
    pub from: &'a Path,
}

/// Sends it. Gives the time since when the guest does not run here.
pub(super) fn send(
    handle: &Handle,
    way: &Way,
    over: Option<&Over>,
    stop: &Stop,
) -> Result<Instant> {
    let uri = format!("qemu+unix:///system?socket={}", way.daemon.display());
    let there = Connection::open(&uri)?;
    let Some(replica) = there.find_uuid(handle.uuid())? else {
        return Err(Error::new(
            Kind::NotFound,
            format!("the other host has no domain of the UUID {}", handle.uuid()),
        ));
    };
    let mut replica_def = Domain::parse(&replica.inactive_xml()?)?;
    crate::standstill::lift(&mut replica_def);
    if let Some(over) = over {
        overlay::impose_like(&mut replica_def, over.overlays)?;
    }
    let xml = incoming_xml(Domain::parse(&handle.migratable_xml()?)?, &replica_def);
    let relay = Relay::start(way.from, way.memory)?;
    let mut relays = vec![relay];
    let mut parameters = MigrateParameters {
        uri: Some(format!("unix://{}", way.from.display())),
        dest_xml: Some(xml.to_string()),
        dest_name: Some(replica.name().to_owned()),
        ..MigrateParameters::default()
    };
    // Unsafe it would be if the two hosts had different disks: they have been made the same, which libvirt cannot know.
    let mut flags = sys::VIR_MIGRATE_LIVE | sys::VIR_MIGRATE_PAUSED | sys::VIR_MIGRATE_UNSAFE;
    let mut limit = SEND_MAX;
    if let Some(over) = over {
        relays.push(Relay::start(over.from, over.disks)?);
        parameters.disks_uri = Some(format!("unix://{}", over.from.display()));
        parameters.migrate_disks = over.overlays.iter().map(|o| o.key.clone()).collect();
        flags |= sys::VIR_MIGRATE_NON_SHARED_INC | sys::VIR_MIGRATE_AUTO_CONVERGE;
        limit = SEEDED_SEND_MAX;
    }
    let mut still_since = None;
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            handle.call_within(limit, "send the memory of", move |d| {
                there
                    .with_handle(|there| d.migrate3(there, parameters, flags))
                    .map(drop)
            })
        });
        while !sending.is_finished() {
            if stop.is_stopped() {
                // It is over with an error then.
                let _ = abort(handle);
            }
            if still_since.is_none() && over.is_some() {
                let runs = handle.state().map(|state| state.state == State::Running);
                still_since = (!runs.unwrap_or(true)).then(Instant::now);
            }
            std::thread::sleep(POLL);
        }
        let gone = || Error::new(Kind::Tool, "the thread that sends the memory ended");
        sending.join().unwrap_or_else(|_| Err(gone()))
    });
    drop(relays);
    // What has arrived has, whatever came in the last moment.
    sent.or_else(|e| stop.check().and(Err(e)))?;
    Ok(still_since.unwrap_or_else(Instant::now))
}

/// Ends what is being sent: the domain stays here, as it was.
pub(super) fn abort(handle: &Handle) -> Result<()> {
    handle.call("end the migration of", ffi::abort_job)
}
