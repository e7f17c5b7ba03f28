//! Opening images: a source for reading, a target for writing, each with the checks that keep a
//! mistake from costing data.

use super::block::{BlockImage, ThinMap};
use super::file::FileImage;
use super::guard::{check_named, claim_device, claim_file, holders_of, Identity};
use super::nbd::NbdImage;
use super::{Container, Image, ImageFormat};
use crate::error::{Error, Kind, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// An open image and what is known of it.
pub struct Opened {
    /// The image itself.
    pub image: Handle,
    /// Who it is, to recognise SRC equal to DST.
    pub identity: Identity,
}

/// The kind of thing that was opened; targets differ in what can be done to their size.
pub enum Handle {
    /// A regular file: can be resized.
    File(FileImage),
    /// A block device: has the size it has.
    Block(BlockImage),
    /// What a server shows: has the size it has.
    Nbd(Box<NbdImage>),
    /// What lies in a container: can be resized.
    Container(Box<dyn Container>),
}

impl Handle {
    /// The engine's view of it.
    pub fn image(&self) -> &dyn Image {
        match self {
            Handle::File(f) => f,
            Handle::Block(b) => b,
            Handle::Nbd(n) => n.as_ref(),
            Handle::Container(c) => c.as_ref(),
        }
    }

    /// True for a block device.
    pub fn is_device(&self) -> bool {
        matches!(self, Handle::Block(_))
    }

    /// Gives a file `size` bytes; a device is an error if it has another size.
    pub fn resize(&self, size: u64) -> Result<()> {
        match self {
            Handle::File(f) => f.resize(size),
            Handle::Container(c) => c.resize(size),
            other if other.image().size() == size => Ok(()),
            other => Err(Error::new(
                Kind::Refused,
                format!(
                    "{} is a device of {} bytes and cannot be given {size}",
                    other.image().name(),
                    other.image().size()
                ),
            )
            .advise("resize the device first, or use --ignore-size to sync the part both have")),
        }
    }

    /// Lets go of it, with everything written and made durable. Only a container has anything left to do then, and
    /// nothing can be done with it afterwards.
    pub fn close(&self) -> Result<()> {
        match self {
            Handle::File(_) | Handle::Block(_) | Handle::Nbd(_) => Ok(()),
            Handle::Container(c) => c.close(),
        }
    }
}

/// How a target is to be opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct TargetOptions {
    /// Make a missing file, empty. Without it a missing target is an error.
    pub create: bool,
    /// Only look: nothing is written, nothing created.
    pub read_only: bool,
    /// Past the page cache, also if it is a file.
    pub direct: bool,
    /// How its bytes lie in the file. [`open_target`] opens raw ones only.
    pub format: ImageFormat,
}

/// Opens `path` for reading, a file for direct I/O if that is asked for. `thin` gives the mapping if it is a thin
/// volume.
pub fn open_source(
    path: &Path,
    direct: bool,
    thin: impl FnOnce(&Path) -> Result<Option<ThinMap>>,
) -> Result<Opened> {
    check_kind(path)?;
    let file = open(path, OFlags::RDONLY, Mode::empty())?;
    wrap(file, path, OFlags::RDONLY, direct, thin)
}

/// Opens `path` for writing, refusing anything that somebody else uses.
pub fn open_target(
    path: &Path,
    options: TargetOptions,
    thin: impl FnOnce(&Path) -> Result<Option<ThinMap>>,
) -> Result<Opened> {
    let mut flags = match options.read_only {
        true => OFlags::RDONLY,
        false => OFlags::RDWR,
    };
    let exists = check_kind(path)?;
    if is_device(path) && !options.read_only {
        // Linux: O_EXCL without O_CREAT on a block device fails if it is mounted or held.
        flags |= OFlags::EXCL;
    }
    if options.create && !options.read_only && !exists {
        flags |= OFlags::CREATE | OFlags::EXCL;
    }
    let file = open(path, flags, Mode::RUSR | Mode::WUSR)?;
    wrap(file, path, flags, options.direct, thin)
}

/// Refuses what cannot be an image before it is opened: opening alone rewinds a tape or arms a watchdog.
/// False if there is nothing of that name.
pub(super) fn check_kind(path: &Path) -> Result<bool> {
    let kind = match std::fs::metadata(path) {
        Ok(meta) => meta.file_type(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::io(format!("cannot stat {}", path.display()), e)),
    };
    let what = match () {
        () if kind.is_file() || kind.is_block_device() => return Ok(true),
        () if kind.is_dir() => "a directory",
        () if kind.is_char_device() => "a character device",
        () if kind.is_fifo() => "a FIFO",
        () => "a socket",
    };
    Err(Error::new(
        Kind::Usage,
        format!(
            "{} is {what}, neither a file nor a block device",
            path.display()
        ),
    ))
}

fn is_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device())
}

pub(super) fn open(path: &Path, flags: OFlags, mode: Mode) -> Result<File> {
    // O_NONBLOCK: opening a FIFO or a tape must not hang before we can refuse it.
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    match rustix::fs::open(path, flags, mode) {
        Ok(fd) => Ok(File::from(fd)),
        Err(Errno::BUSY) => {
            let why = holders_of(path).unwrap_or_else(|| "another program has it open".into());
            Err(
                Error::new(Kind::Busy, format!("{} is in use: {why}", path.display()))
                    .advise("unmount it or stop what uses it"),
            )
        }
        Err(e) => {
            let doing = match flags.intersects(OFlags::RDWR | OFlags::WRONLY) {
                true => "writing",
                false => "reading",
            };
            Err(Error::io(
                format!("cannot open {} for {doing}", path.display()),
                e.into(),
            ))
        }
    }
}

fn wrap(
    file: File,
    path: &Path,
    flags: OFlags,
    direct: bool,
    thin: impl FnOnce(&Path) -> Result<Option<ThinMap>>,
) -> Result<Opened> {
    let meta = file
        .metadata()
        .map_err(|e| Error::io(format!("cannot stat {}", path.display()), e))?;
    let writes = flags.contains(OFlags::RDWR);
    let kind = meta.file_type();
    let identity = Identity::of(&file, path)?;
    let image = if kind.is_file() {
        if writes {
            claim_file(&file, path)?;
            // It may have been renamed or replaced before the lock was ours.
            check_named(&file, path)?;
        }
        Handle::File(FileImage::new(file, path, direct)?)
    } else if kind.is_block_device() {
        if writes {
            claim_device(&file, path)?;
        }
        rustix::fs::fcntl_setfl(&file, OFlags::DIRECT).map_err(|e| {
            Error::io(
                format!("{} does not do direct I/O", path.display()),
                e.into(),
            )
        })?;
        Handle::Block(BlockImage::new(file, path, thin(path)?)?)
    } else {
        let what = format!("{} changed while it was opened", path.display());
        return Err(Error::new(Kind::Usage, what));
    };
    Ok(Opened { image, identity })
}

/// Makes a rename or a new file in `path`'s directory durable.
pub fn flush_parent(path: &Path) -> Result<()> {
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
        _ => PathBuf::from("."),
    };
    File::open(&parent)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| Error::io(format!("cannot flush directory {}", parent.display()), e))
}
