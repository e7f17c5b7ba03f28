//! What the disks of a running domain held at one instant, and what changed since an earlier one: a backup job of libvirt's
//! in pull mode, over all disks that are wanted.
//!
//! QEMU copies what the guest overwrites to scratch files first, and shows the disks as they were on a unix socket (NBD).
//! In the same instant a checkpoint begins, bound by its name to the generation that this becomes. qcow2 disks have a bitmap
//! for it, in which QEMU notes what the guest writes from then on; of raw disks libvirt keeps none. The job is QEMU's, so it
//! goes on when libvirt is restarted. libvirt makes scratch files as large as they get, and leaves them: so ours are made,
//! bounded and removed by us.

mod checkpoints;
mod place;
mod taken;
mod xml;

pub(crate) use taken::taken_name;

use super::disks::{self, LiveDisk};
use crate::connect::{code_of, over_restarts, Connection, Domain, Job};
use crate::ffi;
use crate::xml::Element;
use checkpoints::Checkpoints;
use place::Place;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::image::ImageFormat;
use rblocksync::qemu::{img, BitmapRecord, Export, Guard, ScratchFile, ScratchSpace, Wanted};
use rblocksync::snapshot::Keeper;
use rblocksync::stop::Stop;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use virt::error::ErrorNumber;
use xml::{Backup, BackupDisk};

/// What the names begin with of all that is made for one run.
const PREFIX: &str = "rbs-";

/// How long another job on the domain is waited for, and how long ours may take to end.
const JOB_PATIENCE: Duration = Duration::from_secs(60);
const END_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// A disk that was asked for.
struct Asked {
    /// libvirt's name for it; empty if it could not be found, and need not be.
    name: String,
    copy: bool,
    scratch: Option<Arc<ScratchFile>>,
    /// The checkpoint since which what changed is told, or why it cannot be.
    since: Option<std::result::Result<String, String>>,
    next: Option<BitmapRecord>,
}

/// See the module.
pub(super) struct BackupPoint {
    domain: Domain,
    /// What the names of all that belongs to this run begin with.
    prefix: String,
    /// What the names of the checkpoints of all its generations begin with.
    bitmaps: String,
    place: Place,
    asked: Vec<Asked>,
    /// The checkpoints since which what changed is asked for: they are needed until this is sealed.
    since: Vec<String>,
    /// All disks that the guest writes, for the checkpoint: libvirt wants to hear of each.
    all: Vec<LiveDisk>,
    guard: Option<Guard>,
    begun: bool,
    released: bool,
}

fn sizes(domain: &Domain, names: &[&str]) -> Result<Vec<u64>> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    domain.call("ask for the sizes of the disks of", move |d| {
        let infos = names.iter().map(|name| d.get_block_info(name, 0));
        infos.map(|info| Ok(info?.capacity)).collect()
    })
}

/// Fails if the old content of one of these disks could not be kept, or not in this space. Changes nothing.
pub(super) fn check(domain: &Domain, wanted: &[Wanted], space: &ScratchSpace) -> Result<()> {
    if !wanted.iter().any(|disk| disk.copy) {
        return Ok(());
    }
    let xml = disks::live(domain)?;
    let all = disks::disks(domain.connection(), &xml)?;
    let copied = wanted.iter().filter(|disk| disk.copy);
    let found: Vec<&LiveDisk> = copied
        .map(|disk| disks::of_path(&all, &disk.path, disk.format))
        .collect::<Result<_>>()?;
    let names: Vec<&str> = found.iter().map(|disk| disk.name.as_str()).collect();
    let place = Place::of(domain, &xml, space, PREFIX)?;
    place.space(space).shares(&sizes(domain, &names)?).map(drop)
}

/// Bytes of a disk that the bitmaps since checkpoint `name` mark as changed, if they can be trusted.
pub(super) fn dirty_bytes(
    domain: &Domain,
    path: &Path,
    format: ImageFormat,
    name: &str,
) -> Result<std::result::Result<u64, String>> {
    let xml = disks::live(domain)?;
    let all = disks::disks(domain.connection(), &xml)?;
    let disk = disks::of_path(&all, path, format)?;
    let checkpoints = taken::make_known(domain, &xml, &tracked(&all), &[name])?;
    Ok(checkpoints.trusted(domain, name)?.and_then(|sizes| {
        let size = sizes.into_iter().find(|(of, _)| *of == disk.name);
        size.map(|(_, size)| size)
            .ok_or_else(|| checkpoints::not_of_it(name))
    }))
}

impl BackupPoint {
    /// Finds the disks and makes all ready; nothing is held or copied yet. What killed runs left is removed first: the
    /// caller holds the VM's lock.
    pub fn prepare(
        domain: Domain,
        run: &str,
        bitmaps: &str,
        wanted: &[Wanted],
        space: &ScratchSpace,
    ) -> Result<BackupPoint> {
        let xml = disks::live(&domain)?;
        let all = disks::disks(domain.connection(), &xml)?;
        end_leftover(&domain)?;
        let prefix = format!("{PREFIX}{}", run.get(..8).unwrap_or(run));
        let place = Place::of(&domain, &xml, space, &prefix)?;
        place.sweep(PREFIX)?;
        let mut point = BackupPoint {
            all: all.iter().filter(|disk| !disk.read_only).cloned().collect(),
            domain,
            prefix,
            bitmaps: bitmaps.to_owned(),
            place,
            asked: Vec::new(),
            since: wanted
                .iter()
                .filter_map(|disk| disk.since.clone())
                .collect(),
            guard: None,
            begun: false,
            released: false,
        };
        match point.ready((&xml, &all), wanted, space) {
            Ok(()) => Ok(point),
            Err(e) => Err(match point.release(false) {
                Ok(()) => e,
                Err(left) => e.followed_by(left),
            }),
        }
    }

    fn ready(
        &mut self,
        (xml, all): (&Element, &[LiveDisk]),
        wanted: &[Wanted],
        space: &ScratchSpace,
    ) -> Result<()> {
        let domain = self.domain.clone();
        let since: Vec<&str> = self.since.iter().map(String::as_str).collect();
        let checkpoints = taken::make_known(&domain, xml, &tracked(all), &since)?;
        let checkpoints = checkpoints.sweep(&domain, |name| self.is_past(name, false))?;
        for disk in wanted {
            let name = match disks::of_path(all, &disk.path, disk.format) {
                Ok(found) => found.name.clone(),
                Err(e) if disk.copy => return Err(e),
                // Only what changed is wanted, which can also be found by comparing.
                Err(_) => String::new(),
            };
            let tracked = disk.copy && disk.format == ImageFormat::Qcow2;
            let since = match &disk.since {
                None => None,
                Some(_) if !tracked => Some(Err(untracked())),
                Some(since) => Some(checkpoints.trusted(&domain, since)?.and_then(|sizes| {
                    match sizes.iter().any(|(of, _)| *of == name) {
                        true => Ok(since.clone()),
                        false => Err(checkpoints::not_of_it(since)),
                    }
                })),
            };
            let next = disk.next.as_ref().filter(|_| tracked);
            self.asked.push(Asked {
                name,
                copy: disk.copy,
                scratch: None,
                since,
                next: next.map(|name| BitmapRecord {
                    name: name.clone(),
                    // It is in the file, but libvirt may divide what changed among several: only it can tell.
                    persistent: false,
                }),
            });
        }
        let copied: Vec<usize> = (0..self.asked.len())
            .filter(|i| self.asked[*i].copy)
            .collect();
        if copied.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = copied
            .iter()
            .map(|i| self.asked[*i].name.as_str())
            .collect();
        let sizes = sizes(&domain, &names)?;
        self.place.make()?;
        let shares = self.place.space(space).shares(&sizes)?;
        for ((index, size), share) in copied.into_iter().zip(sizes).zip(shares) {
            let file = ScratchFile::create(self.place.path(&index.to_string()), share)?;
            img::create(&file.path, size)?;
            file.reserve()?;
            self.asked[index].scratch = Some(Arc::new(file));
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.place.path("nbd")
    }

    fn since_name(&self) -> String {
        format!("{}-since", self.prefix)
    }

    fn export_name(&self, index: usize) -> String {
        format!("{}-{index}", self.prefix)
    }

    fn backup(&self) -> Result<Backup> {
        let mut backup = Backup {
            socket: self.socket(),
            disks: Vec::new(),
            left_out: Vec::new(),
            checkpoint: None,
            recorded: Vec::new(),
        };
        for (index, disk) in self.asked.iter().enumerate() {
            let Some(scratch) = &disk.scratch else {
                continue;
            };
            backup.disks.push(BackupDisk {
                name: disk.name.clone(),
                export: self.export_name(index),
                since: match &disk.since {
                    Some(Ok(since)) => Some((since.clone(), self.since_name())),
                    _ => None,
                },
                scratch: scratch.path.clone(),
            });
            if let Some(next) = &disk.next {
                backup.checkpoint = Some(next.name.clone());
                backup.recorded.push(disk.name.clone());
            }
        }
        let wanted = |name: &String| backup.disks.iter().any(|disk| disk.name == *name);
        let others = self
            .all
            .iter()
            .map(|disk| &disk.name)
            .filter(|name| !wanted(name));
        backup.left_out = others.cloned().collect();
        Ok(backup)
    }

    fn begin(&self) -> Result<std::result::Result<(), String>> {
        let backup = self.backup()?;
        let (job, checkpoint) = (
            backup.job().to_string(),
            backup.begun().map(|c| c.to_string()),
        );
        self.domain.call("begin a backup of", move |d| {
            match ffi::backup_begin(d, &job, checkpoint.as_deref(), true) {
                Ok(()) => Ok(Ok(())),
                Err(e) if code_of(&e) == ErrorNumber::CheckpointInconsistent => {
                    Ok(Err(e.message().to_owned()))
                }
                Err(e) => Err(e),
            }
        })
    }

    /// Ends the backup, and removes the checkpoints that nobody needs any more.
    fn end(&self, domain: &Domain, sealed: bool) -> Result<()> {
        if self.is_under_way(domain)? {
            end_backup(domain)?;
        }
        if !domain.is_active()? {
            return Ok(());
        }
        let goes = |name: &str| self.is_past(name, sealed);
        Checkpoints::list(domain)?.sweep(domain, goes).map(drop)
    }

    /// Whether a checkpoint is of no use any more: all of ours but the one that begins with this, once it is `sealed`, and
    /// until then those that were asked for.
    fn is_past(&self, name: &str, sealed: bool) -> bool {
        let is_asked = self.since.iter().any(|since| since == name);
        let is_next = |disk: &Asked| disk.next.as_ref().is_some_and(|next| next.name == name);
        match sealed {
            true if is_asked && taken::is_taken(name) => true,
            true => name.starts_with(&self.bitmaps) && !self.asked.iter().any(is_next),
            false => name.starts_with(&self.bitmaps) && !is_asked,
        }
    }

    /// Whether the backup that is under way is this one.
    fn is_under_way(&self, domain: &Domain) -> Result<bool> {
        let ours = self.socket();
        Ok(backup_socket(domain)?.is_some_and(|socket| socket == ours))
    }
}

/// The domain, over a new connection if libvirt was restarted since; `None` if it was transient, and is gone.
fn again(domain: &Domain) -> Result<Option<Domain>> {
    match domain.connection().is_alive() {
        true => Ok(Some(domain.clone())),
        false => Connection::open(domain.connection().uri())?.find_uuid(domain.uuid()),
    }
}

/// Does what can be done twice to the domain, over a new connection if libvirt was restarted since or is meanwhile. It is
/// given nothing if the domain was transient, and is gone.
fn patiently<T>(domain: &Domain, mut act: impl FnMut(Option<Domain>) -> Result<T>) -> Result<T> {
    over_restarts(|| act(again(domain)?))
}

/// The disks of which libvirt keeps records.
fn tracked(all: &[LiveDisk]) -> Vec<&str> {
    let qcow2 = all
        .iter()
        .filter(|disk| !disk.read_only && disk.format == Some(ImageFormat::Qcow2));
    qcow2.map(|disk| disk.name.as_str()).collect()
}

fn untracked() -> String {
    "libvirt keeps no record of what changes on a raw disk".into()
}

/// The socket of the backup that is under way, if one is.
fn backup_socket(domain: &Domain) -> Result<Option<PathBuf>> {
    let found = domain.call("look at the backup of", |d| match ffi::backup_xml(d) {
        Ok(xml) => Ok(Some(xml)),
        Err(e) if code_of(&e) == ErrorNumber::NoDomainBackup => Ok(None),
        // It is off.
        Err(e) if code_of(&e) == ErrorNumber::OperationInvalid => Ok(None),
        Err(e) => Err(e),
    })?;
    let Some(xml) = found else {
        return Ok(None);
    };
    let backup = disks::parse(&xml, domain.name())?;
    let socket = backup
        .child("server")
        .and_then(|server| server.attribute("socket"));
    Ok(Some(socket.unwrap_or_default().into()))
}

/// Has libvirt forget our checkpoints of a domain that is off, which has gone elsewhere: they would keep its definition from
/// being removed.
pub(crate) fn forget_checkpoints(domain: &Domain) -> Result<()> {
    Checkpoints::list(domain)?.forget(domain, |name| name.starts_with(PREFIX))
}

/// Removes our checkpoints of a domain that runs, with their bitmaps; also those of `names` that libvirt has not been told of.
pub(crate) fn remove_checkpoints(domain: &Domain, names: &[String]) -> Result<()> {
    let xml = disks::live(domain)?;
    let all = disks::disks(domain.connection(), &xml)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let all = taken::make_known(domain, &xml, &tracked(&all), &names)?;
    all.sweep(domain, |name| name.starts_with(PREFIX)).map(drop)
}

/// Ends a backup of ours, as a killed run has left it, and waits for the end of anything else that libvirt does to the domain.
pub(crate) fn end_leftover(domain: &Domain) -> Result<()> {
    if domain.job()? == Some(Job::Backup) {
        let socket = backup_socket(domain)?.unwrap_or_default();
        let parts = socket
            .components()
            .filter_map(|part| part.as_os_str().to_str());
        if parts.into_iter().any(|part| part.starts_with(PREFIX)) {
            end_backup(domain)?;
        }
    }
    domain.wait_idle(JOB_PATIENCE, &Stop::new())
}

/// Ends the backup that is under way, and waits until it is over.
fn end_backup(domain: &Domain) -> Result<()> {
    let ended = domain.call("end the backup of", ffi::abort_job);
    let until = Instant::now() + END_PATIENCE;
    while domain.job()? == Some(Job::Backup) {
        if Instant::now() >= until {
            return Err(match ended {
                Err(e) => e,
                Ok(()) => Error::new(
                    Kind::Timeout,
                    format!("the backup of the domain {} does not end", domain.name()),
                ),
            });
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

impl Keeper for BackupPoint {
    fn instant(&mut self, _: &mut dyn FnMut(&str, Value) -> Result<Value>) -> Result<()> {
        if !self.asked.iter().any(|disk| disk.copy) {
            return Ok(());
        }
        let mut done = self.begin()?;
        if let Err(why) = &done {
            // It was asked before whether they are sound, but only now all of it is looked at.
            for disk in &mut self.asked {
                if let Some(Ok(_)) = disk.since {
                    disk.since = Some(Err(format!("libvirt's bitmaps cannot be relied on: {why}")));
                }
            }
            done = self.begin()?;
        }
        // Also after a failure that leaves it open whether it has begun, as when time was up: release looks.
        self.begun = true;
        done.map_err(|why| {
            Error::new(
                Kind::Tool,
                format!("cannot begin a backup of the domain {}", self.domain.name()),
            )
            .because(why)
        })
    }

    fn publish(&mut self) -> Result<()> {
        let files: Vec<_> = self
            .asked
            .iter()
            .filter_map(|disk| disk.scratch.clone())
            .collect();
        if !files.is_empty() {
            let domain = self.domain.clone();
            // Ends exports and copying at once.
            let give_up = move || {
                let _ = patiently(&domain, |domain| domain.map_or(Ok(()), |d| end_backup(&d)));
            };
            self.guard = Some(Guard::start(files, give_up)?);
        }
        Ok(())
    }

    fn export(&self, index: usize) -> Option<Export> {
        let disk = &self.asked[index];
        let changed = match &disk.since {
            Some(Ok(_)) => Some(format!("qemu:dirty-bitmap:{}", self.since_name())),
            _ => None,
        };
        disk.copy.then(|| Export {
            socket: self.socket(),
            name: self.export_name(index),
            changed,
        })
    }

    fn doubt(&self, index: usize) -> Option<&str> {
        match &self.asked[index].since {
            Some(Err(why)) => Some(why),
            _ => None,
        }
    }

    fn next(&self, index: usize) -> Option<&BitmapRecord> {
        self.asked[index].next.as_ref()
    }

    fn check(&self) -> Result<()> {
        if let Some(guard) = &self.guard {
            guard.check()?;
        }
        let kept = |domain: Option<Domain>| domain.map_or(Ok(false), |d| self.is_under_way(&d));
        if !self.begun || patiently(&self.domain, kept)? {
            return Ok(());
        }
        Err(Error::new(
            Kind::Io,
            format!(
                "QEMU did not keep the old content of the disks of the domain {} to the end",
                self.domain.name()
            ),
        )
        .advise("was the domain switched off, or its job ended with 'virsh domjobabort'? Otherwise look at its log and at the room for --scratch, and run again"))
    }

    fn release(&mut self, sealed: bool) -> Result<()> {
        if self.released {
            return Ok(());
        }
        self.guard = None;
        // A begin whose answer was lost may have happened: libvirt is asked.
        patiently(&self.domain, |domain| {
            domain.map_or(Ok(()), |domain| self.end(&domain, sealed))
        })?;
        self.asked.clear();
        self.place.clear()?;
        self.released = true;
        Ok(())
    }
}

impl Drop for BackupPoint {
    fn drop(&mut self) {
        // Whoever wants to know calls release(); the next run sweeps the rest.
        let _ = Keeper::release(self, false);
    }
}
