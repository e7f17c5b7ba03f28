//! Taking a point in time: plan first, hold the guest, snapshot everything, let it go, then the rest.

use super::disk::{resolve, Disk};
use super::watchdog::{Door, Hold};
use super::{
    check_run, direct, reflink, small, started, thin, ActiveChain, Consistency, DiskSource,
    PointInTime, SnapshotDisk, SnapshotKind, VmRuntime,
};
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::image::{qcow2, ImageFormat};
use crate::lvm::{self, Listing, Lv, LvId, LvKind, OwnerTag};
use crate::qemu::{self, QemuPoint, ScratchSpace};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a point in time is taken again that was cut off.
const RETAKEN_MAX: u32 = 2;

/// What is wanted of one disk.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The disk.
    pub source: DiskSource,
    /// What its bytes are, by the configuration.
    pub format: ImageFormat,
    /// QEMU's bitmap of the generation that was sent last, if there is one.
    pub since: Option<String>,
}

impl From<DiskSource> for Wanted {
    /// A disk whose bytes are its own, of which nothing is known.
    fn from(source: DiskSource) -> Wanted {
        Wanted {
            source,
            format: ImageFormat::Raw,
            since: None,
        }
    }
}

/// What a point in time is wanted of.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Names this run among all others of the owner: 1 to 32 lower-case letters and digits.
    pub run: &'a str,
    /// The disks.
    pub disks: Vec<Wanted>,
    /// Whose snapshots they will be.
    pub owner: &'a OwnerTag,
    /// How long a running guest may be held still.
    pub hold_max: Duration,
    /// Room for what the guest overwrites, if QEMU may have to keep it. A directory of this VM's.
    pub scratch: Option<ScratchSpace>,
    /// What the names of the owner's bitmaps in QEMU begin with.
    pub bitmaps: String,
    /// The name of those that are to begin at the point in time, if any.
    pub bitmap_next: Option<String>,
}

/// What will be done for one disk.
enum Plan {
    Thin {
        origin: LvId,
        snapshot: LvId,
    },
    Clone {
        file: PathBuf,
        clone: PathBuf,
    },
    /// The volume, if it is one, may be inactive.
    Direct {
        path: PathBuf,
        lv: Option<Box<Lv>>,
    },
    Copy {
        path: PathBuf,
    },
    Qemu {
        path: PathBuf,
    },
}

/// Takes a point in time over all disks of a VM, or none.
///
/// A running guest is held still for at most `hold_max`; if that is not enough the call fails with
/// [`Kind::Timeout`] and the guest runs on. On every error the guest is as it was and what had been
/// created is removed again; if not, the error says so.
pub fn take(request: &Request, vm: VmRuntime) -> Result<PointInTime> {
    take_in(&Listing::default(), request, vm, Vec::new())
}

/// The same where `listing` knows the volumes; it forgets them, as it does not hear of what is made. Snapshots of earlier
/// points in time, `bases`, are made readable as well, if they can be.
pub fn take_in(
    listing: &Listing,
    request: &Request,
    vm: VmRuntime,
    bases: Vec<LvId>,
) -> Result<PointInTime> {
    let taken = take_how(listing, request, vm, bases, false);
    listing.forget();
    taken
}

/// The same of a VM that stands still already, for which all that takes time is bad: one call of LVM for each volume, and
/// `listing` is told. `bases` are readable: see [`make_readable`].
pub fn take_at_once(
    listing: &Listing,
    request: &Request,
    vm: VmRuntime,
    bases: Vec<LvId>,
) -> Result<PointInTime> {
    let taken = take_how(listing, request, vm, bases, true);
    let told = taken.as_ref().is_ok_and(|point| {
        point
            .disks
            .iter()
            .try_for_each(|disk| tell(listing, request, disk))
            .is_ok()
    });
    if !told {
        listing.forget();
    }
    taken
}

fn tell(listing: &Listing, request: &Request, disk: &SnapshotDisk) -> Result<()> {
    match (&disk.source, &disk.kind) {
        (DiskSource::Lv(origin), SnapshotKind::Thin(id)) => {
            listing.snapshot_made(origin, id, &thin::tags(request.run, request.owner)?)
        }
        (_, SnapshotKind::Thin(id)) => Err(Error::new(
            Kind::NotFound,
            format!("the volume that {id} is of has another name"),
        )),
        _ => Ok(()),
    }
}

/// Makes snapshots of earlier points in time readable beforehand, for [`take_at_once`], and tells `listing`.
pub fn make_readable(listing: &Listing, bases: &[LvId]) -> Result<()> {
    lvm::activate_all(bases)?;
    listing.activated(bases);
    Ok(())
}

fn take_how(
    listing: &Listing,
    request: &Request,
    vm: VmRuntime,
    bases: Vec<LvId>,
    at_once: bool,
) -> Result<PointInTime> {
    check_run(request.run)?;
    let plans = plans(listing, request, &vm)?;
    let mut point = PointInTime {
        disks: Vec::new(),
        consistency: Consistency::Offline,
        notes: Vec::new(),
        taken_at: crate::clock::now(),
        held_ms: 0,
        state: None,
        vm,
        run: request.run.to_owned(),
        owner: request.owner.clone(),
        qemu: None,
        sealed: false,
        fingerprints: Vec::new(),
        behind: Vec::new(),
        active: Vec::new(),
        bases: bases.clone(),
        at_once,
        copies: None,
    };
    let mut left = RETAKEN_MAX;
    loop {
        let taken = match point.vm.runs() {
            true => point.take_live(request, &plans),
            false => point.take_offline(request, &plans),
        };
        // The guest runs again: now there is time.
        let Err(e) = taken.and_then(|()| point.activate()) else {
            return Ok(point);
        };
        if let Err(undone) = point.release() {
            return Err(e.context(format!("{undone}; before that")));
        }
        if left == 0 || !point.is_worth_another(&e) {
            return Err(e);
        }
        left -= 1;
        point.begin_anew(&bases, &e);
    }
}

/// Refuses what [`take`] would refuse, before anything is done for it. Only files are looked at: a snapshot
/// of a logical volume can be taken at any time.
pub fn check(listing: &Listing, request: &Request, vm: &VmRuntime) -> Result<()> {
    let files = request.disks.iter();
    let files: Vec<Wanted> = files
        .filter(|disk| matches!(disk.source, DiskSource::Path(_)))
        .cloned()
        .collect();
    let request = Request {
        disks: files,
        ..request.clone()
    };
    let plans = plans(listing, &request, vm)?;
    let Some(space) = &request.scratch else {
        return Ok(());
    };
    let asked = || asked_of_qemu(&request, &plans).1;
    match (&vm.manager, &vm.qmp) {
        (Some(manager), _) => manager.check(&asked(), space),
        (None, Some(monitor)) => qemu::check(monitor, &asked(), space),
        (None, None) => Ok(()),
    }
}

fn plans(listing: &Listing, request: &Request, vm: &VmRuntime) -> Result<Vec<Plan>> {
    let disks = request.disks.iter();
    disks
        .map(|disk| {
            let how = (vm.runs(), request.scratch.is_some());
            plan(listing, disk, request.run, how)
                .map_err(|e| e.context(format!("disk {}", disk.source)))
        })
        .collect()
}

fn plan(
    listing: &Listing,
    disk: &Wanted,
    run: &str,
    (running, scratch): (bool, bool),
) -> Result<Plan> {
    let other = |path: PathBuf, lv: Option<Box<Lv>>, reason: &str| match (running, scratch) {
        (false, _) => Ok(Plan::Direct { path, lv }),
        (true, true) if disk.format.is_raw() && small::is_small(&path)? => Ok(Plan::Copy { path }),
        (true, true) => Ok(Plan::Qemu { path }),
        (true, false) => Err(Error::new(
            Kind::Refused,
            format!("cannot take a snapshot while the VM is running: {reason}"),
        )
        .advise("stop the VM, or move the disk to LVM-thin or to a file on XFS or btrfs")),
    };
    match resolve(listing, &disk.source)? {
        Disk::Lv(lv) if lv.kind == LvKind::Thin => Ok(Plan::Thin {
            snapshot: thin::name(&lv.id, run)?,
            origin: lv.id,
        }),
        Disk::Lv(lv) => other(lv.id.path(), Some(lv), "it is no thin volume"),
        Disk::Device(path) => other(path, None, "it is a plain device"),
        // What QEMU has not written to it yet would be missing in a clone.
        Disk::File(file) if running && disk.format == ImageFormat::Qcow2 => {
            other(file, None, "it is a qcow2 file")
        }
        Disk::File(file) => match reflink::unsupported(&file)? {
            None => Ok(Plan::Clone {
                clone: reflink::clone_path(&file, run)?,
                file,
            }),
            Some(reason) => other(file, None, &reason),
        },
    }
}

/// What QEMU is to do: for each disk its number among those, and those.
fn asked_of_qemu(request: &Request, plans: &[Plan]) -> (Vec<Option<usize>>, Vec<qemu::Wanted>) {
    let mut asked = Vec::new();
    let next = &request.bitmap_next;
    let numbers = request.disks.iter().zip(plans).map(|(disk, plan)| {
        let (path, copy) = match plan {
            Plan::Qemu { path } => (path, true),
            Plan::Clone { file, .. } if next.is_some() => (file, false),
            _ => return None,
        };
        asked.push(qemu::Wanted {
            path: path.clone(),
            format: disk.format,
            copy,
            since: disk.since.clone(),
            next: next.clone(),
        });
        Some(asked.len() - 1)
    });
    (numbers.collect(), asked)
}

impl PointInTime {
    /// Whether it failed because the manager of a running guest went away in the middle of it, as when its daemon is
    /// restarted. What was begun has been found and undone.
    fn is_worth_another(&self, error: &Error) -> bool {
        self.vm.manager.is_some() && error.kind() == Kind::Remote
    }

    fn begin_anew(&mut self, bases: &[LvId], lost: &Error) {
        self.qemu = None;
        self.bases = bases.to_vec();
        self.notes = vec![format!(
            "the point in time was taken again, as the first one was cut off: {}",
            lost.message()
        )];
    }

    fn take_live(&mut self, request: &Request, plans: &[Plan]) -> Result<()> {
        let Some(door) = Door::to(&self.vm) else {
            return Ok(());
        };
        let (numbers, asked) = asked_of_qemu(request, plans);
        if let (Some(scratch), false) = (&request.scratch, asked.is_empty()) {
            let (run, bitmaps) = (request.run, &request.bitmaps);
            self.qemu = Some(match &door {
                Door::Managed(manager) => manager.prepare(run, bitmaps, &asked, scratch)?,
                Door::Sockets(sockets) => {
                    let prepared = QemuPoint::prepare(&sockets.qmp, run, bitmaps, &asked, scratch)?;
                    Box::new(prepared)
                }
            });
        }
        if let (Some(scratch), true) = (
            &request.scratch,
            plans.iter().any(|plan| matches!(plan, Plan::Copy { .. })),
        ) {
            qemu::sweep_scratch(&scratch.dir, self.qemu.is_some())?;
            self.copies = Some(small::Copies::new(&scratch.dir, request.run)?);
        }
        let (mut hold, held) = Hold::take(&self.vm.launcher, door, request.hold_max)?;
        self.taken_at = crate::clock::now();
        self.consistency = held.consistency;
        self.notes.extend(held.notes);
        let mut snapshots = match &mut self.qemu {
            Some(keeper) => {
                crash::point("begin");
                keeper.instant(&mut |command, arguments| hold.execute(command, arguments))
            }
            None => Ok(()),
        };
        for (index, (disk, plan)) in request.disks.iter().zip(plans).enumerate() {
            if snapshots.is_err() {
                break;
            }
            snapshots = hold
                .check_time()
                .and_then(|()| self.take_one(request.run, (index, disk), plan, numbers[index]))
                .map_err(|e| e.context(format!("disk {}", disk.source)));
        }
        snapshots = snapshots.and_then(|()| self.read_state());
        crash::point("held");
        // Before anything else, also before the error of a snapshot.
        let thawed = hold.thaw();
        match (snapshots, thawed) {
            (Ok(()), thawed) => {
                self.held_ms = thawed?;
                self.qemu.as_mut().map_or(Ok(()), |keeper| keeper.publish())
            }
            (Err(e), Ok(_)) => Err(e),
            // An overrun usually is what made the snapshot fail; a guest that is stuck must be told.
            (Err(e), Err(thaw)) => Err(e.context(thaw)),
        }
    }

    fn take_offline(&mut self, request: &Request, plans: &[Plan]) -> Result<()> {
        if !(self.vm.stopped)()? {
            return Err(Error::new(
                Kind::Refused,
                "the VM is running, but its monitor is not known",
            )
            .advise("run again; if it stays so, stop the VM"));
        }
        self.taken_at = crate::clock::now();
        for (index, (disk, plan)) in request.disks.iter().zip(plans).enumerate() {
            self.take_one(request.run, (index, disk), plan, None)
                .map_err(|e| e.context(format!("disk {}", disk.source)))?;
        }
        self.read_state()?;
        if !(self.vm.stopped)()? {
            return Err(started());
        }
        Ok(())
    }

    fn read_state(&mut self) -> Result<()> {
        self.state = match &self.vm.state {
            Some(read) => read()?,
            None => None,
        };
        Ok(())
    }

    fn take_one(
        &mut self,
        run: &str,
        (index, disk): (usize, &Wanted),
        plan: &Plan,
        qemu: Option<usize>,
    ) -> Result<()> {
        let (path, kind, taken) = match plan {
            Plan::Thin { origin, snapshot } => (
                snapshot.path(),
                SnapshotKind::Thin(snapshot.clone()),
                thin::take(origin, snapshot, run, &self.owner, self.at_once),
            ),
            Plan::Clone { file, clone } => {
                self.look_behind(file, disk.format)?;
                (
                    clone.clone(),
                    SnapshotKind::Clone,
                    reflink::take(file, clone, &self.owner),
                )
            }
            Plan::Direct { path, lv } => {
                if let Some(lv) = lv {
                    self.active.push(ActiveChain::of(lv, disk.format)?);
                }
                let fingerprint = direct::fingerprint(path)?;
                self.fingerprints.push((path.clone(), fingerprint));
                self.look_behind(path, disk.format)?;
                (path.clone(), SnapshotKind::Direct, Ok(()))
            }
            Plan::Copy { path } => {
                let Some(copies) = &self.copies else {
                    let what = format!("there is no room for a copy of {}", path.display());
                    return Err(Error::new(Kind::Usage, what));
                };
                (copies.take(index, path)?, SnapshotKind::Copy, Ok(()))
            }
            Plan::Qemu { path } => {
                let point = self.qemu.as_ref();
                let export = qemu.and_then(|index| point?.export(index));
                let Some(export) = export else {
                    let what = format!("QEMU was not asked to keep {}", path.display());
                    return Err(Error::new(Kind::Usage, what));
                };
                (export.socket.clone(), SnapshotKind::Export(export), Ok(()))
            }
        };
        // One that failed has created nothing, but one that was ended by force may have: noted, it will be
        // removed.
        if taken.is_ok() || taken.as_ref().is_err_and(|e| e.kind() == Kind::Timeout) {
            self.disks.push(SnapshotDisk {
                source: disk.source.clone(),
                path,
                kind,
                qemu,
            });
        }
        taken
    }

    /// Notes what the images behind a qcow2 image look like. They are read as well, and a snapshot of the VM that is
    /// removed meanwhile would change them.
    fn look_behind(&mut self, path: &Path, format: ImageFormat) -> Result<()> {
        if format.is_raw() {
            return Ok(());
        }
        let (_, chain) = qcow2::chain(path)?;
        for image in chain.into_iter().skip(1) {
            let fingerprint = direct::fingerprint(&image.path)?;
            self.behind.push((image.path, fingerprint));
        }
        Ok(())
    }

    /// Makes all snapshots readable, and the bases with them. Without a base it goes on: all is compared then.
    fn activate(&self) -> Result<()> {
        if self.at_once {
            return Ok(());
        }
        let snapshots = self.thin_snapshots();
        if !self.bases.is_empty() {
            let all = [snapshots.as_slice(), &self.bases].concat();
            if lvm::activate_all(&all).is_ok() {
                return Ok(());
            }
        }
        lvm::activate_all(&snapshots)
    }
}
