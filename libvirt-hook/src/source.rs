//! A domain of this host as the source of a replication: its definition, its disks and how to hold it still.

#[cfg(test)]
mod tests;

use crate::disks::{self, Choice, Decided, Disk, Place, NVRAM, TPM};
use crate::domain::{check_name, Domain};
use crate::host::{Found, Host, State};
use crate::marks::{self, mark_of, Mark};
use crate::overlay;
use crate::pools;
use crate::standstill;
use crate::tpm;
use libvirt_domain::guest::describe;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::image::ImageFormat;
use rblocksync::job::{Needed, SourceDisk, SourceVm};
use rblocksync::replica::DiskSpec;
use rblocksync::snapshot::{self, StateReader, VmRuntime, WatchdogLauncher};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The front end's program, and its agent's.
pub const PROGRAM: &str = "virt-blocksync";

/// Programs that a host needs, whichever part it has.
pub const NEEDED: [Needed; 5] = [
    Needed::SSH,
    Needed::SSHD,
    Needed {
        program: "qemu-img",
        package: "qemu-utils",
        why: "qcow2 images cannot be replicated",
    },
    Needed::LVS,
    Needed::THIN_DUMP,
];

/// The domain of this name. Fails with [`Kind::NotFound`] if there is none.
pub fn found(host: &dyn Host, name: &str) -> Result<Found> {
    check_name(name)?;
    host.domain(name)?.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            format!("there is no domain {name} on this host"),
        )
        .advise("'virsh list --all' shows them")
    })
}

/// Resolves a domain of this host, with the disks that are wanted.
pub fn resolve(host: &Arc<dyn Host>, name: &str, choice: &Choice) -> Result<SourceVm> {
    let found = found(host.as_ref(), name)?;
    if !choice.passes_over {
        check_state(&found)?;
    }
    let domain = definition(&found)?;
    let decided = disks::decide(&domain, choice)?;
    let located = locate_all(host.as_ref(), &decided)?;
    if let Some(live) = &found.live {
        check_live(host.as_ref(), live, &located, choice)?;
    }
    let config = config_text(host.as_ref(), &found)?;
    let mut notes = decided.notes;
    let mut disks = Vec::new();
    for (disk, path) in &located {
        match source_disk(disk, path) {
            Ok(found) => disks.push(found),
            // It is made from its template when the domain is started for the first time, here as there.
            Err(e) if disk.key == NVRAM && e.kind() == Kind::NotFound => notes.push(
                "the domain was never started: its firmware's variables do not exist yet"
                    .to_owned(),
            ),
            Err(_) if choice.passes_over => {}
            Err(e) => return Err(e.context(format!("disk {}", disk.key))),
        }
    }
    let (again, name) = (host.clone(), found.name.clone());
    Ok(SourceVm {
        program: PROGRAM,
        id: found.name.clone(),
        name: found.name.clone(),
        host: host.name()?,
        identity: Some(
            marks::identity_of(&domain)
                .unwrap_or(found.uuid)
                .to_string(),
        ),
        described: Some(Box::new(describe(&config))),
        config,
        config_now: Box::new(move || config_now(again.as_ref(), &name)),
        disks,
        excluded: decided.excluded,
        notes,
    })
}

/// The disks of a domain of this host that can be replicated, with those left out that cannot be found.
pub fn disks_of(host: &Arc<dyn Host>, name: &str) -> Result<Vec<SourceDisk>> {
    Ok(resolve(host, name, &Choice::everything())?.disks)
}

/// Paths of whatever disks the domain has on this host, drives for removable media left out.
pub fn paths_of(host: &dyn Host, found: &Found) -> Result<Vec<(Disk, PathBuf)>> {
    let decided = disks::decide(&definition(found)?, &Choice::everything())?;
    let located = decided.disks.into_iter().map(|disk| {
        let path = path_of(host, &disk.place)?;
        Ok((disk, path))
    });
    Ok(located.filter_map(Result::ok).collect())
}

/// The definition with its disks named as they are, also where that was made impossible to start.
pub fn definition(found: &Found) -> Result<Domain> {
    let mut domain = Domain::parse(&found.xml)?;
    standstill::lift(&mut domain);
    overlay::lift(&mut domain);
    Ok(domain)
}

/// What is replicated as the domain's configuration: its definition, with what this host knows of its disks beyond that.
pub fn config_now(host: &dyn Host, name: &str) -> Result<String> {
    config_text(host, &found(host, name)?)
}

fn config_text(host: &dyn Host, found: &Found) -> Result<String> {
    let mut domain = definition(found)?;
    // libvirt's notes of what it found behind a disk come and go; the replica has one image of it.
    for disk in domain.disks_mut() {
        disk.retain(|e| e.name != "backingStore");
    }
    let decided = disks::decide(&domain, &Choice::everything())?;
    let pools = pools::all(host)?;
    let mut in_pools = BTreeMap::new();
    for disk in &decided.disks {
        let pool = match &disk.place {
            Place::Volume { pool, .. } => Some(pool.clone()),
            Place::Path(path) => {
                let pool = pools.iter().find(|pool| pool.holds(path));
                pool.map(|pool| pool.name.clone())
            }
        };
        if let Some(pool) = pool {
            in_pools.insert(disk.key.clone(), pool);
        }
    }
    marks::set_source(&mut domain, &in_pools, starts(found));
    Ok(domain.to_string())
}

/// What tells the domain of this configuration from another one that gets its name later.
pub fn identity_of(config: &str) -> Option<String> {
    let domain = Domain::parse(config).ok()?;
    let identity = marks::identity_of(&domain).or(domain.uuid());
    identity.map(|identity| identity.to_string())
}

/// Whether it starts with its host, or did before it went to another.
fn starts(found: &Found) -> bool {
    let mark = Domain::parse(&found.xml).ok().and_then(|d| mark_of(&d));
    match mark {
        Some(Mark::Retired { autostart, .. }) => autostart,
        _ => found.autostart,
    }
}

/// Refuses a domain that has no state which could be replicated.
fn check_state(found: &Found) -> Result<()> {
    let name = &found.name;
    if let Some(Mark::Replica { .. }) = mark_of(&Domain::parse(&found.xml)?) {
        let what = format!("domain {name} is a replica on this host");
        return Err(Error::new(Kind::Refused, what)
            .advise("sync from the host that is primary; 'status' tells the roles"));
    }
    let refused =
        |what: String, advice: String| Err(Error::new(Kind::Refused, what).advise(advice));
    if !found.persistent {
        return refused(
            format!("domain {name} is transient: it is gone when it ends, so nothing could be started from its replica"),
            format!("define it: virsh dumpxml {name} > {name}.xml, then virsh define {name}.xml"),
        );
    }
    if found.saved {
        return refused(
            format!("the memory of domain {name} was saved, and its disks alone are not what its guest goes on with"),
            format!("start it, or give the saved memory up: virsh managedsave-remove {name}"),
        );
    }
    match found.state {
        State::Crashed => refused(
            format!("the guest of domain {name} has crashed, and its QEMU was kept for somebody to look at"),
            format!("end it: virsh destroy {name}"),
        ),
        State::Asleep => refused(
            format!("the guest of domain {name} sleeps, and its disks alone are not what it goes on with"),
            format!("wake it: virsh dompmwakeup {name}"),
        ),
        _ => Ok(()),
    }
}

/// A running domain must have the disks that its definition says: only what runs has the data, and only the definition
/// is started again.
fn check_live(
    host: &dyn Host,
    live: &str,
    located: &[(Disk, PathBuf)],
    choice: &Choice,
) -> Result<()> {
    if choice.passes_over {
        return Ok(());
    }
    let mut live = Domain::parse(live)?;
    overlay::lift(&mut live);
    let live = disks::decide(&live, choice)?;
    let live = locate_all(host, &live)?;
    for (disk, path) in &live {
        let defined = located.iter().find(|(d, _)| d.key == disk.key);
        let why = match defined {
            None => "its definition has no such disk".to_owned(),
            Some((_, other)) if other != path => {
                format!("its definition says {}", other.display())
            }
            Some((d, _)) if d.format != disk.format => {
                format!("its definition says that it is {}", d.format)
            }
            Some(_) => continue,
        };
        return Err(Error::new(
            Kind::Refused,
            format!(
                "the domain runs with {} as disk {}, but {why}",
                path.display(),
                disk.key
            ),
        )
        .advise("make the two agree: virsh dumpxml and virsh dumpxml --inactive show them"));
    }
    match located
        .iter()
        .find(|(d, _)| !live.iter().any(|(l, _)| l.key == d.key))
    {
        None => Ok(()),
        Some((disk, _)) => Err(Error::new(
            Kind::Refused,
            format!(
                "disk {} is in the domain's definition, and not in the domain as it runs",
                disk.key
            ),
        )
        .advise(format!(
            "attach it, or go without it: --exclude {}",
            disk.key
        ))),
    }
}

fn locate_all(host: &dyn Host, decided: &Decided) -> Result<Vec<(Disk, PathBuf)>> {
    let located = decided.disks.iter().map(|disk| {
        let path = path_of(host, &disk.place);
        let path = path.map_err(|e| e.context(format!("disk {}", disk.key)))?;
        Ok((disk.clone(), path))
    });
    located.collect()
}

fn path_of(host: &dyn Host, place: &Place) -> Result<PathBuf> {
    match place {
        Place::Path(path) => Ok(path.clone()),
        Place::Volume { pool, volume } => host.volume_path(pool, volume).map(PathBuf::from),
    }
}

fn source_disk(disk: &Disk, path: &Path) -> Result<SourceDisk> {
    let found = snapshot::measure(path, disk.format)?;
    Ok(SourceDisk {
        spec: DiskSpec {
            key: disk.key.clone(),
            volume: path.display().to_string(),
            size: found.size,
            used: found.used,
            format: disk.format,
        },
        source: found.source,
    })
}

/// Whether something lies over all disks of the domain as it runs: they stand still.
fn is_laid_over(found: &Found) -> Result<bool> {
    match &found.live {
        Some(live) => Ok(overlay::covers(&Domain::parse(live)?)),
        None => Ok(false),
    }
}

/// How to hold the domain still, by whether it runs now: one whose disks stand still need not be held. What `excluded` names
/// is left out.
pub fn runtime(host: &Arc<dyn Host>, name: &str, excluded: &[String]) -> Result<VmRuntime> {
    let before = found(host.as_ref(), name)?;
    let laid_over = is_laid_over(&before)?;
    let manager = match before.state.is_active() && !laid_over {
        true => Some(host.manager(before.uuid)?),
        false => None,
    };
    let state = match excluded.iter().any(|key| key == TPM) {
        true => None,
        false => Some(tpm_reader(host.as_ref(), &before)?),
    };
    let (host, name) = (host.clone(), name.to_owned());
    Ok(VmRuntime {
        qmp: None,
        manager,
        agent: None,
        stopped: Box::new(move || {
            let now = found(host.as_ref(), &name)?;
            // Disks that are read in place can also be changed without the domain: a snapshot that is reverted to.
            match now.xml == before.xml {
                true if laid_over => is_laid_over(&now),
                true => Ok(!now.state.is_active()),
                false => Err(Error::new(
                    Kind::Busy,
                    format!("the definition of domain {name} was changed while its disks were being read"),
                )
                .advise("run again")),
            }
        }),
        state,
        launcher: WatchdogLauncher::this_executable(),
    })
}

/// Reads the state of the domain's TPM, if one is emulated. Only before its first start there is none.
fn tpm_reader(host: &dyn Host, found: &Found) -> Result<StateReader> {
    let (tpms, domain) = (host.tpms(), definition(found)?);
    let has_one = found.state.is_active() && tpm::emulated(&domain).is_some();
    Ok(Box::new(move || match tpms.read(&domain)? {
        None if has_one => Err(Error::new(
            Kind::NotFound,
            format!(
                "the state of the TPM of domain {} is not below {}",
                domain.name(),
                tpms.dir.display()
            ),
        )
        .advise(format!(
            "only libvirt's system daemon is supported; without it: --exclude {TPM}"
        ))),
        state => Ok(state),
    }))
}

/// The format of a disk of this host, by whatever domain has it.
pub fn format_of(host: &dyn Host, path: &Path) -> Result<Option<ImageFormat>> {
    for found in host.domains()? {
        // A domain that we cannot read has no disks that we have to do with.
        let Ok(disks) = paths_of(host, &found) else {
            continue;
        };
        if let Some((disk, _)) = disks.iter().find(|(_, p)| p == path) {
            return Ok(Some(disk.format));
        }
    }
    Ok(None)
}
