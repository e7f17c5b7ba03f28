//! Names of Proxmox things: VM ids, volume ids (`storage:volume`), and what a volume name means on the
//! kinds of storages.
//!
//! A name read from a configuration is data that later becomes a path or an argument of a tool. So a
//! name that Proxmox itself would never write (a `..`, a leading dash, a control character) is refused
//! here, once, and everything behind this module may rely on it.

mod flat;

use rblocksync::error::{Error, Kind, Result};
use std::fmt;
use std::str::FromStr;

/// Longest volume name taken; file names end at 255 bytes and a volume name has at most four parts.
const MAX_VOLNAME_BYTES: usize = 1024;
/// Longest LV or file name taken: NAME_MAX of Linux, and well above lvm2's 127.
const MAX_NAME_BYTES: usize = 255;

/// The number of a VM or container: unique within a cluster, 100 to 999999999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vmid(u32);

impl Vmid {
    /// Takes a number in Proxmox's range.
    pub fn new(number: u32) -> Result<Vmid> {
        if (100..=999_999_999).contains(&number) {
            return Ok(Vmid(number));
        }
        Err(Error::new(Kind::Usage, format!("{number} is not a VM id"))
            .advise("VM ids are numbers from 100 to 999999999"))
    }

    /// The plain number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vmid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Vmid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Vmid> {
        // A leading zero would make two spellings of one VM, and Proxmox refuses it too.
        let plain = text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if plain && !text.starts_with('0') => Vmid::new(number),
            _ => Err(Error::new(Kind::Usage, format!("{text:?} is not a VM id"))
                .advise("VM ids are numbers from 100 to 999999999")),
        }
    }
}

/// A volume as Proxmox names it, `storage:volume`. Well formed, but not known to exist.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Volid {
    storage: String,
    volname: String,
}

impl Volid {
    /// Takes `storage:volume` apart and refuses names that could mean something else as a path or argument.
    pub fn parse(text: &str) -> Result<Volid> {
        let Some((storage, volname)) = text.split_once(':') else {
            return Err(bad_volid(text, "there is no ':' after the storage name"));
        };
        Volid::new(storage, volname)
    }

    /// Puts a volume id together from its two parts, with the same checks as [`Volid::parse`].
    pub fn new(storage: &str, volname: &str) -> Result<Volid> {
        let whole = || format!("{storage}:{volname}");
        if !is_storage_id(storage) {
            return Err(bad_volid(&whole(), "that is not a storage name"));
        }
        if let Some(why) = fault_of_volname(volname) {
            return Err(bad_volid(&whole(), why));
        }
        Ok(Volid {
            storage: storage.to_owned(),
            volname: volname.to_owned(),
        })
    }

    /// The storage's id in storage.cfg.
    pub fn storage(&self) -> &str {
        &self.storage
    }

    /// What follows the colon; its meaning depends on the storage's type.
    pub fn volname(&self) -> &str {
        &self.volname
    }

    /// Whether this is a generated cloud-init drive, or the request for one (`STORE:cloudinit`).
    pub fn is_cloudinit(&self) -> bool {
        let name = last_part(&self.volname);
        let name = match name.rsplit_once('.') {
            Some((stem, extension)) if Format::from_extension(extension).is_some() => stem,
            _ => name,
        };
        name == "cloudinit"
            || name
                .strip_prefix("vm-")
                .and_then(|rest| rest.strip_suffix("-cloudinit"))
                .is_some_and(|vmid| !vmid.is_empty() && vmid.bytes().all(|b| b.is_ascii_digit()))
    }

    /// Whether this names a CD image of a storage's ISO collection.
    pub fn is_iso(&self) -> bool {
        self.volname.starts_with("iso/")
    }
}

impl fmt::Display for Volid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.storage, self.volname)
    }
}

/// Whether `text` can be a storage's id: Proxmox wants a letter, then at least one more character.
pub fn is_storage_id(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    text.len() >= 2
        && text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(inner)
}

fn fault_of_volname(volname: &str) -> Option<&'static str> {
    if volname.len() > MAX_VOLNAME_BYTES {
        return Some("the name is too long");
    }
    if volname.chars().any(char::is_control) {
        return Some("the name holds a control character");
    }
    if volname.contains(',') {
        return Some("a comma cannot be part of a volume name");
    }
    for part in volname.split('/') {
        if part.trim().is_empty() {
            return Some("part of the name is empty");
        }
        if part == "." || part == ".." {
            return Some("'.' and '..' are not allowed in it");
        }
        if part.starts_with('-') {
            return Some("part of the name starts with a dash");
        }
        if part.trim() != part {
            return Some("part of the name starts or ends with a blank");
        }
    }
    None
}

fn bad_volid(text: &str, why: &str) -> Error {
    Error::new(Kind::Refused, format!("{text:?} is not a volume id: {why}"))
}

fn last_part(volname: &str) -> &str {
    volname.rsplit('/').next().unwrap_or(volname)
}

/// How the bytes of a volume are arranged, as the name on the storage says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The guest's bytes as they are.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
    /// VMware's format.
    Vmdk,
    /// A directory tree of a container.
    Subvol,
}

impl Format {
    /// The format of a file with this extension, as Proxmox decides it.
    pub fn from_extension(extension: &str) -> Option<Format> {
        Some(match extension {
            "raw" => Format::Raw,
            "qcow2" => Format::Qcow2,
            "vmdk" => Format::Vmdk,
            "subvol" => Format::Subvol,
            _ => return None,
        })
    }

    /// The file name extension, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vmdk => "vmdk",
            Format::Subvol => "subvol",
        }
    }
}

/// What a volume is for, as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A disk of a VM.
    Disk,
    /// The read-only disk of a template.
    Base,
    /// A generated cloud-init drive.
    CloudInit,
    /// Saved memory of a snapshot or of a suspended VM.
    VmState,
}

/// What a volume name says on the kind of storage it lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The VM the volume belongs to.
    pub owner: Vmid,
    /// What it is for.
    pub role: Role,
    /// Name of the LV, or of the file within the owner's directory.
    pub name: String,
    /// How its bytes are arranged.
    pub format: Format,
    /// Linked clones only: the base volume it builds on, as `VMID/name` on a directory, else its name.
    pub base: Option<String>,
}

impl Volume {
    /// Reads the name of a VM volume on a `dir` storage: `101/vm-101-disk-0.qcow2`, or a linked clone
    /// `100/base-100-disk-0.qcow2/101/vm-101-disk-0.qcow2`.
    pub fn on_dir(volid: &Volid) -> Result<Volume> {
        let wrong = |why: &str| {
            Error::new(
                Kind::Refused,
                format!("{volid} cannot be a disk on a directory storage: {why}"),
            )
        };
        let parts: Vec<&str> = volid.volname().split('/').collect();
        let (base, owner, name) = match parts[..] {
            [owner, name] => (None, owner, name),
            [base_owner, base, owner, name] => (Some(format!("{base_owner}/{base}")), owner, name),
            _ => return Err(wrong("it is not of the form VMID/FILE")),
        };
        let owner: Vmid = owner
            .parse()
            .map_err(|_| wrong("its directory is not a VM id"))?;
        if name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain_file_byte) {
            return Err(wrong(
                "the file name holds characters that Proxmox does not use in disk names",
            )
            .advise("rename the file, and the disk in the VM's configuration with it"));
        }
        let Some(format) = name
            .rsplit_once('.')
            .filter(|(stem, _)| !stem.is_empty())
            .and_then(|(_, extension)| Format::from_extension(extension))
        else {
            return Err(wrong(
                "the file name does not end in .raw, .qcow2, .vmdk or .subvol",
            ));
        };
        // Proxmox takes any file name here; only the well-known ones carry a role.
        let role = owner_and_role(name).map_or(Role::Disk, |(_, role)| role);
        Ok(Volume {
            owner,
            role,
            name: name.to_owned(),
            format,
            base,
        })
    }
}

/// The characters disk files have in practice. Stricter than Proxmox (anything without blanks), so that
/// no tool down the line can take a file name for an option, a list or a URL.
fn is_plain_file_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"._+-@=%~".contains(&b)
}

fn owner_and_role(name: &str) -> Option<(Vmid, Role)> {
    let (is_base, rest) = match name.strip_prefix("vm-") {
        Some(rest) => (false, rest),
        None => (true, name.strip_prefix("base-")?),
    };
    let (owner, what) = rest.split_once('-')?;
    let owner = owner.parse().ok()?;
    if what.is_empty() {
        return None;
    }
    let role = if is_base {
        Role::Base
    } else if what == "cloudinit" || what.starts_with("cloudinit.") {
        Role::CloudInit
    } else if what.starts_with("state-") {
        Role::VmState
    } else {
        Role::Disk
    };
    Some((owner, role))
}

#[cfg(test)]
#[path = "volid/tests.rs"]
mod tests;
