//! Guards around an open image: who it is, that nobody else writes it, and that it is still the
//! same thing when the work is done.

use crate::error::{Error, Kind, Result};
use crate::sys;
use rustix::fs::{flock, statx, AtFlags, FlockOperation, StatxFlags, CWD};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What an image is, across names, links and hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The kernel's boot id: two paths on one running host have the same.
    pub boot_id: String,
    /// Device number of the file system and inode, or (device number, 0) of a block device. A loop device
    /// is the file that it shows from its first byte on.
    pub object: (u64, u64),
}

impl Identity {
    /// The identity of an open file or block device.
    pub fn of(file: &File, path: &Path) -> Result<Identity> {
        let meta = file
            .metadata()
            .map_err(|e| Error::io(format!("cannot stat {}", path.display()), e))?;
        let object = match meta.file_type().is_block_device() {
            true => loop_file(meta.rdev()).unwrap_or((meta.rdev(), 0)),
            false => (meta.dev(), meta.ino()),
        };
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|e| Error::io("cannot read the kernel's boot id", e))?;
        Ok(Identity {
            boot_id: boot_id.trim().to_owned(),
            object,
        })
    }
}

/// The file system's device number and the inode of the file behind a loop device, if `device` is one
/// that starts where the file does.
fn loop_file(device: u64) -> Option<(u64, u64)> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let dir = format!("/sys/dev/block/{major}:{minor}/loop");
    let offset = std::fs::read_to_string(format!("{dir}/offset")).ok()?;
    match offset.trim() {
        "0" => backing_file(Path::new(&dir)),
        _ => None,
    }
}

/// The file named in a loop device's directory in sysfs.
fn backing_file(dir: &Path) -> Option<(u64, u64)> {
    let text = std::fs::read(dir.join("backing_file")).ok()?;
    let name = OsStr::from_bytes(text.strip_suffix(b"\n").unwrap_or(&text));
    let meta = std::fs::metadata(name).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// Takes the locks that keep a second run, QEMU (which takes record locks on its images) and
/// loop devices off a file that is about to be written.
pub(super) fn claim_file(file: &File, path: &Path) -> Result<()> {
    let name = path.display();
    let busy = |who: &str| {
        Error::new(Kind::Busy, format!("{name} is in use by {who}"))
            .advise("stop what uses it, or wait until it is done")
    };
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(busy("another process that has locked it")),
        Err(e) => return Err(Error::io(format!("cannot lock {name}"), e.into())),
    }
    claim_records(file, path)?;
    match loop_device_of(file) {
        Some(device) => Err(busy(&format!("loop device {device}"))),
        None => Ok(()),
    }
}

/// Refuses a device that cannot be written, and keeps QEMU off it. Mounts and other runs are kept off by
/// O_EXCL; an flock would be in the way of udev, which takes one while it looks at a device.
pub(super) fn claim_device(file: &File, path: &Path) -> Result<()> {
    let meta = file
        .metadata()
        .map_err(|e| Error::io(format!("cannot stat {}", path.display()), e))?;
    let (major, minor) = (
        rustix::fs::major(meta.rdev()),
        rustix::fs::minor(meta.rdev()),
    );
    // The kernel lets root open such a device for writing, and then fails each write.
    let flag = std::fs::read(format!("/sys/dev/block/{major}:{minor}/ro"));
    if flag.is_ok_and(|text| text.starts_with(b"1")) {
        let what = format!(
            "cannot open {} for writing: it is read-only",
            path.display()
        );
        return Err(Error::new(Kind::Permission, what));
    }
    claim_records(file, path)
}

/// Takes the record locks that QEMU looks at.
fn claim_records(file: &File, path: &Path) -> Result<()> {
    let name = path.display();
    match rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::ACCESS | Errno::WOULDBLOCK) => Err(Error::new(
            Kind::Busy,
            format!(
                "{name} is in use by another process that holds record locks on it, such as QEMU"
            ),
        )
        .advise("stop what uses it, or wait until it is done")),
        Err(e) => Err(Error::io(format!("cannot lock {name}"), e.into())),
    }
}

/// The loop device whose backing file this is, if any.
fn loop_device_of(file: &File) -> Option<String> {
    let meta = file.metadata().ok()?;
    for entry in std::fs::read_dir("/sys/block").ok()?.flatten() {
        if backing_file(&entry.path().join("loop")) == Some((meta.dev(), meta.ino())) {
            return Some(entry.file_name().to_string_lossy().into_owned());
        }
    }
    None
}

/// The file behind `file` still has `size` bytes and is still what `path` names.
pub(super) fn check_same_file(file: &File, path: &Path, size: u64) -> Result<()> {
    let now = file
        .metadata()
        .map_err(|e| Error::io(format!("cannot stat {}", path.display()), e))?;
    if now.len() != size {
        return Err(changed(
            path,
            format!("it had {size} bytes and now has {}", now.len()),
        ));
    }
    check_named(file, path)
}

/// The open file is still what `path` names.
pub(super) fn check_named(file: &File, path: &Path) -> Result<()> {
    let mine = file
        .metadata()
        .map_err(|e| Error::io(format!("cannot stat {}", path.display()), e))?;
    match std::fs::metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (mine.dev(), mine.ino()) => Ok(()),
        Ok(_) => Err(changed(path, "another file has taken its place")),
        Err(e) => Err(Error::io(
            format!("{} vanished while it was in use", path.display()),
            e,
        )),
    }
}

/// The device behind `file` still has `size` bytes and is still what `path` names.
pub(super) fn check_same_device(file: &File, path: &Path, size: u64) -> Result<()> {
    let now = sys::device_size(file)
        .map_err(|e| Error::io(format!("{} is gone", path.display()), e.into()))?;
    if now != size {
        return Err(changed(
            path,
            format!("it had {size} bytes and now has {now}"),
        ));
    }
    let mine = file
        .metadata()
        .map_err(|e| Error::io(format!("cannot stat {}", path.display()), e))?;
    match std::fs::metadata(path) {
        Ok(named) if named.rdev() == mine.rdev() => Ok(()),
        Ok(_) => Err(changed(path, "another device has taken its name")),
        Err(e) => Err(Error::io(
            format!("{} vanished while it was in use", path.display()),
            e,
        )),
    }
}

fn changed(path: &Path, how: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Io,
        format!("{} changed while it was in use: {how}", path.display()),
    )
    .advise("sync from a snapshot, or stop whatever changes it, and run again")
}

/// Writes back and drops what the page cache holds of the file, so that reads come from the medium.
pub(super) fn drop_cache(file: &File, name: &str) -> Result<()> {
    file.sync_all()
        .map_err(|e| Error::io(format!("cannot flush {name}"), e))?;
    super::cache::drop_clean(file)
        .map_err(|e| Error::io(format!("cannot drop the cache of {name}"), e.into()))
}

/// Whether a block device is mounted or otherwise held, for a message better than EBUSY.
pub(super) fn holders_of(path: &Path) -> Option<String> {
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS).ok()?;
    let numbers = format!("{}:{}", stat.stx_rdev_major, stat.stx_rdev_minor);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if fields.get(2) == Some(&numbers.as_str()) {
            return fields.get(4).map(|at| format!("it is mounted on {at}"));
        }
    }
    let holders = std::fs::read_dir(format!("/sys/dev/block/{numbers}/holders")).ok()?;
    let names: Vec<String> = holders
        .flatten()
        .map(|h| h.file_name().to_string_lossy().into_owned())
        .collect();
    (!names.is_empty()).then(|| format!("it is held by {}", names.join(", ")))
}
