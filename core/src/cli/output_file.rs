//! Files that are written for people and for other programs, under names that are given: complete, or not there, and
//! never in the place of something else.

use crate::error::{Error, Kind, Result};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// How much of a file is looked at to tell what it is, in bytes.
const HEAD_BYTES: u64 = 16;

/// Something that takes the place of an earlier one of its kind, and of nothing else.
pub(crate) struct Replacing {
    /// What it is called: "map".
    pub name: &'static str,
    /// What a file must be that it replaces: "picture".
    pub kind: &'static str,
    /// The option that tells its name.
    pub option: &'static str,
    /// Whether a file that begins so is one.
    pub is_one: fn(&[u8]) -> bool,
}

impl Replacing {
    /// What is at `path` already may only be one of the kind, or empty. With a slip of the finger it could be a disk image.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let Ok(meta) = fs::symlink_metadata(path) else {
            return Ok(());
        };
        let refused = |why: &str| {
            Err(
                Error::new(Kind::Refused, format!("{} is {why}", path.display())).advise(format!(
                    "the {} would take its place: give another name after {}",
                    self.name, self.option
                )),
            )
        };
        if meta.is_symlink() {
            return refused("a symbolic link");
        }
        if !meta.is_file() {
            return refused("not a file");
        }
        let mut head = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head))
            .map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?;
        match head.is_empty() || (self.is_one)(&head) {
            true => Ok(()),
            false => refused(&format!("there and not a {}", self.kind)),
        }
    }
}

/// The directory that a path is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Writes a file that anybody may read, with this mode, so that there is the old one or the new one, also after a power
/// cut. Makes its directory if there is none.
pub fn replace_file(path: &Path, text: &str, mode: u32) -> Result<()> {
    let cannot = |e| Error::io(format!("cannot write {}", path.display()), e);
    let dir = parent(path);
    fs::create_dir_all(dir).map_err(cannot)?;
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(cannot)?;
    file.write_all(text.as_bytes()).map_err(cannot)?;
    let mode = Permissions::from_mode(mode);
    file.as_file().set_permissions(mode).map_err(cannot)?;
    file.as_file().sync_all().map_err(cannot)?;
    file.persist(path).map_err(|e| cannot(e.error))?;
    let dir = fs::File::open(dir).map_err(cannot)?;
    dir.sync_all().map_err(cannot)
}
