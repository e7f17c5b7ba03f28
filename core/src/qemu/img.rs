//! qemu-img: what is done to a qcow2 file as a whole. The format is always named, so nothing is guessed from content; a
//! path is absolute, so no part of it is taken for a protocol or an option.

use crate::cmd::{Cmd, Tool};
use crate::error::{Error, Kind, Result};
use crate::image::ImageFormat;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Checks read all metadata: 128 MiB a TiB, and on a slow disk not in order.
const CHECK_TIME: Duration = Duration::from_secs(3600);
/// Shrinking frees clusters one by one.
const RESIZE_TIME: Duration = Duration::from_secs(600);

/// What `qemu-img check` says of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// All is as it should be.
    Good,
    /// Some clusters are lost to it; the guest's bytes are right.
    Leaks,
    /// Its metadata contradicts itself.
    Corrupt,
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io(format!("cannot find {}", path.display()), e))
}

/// A qcow2 disk has whole sectors of 512 bytes. Refuses another size with [`Kind::Refused`].
pub fn check_size(size: u64) -> Result<()> {
    match size % 512 {
        0 => Ok(()),
        _ => Err(Error::new(
            Kind::Refused,
            format!("a qcow2 image cannot have {size} bytes, only multiples of 512"),
        )
        .advise("make the source a multiple of 512 bytes long, or the target raw")),
    }
}

/// Makes the file at `path`, which may exist, an empty qcow2 image of a disk of `size` bytes. A file that exists keeps its
/// owner, mode and attributes.
pub fn create(path: &Path, size: u64) -> Result<()> {
    check_size(size)?;
    Cmd::new(Tool::QemuImg)
        .args(["create", "-q", "-f", "qcow2", "--"])
        .arg(absolute(path)?)
        .arg(size.to_string())
        .run()
        .map(drop)
}

/// Makes the file at `path`, which may exist, an empty qcow2 image over `backing`, whose format is named in it: so nobody
/// guesses that from what a guest could write.
pub fn overlay(path: &Path, backing: &Path, format: ImageFormat) -> Result<()> {
    Cmd::new(Tool::QemuImg)
        .args([
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            &format.to_string(),
            "-b",
        ])
        .arg(absolute(backing)?)
        .arg("--")
        .arg(absolute(path)?)
        .run()
        .map(drop)
}

/// Has QEMU note from now on in a bitmap `name` of the qcow2 image at `path`, which nobody has open, what is written to it.
pub fn begin_bitmap(path: &Path, name: &str) -> Result<()> {
    Cmd::new(Tool::QemuImg)
        .args(["bitmap", "--add", "-f", "qcow2", "--"])
        .arg(absolute(path)?)
        .arg(name)
        .run()
        .map(drop)
}

/// Gives the qcow2 image at `path`, whose disk has `now` bytes, a disk of `size` bytes. What is new reads as zeros.
pub fn resize(path: &Path, now: u64, size: u64) -> Result<()> {
    check_size(size)?;
    if now == size {
        return Ok(());
    }
    let shrink: &[&str] = if size < now { &["--shrink"] } else { &[] };
    Cmd::new(Tool::QemuImg)
        .args(["resize", "-q", "-f", "qcow2"])
        .args(shrink)
        .arg("--")
        .arg(absolute(path)?)
        .arg(size.to_string())
        .timeout(RESIZE_TIME)
        .run()
        .map(drop)
}

/// Checks the qcow2 image at `path`; with `repair`, clusters that are lost to it are freed first, and nothing else is
/// touched. Fails with [`Kind::Busy`] if a QEMU has it open for writing.
pub fn check(path: &Path, repair: bool) -> Result<Health> {
    let repair: &[&str] = if repair { &["-r", "leaks"] } else { &[] };
    let checked = Cmd::new(Tool::QemuImg)
        .args(["check", "-q", "-f", "qcow2"])
        .args(repair)
        .arg("--")
        .arg(absolute(path)?)
        .timeout(CHECK_TIME)
        .accept(&[2, 3])
        .run()?;
    // The exit codes of qemu-img(1).
    Ok(match checked.code {
        0 => Health::Good,
        3 => Health::Leaks,
        _ => Health::Corrupt,
    })
}

/// Puts right what a program that was killed leaves in an image: lost clusters. Whatever is worse is an error of kind
/// [`Kind::Digest`].
pub fn recover(path: &Path) -> Result<()> {
    let health = match check(path, false)? {
        Health::Leaks => check(path, true)?,
        health => health,
    };
    match health {
        Health::Good => Ok(()),
        Health::Leaks | Health::Corrupt => Err(Error::new(
            Kind::Digest,
            format!("{} is corrupt", path.display()),
        )
        .advise("look at it with qemu-img check")),
    }
}
