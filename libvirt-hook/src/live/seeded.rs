//! A domain that is moved without being paused: libvirt lays a file over each of its disks, which stand still then and are
//! sealed on the other host. What lies over them goes along with the memory, by libvirt's own migration, and is merged there.
//!
//! What lies over the disks is in the definition too, so that a domain that is started anew finds all that it has written.

use super::{records, relay, send};
use crate::connect::{Domain as Handle, State};
use crate::domain::{disk_key, Domain};
use crate::ffi;
use crate::overlay::{self, Overlay};
use crate::running;
use crate::standstill;
use crate::target::VirtTarget;
use libvirt_domain::xml::Element;
use rblocksync::cmd::{Cmd, Tool};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::hypervisor::{Incoming, LiveProfile, SeededHypervisor};
use rblocksync::image::ImageFormat;
use rblocksync::qemu;
use rblocksync::replica::{sent_bitmaps, Generation, TargetPair};
use rblocksync::stop::Stop;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use virt::domain_snapshot::DomainSnapshot;
use virt_sys as sys;

/// How long another job may keep the domain: libvirt's own end of a migration that was cut off, say.
const JOB_MAX: Duration = Duration::from_secs(120);
/// How long merging may take: the guest goes on meanwhile.
const MERGE_MAX: Duration = Duration::from_secs(24 * 3600);
const POLL: Duration = Duration::from_millis(50);

impl SeededHypervisor for VirtTarget {
    fn check_seeding(&self, vm: &str) -> Result<()> {
        let handle = self.handle(vm)?;
        let planned = overlay::plan(&Domain::parse(&handle.live_xml()?)?)?;
        let defined = Domain::parse(&handle.inactive_xml()?)?;
        overlay::check_plain(&defined)?;
        match overlay::plan(&defined)? == planned {
            true => check_files(&planned),
            false => Err(Error::new(
                Kind::Refused,
                "it runs with other disks than its definition says",
            )),
        }
    }

    fn lay_over(&self, vm: &str) -> Result<()> {
        let handle = self.handle(vm)?;
        let state = handle.state()?;
        if state.state != State::Running {
            return Err(Error::new(Kind::Busy, format!("domain {vm} is {state}")));
        }
        self.check_seeding(vm)?;
        // What it still shows of the disks has been read and sealed.
        running::end_own_backup(&handle)?;
        handle.wait_idle(JOB_MAX, &Stop::new())?;
        // The bitmaps would go along, and be of no use there. What is sealed next is compared with all of it anyway.
        let records = sent_bitmaps(&self.layout, vm)?.into_iter();
        let names: Vec<String> = records.map(|record| record.name).collect();
        running::remove_checkpoints(&handle, &names)?;
        let live = Domain::parse(&handle.live_xml()?)?;
        let planned = overlay::plan(&live)?;
        // Nobody uses what is left of an earlier move, and it would be in the way.
        overlay::remove(&planned)?;
        let xml = overlay::snapshot_xml(&live, &planned);
        let flags = sys::VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | sys::VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
            | sys::VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA;
        handle.call("lay files over the disks of", move |d| {
            DomainSnapshot::create_xml(d, &xml, flags).map(drop)
        })?;
        let found = |text: String| Domain::parse(&text).map(|domain| overlay::used(&domain));
        let (live, defined) = (found(handle.live_xml()?)?, found(handle.inactive_xml()?)?);
        match live == planned && defined == planned {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Tool,
                format!("libvirt has not laid files over all disks of domain {vm}"),
            )),
        }
    }

    fn send_seeded(&self, vm: &str, sockets: &[PathBuf], stop: &Stop) -> Result<Instant> {
        let [daemon, memory, disks] = sockets else {
            return Err(Error::new(
                Kind::Protocol,
                "libvirt needs a way to the other daemon, one for the memory and one for the disks",
            ));
        };
        let handle = self.handle(vm)?;
        let live = Domain::parse(&handle.live_xml()?)?;
        if !overlay::covers(&live) {
            return Err(Error::new(
                Kind::Busy,
                format!("nothing lies over the disks of domain {vm} any more"),
            )
            .advise("run again"));
        }
        let way = send::Way {
            daemon,
            memory,
            from: &relay::path(vm)?,
        };
        let over = send::Over {
            overlays: &overlay::used(&live),
            disks,
            from: &relay::disks_path(vm)?,
        };
        send::send(&handle, &way, Some(&over), stop)
    }

    fn check_seeded(&self, pair: &TargetPair) -> Result<()> {
        let planned = overlay::plan(&self.replica_of(pair)?)?;
        relay::disks_path(&pair.target_vm)?;
        check_files(&planned)
    }

    fn receive_seeded(
        &self,
        pair: &TargetPair,
        generation: &Generation,
        profile: &LiveProfile,
    ) -> Result<Incoming> {
        let (replica, details, mut incoming) = self.open_door(pair, generation, profile)?;
        let disks = relay::disks_path(&pair.target_vm)?;
        relay::make_room(&disks)?;
        for overlay in overlay::plan(&replica)? {
            if !details.writes(&overlay.key) {
                continue;
            }
            let format: ImageFormat = overlay.format.parse()?;
            qemu::img::overlay(Path::new(&overlay.path), Path::new(&overlay.base), format)?;
            if format == ImageFormat::Qcow2 {
                records::begin(&self.layout, pair, generation, &overlay)?;
            }
        }
        incoming.sockets.push(disks);
        Ok(incoming)
    }

    fn settle(&self, vm: &str) -> Result<Vec<String>> {
        let Some(handle) = self.host.connection()?.find(vm)? else {
            return Ok(Vec::new());
        };
        let defined = Domain::parse(&handle.inactive_xml()?)?;
        if standstill::is_imposed(&defined) {
            return Ok(Vec::new());
        }
        let mut overlays = overlay::used(&defined);
        if handle.is_active()? {
            let live = overlay::used(&Domain::parse(&handle.live_xml()?)?);
            if !live.is_empty() {
                handle.wait_idle(JOB_MAX, &Stop::new())?;
            }
            for overlay in &live {
                merge_running(&handle, overlay)?;
            }
            overlays.extend(live);
        } else {
            for overlay in &overlays {
                merge_off(overlay)?;
            }
        }
        if overlays.is_empty() {
            return Ok(Vec::new());
        }
        self.define_below(&handle)?;
        overlay::remove(&overlays)?;
        Ok(vec![format!(
            "what lay over the disks of domain {vm} is merged into them"
        )])
    }
}

impl VirtTarget {
    /// Whether something lies over disks of the domain, running or not.
    pub fn is_laid_over(&self, vm: &str) -> Result<bool> {
        let Some(found) = self.host.domain(vm)? else {
            return Ok(false);
        };
        let texts = std::iter::once(&found.xml).chain(&found.live);
        for text in texts {
            if !overlay::used(&Domain::parse(text)?).is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The definition names the disks that are below, if it does not.
    fn define_below(&self, handle: &Handle) -> Result<()> {
        let mut defined = Domain::parse(&handle.inactive_xml()?)?;
        if overlay::used(&defined).is_empty() {
            return Ok(());
        }
        overlay::lift(&mut defined);
        self.host.define(&defined.to_string())
    }

    /// Gives up what lies over the disks of a domain that has gone to another host: they are as they were sealed.
    pub(super) fn drop_overlays(&self, vm: &str) -> Result<()> {
        let Some(found) = self.host.domain(vm)? else {
            return Ok(());
        };
        let mut domain = Domain::parse(&found.xml)?;
        if !standstill::is_imposed(&domain) {
            return Ok(());
        }
        standstill::lift(&mut domain);
        let overlays = overlay::used(&domain);
        if overlays.is_empty() {
            return Ok(());
        }
        overlay::lift(&mut domain);
        self.define_still(domain)?;
        overlay::remove(&overlays)
    }
}

/// What lies over a link would be beside the link, and what lies over a part of a sector would be of another size.
fn check_files(planned: &[Overlay]) -> Result<()> {
    for overlay in planned {
        let meta = std::fs::symlink_metadata(&overlay.base)
            .map_err(|e| Error::io(format!("cannot find {}", overlay.base), e))?;
        let is_whole = overlay.format != "raw" || meta.len() % 512 == 0;
        if !meta.is_file() || !is_whole {
            return Err(Error::new(
                Kind::Refused,
                format!("its disk {} is no plain file of whole sectors", overlay.key),
            ));
        }
    }
    Ok(())
}

/// What a block job does to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Merging {
    /// There is none, and the disk is what is below.
    Done,
    /// There is none.
    No,
    /// It is under way; all has been merged so far.
    Yes { ready: bool },
    /// Another one.
    Other,
    /// There was one, and something lies over the disk all the same.
    Failed,
}

/// By the domain as it runs; `begun`: there was one.
fn merging(live: &Domain, overlay: &Overlay, begun: bool) -> Merging {
    let disk: Option<&Element> = live.disks().find(|disk| disk_key(disk) == overlay.key);
    let Some(disk) = disk else {
        return Merging::Done;
    };
    let mirror = disk.child("mirror");
    match mirror.map(|mirror| mirror.attribute("job")) {
        Some(Some("active-commit")) => Merging::Yes {
            ready: mirror.and_then(|m| m.attribute("ready")) == Some("yes"),
        },
        Some(_) => Merging::Other,
        None => match overlay::used(live).contains(overlay) {
            true if begun => Merging::Failed,
            true => Merging::No,
            false => Merging::Done,
        },
    }
}

/// Merges what lies over a disk of a domain that runs. What was begun by another run is gone on with.
fn merge_running(handle: &Handle, overlay: &Overlay) -> Result<()> {
    let until = Instant::now() + MERGE_MAX;
    let mut begun = false;
    loop {
        let key = overlay.key.clone();
        let found = merging(&Domain::parse(&handle.live_xml()?)?, overlay, begun);
        begun |= matches!(found, Merging::No | Merging::Yes { .. });
        match found {
            Merging::Done => return Ok(()),
            Merging::No => {
                handle.call("merge the disks of", move |d| ffi::commit_begin(d, &key))?
            }
            // What lies over it is still needed until this call returns.
            Merging::Yes { ready: true } => {
                handle.call("end the merging of the disks of", move |d| {
                    ffi::commit_pivot(d, &key)
                })?;
            }
            Merging::Yes { ready: false } => {}
            Merging::Failed => {
                return Err(Error::new(
                    Kind::Tool,
                    format!(
                        "libvirt has given up merging disk {} of domain {} into {}",
                        overlay.key,
                        handle.name(),
                        overlay.base
                    ),
                )
                .advise(format!(
                    "is there room where that file is? The guest goes on, and nothing is lost; /var/log/libvirt/qemu/{}.log \
                     may tell more. Run again when that is put right",
                    handle.name()
                )))
            }
            // The copy of a migration that was cut off.
            Merging::Other => handle.call("end a copy of the disks of", move |d| {
                ffi::commit_cancel(d, &key)
            })?,
        }
        if Instant::now() >= until {
            return Err(Error::new(
                Kind::Timeout,
                format!(
                    "disk {} of domain {} could not be merged",
                    overlay.key,
                    handle.name()
                ),
            )
            .advise(
                "the guest writes faster than its disk: it goes on; run again when it writes less",
            ));
        }
        std::thread::sleep(POLL);
    }
}

/// The same for a domain that is off. A file that is gone is an error: it goes after the definition has changed.
fn merge_off(overlay: &Overlay) -> Result<()> {
    Cmd::new(Tool::QemuImg)
        .args(["commit", "-q", "-f", "qcow2", "--", &overlay.path])
        .timeout(MERGE_MAX)
        .run()
        .map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn live(file: &str, mirror: &str) -> Domain {
        Domain::parse(&format!(
            "<domain><name>web</name><devices><disk type='file' device='disk'><driver type='qcow2'/><source file='{file}'/>{mirror}<target dev='vda'/></disk></devices></domain>"
        ))
        .unwrap()
    }

    #[test]
    fn a_merging_that_ends_by_itself_has_failed() {
        let over = live("/a/web.raw.rbs-over-raw", "");
        let overlay = &overlay::used(&over)[0];
        assert_eq!(merging(&over, overlay, false), Merging::No);
        assert_eq!(merging(&over, overlay, true), Merging::Failed);
        assert_eq!(
            merging(&live("/a/web.raw", ""), overlay, true),
            Merging::Done
        );
        for (ready, want) in [("", false), ("ready='yes'", true), ("ready='abort'", false)] {
            let mirror = format!("<mirror type='file' job='active-commit' {ready}/>");
            let found = merging(&live("/a/web.raw.rbs-over-raw", &mirror), overlay, true);
            assert_eq!(found, Merging::Yes { ready: want });
        }
    }
}
