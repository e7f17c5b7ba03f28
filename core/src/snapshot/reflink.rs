//! Reflink clones of image files as points in time.
//!
//! The clone lies beside its file as `.NAME.rbs-RUN`, marked with its owner in an extended attribute. It
//! gets its name only when it is complete and marked, so one that is not never shows, whenever we die.

use crate::error::{Error, Kind, Result};
use crate::files::remove_present;
use crate::lvm::OwnerTag;
use rustix::fs::{
    fgetxattr, fsetxattr, ioctl_ficlone, linkat, open, openat, AtFlags, Mode, OFlags, XattrFlags,
    CWD,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

const OWNER_ATTRIBUTE: &str = "user.rbs.owner";

/// The name of the clone of `file` in this run. `file` must have no links in it.
pub(super) fn clone_path(file: &Path, run: &str) -> Result<PathBuf> {
    let (dir, name) = parts(file)?;
    let mut clone = prefix(name);
    clone.push(run);
    Ok(dir.join(clone))
}

/// Why no clone of `file` can be made, if none can: tried with two empty files in its directory.
pub(super) fn unsupported(file: &Path) -> Result<Option<String>> {
    let (dir, _) = parts(file)?;
    let tried = nameless(dir).and_then(|a| nameless(dir).and_then(|b| ioctl_ficlone(&a, &b)));
    Ok(match tried {
        Ok(()) => None,
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::ISDIR) => {
            Some("its file system makes no reflink clones".into())
        }
        Err(e) => Some(format!(
            "no clone can be made in its directory: {}",
            io::Error::from(e)
        )),
    })
}

/// Clones `file` as `clone`.
pub(super) fn take(file: &Path, clone: &Path, owner: &OwnerTag) -> Result<()> {
    let failed = |e: Errno| {
        Error::io(
            format!("cannot clone {} as {}", file.display(), clone.display()),
            e.into(),
        )
    };
    let source = open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let target = nameless(parts(clone)?.0).map_err(failed)?;
    let mark = owner.tag().as_str().as_bytes();
    fsetxattr(&target, OWNER_ATTRIBUTE, mark, XattrFlags::empty()).map_err(failed)?;
    ioctl_ficlone(&target, &source).map_err(failed)?;
    let nameless_path = format!("/proc/self/fd/{}", target.as_raw_fd());
    linkat(CWD, nameless_path, CWD, clone, AtFlags::SYMLINK_FOLLOW).map_err(failed)
}

/// Removes a clone of ours. Success if it is gone.
pub(super) fn remove(clone: &Path, owner: &OwnerTag) -> Result<()> {
    let failed = |e: io::Error| Error::io(format!("cannot remove {}", clone.display()), e);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match open(clone, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(failed(e.into())),
    };
    if !is_marked(&file, owner) {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "will not remove {}: it does not carry our mark",
                clone.display()
            ),
        ));
    }
    remove_present(clone).map(drop)
}

/// The clones of `file` by any run of this owner.
pub(super) fn find(file: &Path, owner: &OwnerTag) -> Result<Vec<PathBuf>> {
    let (dir, name) = parts(file)?;
    let prefix = prefix(name);
    let failed = |e: io::Error| Error::io(format!("cannot list {}", dir.display()), e);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if !name
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes())
        {
            continue;
        }
        let path = dir.join(name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        if open(&path, flags, Mode::empty()).is_ok_and(|file| is_marked(&file, owner)) {
            found.push(path);
        }
    }
    Ok(found)
}

fn is_marked(file: &OwnedFd, owner: &OwnerTag) -> bool {
    let mut mark = [0u8; 256];
    fgetxattr(file, OWNER_ATTRIBUTE, &mut mark[..])
        .is_ok_and(|len| mark.get(..len) == Some(owner.tag().as_str().as_bytes()))
}

fn nameless(dir: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    openat(CWD, dir, flags, Mode::RUSR | Mode::WUSR)
}

fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".rbs-");
    prefix
}

fn parts(file: &Path) -> Result<(&Path, &OsStr)> {
    match (file.parent(), file.file_name()) {
        (Some(dir), Some(name)) => Ok((dir, name)),
        _ => Err(Error::new(
            Kind::Usage,
            format!("{} is not the path of a file", file.display()),
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_file_system_without_clones_says_so() {
        // tmpfs has none.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let reason = unsupported(&dir.path().join("disk")).unwrap();
        assert!(reason.unwrap().contains("no reflink"));
        let missing = unsupported(&dir.path().join("no/disk")).unwrap();
        assert!(missing.unwrap().contains("No such file"));
    }

    #[test]
    fn only_marked_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let owner = OwnerTag::new(Uuid::new_v4());
        let file = dir.path().join("disk 1.raw");
        let clone = clone_path(&file, "0af").unwrap();
        assert_eq!(clone, dir.path().join(".disk 1.raw.rbs-0af"));
        assert!(remove(&clone, &owner).is_ok(), "gone is fine");
        fs::write(&clone, "a user's").unwrap();
        assert_eq!(remove(&clone, &owner).unwrap_err().kind(), Kind::Refused);
        assert!(find(&file, &owner).unwrap().is_empty());
        assert!(clone.exists());

        let handle = open(&clone, OFlags::RDWR, Mode::empty()).unwrap();
        let mark = owner.tag().as_str().as_bytes();
        fsetxattr(&handle, OWNER_ATTRIBUTE, mark, XattrFlags::empty()).unwrap();
        let other = OwnerTag::new(Uuid::new_v4());
        assert_eq!(remove(&clone, &other).unwrap_err().kind(), Kind::Refused);
        assert_eq!(find(&file, &owner).unwrap(), std::slice::from_ref(&clone));
        remove(&clone, &owner).unwrap();
        assert!(!clone.exists());
    }
}
