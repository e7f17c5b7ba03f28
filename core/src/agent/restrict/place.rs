//! Whether a path is one that a policy names, by what is really there.
//!
//! What is looked at is held open, and what was opened afterwards must be the same: a link that is swapped in between
//! leads to a refusal, before anything is read or written.

use super::policy::Policy;
use crate::agent::block::{part_path, path_of};
use crate::error::{Error, Kind, Result};
use crate::image::Identity;
use crate::lvm;
use rustix::fs::{Mode, OFlags, CWD};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// What was looked at, to compare it with what was opened.
pub(super) enum Seen {
    /// It exists.
    There(Identity),
    /// It does not: the directory that it is to be in, and the name that it has until it is complete.
    Missing { dir: File, part: OsString },
}

impl Seen {
    /// Fails unless `opened` is what was looked at. `None` is what a dry run would create.
    pub fn check(&self, path: &Path, opened: Option<&Identity>) -> Result<()> {
        let same = match (self, opened) {
            (Seen::There(seen), Some(opened)) => seen == opened,
            (Seen::Missing { dir, part }, Some(opened)) => {
                let made = open_in(dir, Path::new(part)).map_err(|e| cannot(path, e.into()))?;
                Identity::of(&made, path)? == *opened
            }
            (Seen::Missing { .. }, None) => true,
            (Seen::There(_), None) => false,
        };
        match same {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Refused,
                format!("{} changed while it was opened", path.display()),
            )),
        }
    }
}

fn cannot(path: &Path, e: std::io::Error) -> Error {
    Error::io(format!("cannot look at {}", path.display()), e)
}

/// Opens without touching, and without following a last link.
fn open_in(dir: impl AsFd, path: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, path, flags, Mode::empty()).map(File::from)
}

/// Where an open file really is.
fn real_path(file: &File, path: &Path) -> Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(link).map_err(|e| cannot(path, e))
}

/// An absolute path off the wire, without steps upwards.
pub(super) fn plain(bytes: &[u8]) -> Result<PathBuf> {
    let path = path_of(bytes)?;
    let upwards = path.components().any(|c| c == Component::ParentDir);
    match path.is_absolute() && !upwards {
        true => Ok(path),
        false => Err(Error::new(
            Kind::Refused,
            "under a policy a path begins at the root and never goes up",
        )),
    }
}

fn not_named(path: &Path) -> Error {
    Error::new(
        Kind::Refused,
        format!("the policy of this key does not name {}", path.display()),
    )
    .advise("name it under volumes in the policy on that host, if it is to be")
}

/// Looks at a file or device that the policy must name. With `create` it may be missing, if its directory is there.
pub(super) fn look(policy: &Policy, path: &Path, create: bool) -> Result<Seen> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => {
            let file = File::from(fd);
            named(policy, &file, path)?;
            Ok(Seen::There(Identity::of(&file, path)?))
        }
        Err(Errno::NOENT) if create => missing(policy, path),
        // Whether something is there is told only of what is named.
        Err(Errno::NOENT) if policy.allows_path(path) => {
            let what = format!("{} does not exist", path.display());
            Err(Error::new(Kind::NotFound, what))
        }
        Err(_) => Err(not_named(path)),
    }
}

/// Whether what is open is named: a logical volume by its name, all else by its real path.
fn named(policy: &Policy, file: &File, path: &Path) -> Result<()> {
    let meta = file.metadata().map_err(|e| cannot(path, e))?;
    let lv = match meta.file_type().is_block_device() {
        true => lvm::id_of_device(meta.rdev()),
        false => None,
    };
    let allowed = match lv {
        Some(lv) => policy.allows_lv(&lv),
        None => policy.allows_path(&real_path(file, path)?),
    };
    match allowed {
        true => Ok(()),
        false => Err(not_named(path)),
    }
}

fn missing(policy: &Policy, path: &Path) -> Result<Seen> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(not_named(path));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, parent, flags, Mode::empty()).map_err(|_| not_named(path))?;
    let dir = File::from(dir);
    if !policy.allows_path(&real_path(&dir, path)?.join(name)) {
        return Err(not_named(path));
    }
    let part = part_path(path)?;
    let part = part.file_name().unwrap_or_default().to_owned();
    match open_in(&dir, Path::new(&part)) {
        // One that an earlier run left goes on only as a plain file.
        Ok(left) if !left.metadata().is_ok_and(|m| m.is_file() && m.nlink() == 1) => {
            let what = format!("{} is in the way", Path::new(&part).display());
            Err(Error::new(Kind::Refused, what))
        }
        _ => Ok(Seen::Missing { dir, part }),
    }
}

/// Looks at an image of ours, whose path is known: whatever is there must be itself and no link, or a logical volume.
pub(super) fn look_at_own(path: &Path, is_lv: bool) -> Result<Seen> {
    let file = match is_lv {
        true => rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map(File::from),
        false => open_in(CWD, path),
    };
    let file = file.map_err(|e| cannot(path, e.into()))?;
    let meta = file.metadata().map_err(|e| cannot(path, e))?;
    let right = match is_lv {
        true => meta.file_type().is_block_device() && is_path_of_lv(path, meta.rdev()),
        false => meta.is_file(),
    };
    match right {
        true => Ok(Seen::There(Identity::of(&file, path)?)),
        false => Err(Error::new(
            Kind::Refused,
            format!("{} is not the volume that was made", path.display()),
        )),
    }
}

fn is_path_of_lv(path: &Path, device: u64) -> bool {
    lvm::id_of_device(device).is_some_and(|lv| lv.path() == path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn policy(dir: &Path) -> Policy {
        let volumes = format!(
            "access = \"write\"\nvolumes = [\"{}/in/*.img\"]",
            dir.display()
        );
        Policy::parse(&volumes).unwrap()
    }

    fn world() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(dir.path()).unwrap();
        for name in ["in", "out"] {
            std::fs::create_dir(root.join(name)).unwrap();
            std::fs::write(root.join(name).join("a.img"), name).unwrap();
        }
        (dir, root)
    }

    #[test]
    fn paths_are_judged_by_where_they_lead() {
        let (_dir, root) = world();
        let policy = policy(&root);
        symlink(root.join("out/a.img"), root.join("in/link.img")).unwrap();
        symlink(root.join("in/a.img"), root.join("out/link.img")).unwrap();
        symlink(root.join("out"), root.join("in/dir.img")).unwrap();
        look(&policy, &root.join("in/a.img"), false).unwrap();
        look(&policy, &root.join("in/new.img"), true).unwrap();
        // It leads to what is named.
        look(&policy, &root.join("out/link.img"), false).unwrap();
        for (path, create) in [
            ("in/link.img", false),
            ("in/link.img", true),
            ("in/dir.img/a.img", false),
            ("in/dir.img/new.img", true),
            ("out/a.img", false),
            ("out/new.img", true),
            ("in/a.raw", true),
            ("in", false),
        ] {
            let error = look(&policy, &root.join(path), create).err();
            assert_eq!(error.map(|e| e.kind()), Some(Kind::Refused), "{path}");
        }
        for bytes in [b"in/a.img".as_slice(), b"/a/../b", b"", b"/a\0b"] {
            assert!(plain(bytes).is_err());
        }
    }

    #[test]
    fn a_link_that_is_swapped_after_the_look_is_noticed() {
        let (_dir, root) = world();
        let policy = policy(&root);
        let path = root.join("in/a.img");
        let seen = look(&policy, &path, false).unwrap();
        let identity = |path: &Path| Identity::of(&File::open(path).unwrap(), path).unwrap();
        seen.check(&path, Some(&identity(&path))).unwrap();
        std::fs::remove_file(&path).unwrap();
        symlink(root.join("out/a.img"), &path).unwrap();
        let opened = identity(&path);
        assert!(seen.check(&path, Some(&opened)).is_err());

        let new = root.join("in/new.img");
        let seen = look(&policy, &new, true).unwrap();
        std::fs::rename(root.join("in"), root.join("was")).unwrap();
        symlink(root.join("out"), root.join("in")).unwrap();
        let part = root.join("in/.new.img.rblocksync-part");
        std::fs::write(&part, "").unwrap();
        assert!(seen.check(&new, Some(&identity(&part))).is_err());
    }
}
