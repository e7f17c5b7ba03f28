//! This host in a change of roles: the replica becomes the VM, the VM is retired, and both are started and ended.

use crate::domain::Domain;
use crate::host::Found;
use crate::marks::{mark_of, set_mark, Mark};
use crate::source;
use crate::standstill;
use crate::target::VirtTarget;
use libvirt_domain::guest::describe;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::guest::Described;
use rblocksync::holders;
use rblocksync::hypervisor::RoleHypervisor;
use rblocksync::image::ImageFormat;
use rblocksync::lvm;
use rblocksync::qemu::agent::PING_TIMEOUT;
use rblocksync::replica::{Generation, Location, TargetPair};
use rblocksync::snapshot;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long QEMU may take to write out and end, and a disk may stay open then.
const STOP_TIME: Duration = Duration::from_secs(120);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(200);
/// A guest may be deaf for the moment that it boots: it is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(20);

impl RoleHypervisor for VirtTarget {
    fn is_running(&self, vm: &str) -> Result<bool> {
        let found = self.host.domain(vm)?;
        Ok(found.is_some_and(|found| found.state.is_active()))
    }

    fn promote(&self, pair: &TargetPair, generation: &Generation) -> Result<Vec<String>> {
        self.promote_as(pair, generation, false)
    }

    fn retire(&self, vm: &str, why: &str) -> Result<Vec<String>> {
        self.retire_as(vm, why, false)
    }

    fn reinstate(&self, vm: &str) -> Result<Vec<String>> {
        let found = source::found(self.host.as_ref(), vm)?;
        let mut domain = Domain::parse(&found.xml)?;
        let Some(Mark::Retired { autostart, .. }) = mark_of(&domain) else {
            return Ok(Vec::new());
        };
        standstill::lift(&mut domain);
        set_mark(&mut domain, None);
        self.host.define(&domain.to_string())?;
        self.host.set_autostart(vm, autostart)?;
        Ok(Vec::new())
    }

    fn keep_off(&self, vm: &str, why: &str) -> Result<Vec<String>> {
        match self.host.defines() {
            true => self.retire(vm, why),
            // The hook reads the guard.
            false => Ok(Vec::new()),
        }
    }

    fn config(&self, vm: &str) -> Result<String> {
        source::config_now(self.host.as_ref(), vm)
    }

    fn state(&self, vm: &str) -> Result<Option<String>> {
        let found = source::found(self.host.as_ref(), vm)?;
        self.host.tpms().read(&source::definition(&found)?)
    }

    fn described(&self, config: &str) -> Option<Described> {
        Some(describe(config))
    }

    fn locate(&self, volume: &str) -> Result<(Location, u64)> {
        let path = Path::new(volume);
        let format = source::format_of(self.host.as_ref(), path)?.ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!("no domain of this host has the disk {volume}"),
            )
        })?;
        locate(path, format)
    }

    fn yield_to(&self, vm: &str, pair: Uuid) -> Result<()> {
        let Some(found) = self.host.domain(vm)? else {
            return Ok(());
        };
        let mut domain = Domain::parse(&found.xml)?;
        match mark_of(&domain) {
            Some(Mark::Replica { pair: of, .. }) if of == pair => return Ok(()),
            Some(Mark::Retired { .. }) => {}
            _ => {
                return Err(Error::new(
                    Kind::Refused,
                    format!("domain {vm} was not retired here, or somebody has changed its definition since"),
                )
                .advise("look at its <metadata>: virsh dumpxml --inactive"))
            }
        }
        let note = format!("Was {vm} of this host; about to become its replica.");
        set_mark(&mut domain, Some(&Mark::Replica { pair, note }));
        self.define_still(domain)
    }

    fn start(&self, vm: &str) -> Result<()> {
        if self.is_running(vm)? {
            return Ok(());
        }
        self.host.start(vm)?;
        match self.is_running(vm)? {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Tool,
                format!("domain {vm} does not run, though libvirt said nothing"),
            )
            .advise(format!("look at /var/log/libvirt/qemu/{vm}.log"))),
        }
    }

    fn shut_down(&self, vm: &str, limit: Duration) -> Result<bool> {
        let until = Instant::now() + limit;
        let mut again = Instant::now();
        while self.is_running(vm)? {
            let now = Instant::now();
            if now >= until {
                return Ok(false);
            }
            if now >= again {
                // It may have ended meanwhile, or be too busy to hear.
                let asked = self.host.ask_to_shut_down(vm);
                if asked.is_err() && self.is_running(vm)? {
                    asked?;
                }
                again = now + ASK_AGAIN;
            }
            std::thread::sleep(POLL);
        }
        Ok(true)
    }

    fn stop(&self, vm: &str) -> Result<()> {
        let Some(found) = self.host.domain(vm)? else {
            return Ok(());
        };
        if found.state.is_active() {
            let ended = self.host.destroy(vm);
            if ended.is_err() && self.is_running(vm)? {
                ended?;
            }
        }
        self.wait_closed(&found)
    }

    fn guest_answers(&self, vm: &str) -> Result<Option<bool>> {
        let found = source::found(self.host.as_ref(), vm)?;
        match Domain::parse(found.live.as_ref().unwrap_or(&found.xml))?.has_agent() {
            true => Ok(Some(self.host.agent_answers(vm, PING_TIMEOUT))),
            false => Ok(None),
        }
    }
}

impl VirtTarget {
    /// Has the domain stand still; one whose guest is there and does not run if `paused`.
    pub(crate) fn retire_as(&self, vm: &str, why: &str, paused: bool) -> Result<Vec<String>> {
        let Some(found) = self.host.domain(vm)? else {
            // Nobody can start it here.
            return Ok(Vec::new());
        };
        if found.state.is_active() && !paused {
            return Err(Error::new(Kind::Busy, format!("domain {vm} is running"))
                .advise("it must be stopped before it can be retired"));
        }
        if !self.host.defines() {
            return Ok(vec![format!(
                "the hook keeps domain {vm} off; once libvirt runs, its definition is changed as well: boot-check {vm}"
            )]);
        }
        let mut domain = Domain::parse(&found.xml)?;
        let autostart = match mark_of(&domain) {
            Some(Mark::Retired { autostart, .. }) => {
                if standstill::is_imposed(&domain) {
                    return Ok(Vec::new());
                }
                autostart
            }
            _ => found.autostart,
        };
        let note = why.replace(char::is_control, " ");
        set_mark(&mut domain, Some(&Mark::Retired { note, autostart }));
        self.define_still(domain)?;
        Ok(Vec::new())
    }

    /// Waits until nobody has the disks of a domain open that was ended.
    fn wait_closed(&self, found: &Found) -> Result<()> {
        let disks = source::paths_of(self.host.as_ref(), found)?;
        let paths: Vec<PathBuf> = disks.into_iter().map(|(_, path)| path).collect();
        let until = Instant::now() + STOP_TIME;
        loop {
            let why = match self.is_running(&found.name)? {
                true => Some("it still runs, though libvirt said nothing".to_owned()),
                false => holders::of(&paths)?,
            };
            let Some(why) = why else { return Ok(()) };
            if Instant::now() >= until {
                return Err(Error::new(
                    Kind::Busy,
                    format!("domain {} was ended, but {why}", found.name),
                )
                .advise("end whatever still uses the disk"));
            }
            std::thread::sleep(POLL);
        }
    }
}

/// What is at a path of this host, and the size of the guest's disk in it in bytes.
pub(crate) fn locate(path: &Path, format: ImageFormat) -> Result<(Location, u64)> {
    let refused = |why: &str| {
        Err(Error::new(
            Kind::Refused,
            format!("{} cannot be a replica's disk: {why}", path.display()),
        ))
    };
    let size = snapshot::measure(path, format)?.size;
    if let Some(lv) = lvm::find_by_path(path)? {
        if !format.is_raw() {
            return refused("it is a logical volume with an image in it");
        }
        let location = match lv.pool {
            Some(pool) => Location::ThinLv { lv: lv.id, pool },
            None => Location::ThickLv { lv: lv.id },
        };
        return Ok((location, size));
    }
    let meta = std::fs::symlink_metadata(path)
        .map_err(|e| Error::io(format!("cannot find {}", path.display()), e))?;
    if meta.is_symlink() {
        // A generation takes the place of a file by a rename, which would leave what the link names behind.
        return refused("it is a symbolic link");
    }
    match meta.is_file() {
        true => Ok((
            Location::File {
                path: path.to_owned(),
                format,
                subvolume: false,
            },
            size,
        )),
        false => refused("it is a plain device"),
    }
}
