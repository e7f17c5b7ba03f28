//! Where Proxmox keeps a raw disk on btrfs: alone in a subvolume, of which it takes snapshots. Forks and generations are
//! beside the disk, so that they go with it.

use super::io;
use crate::cmd::{Cmd, Tool};
use crate::error::{Error, Kind, Result};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

/// The inode of a subvolume's root: BTRFS_FIRST_FREE_OBJECTID.
const ROOT_INODE: u64 = 256;

fn dir_of(path: &Path) -> Result<&Path> {
    path.parent().ok_or_else(|| {
        Error::new(
            Kind::Usage,
            format!("{} is in no subvolume", path.display()),
        )
    })
}

/// Makes the subvolume of the volume `path`, if it is not there.
pub fn ensure_subvolume(path: &Path) -> Result<()> {
    let dir = dir_of(path)?;
    match std::fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_dir() && meta.ino() == ROOT_INODE => return Ok(()),
        Ok(_) => {
            return Err(Error::new(
                Kind::Refused,
                format!("{} exists and is no subvolume of btrfs", dir.display()),
            )
            .advise("remove or rename it, or choose another storage or VM id on the target"));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(io("stat", dir, e)),
    }
    if let Some(above) = dir.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(above)
            .map_err(|e| io("create", above, e))?;
    }
    Cmd::new(Tool::Btrfs)
        .args(["subvolume", "create", "--"])
        .arg(dir)
        .run()
        .map(drop)
}

/// Removes the subvolume of the volume `path` if nothing is left in it.
pub fn remove_subvolume(path: &Path) -> Result<()> {
    let dir = dir_of(path)?;
    match std::fs::remove_dir(dir) {
        Ok(()) => Ok(()),
        // Somebody's files are theirs.
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Ok(())
        }
        Err(e) => Err(io("remove", dir, e)),
    }
}
