//! A replica's volume that is a file. For `images/101/vm-101-disk-1.raw` the fork and the generations
//! are hidden files beside it. Where the file system shares blocks between files (XFS, btrfs), older
//! generations are kept at the cost of their changes; elsewhere only the newest one is, as the head.
//!
//! Ownership is an extended attribute, which survives renames and goes with the file.

mod format;
mod subvolume;

pub(super) use format::{check_fork, settle_fork, Image};
pub(super) use subvolume::{ensure_subvolume, remove_subvolume};

use super::manifest::generation_name;
use super::volume::Sealed;
use crate::error::{Error, Kind, Result};
use crate::image::{flush_parent, ImageFormat};
use crate::runbook::Runbook;
use rustix::fs::{fgetxattr, fsetxattr, ioctl_ficlone, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

const OWNER: &str = "user.rblocksync.owner";
const BASE: &str = "user.rblocksync.base";
/// Pause between two looks at a file that is in use.
const IDLE_POLL: Duration = Duration::from_millis(500);

fn hidden(path: &Path, suffix: &str) -> Result<PathBuf> {
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
        return Err(Error::new(
            Kind::Usage,
            format!("{} names no file", path.display()),
        ));
    };
    Ok(path.with_file_name(format!(".{name}.{suffix}")))
}

pub(super) fn fork_of(path: &Path) -> Result<PathBuf> {
    hidden(path, "rbs-fork")
}

/// What a fork is made as, until it is a whole copy.
fn new_fork_of(path: &Path) -> Result<PathBuf> {
    hidden(path, "rbs-new")
}

/// What the head is made as, before it takes the name of the old one.
fn new_head_of(path: &Path) -> Result<PathBuf> {
    hidden(path, "rbs-head")
}

fn generation_of(path: &Path, number: u64) -> Result<PathBuf> {
    hidden(path, &generation_name(number))
}

fn io(doing: &str, path: &Path, e: impl Into<std::io::Error>) -> Error {
    Error::io(format!("cannot {doing} {}", path.display()), e.into())
}

fn mark(file: &File, path: &Path, name: &str, value: &str) -> Result<()> {
    fsetxattr(file, name, value.as_bytes(), XattrFlags::empty()).map_err(|e| {
        let error = io("mark", path, e);
        match e {
            Errno::OPNOTSUPP => error.advise("the file system must support extended attributes"),
            _ => error,
        }
    })
}

fn read_mark(file: &File, path: &Path, name: &str) -> Result<Option<String>> {
    let mut value = [0u8; 64];
    match fgetxattr(file, name, &mut value[..]) {
        Ok(len) => Ok(Some(String::from_utf8_lossy(&value[..len]).into_owned())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(e) => Err(io("read the mark of", path, e)),
    }
}

/// Opens a file of this pair; `None` if there is none.
fn owned(path: &Path, pair: Uuid) -> Result<Option<File>> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io("open", path, e)),
    };
    match read_mark(&file, path, OWNER)? {
        Some(owner) if owner == pair.to_string() => Ok(Some(file)),
        _ => Err(Error::new(
            Kind::Refused,
            format!(
                "{} exists and was not made for this replica",
                path.display()
            ),
        )
        .advise("remove or rename it, or choose another storage or VM id on the target")
        .see(Runbook::WrongVmid)),
    }
}

/// A new file of this pair, private, with its marks.
fn create(path: &Path, pair: Uuid, base: Option<u64>) -> Result<File> {
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(dir)
            .map_err(|e| io("create", dir, e))?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(path)
        .map_err(|e| io("create", path, e))?;
    mark(&file, path, OWNER, &pair.to_string())?;
    mark(&file, path, BASE, &base.unwrap_or(0).to_string())?;
    Ok(file)
}

fn remove(path: &Path, pair: Uuid) -> Result<()> {
    if owned(path, pair)?.is_some() {
        std::fs::remove_file(path).map_err(|e| io("remove", path, e))?;
        flush_parent(path)?;
    }
    Ok(())
}

/// Removes what a run that was cut off left under a temporary name. Right after it was created it may not
/// have its mark yet, but then it has no content either.
fn clear(path: &Path, pair: Uuid) -> Result<()> {
    match is_unmarked_and_empty(path)? {
        true => std::fs::remove_file(path).map_err(|e| io("remove", path, e)),
        false => remove(path, pair),
    }
}

fn is_unmarked_and_empty(path: &Path) -> Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() == 0 => {
            let file = File::open(path).map_err(|e| io("open", path, e))?;
            Ok(read_mark(&file, path, OWNER)?.is_none())
        }
        _ => Ok(false),
    }
}

pub(super) fn check(path: &Path, pair: Uuid) -> Result<()> {
    if owned(path, pair)?.is_some() {
        check_idle(path)?;
    }
    owned(&fork_of(path)?, pair)?;
    for temporary in [new_fork_of(path)?, new_head_of(path)?] {
        if !is_unmarked_and_empty(&temporary)? {
            owned(&temporary, pair)?;
        }
    }
    Ok(())
}

/// Takes the locks a writer would take, and lets them go again.
fn check_idle(path: &Path) -> Result<()> {
    let options = crate::image::TargetOptions::default();
    crate::image::open_target(path, options, |_| Ok(None)).map(drop)
}

/// Bytes that a fork left behind takes already.
pub(super) fn fork_bytes(path: &Path) -> Result<u64> {
    Ok(head_bytes(&fork_of(path)?))
}

/// The nearest directory above `path` that exists.
fn existing_dir(path: &Path) -> &Path {
    let mut dir = path.parent().unwrap_or(Path::new("/"));
    while !dir.exists() {
        match dir.parent() {
            Some(up) => dir = up,
            None => break,
        }
    }
    dir
}

pub(super) fn free_bytes(path: &Path) -> Result<u64> {
    let dir = existing_dir(path);
    let stat = rustix::fs::statvfs(dir).map_err(|e| io("tell the free space of", dir, e))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes that the head takes.
pub(super) fn head_bytes(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).map_or(0, |meta| meta.blocks() * 512)
}

/// Whether there is a head, and no fork.
pub(super) fn is_without_fork(path: &Path, pair: Uuid) -> Result<bool> {
    Ok(owned(path, pair)?.is_some() && owned(&fork_of(path)?, pair)?.is_none())
}

/// Makes the head the fork. It is the base of nothing any more.
pub(super) fn fork_in_place(path: &Path, pair: Uuid) -> Result<()> {
    let Some(head) = owned(path, pair)? else {
        return Err(gone(path));
    };
    check_idle(path)?;
    mark(&head, path, BASE, "0")?;
    head.sync_all().map_err(|e| io("flush", path, e))?;
    let fork = fork_of(path)?;
    std::fs::rename(path, &fork).map_err(|e| io("rename", path, e))?;
    flush_parent(&fork)
}

/// Whether files here can share blocks: tried with two temporary files.
pub(super) fn shares_blocks(path: &Path) -> Result<bool> {
    let dir = existing_dir(path);
    let file = || tempfile::tempfile_in(dir).map_err(|e| io("create a file in", dir, e));
    let (from, to) = (file()?, file()?);
    from.set_len(4096).map_err(|e| io("write in", dir, e))?;
    Ok(ioctl_ficlone(&to, &from).is_ok())
}

/// Copies `from` into the empty file `to`: by sharing blocks, or else the data between the holes.
fn copy(from: &File, to: &File, path: &Path) -> Result<()> {
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let size = from.metadata().map_err(|e| io("stat", path, e))?.len();
    to.set_len(size).map_err(|e| io("resize", path, e))?;
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, rustix::fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(e) => return Err(io("find data in", path, e)),
        };
        let end = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(start))
            .map_err(|e| io("find a hole in", path, e))?;
        let (mut source, mut target) = (start, start);
        while source < end {
            let len = (end - source).min(1 << 30) as usize;
            let done =
                rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), len)
                    .map_err(|e| io("copy", path, e))?;
            if done == 0 {
                return Err(Error::new(
                    Kind::Io,
                    format!("{} became shorter while it was copied", path.display()),
                ));
            }
        }
        at = end;
    }
    Ok(())
}

pub(super) fn has_fork(path: &Path, pair: Uuid, parent: Option<u64>) -> Result<bool> {
    let fork = fork_of(path)?;
    match owned(&fork, pair)? {
        Some(file) => Ok(read_mark(&file, &fork, BASE)? == Some(parent.unwrap_or(0).to_string())),
        None => Ok(false),
    }
}

pub(super) fn ensure_fork(
    image: &Image,
    pair: Uuid,
    parent: Option<u64>,
    size: u64,
    until: Instant,
) -> Result<PathBuf> {
    let path = image.path;
    let fork = fork_of(path)?;
    let base = parent.unwrap_or(0).to_string();
    if let Some(left) = owned(&fork, pair)? {
        await_idle(&fork, until)?;
        if read_mark(&left, &fork, BASE)?.as_deref() != Some(base.as_str()) {
            remove(&fork, pair)?;
        }
    }
    let file = match owned(&fork, pair)? {
        Some(_) => OpenOptions::new()
            .write(true)
            .open(&fork)
            .map_err(|e| io("open", &fork, e))?,
        None => {
            // Copied under another name, so that a fork that exists is always a whole copy.
            let fresh = new_fork_of(path)?;
            clear(&fresh, pair)?;
            let file = create(&fresh, pair, parent)?;
            if let Some(number) = parent {
                let sealed = generation_of(path, number)?;
                let from = match owned(&sealed, pair)? {
                    Some(sealed) => Some(sealed),
                    None => owned(path, pair)?,
                };
                copy(&from.ok_or_else(|| gone(path))?, &file, path)?;
            }
            image.resize(&fresh, &file, size)?;
            std::fs::rename(&fresh, &fork).map_err(|e| io("rename", &fresh, e))?;
            return Ok(fork);
        }
    };
    image.resize(&fork, &file, size)?;
    Ok(fork)
}

/// Waits until nobody has it open: an agent whose link was cut may need a while to notice.
fn await_idle(path: &Path, until: Instant) -> Result<()> {
    loop {
        match check_idle(path) {
            Err(e) if e.kind() == Kind::Busy && Instant::now() < until => {
                std::thread::sleep(IDLE_POLL);
            }
            done => return done,
        }
    }
}

pub(super) fn remove_idle_fork(path: &Path, pair: Uuid, until: Instant) -> Result<()> {
    if owned(&fork_of(path)?, pair)?.is_some() {
        await_idle(&fork_of(path)?, until)?;
    }
    remove_fork(path, pair)
}

/// What changes with a file's content, and cannot be set back: stat(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    /// Of content, owner, mode or marks, in seconds and nanoseconds.
    changed: (i64, i64),
}

/// Of generation `number`.
pub(super) fn stamp(path: &Path, pair: Uuid, number: u64) -> Result<Stamp> {
    let path = sealed(path, pair, number)?.path.clone();
    let found = std::fs::metadata(&path).map_err(|e| io("stat", &path, e))?;
    Ok(Stamp {
        inode: found.ino(),
        size: found.size(),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

/// Why generation `number` may have been written to since it got this stamp; `None` if it was not.
pub(super) fn doubt(
    path: &Path,
    pair: Uuid,
    number: u64,
    then: Option<Stamp>,
) -> Result<Option<String>> {
    let now = stamp(path, pair, number)?;
    Ok(match then {
        Some(then) if then == now => None,
        Some(_) => Some("the replica was written to".into()),
        None => Some("it was not noted when the replica was written last".into()),
    })
}

pub(super) fn remove_fork(path: &Path, pair: Uuid) -> Result<()> {
    clear(&new_fork_of(path)?, pair)?;
    remove(&fork_of(path)?, pair)
}

pub(super) fn seal(path: &Path, pair: Uuid, number: u64) -> Result<()> {
    let (fork, sealed) = (fork_of(path)?, generation_of(path, number)?);
    if owned(&sealed, pair)?.is_none() {
        let Some(file) = owned(&fork, pair)? else {
            // Without shared blocks the generation has become the head itself.
            return match head_is(path, pair, number)? {
                true => Ok(()),
                false => Err(gone(&fork)),
            };
        };
        file.set_permissions(Permissions::from_mode(0o440))
            .and_then(|()| file.sync_all())
            .map_err(|e| io("seal", &fork, e))?;
        std::fs::rename(&fork, &sealed).map_err(|e| io("rename", &fork, e))?;
        flush_parent(&sealed)?;
    }
    Ok(())
}

fn head_is(path: &Path, pair: Uuid, number: u64) -> Result<bool> {
    Ok(match owned(path, pair)? {
        Some(head) => read_mark(&head, path, BASE)? == Some(number.to_string()),
        None => false,
    })
}

/// Makes what is to become the head, beside the present one. Nothing to do if that is it already, or if
/// blocks cannot be shared: then the generation itself becomes the head.
pub(super) fn prepare_head(path: &Path, pair: Uuid, number: u64) -> Result<()> {
    if head_is(path, pair, number)? {
        return Ok(());
    }
    let sealed = generation_of(path, number)?;
    let from = owned(&sealed, pair)?.ok_or_else(|| gone(&sealed))?;
    let fresh = new_head_of(path)?;
    // One that was left may not be complete.
    clear(&fresh, pair)?;
    let file = create(&fresh, pair, Some(number))?;
    match ioctl_ficlone(&file, &from) {
        Ok(()) => file.sync_all().map_err(|e| io("flush", &fresh, e)),
        Err(e) if cannot_share(e) => remove(&fresh, pair),
        Err(e) => Err(io("clone", &sealed, e)),
    }
}

/// The errors of FICLONE where files cannot share blocks at all; others are failures (ioctl_ficlone(2)).
fn cannot_share(e: Errno) -> bool {
    matches!(
        e,
        Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::XDEV | Errno::NOSYS
    )
}

/// Puts the head that was prepared in the place of the present one.
pub(super) fn swap_head(path: &Path, pair: Uuid, number: u64) -> Result<()> {
    let fresh = new_head_of(path)?;
    if head_is(path, pair, number)? {
        return remove(&fresh, pair);
    }
    if owned(path, pair)?.is_some() {
        check_idle(path)?;
    }
    let new = match owned(&fresh, pair)? {
        Some(_) => fresh,
        None => {
            let sealed = generation_of(path, number)?;
            let file = owned(&sealed, pair)?.ok_or_else(|| gone(&sealed))?;
            let writable = file.set_permissions(Permissions::from_mode(0o640));
            writable.map_err(|e| io("unseal", &sealed, e))?;
            mark(&file, &sealed, BASE, &number.to_string())?;
            file.sync_all().map_err(|e| io("flush", &sealed, e))?;
            sealed
        }
    };
    std::fs::rename(&new, path).map_err(|e| io("rename", &new, e))?;
    flush_parent(path)
}

fn gone(path: &Path) -> Error {
    Error::new(Kind::NotFound, format!("{} is gone", path.display()))
        .advise("the replica was changed by somebody else; remove it and sync again")
}

/// Removes the head of a disk that no generation has any more.
pub(super) fn remove_head(path: &Path, pair: Uuid) -> Result<()> {
    if owned(path, pair)?.is_some() {
        check_idle(path)?;
    }
    clear(&new_head_of(path)?, pair)?;
    remove(path, pair)
}

pub(super) fn is_taken(path: &Path, number: u64) -> Result<bool> {
    Ok(std::fs::symlink_metadata(generation_of(path, number)?).is_ok())
}

pub(super) fn has_generation(path: &Path, pair: Uuid, number: u64) -> Result<bool> {
    Ok(owned(&generation_of(path, number)?, pair)?.is_some() || head_is(path, pair, number)?)
}

pub(super) fn sealed(path: &Path, pair: Uuid, number: u64) -> Result<Sealed> {
    let generation = generation_of(path, number)?;
    let path = if owned(&generation, pair)?.is_some() {
        generation
    } else if head_is(path, pair, number)? {
        path.to_owned()
    } else {
        return Err(gone(&generation));
    };
    Ok(Sealed {
        path,
        activated: None,
    })
}

/// How a writable clone of a generation is made here: the image's own format where blocks can be shared, and otherwise an
/// overlay, which is qcow2.
pub(super) fn clone_format(path: &Path, format: ImageFormat) -> Result<ImageFormat> {
    Ok(match shares_blocks(path)? {
        true => format,
        false => ImageFormat::Qcow2,
    })
}

/// Makes `clone`, owned by `trial`, a writable copy of generation `number` that shares its blocks, or an overlay of it.
/// The generation is read only.
pub(super) fn make_clone(
    path: &Path,
    format: ImageFormat,
    pair: Uuid,
    number: u64,
    (clone, trial): (&Path, Uuid),
) -> Result<()> {
    let sealed = sealed(path, pair, number)?.path.clone();
    let from = owned(&sealed, pair)?.ok_or_else(|| gone(&sealed))?;
    let file = create(clone, trial, None)?;
    match ioctl_ficlone(&file, &from) {
        Ok(()) => Ok(()),
        Err(e) if cannot_share(e) => crate::qemu::img::overlay(clone, &sealed, format),
        Err(e) => Err(io("clone", &sealed, e)),
    }
}

/// Removes a clone, and its directory if nothing else is in it.
pub(super) fn remove_clone(clone: &Path, trial: Uuid) -> Result<()> {
    if is_unmarked_and_empty(clone)? {
        std::fs::remove_file(clone).map_err(|e| io("remove", clone, e))?;
    } else {
        match remove(clone, trial) {
            // It was there before, and stopped the test.
            Err(e) if e.kind() == Kind::Refused => {}
            done => done?,
        }
    }
    if let Some(dir) = clone.parent() {
        // Others may use it.
        let _ = std::fs::remove_dir(dir);
    }
    Ok(())
}

pub(super) fn distrust_head(path: &Path, pair: Uuid, number: u64) -> Result<()> {
    if owned(&generation_of(path, number)?, pair)?.is_none() {
        return Ok(());
    }
    match owned(path, pair)? {
        Some(head) => mark(&head, path, BASE, "0"),
        None => Ok(()),
    }
}

pub(super) fn remove_generation(path: &Path, pair: Uuid, number: u64) -> Result<()> {
    remove(&generation_of(path, number)?, pair)
}

/// Makes the file itself, whatever it holds, the head of generation `number`, and a clone of it that generation where
/// files can share blocks.
pub(super) fn adopt(path: &Path, pair: Uuid, former: &[Uuid], number: u64) -> Result<()> {
    check_idle(path)?;
    let head = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .map_err(|e| io("open", path, e))?;
    let is_free = |owner: &str| {
        let mut known = former.iter().chain(std::iter::once(&pair));
        known.any(|known| known.to_string() == owner)
    };
    if let Some(owner) = read_mark(&head, path, OWNER)?.filter(|owner| !is_free(owner)) {
        return Err(Error::new(
            Kind::Refused,
            format!("{} belongs to another replica ({owner})", path.display()),
        ));
    }
    let sealed = generation_of(path, number)?;
    if owned(&sealed, pair)?.is_none() {
        let fresh = new_fork_of(path)?;
        clear(&fresh, pair)?;
        let file = create(&fresh, pair, Some(number))?;
        match ioctl_ficlone(&file, &head) {
            Ok(()) => {
                file.set_permissions(Permissions::from_mode(0o440))
                    .and_then(|()| file.sync_all())
                    .map_err(|e| io("seal", &fresh, e))?;
                std::fs::rename(&fresh, &sealed).map_err(|e| io("rename", &fresh, e))?;
                flush_parent(&sealed)?;
            }
            Err(e) if cannot_share(e) => remove(&fresh, pair)?,
            Err(e) => return Err(io("clone", path, e)),
        }
    }
    // Only with its owner's mark does the other one count.
    mark(&head, path, BASE, &number.to_string())?;
    mark(&head, path, OWNER, &pair.to_string())?;
    head.sync_all().map_err(|e| io("flush", path, e))
}

/// What changes when a file is written to, and stays when it is marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    inode: u64,
    size: u64,
    /// In seconds and nanoseconds.
    at: (i64, i64),
}

/// When a file was written last.
pub(super) fn written(path: &Path) -> Result<Written> {
    let found = std::fs::metadata(path).map_err(|e| io("stat", path, e))?;
    Ok(Written {
        inode: found.ino(),
        size: found.size(),
        at: (found.mtime(), found.mtime_nsec()),
    })
}
