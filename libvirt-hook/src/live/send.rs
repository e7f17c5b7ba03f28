//! Sending the memory of a paused domain, by libvirt's own migration: it knows nothing of the disks, which are there.

use super::xml::incoming_xml;
use super::{remove_file, PathBuf};
use crate::connect::{Connection, Domain as Handle};
use crate::domain::Domain;
use crate::ffi;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::stop::Stop;
use std::os::unix::fs::{chown, symlink, MetadataExt};
use std::path::Path;
use std::time::Duration;
use virt::domain::MigrateParameters;
use virt_sys as sys;

/// Longest time that it may take; whoever holds the guest still has a limit of its own, which is less.
const SEND_MAX: Duration = Duration::from_secs(3600);
const POLL: Duration = Duration::from_millis(20);

/// A name that leads to another socket, for as long as it lives.
struct Link(PathBuf);

impl Drop for Link {
    fn drop(&mut self) {
        // A later attempt replaces it.
        let _ = remove_file(&self.0);
    }
}

/// Sends it to the libvirt behind the socket `daemon`, where the domain is defined already. `memory` leads to where the
/// guest will listen there, which is what `from` is called on both hosts.
pub(super) fn send(
    handle: &Handle,
    daemon: &Path,
    memory: &Path,
    from: &Path,
    stop: &Stop,
) -> Result<()> {
    let there = Connection::open(&format!("qemu+unix:///system?socket={}", daemon.display()))?;
    let Some(replica) = there.find_uuid(handle.uuid())? else {
        return Err(Error::new(
            Kind::NotFound,
            format!("the other host has no domain of the UUID {}", handle.uuid()),
        ));
    };
    let mut replica_def = Domain::parse(&replica.inactive_xml()?)?;
    crate::standstill::lift(&mut replica_def);
    let xml = incoming_xml(Domain::parse(&handle.migratable_xml()?)?, &replica_def);
    remove_file(from)?;
    symlink(memory, from).map_err(|e| Error::io(format!("cannot make {}", from.display()), e))?;
    let link = Link(from.to_owned());
    let_in(from, memory)?;
    let parameters = MigrateParameters {
        uri: Some(format!("unix://{}", from.display())),
        dest_xml: Some(xml.to_string()),
        dest_name: Some(replica.name().to_owned()),
        ..MigrateParameters::default()
    };
    // Unsafe it would be if the two hosts had different disks: they have been made the same, which libvirt cannot know.
    let flags = sys::VIR_MIGRATE_LIVE | sys::VIR_MIGRATE_PAUSED | sys::VIR_MIGRATE_UNSAFE;
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            handle.call_within(SEND_MAX, "send the memory of", move |d| {
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
            std::thread::sleep(POLL);
        }
        let gone = || Error::new(Kind::Tool, "the thread that sends the memory ended");
        sending.join().unwrap_or_else(|_| Err(gone()))
    });
    drop(link);
    stop.check().and(sent)
}

/// Lets QEMU's user, who is that of the directory, through to the socket, which is root's.
fn let_in(from: &Path, memory: &Path) -> Result<()> {
    let Some(dir) = from.parent() else {
        return Ok(());
    };
    let cannot = |e| Error::io(format!("cannot let QEMU reach {}", memory.display()), e);
    let owner = dir.metadata().map_err(cannot)?;
    if owner.uid() == 0 {
        return Ok(());
    }
    for path in [memory.parent().unwrap_or(memory), memory] {
        chown(path, Some(owner.uid()), None).map_err(cannot)?;
    }
    Ok(())
}

/// Ends what is being sent: the domain stays here, as it was.
pub(super) fn abort(handle: &Handle) -> Result<()> {
    handle.call("end the migration of", ffi::abort_job)
}
