//! `/etc/pve/storage.cfg`: which storages there are, of what type, and on which nodes.
//!
//! The format is Proxmox's section configuration: `type: id`, then indented `key value` lines up to an
//! empty line. Proxmox ignores what it does not understand; so does this reader, but it keeps a
//! [`warning`](StorageCfg::warnings), because an ignored line usually is why a storage "does not exist".

mod values;

use crate::volid::{is_storage_id, Format, Vmid, Volid};
use rblocksync::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use values::{
    absolute, images_dir, is_mount_point, is_true, list, lvm_name, mountpoint, path_name,
    plain_name,
};

/// What kind of storage it is, with what is needed to find volumes on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// An LVM thin pool; every volume is an LV.
    LvmThin {
        /// The volume group.
        vgname: String,
        /// The thin pool in it.
        thinpool: String,
    },
    /// An LVM group without a pool; every volume is an LV that takes its whole size.
    Lvm {
        /// The volume group.
        vgname: String,
        /// Snapshots of qcow2 volumes are chains of LVs (Proxmox VE 9, by option).
        volume_chains: bool,
    },
    /// A directory (`dir`, or a mounted `nfs` or `cifs` share); every volume is a file.
    Dir {
        /// Where the directory is.
        path: PathBuf,
        /// Where VM disks are below it, `images` unless configured otherwise.
        images: PathBuf,
        /// The path that must be a mount point for the storage to be usable.
        mountpoint: Option<PathBuf>,
        /// Snapshots of qcow2 volumes are chains of files (Proxmox VE 9, by option).
        volume_chains: bool,
    },
    /// A btrfs; every raw volume is the file `disk.raw` in a subvolume of its own.
    Btrfs {
        /// Where the file system is.
        path: PathBuf,
        /// Where VM disks are below it.
        images: PathBuf,
        /// The path that must be a mount point for the storage to be usable.
        mountpoint: Option<PathBuf>,
    },
    /// A ZFS dataset; every volume is a zvol below it.
    ZfsPool {
        /// The dataset: `rpool/data`.
        pool: String,
    },
    /// A Ceph pool; every volume is an RBD image.
    Rbd {
        /// The pool.
        pool: String,
        /// The namespace in it, if not the usual one.
        namespace: Option<String>,
    },
    /// A type this version does not handle, by its name.
    Other(String),
}

/// A storage as storage.cfg defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageEntry {
    /// Its id.
    pub id: String,
    /// Its type and place.
    pub storage: Storage,
    /// What it may hold (`images`, `iso`, ...).
    pub content: Vec<String>,
    /// The nodes it exists on; empty: all.
    pub nodes: Vec<String>,
    /// Switched off by the administrator.
    pub disabled: bool,
    /// The same on every node.
    pub shared: bool,
    /// Every property as written, in file order.
    pub properties: Vec<(String, String)>,
    /// The type's name as the file spells it.
    kind: String,
}

/// The storages of a host or cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageCfg {
    entries: Vec<StorageEntry>,
    warnings: Vec<String>,
}

/// Types that Proxmox takes as shared whatever the configuration says.
const SHARED_TYPES: [&str; 9] = [
    "cephfs",
    "cifs",
    "glusterfs",
    "iscsi",
    "iscsidirect",
    "nfs",
    "pbs",
    "rbd",
    "zfs",
];

struct RawSection<'a> {
    kind: &'a str,
    id: &'a str,
    line: usize,
    properties: Vec<(String, String)>,
}

impl StorageCfg {
    /// Reads the file's text. Never fails: what cannot be understood becomes a warning.
    pub fn parse(text: &str) -> StorageCfg {
        let mut cfg = StorageCfg::default();
        let mut open: Option<RawSection> = None;
        for (index, line) in text.split('\n').enumerate() {
            let number = index + 1;
            if line.trim_start().starts_with('#') {
                continue;
            }
            if line.is_empty() || line == "\r" {
                cfg.close(open.take());
                continue;
            }
            match &mut open {
                // Once a section is open, a header without an empty line before it is no header.
                Some(section) if line.starts_with([' ', '\t']) && !line.trim().is_empty() => {
                    let line = line.trim();
                    let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
                    if section.properties.iter().any(|(k, _)| k == key) {
                        cfg.warnings.push(format!(
                            "line {number}: {key} is given twice, the first one counts"
                        ));
                    } else {
                        section
                            .properties
                            .push((key.to_owned(), value.trim().to_owned()));
                    }
                }
                None => match header(line) {
                    Some((kind, id)) => {
                        open = Some(RawSection {
                            kind,
                            id,
                            line: number,
                            properties: Vec::new(),
                        });
                    }
                    None => cfg.warn_ignored(number, line),
                },
                Some(_) => cfg.warn_ignored(number, line),
            }
        }
        cfg.close(open);
        cfg.add_implicit_local();
        cfg
    }

    fn warn_ignored(&mut self, number: usize, line: &str) {
        self.warnings.push(format!(
            "line {number} is ignored: \"{}\"",
            line.trim().escape_debug()
        ));
    }

    fn close(&mut self, section: Option<RawSection>) {
        let Some(section) = section else { return };
        let (id, line) = (section.id.to_owned(), section.line);
        match StorageEntry::from_section(section) {
            Ok(entry) => {
                let before = self.entries.len();
                self.entries.retain(|e| e.id != id);
                if self.entries.len() != before {
                    self.warnings.push(format!(
                        "line {line}: storage {id} is defined twice, the last one counts"
                    ));
                }
                self.entries.push(entry);
            }
            Err(why) => self.warnings.push(format!(
                "line {line}: storage {} is ignored: {why}",
                id.escape_debug()
            )),
        }
    }

    /// Proxmox always has a storage `local` at /var/lib/vz, on every node, whatever the file says.
    fn add_implicit_local(&mut self) {
        let default_path = Path::new("/var/lib/vz");
        if let Some(local) = self.entries.iter_mut().find(|e| e.id == "local") {
            if matches!(&local.storage, Storage::Dir { path, .. } if path == default_path) {
                local.nodes.clear();
                return;
            }
        }
        self.entries.retain(|e| e.id != "local");
        self.entries.push(StorageEntry {
            id: "local".to_owned(),
            storage: Storage::Dir {
                path: default_path.to_owned(),
                images: PathBuf::from("images"),
                mountpoint: None,
                volume_chains: false,
            },
            content: ["backup", "images", "iso", "rootdir", "snippets", "vztmpl"]
                .map(str::to_owned)
                .to_vec(),
            nodes: Vec::new(),
            disabled: false,
            shared: false,
            properties: Vec::new(),
            kind: "dir".to_owned(),
        });
    }

    /// All storages, in file order.
    pub fn entries(&self) -> &[StorageEntry] {
        &self.entries
    }

    /// The storage of this id, usable or not.
    pub fn get(&self, id: &str) -> Option<&StorageEntry> {
        self.entries.iter().find(|e| e.id == id)
    }

    /// The storage of this id, if it can be used on `node`.
    pub fn usable(&self, id: &str, node: &str) -> Result<&StorageEntry> {
        let Some(entry) = self.get(id) else {
            let known: Vec<&str> = self.entries.iter().map(|e| e.id.as_str()).collect();
            let mut why = format!(
                "storage {id} does not exist; there are {}",
                known.join(", ")
            );
            if !self.warnings.is_empty() {
                why.push_str(&format!(
                    "; storage.cfg has faults: {}",
                    self.warnings.join("; ")
                ));
            }
            return Err(Error::new(Kind::NotFound, why));
        };
        if entry.disabled {
            return Err(Error::new(
                Kind::Refused,
                format!("storage {id} is disabled"),
            ));
        }
        if !entry.nodes.is_empty() && !entry.nodes.iter().any(|n| n == node) {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "storage {id} is not on node {node}, only on {}",
                    entry.nodes.join(", ")
                ),
            ));
        }
        Ok(entry)
    }

    /// What was ignored while reading.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn header(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_end();
    let (kind, id) = line.split_once(':')?;
    let id = id.trim_start();
    let one_word = |s: &str| !s.is_empty() && !s.contains(char::is_whitespace);
    (one_word(kind) && one_word(id)).then_some((kind, id))
}

impl StorageEntry {
    fn from_section(section: RawSection) -> std::result::Result<StorageEntry, String> {
        if !is_storage_id(section.id) {
            return Err("that is not a storage name".to_owned());
        }
        let get = |key: &str| {
            section
                .properties
                .iter()
                .find(|(k, _)| k == key)
                .map(|(_, value)| value.as_str())
        };
        let needed = |key: &str| {
            get(key)
                .filter(|v| !v.is_empty())
                .ok_or_else(|| format!("{key} is missing"))
        };
        let storage = match section.kind {
            "lvmthin" => Storage::LvmThin {
                vgname: lvm_name(needed("vgname")?)?,
                thinpool: lvm_name(needed("thinpool")?)?,
            },
            "lvm" => Storage::Lvm {
                vgname: lvm_name(needed("vgname")?)?,
                volume_chains: get("snapshot-as-volume-chain").is_some_and(is_true),
            },
            "dir" => {
                let default = (section.id == "local").then_some("/var/lib/vz");
                let path = absolute(get("path").or(default).ok_or("path is missing")?)?;
                Storage::Dir {
                    images: images_dir(get("content-dirs"))?,
                    mountpoint: mountpoint(get("is_mountpoint"), &path)?,
                    volume_chains: get("snapshot-as-volume-chain").is_some_and(is_true),
                    path,
                }
            }
            // Proxmox mounts these itself; what is below the path otherwise is another file system.
            "nfs" | "cifs" => {
                let usual = format!("/mnt/pve/{}", section.id);
                let path = absolute(get("path").unwrap_or(&usual))?;
                Storage::Dir {
                    images: images_dir(get("content-dirs"))?,
                    mountpoint: Some(path.clone()),
                    volume_chains: get("snapshot-as-volume-chain").is_some_and(is_true),
                    path,
                }
            }
            "btrfs" => {
                let path = absolute(needed("path")?)?;
                Storage::Btrfs {
                    images: images_dir(get("content-dirs"))?,
                    mountpoint: mountpoint(get("is_mountpoint"), &path)?,
                    path,
                }
            }
            "zfspool" => Storage::ZfsPool {
                pool: path_name("a ZFS dataset", needed("pool")?)?,
            },
            "rbd" => Storage::Rbd {
                pool: plain_name("a Ceph pool", get("pool").unwrap_or("rbd"))?,
                namespace: match get("namespace") {
                    Some(name) if !name.is_empty() => Some(plain_name("a namespace", name)?),
                    _ => None,
                },
            },
            other => Storage::Other(other.to_owned()),
        };
        Ok(StorageEntry {
            id: section.id.to_owned(),
            storage,
            content: list(get("content").unwrap_or("images,rootdir")),
            nodes: list(get("nodes").unwrap_or("")),
            disabled: get("disable").is_some_and(is_true),
            shared: get("shared").is_some_and(is_true) || SHARED_TYPES.contains(&section.kind),
            kind: section.kind.to_owned(),
            properties: section.properties,
        })
    }

    /// The type's name as storage.cfg spells it.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Whether its volumes are files of a server that other hosts may write as well.
    pub fn is_network(&self) -> bool {
        matches!(self.kind(), "nfs" | "cifs")
    }

    /// Refuses a directory that is missing, or whose file system is not mounted: what was written there
    /// would fill another one.
    pub fn check_present(&self) -> Result<()> {
        let (Storage::Dir {
            path, mountpoint, ..
        }
        | Storage::Btrfs {
            path, mountpoint, ..
        }) = &self.storage
        else {
            return Ok(());
        };
        let absent = |why: String| {
            Error::new(
                Kind::NotFound,
                format!("storage {} is not available: {why}", self.id),
            )
        };
        if !path.is_dir() {
            return Err(absent(format!("{} is no directory", path.display())));
        }
        match mountpoint {
            Some(mountpoint) if !is_mount_point(mountpoint) => Err(absent(format!(
                "nothing is mounted on {}",
                mountpoint.display()
            ))
            .advise("mount it")),
            _ => Ok(()),
        }
    }

    /// Whether VM disks may be put here.
    pub fn holds_images(&self) -> bool {
        self.content.iter().any(|c| c == "images")
    }

    /// The id of disk number `n` of a VM on this storage, as Proxmox names it. Where all volumes are raw the format
    /// does not count.
    pub fn disk_volid(&self, vmid: Vmid, n: u32, format: Format) -> Result<Volid> {
        self.vm_volid(vmid, &format!("vm-{vmid}-disk-{n}"), format)
    }

    /// The same of a template's disk, which never changes.
    pub fn base_volid(&self, vmid: Vmid, n: u32, format: Format) -> Result<Volid> {
        self.vm_volid(vmid, &format!("base-{vmid}-disk-{n}"), format)
    }

    /// The id of the generated cloud-init drive of a VM on this storage.
    pub fn cloudinit_volid(&self, vmid: Vmid) -> Result<Volid> {
        // As Proxmox makes it: btrfs prefers raw, where such a file is a subvolume's.
        let format = match &self.storage {
            Storage::Btrfs { .. } => Format::Raw,
            _ => Format::Qcow2,
        };
        match &self.storage {
            // Without the ending that a qcow2 volume has there.
            Storage::Lvm { .. } => Volid::new(&self.id, &format!("vm-{vmid}-cloudinit")),
            _ => self.vm_volid(vmid, &format!("vm-{vmid}-cloudinit"), format),
        }
    }

    fn vm_volid(&self, vmid: Vmid, name: &str, format: Format) -> Result<Volid> {
        let extension = format.extension();
        match &self.storage {
            Storage::LvmThin { .. } | Storage::ZfsPool { .. } | Storage::Rbd { .. } => {
                Volid::new(&self.id, name)
            }
            Storage::Lvm { .. } if format == Format::Raw => Volid::new(&self.id, name),
            Storage::Lvm { .. } => Volid::new(&self.id, &format!("{name}.{extension}")),
            Storage::Dir { .. } | Storage::Btrfs { .. } => {
                Volid::new(&self.id, &format!("{vmid}/{name}.{extension}"))
            }
            Storage::Other(kind) => Err(unsupported(&self.id, kind)),
        }
    }
}

/// The types whose volumes can be found.
const KINDS: &str = "lvmthin, lvm, dir, nfs, cifs, btrfs, zfspool and rbd";

/// The error for a storage type this version does not handle.
pub(crate) fn unsupported(id: &str, kind: &str) -> Error {
    Error::new(
        Kind::Refused,
        format!("storage {id} is of type {kind}, which this version cannot handle; it can {KINDS}"),
    )
}

#[cfg(test)]
#[path = "storage_cfg/tests.rs"]
mod tests;
