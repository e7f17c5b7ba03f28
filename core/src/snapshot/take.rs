//! Taking a point in time: plan first, hold the guest, snapshot everything, let it go, then the rest.

use super::disk::{resolve, Disk};
use super::guest::Sockets;
use super::watchdog::Hold;
use super::{
    check_run, direct, reflink, started, thin, Consistency, DiskSource, PointInTime, SnapshotDisk,
    SnapshotKind, VmRuntime,
};
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::lvm::{self, LvId, LvKind, OwnerTag};
use std::path::PathBuf;
use std::time::Duration;

/// What will be done for one disk.
enum Plan {
    Thin { origin: LvId, snapshot: LvId },
    Clone { file: PathBuf, clone: PathBuf },
    Direct { path: PathBuf },
}

/// Takes a point in time over `disks`, all of them or none.
///
/// `run` names this run among all others of the owner: 1 to 32 lower-case letters and digits. A running
/// guest is held still for at most `deadline`; if that is not enough the call fails with
/// [`Kind::Timeout`] and the guest runs on. On every error the guest is as it was and what had been
/// created is removed again; if not, the error says so.
pub fn take(
    run: &str,
    disks: &[DiskSource],
    vm: VmRuntime,
    owner: &OwnerTag,
    deadline: Duration,
) -> Result<PointInTime> {
    check_run(run)?;
    let running = vm.qmp.is_some();
    let mut plans = Vec::new();
    for disk in disks {
        let plan = plan(disk, run, running).map_err(|e| e.context(format!("disk {disk}")))?;
        plans.push((disk, plan));
    }
    let mut point = PointInTime {
        disks: Vec::new(),
        consistency: Consistency::Offline,
        notes: Vec::new(),
        taken_at: crate::clock::now(),
        held_ms: 0,
        vm,
        run: run.to_owned(),
        owner: owner.clone(),
        fingerprints: Vec::new(),
    };
    let taken = if running {
        point.take_live(run, &plans, deadline)
    } else {
        point.take_offline(run, &plans)
    };
    // The guest runs again: now there is time.
    match taken.and_then(|()| point.activate()) {
        Ok(()) => Ok(point),
        Err(e) => Err(match point.release() {
            Ok(()) => e,
            Err(left) => e.context(format!("{left}; before that")),
        }),
    }
}

/// Refuses what [`take`] would refuse, before anything is done for it. Only files are looked at: a snapshot
/// of a logical volume can be taken at any time.
pub fn check(disks: &[DiskSource], vm: &VmRuntime) -> Result<()> {
    for disk in disks {
        if matches!(disk, DiskSource::Path(_)) {
            plan(disk, "0", vm.qmp.is_some()).map_err(|e| e.context(format!("disk {disk}")))?;
        }
    }
    Ok(())
}

fn plan(disk: &DiskSource, run: &str, running: bool) -> Result<Plan> {
    match resolve(disk)? {
        Disk::Lv(lv) if lv.kind == LvKind::Thin => Ok(Plan::Thin {
            snapshot: thin::name(&lv.id, run)?,
            origin: lv.id,
        }),
        Disk::Lv(lv) => direct_if_stopped(lv.id.path(), running, "it is no thin volume"),
        Disk::Device(path) => direct_if_stopped(path, running, "it is a plain device"),
        Disk::File(file) => match reflink::unsupported(&file)? {
            None => Ok(Plan::Clone {
                clone: reflink::clone_path(&file, run)?,
                file,
            }),
            Some(reason) => direct_if_stopped(file, running, &reason),
        },
    }
}

fn direct_if_stopped(path: PathBuf, running: bool, reason: &str) -> Result<Plan> {
    if running {
        return Err(Error::new(
            Kind::Refused,
            format!("cannot take a snapshot while the VM is running: {reason}"),
        )
        .advise("stop the VM, or move the disk to LVM-thin or to a file on XFS or btrfs"));
    }
    Ok(Plan::Direct { path })
}

impl PointInTime {
    fn take_live(
        &mut self,
        run: &str,
        plans: &[(&DiskSource, Plan)],
        deadline: Duration,
    ) -> Result<()> {
        let Some(qmp) = self.vm.qmp.clone() else {
            return Ok(());
        };
        let agent = self.vm.agent.clone();
        let sockets = Sockets { qmp, agent };
        let (hold, held) = Hold::take(&self.vm.launcher, sockets, deadline)?;
        self.taken_at = crate::clock::now();
        self.consistency = held.consistency;
        self.notes.extend(held.notes);
        let mut snapshots = Ok(());
        for (source, plan) in plans {
            snapshots = hold
                .check_time()
                .and_then(|()| self.take_one(run, source, plan))
                .map_err(|e| e.context(format!("disk {source}")));
            if snapshots.is_err() {
                break;
            }
        }
        crash::point("held");
        // Before anything else, also before the error of a snapshot.
        let thawed = hold.thaw();
        match (snapshots, thawed) {
            (Ok(()), thawed) => {
                self.held_ms = thawed?;
                Ok(())
            }
            (Err(e), Ok(_)) => Err(e),
            // An overrun usually is what made the snapshot fail; a guest that is stuck must be told.
            (Err(e), Err(thaw)) => Err(e.context(thaw)),
        }
    }

    fn take_offline(&mut self, run: &str, plans: &[(&DiskSource, Plan)]) -> Result<()> {
        if !(self.vm.stopped)()? {
            return Err(Error::new(
                Kind::Refused,
                "the VM is running, but its monitor is not known",
            )
            .advise("run again; if it stays so, stop the VM"));
        }
        self.taken_at = crate::clock::now();
        for (source, plan) in plans {
            self.take_one(run, source, plan)
                .map_err(|e| e.context(format!("disk {source}")))?;
        }
        if !(self.vm.stopped)()? {
            return Err(started());
        }
        Ok(())
    }

    fn take_one(&mut self, run: &str, source: &DiskSource, plan: &Plan) -> Result<()> {
        let (path, kind, taken) = match plan {
            Plan::Thin { origin, snapshot } => (
                snapshot.path(),
                SnapshotKind::Thin(snapshot.clone()),
                thin::take(origin, snapshot, run, &self.owner),
            ),
            Plan::Clone { file, clone } => (
                clone.clone(),
                SnapshotKind::Clone,
                reflink::take(file, clone, &self.owner),
            ),
            Plan::Direct { path } => {
                let fingerprint = direct::fingerprint(path)?;
                self.fingerprints.push((path.clone(), fingerprint));
                (path.clone(), SnapshotKind::Direct, Ok(()))
            }
        };
        // One that failed has created nothing, but one that was ended by force may have: noted, it will be
        // removed.
        if taken.is_ok() || taken.as_ref().is_err_and(|e| e.kind() == Kind::Timeout) {
            self.disks.push(SnapshotDisk {
                source: source.clone(),
                path,
                kind,
            });
        }
        taken
    }

    fn activate(&self) -> Result<()> {
        for disk in &self.disks {
            if let SnapshotKind::Thin(id) = &disk.kind {
                lvm::activate(id)?;
            }
        }
        Ok(())
    }
}
