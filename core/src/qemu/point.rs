//! One instant of disks that a running QEMU has open, and what its guest has written to them since an earlier one.
//!
//! QEMU copies what the guest overwrites to scratch files first (`blockdev-backup`, `sync=none`), from one instant on
//! over all disks (`transaction`), and shows the disks as they were then on a unix socket (NBD). So the guest waits for
//! this host's disk, never for whoever reads. In the same instant a dirty bitmap begins, bound by its name to the
//! generation that this becomes, and the bitmap of the generation before is copied: the copy tells what changed between
//! the two, and the original goes on, so that it still holds if this run comes to nothing.
//!
//! Order: [`QemuPoint::prepare`], then the [`QemuPoint::transaction`] by whoever holds the monitor, then
//! [`QemuPoint::publish`], then [`QemuPoint::release`]. The monitor serves one client at a time on Proxmox: each of
//! these connects, is quick, and lets go. Commands are those of QEMU's "QMP reference manual".

use super::blocks::{find, nodes, trusted, BlockNode, ANSWER_TIMEOUT};
use super::qmp::Qmp;
use super::scratch::{Guard, ScratchFile, ScratchSpace};
use super::sweep;
use crate::error::{Error, Kind, Result};
use crate::image::ImageFormat;
use crate::lock::private_dir;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that a bit of our bitmaps stands for: what digests are added up from, too.
const GRANULARITY: u64 = crate::digest::GRAIN_BYTES as u64;

/// A disk of which something is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The file or device.
    pub path: PathBuf,
    /// What its bytes are.
    pub format: ImageFormat,
    /// Its content is to stay readable as it was at the instant.
    pub copy: bool,
    /// The bitmap of the generation that was sent last, if what changed since is wanted.
    pub since: Option<String>,
    /// The bitmap that is to begin at the instant.
    pub next: Option<String>,
}

/// A dirty bitmap that began at a point in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitmapRecord {
    /// Its name.
    pub name: String,
    /// It is kept in the image file when QEMU ends; others end with QEMU.
    pub persistent: bool,
}

/// What can be read from QEMU's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The unix socket.
    pub socket: PathBuf,
    /// Name of the export.
    pub name: String,
    /// Name of the metadata context that tells what changed, if that is known.
    pub changed: Option<String>,
}

struct Disk {
    node: String,
    copy: bool,
    scratch: Option<Arc<ScratchFile>>,
    /// Why the bitmap of the last generation cannot be relied on; no text if it can, nothing if it was not wanted.
    since: Option<std::result::Result<String, String>>,
    next: Option<BitmapRecord>,
}

impl Disk {
    /// One that QEMU cannot be asked about, for this reason if it was to be.
    fn unknown(since: Option<String>) -> Disk {
        Disk {
            node: String::new(),
            copy: false,
            scratch: None,
            since: since.map(Err),
            next: None,
        }
    }
}

fn node_of(nodes: &[BlockNode], disk: &Wanted) -> Result<BlockNode> {
    let real = std::fs::canonicalize(&disk.path)
        .map_err(|e| Error::io(format!("cannot find {}", disk.path.display()), e))?;
    find(nodes, &real, disk.format)
}

/// Fails if the old content of one of these disks could not be kept by the QEMU behind `monitor`, or not in this space.
/// Changes nothing.
pub fn check(monitor: &Path, wanted: &[Wanted], space: &ScratchSpace) -> Result<()> {
    let mut copied = wanted.iter().filter(|disk| disk.copy).peekable();
    if copied.peek().is_none() {
        return Ok(());
    }
    let nodes = nodes(&mut Qmp::connect(monitor, ANSWER_TIMEOUT)?)?;
    let sizes = copied.map(|disk| node_of(&nodes, disk).map(|node| node.size()));
    space.shares(&sizes.collect::<Result<Vec<_>>>()?).map(drop)
}

/// See the module.
pub struct QemuPoint {
    monitor: PathBuf,
    /// What the names of all that belongs to this run begin with.
    prefix: String,
    /// What the names of the bitmaps of all its generations begin with.
    bitmaps: String,
    dir: PathBuf,
    disks: Vec<Disk>,
    guard: Option<Guard>,
    released: bool,
}

impl QemuPoint {
    /// Finds the disks and makes all ready; nothing is held or copied yet. `run` tells this run from others, `bitmaps`
    /// is what the names of the bitmaps begin with that are ours to remove. What killed runs left is removed first: the
    /// caller holds the VM's lock.
    pub fn prepare(
        monitor: &Path,
        run: &str,
        bitmaps: &str,
        wanted: &[Wanted],
        space: &ScratchSpace,
    ) -> Result<QemuPoint> {
        private_dir(&space.dir)?;
        let prefix = format!("{}{}", sweep::PREFIX, run.get(..8).unwrap_or(run));
        let dir = space.dir.join(&prefix);
        sweep::files(&space.dir)?;
        let mut qmp = Qmp::connect(monitor, ANSWER_TIMEOUT)?;
        sweep::sweep(&mut qmp)?;
        let mut point = QemuPoint {
            monitor: monitor.to_owned(),
            prefix,
            bitmaps: bitmaps.to_owned(),
            dir,
            disks: Vec::new(),
            guard: None,
            released: false,
        };
        match point.begin(&mut qmp, wanted, space) {
            Ok(()) => Ok(point),
            Err(e) => {
                drop(qmp);
                Err(match point.release(false) {
                    Ok(()) => e,
                    Err(left) => e.followed_by(left),
                })
            }
        }
    }

    fn begin(&mut self, qmp: &mut Qmp, wanted: &[Wanted], space: &ScratchSpace) -> Result<()> {
        let all = nodes(qmp)?;
        let mut found = Vec::new();
        for disk in wanted {
            found.push(match node_of(&all, disk) {
                Ok(node) => Ok(node),
                // What changed can also be found by comparing.
                Err(e) if !disk.copy => Err(e.message()),
                Err(e) => return Err(e),
            });
        }
        for (disk, node) in wanted.iter().zip(&found) {
            let keep = disk.since.as_deref();
            let node = match node {
                Ok(node) => node,
                Err(why) => {
                    self.disks.push(Disk::unknown(keep.map(|_| why.clone())));
                    continue;
                }
            };
            sweep::bitmaps(qmp, node, |name| {
                name.starts_with(&self.bitmaps) && Some(name) != keep
            })?;
            let next = disk.next.as_ref().filter(|_| !node.ro);
            self.disks.push(Disk {
                node: node.node_name.clone(),
                copy: disk.copy,
                scratch: None,
                since: keep.map(|name| trusted(node, name).map(|_| name.to_owned())),
                next: next.map(|name| BitmapRecord {
                    name: name.clone(),
                    persistent: node.keeps_bitmaps(),
                }),
            });
        }
        if !self.needs_server() {
            return Ok(());
        }
        private_dir(&self.dir)?;
        let nodes = found.iter().zip(wanted).enumerate();
        let copied: Vec<(usize, &BlockNode)> = nodes
            .filter(|(_, (_, disk))| disk.copy)
            .filter_map(|(index, (node, _))| Some((index, node.as_ref().ok()?)))
            .collect();
        let sizes: Vec<u64> = copied.iter().map(|(_, node)| node.size()).collect();
        for ((index, node), share) in copied.into_iter().zip(space.shares(&sizes)?) {
            self.add_scratch(qmp, index, node, share)?;
        }
        // Tells a later run that the server is ours.
        let mark = json!({
            "driver": "null-co", "node-name": format!("{}-server", self.prefix), "read-zeroes": true,
        });
        qmp.execute("blockdev-add", mark, ANSWER_TIMEOUT)?;
        let address = json!({"type": "unix", "data": {"path": self.socket()}});
        qmp.execute("nbd-server-start", json!({"addr": address}), ANSWER_TIMEOUT)
            .map_err(|e| {
                e.advise(
                    "if a migration or a backup uses QEMU's NBD server, run again when it is over",
                )
            })
            .map(drop)
    }

    fn needs_server(&self) -> bool {
        let mut disks = self.disks.iter();
        disks.any(|disk| disk.copy || matches!(disk.since, Some(Ok(_))))
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("nbd")
    }

    fn name(&self, index: usize) -> String {
        format!("{}-{index}", self.prefix)
    }

    fn since_name(&self) -> String {
        format!("{}-since", self.prefix)
    }

    /// A scratch node over the disk: what it does not hold is as on the disk.
    fn add_scratch(
        &mut self,
        qmp: &mut Qmp,
        index: usize,
        disk: &BlockNode,
        bytes_max: u64,
    ) -> Result<()> {
        let name = self.name(index);
        let file = ScratchFile::create(self.dir.join(index.to_string()), bytes_max)?;
        let below = format!("{name}-file");
        let filename = utf8(&file.path)?;
        let node = json!({"driver": "file", "node-name": below, "filename": filename});
        qmp.execute("blockdev-add", node, ANSWER_TIMEOUT)?;
        let options = json!({"driver": "qcow2", "file": below, "size": disk.size()});
        let job = format!("{name}-make");
        let create = json!({"job-id": job, "options": options});
        qmp.execute("blockdev-create", create, ANSWER_TIMEOUT)?;
        sweep::concluded(qmp, &job)?;
        file.reserve()?;
        let node = json!({
            "driver": "qcow2", "node-name": name, "file": below, "backing": disk.node_name,
        });
        qmp.execute("blockdev-add", node, ANSWER_TIMEOUT)?;
        self.disks[index].scratch = Some(Arc::new(file));
        Ok(())
    }

    /// The arguments of the command `transaction` that makes the instant.
    pub fn transaction(&self) -> Value {
        let mut actions = Vec::new();
        let mut act = |kind: &str, data: Value| actions.push(json!({"type": kind, "data": data}));
        for (index, disk) in self.disks.iter().enumerate() {
            let node = &disk.node;
            if let Some(Ok(since)) = &disk.since {
                let copy = self.since_name();
                act(
                    "block-dirty-bitmap-add",
                    json!({"node": node, "name": copy, "disabled": true, "granularity": GRANULARITY}),
                );
                act(
                    "block-dirty-bitmap-merge",
                    json!({"node": node, "target": copy, "bitmaps": [since]}),
                );
            }
            if let Some(next) = &disk.next {
                act(
                    "block-dirty-bitmap-add",
                    json!({"node": node, "name": next.name, "persistent": next.persistent,
                           "granularity": GRANULARITY}),
                );
            }
            if disk.copy {
                let name = self.name(index);
                act(
                    "blockdev-backup",
                    json!({"job-id": name, "device": node, "target": name, "sync": "none"}),
                );
            }
        }
        json!({"actions": actions})
    }

    /// After the transaction: makes it readable.
    pub fn publish(&mut self) -> Result<()> {
        if !self.needs_server() {
            return Ok(());
        }
        let mut qmp = Qmp::connect(&self.monitor, ANSWER_TIMEOUT)?;
        for (index, disk) in self.disks.iter().enumerate() {
            let name = self.name(index);
            let bitmaps = match &disk.since {
                Some(Ok(_)) => vec![json!({"node": disk.node, "name": self.since_name()})],
                _ => Vec::new(),
            };
            if !disk.copy && bitmaps.is_empty() {
                continue;
            }
            let node = if disk.copy { &name } else { &disk.node };
            let export = json!({
                "id": name, "type": "nbd", "node-name": node, "name": name, "bitmaps": bitmaps,
            });
            qmp.execute("block-export-add", export, ANSWER_TIMEOUT)?;
        }
        let files: Vec<_> = self
            .disks
            .iter()
            .filter_map(|d| d.scratch.clone())
            .collect();
        if !files.is_empty() {
            let monitor = self.monitor.clone();
            // First nobody must read any more: what is not copied shows as it is now.
            let give_up = move || {
                let _ = Qmp::connect(&monitor, ANSWER_TIMEOUT).and_then(|mut qmp| {
                    sweep::exports(&mut qmp)?;
                    sweep::jobs(&mut qmp)
                });
            };
            self.guard = Some(Guard::start(files, give_up)?);
        }
        Ok(())
    }

    /// What can be read of disk `index`.
    pub fn export(&self, index: usize) -> Option<Export> {
        let disk = &self.disks[index];
        let changed = match &disk.since {
            Some(Ok(_)) => Some(format!("qemu:dirty-bitmap:{}", self.since_name())),
            _ => None,
        };
        (disk.copy || changed.is_some()).then(|| Export {
            socket: self.socket(),
            name: self.name(index),
            changed,
        })
    }

    /// Why what changed of disk `index` is not known although it was asked for.
    pub fn doubt(&self, index: usize) -> Option<&str> {
        match &self.disks[index].since {
            Some(Err(why)) => Some(why),
            _ => None,
        }
    }

    /// The bitmap of disk `index` that began at the instant.
    pub fn next(&self, index: usize) -> Option<&BitmapRecord> {
        self.disks[index].next.as_ref()
    }

    /// To be called when all has been read, before it is relied on: fails if QEMU did not keep the old content of all
    /// disks up to now.
    pub fn check(&self) -> Result<()> {
        if let Some(guard) = &self.guard {
            guard.check()?;
        }
        if !self.disks.iter().any(|disk| disk.copy) {
            return Ok(());
        }
        let mut qmp = Qmp::connect(&self.monitor, ANSWER_TIMEOUT).map_err(|e| {
            e.context("QEMU cannot tell whether it kept the old content of the VM's disks")
        })?;
        let jobs = sweep::block_jobs(&mut qmp)?;
        for (index, disk) in self.disks.iter().enumerate() {
            let name = self.name(index);
            let kept = jobs
                .iter()
                .any(|job| job.device == name && job.io_status == "ok");
            if disk.copy && !kept {
                return Err(Error::new(
                    Kind::Io,
                    format!(
                        "QEMU could not keep the old content of its node {}",
                        disk.node
                    ),
                )
                .advise("look at the VM's log and at the room for --scratch, and run again"));
            }
        }
        Ok(())
    }

    /// Takes everything away again but one bitmap for each disk: if `sealed`, the one that began at the instant, else
    /// that of the generation before. Can be repeated.
    pub fn release(&mut self, sealed: bool) -> Result<()> {
        if self.released {
            return Ok(());
        }
        self.guard = None;
        match Qmp::connect(&self.monitor, ANSWER_TIMEOUT) {
            Ok(mut qmp) => self.take_away(&mut qmp, sealed)?,
            // QEMU has ended, and all of this with it.
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => return Err(e),
        }
        self.disks.clear();
        match std::fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(
                    format!("cannot remove {}", self.dir.display()),
                    e,
                ))
            }
            _ => {}
        }
        self.released = true;
        Ok(())
    }

    fn take_away(&self, qmp: &mut Qmp, sealed: bool) -> Result<()> {
        sweep::sweep(qmp)?;
        let nodes = nodes(qmp)?;
        for disk in &self.disks {
            let keep = match (&disk.next, &disk.since) {
                (Some(next), _) if sealed => Some(next.name.as_str()),
                (_, Some(Ok(since))) if !sealed => Some(since.as_str()),
                _ => None,
            };
            let node = nodes.iter().find(|node| node.node_name == disk.node);
            if let Some(node) = node {
                let goes = |name: &str| name.starts_with(&self.bitmaps) && Some(name) != keep;
                sweep::bitmaps(qmp, node, goes)?;
            }
        }
        Ok(())
    }
}

impl Drop for QemuPoint {
    fn drop(&mut self) {
        // Whoever wants to know calls release(); the next run sweeps the rest.
        let _ = self.release(false);
    }
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::new(
            Kind::Usage,
            format!("QEMU cannot be given the name {}", path.display()),
        )
        .advise("name a directory with --scratch whose name is UTF-8")
    })
}
