//! What a move leaves on the host to which a domain goes, for the hook to find when libvirt receives the domain there.

use rblocksync::error::{Error, Kind, Result};
use rblocksync::files::remove_present;
use rblocksync::replica::{read_json, write_json, Layout};
use rustix::fs::{flock, FlockOperation};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What is agreed about a domain that is to arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// Its UUID.
    pub uuid: Uuid,
    /// The epoch in which it is sent. A host that has seen a newer one does not take it.
    pub epoch: u64,
    /// A file that the move holds an flock on for as long as it is under way.
    pub lease: PathBuf,
    /// Images that were compared with the source's, and must not have changed since.
    #[serde(default)]
    pub bases: Vec<Base>,
    /// Paths of disks in the definition that arrives, and what they are here. This changes how the domain runs; its
    /// definition for the next start is the migration's affair (`--persistent-xml`).
    #[serde(default)]
    pub paths: Vec<(String, String)>,
}

/// What an image was like when it was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Where it is.
    pub path: PathBuf,
    /// Inode, or number of the device.
    pub identity: u64,
    /// Bytes; 0 for a device.
    pub size: u64,
    /// When it was written last, in seconds and nanoseconds; of a device nothing tells that.
    pub written: (i64, i64),
}

impl Base {
    /// As it is now.
    pub fn of(path: &Path) -> Result<Base> {
        let meta = std::fs::metadata(path)
            .map_err(|e| Error::io(format!("cannot look at {}", path.display()), e))?;
        let is_file = meta.is_file();
        Ok(Base {
            path: path.to_owned(),
            identity: if is_file { meta.ino() } else { meta.rdev() },
            size: if is_file { meta.len() } else { 0 },
            written: if is_file {
                (meta.mtime(), meta.mtime_nsec())
            } else {
                (0, 0)
            },
        })
    }
}

/// Where it is.
pub(super) fn path(layout: &Layout, vm: &str) -> PathBuf {
    layout
        .root()
        .join("hook/expected")
        .join(format!("{vm}.json"))
}

/// Leaves a note for the arrival of `vm`; durable when this returns.
pub fn leave(layout: &Layout, vm: &str, note: &Note) -> Result<()> {
    write_json(&path(layout, vm), note)
}

/// Takes the note back, when the domain is there or the move has ended. One that is gone is fine.
pub fn withdraw(layout: &Layout, vm: &str) -> Result<()> {
    remove_present(&path(layout, vm)).map(drop)
}

pub(super) fn find(layout: &Layout, vm: &str) -> Result<Option<Note>> {
    let path = path(layout, vm);
    // Also where something else is in the place of a directory above it.
    if !path.exists() {
        return Ok(None);
    }
    read_json(&path)
}

impl Note {
    /// Whether the move that left it is still under way; fails with [`Kind::Refused`].
    pub(super) fn check_lease(&self, layout: &Layout, vm: &str) -> Result<()> {
        let held = File::open(&self.lease)
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err());
        match held {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Refused,
                format!("the move that domain {vm} belongs to has ended"),
            )
            .advise(format!(
                "begin it again; if there is none, remove {}",
                path(layout, vm).display()
            ))),
        }
    }

    /// Whether the images are what they were when they were compared; fails with [`Kind::Refused`].
    pub(super) fn check_bases(&self, vm: &str) -> Result<()> {
        for base in &self.bases {
            if Base::of(&base.path).ok().as_ref() != Some(base) {
                return Err(Error::new(
                    Kind::Refused,
                    format!(
                        "{} has changed since it was compared with the disk of {vm}",
                        base.path.display()
                    ),
                )
                .advise("what would be sent now would not fit it: begin the move again"));
            }
        }
        Ok(())
    }
}
