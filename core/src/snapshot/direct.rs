//! Disks of a stopped VM that are read where they are: what shows that they were left alone meanwhile.

use crate::error::{Error, Kind, Result};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What changes with a file's content. Of a device it is only which device it is: that nobody wrote to it
/// rests on the VM being stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

pub(super) fn fingerprint(path: &Path) -> Result<Fingerprint> {
    let found = fs::metadata(path)
        .map_err(|e| Error::io(format!("cannot look at {}", path.display()), e))?;
    let is_file = found.is_file();
    if !is_file && !found.file_type().is_block_device() {
        return Err(Error::new(
            Kind::Usage,
            format!("{} is neither a file nor a block device", path.display()),
        ));
    }
    Ok(Fingerprint {
        device: if is_file { found.dev() } else { found.rdev() },
        inode: if is_file { found.ino() } else { 0 },
        size: if is_file { found.size() } else { 0 },
        modified: if is_file {
            (found.mtime(), found.mtime_nsec())
        } else {
            (0, 0)
        },
    })
}

pub(super) fn check_unchanged(path: &Path, before: &Fingerprint) -> Result<()> {
    if fingerprint(path)? == *before {
        return Ok(());
    }
    Err(Error::new(
        Kind::Busy,
        format!("{} was changed while it was being read", path.display()),
    )
    .advise("find out who writes to it and run again"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_write_or_an_exchange_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::write(&path, "one").unwrap();
        let before = fingerprint(&path).unwrap();
        check_unchanged(&path, &before).unwrap();
        fs::write(dir.path().join("other"), "two").unwrap();
        fs::rename(dir.path().join("other"), &path).unwrap();
        let error = check_unchanged(&path, &before).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        let before = fingerprint(&path).unwrap();
        fs::write(&path, "longer").unwrap();
        assert!(check_unchanged(&path, &before).is_err());
        fs::remove_file(&path).unwrap();
        assert_eq!(
            check_unchanged(&path, &before).unwrap_err().kind(),
            Kind::NotFound
        );
        assert_eq!(fingerprint(dir.path()).unwrap_err().kind(), Kind::Usage);
    }
}
