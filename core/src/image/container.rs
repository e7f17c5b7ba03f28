//! Files whose bytes are a container of the guest's bytes: another program reads and writes them, this one keeps them
//! to itself meanwhile.

use super::guard::{self, Identity};
use super::open::{check_kind, open};
use super::{Image, TargetOptions};
use crate::error::{Error, Kind, Result};
use rustix::fs::{fcntl_lock, FlockOperation, Mode, OFlags};
use std::fs::File;
use std::path::{Path, PathBuf};

/// An image that lies in a container.
pub trait Container: Image {
    /// Gives the guest's disk `size` bytes; makes the container if the file is new and still empty.
    fn resize(&self, size: u64) -> Result<()>;

    /// Ends the program that serves it, and makes durable all that it has written. Afterwards nothing can be read or
    /// written any more. Fails if the program did not end as it should: then the container may not be whole.
    fn close(&self) -> Result<()>;
}

/// An open container file. Where it is to be written, the locks on it are held as long as this lives.
pub struct Held {
    file: File,
    path: PathBuf,
}

impl Held {
    /// Opens a file or device to be read.
    pub fn source(path: &Path) -> Result<(Held, Identity)> {
        check_kind(path)?;
        Held::new(open(path, OFlags::RDONLY, Mode::empty())?, path)
    }

    /// Opens a file to be written, or creates it empty, and refuses one that somebody else uses.
    ///
    /// Our own runs are kept off by an flock. QEMU is not, so that it can be the one that writes: it takes record locks
    /// of its own, and refuses an image that has those of another QEMU. That nobody has any is only tried here.
    pub fn target(path: &Path, options: &TargetOptions) -> Result<(Held, Identity)> {
        let exists = check_kind(path)?;
        if options.read_only {
            return Held::source(path);
        }
        let mut flags = OFlags::RDWR;
        if options.create && !exists {
            flags |= OFlags::CREATE | OFlags::EXCL;
        }
        let file = open(path, flags, Mode::RUSR | Mode::WUSR)?;
        let meta = file
            .metadata()
            .map_err(|e| Error::io(format!("cannot stat {}", path.display()), e))?;
        if !meta.is_file() {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "{} is a device, and a qcow2 target must be a file",
                    path.display()
                ),
            ));
        }
        guard::claim_file(&file, path)?;
        guard::check_named(&file, path)?;
        // The record locks go again; the flock stays. If they do not go, QEMU will say that it cannot have its own.
        let _ = fcntl_lock(&file, FlockOperation::Unlock);
        Held::new(file, path)
    }

    fn new(file: File, path: &Path) -> Result<(Held, Identity)> {
        let identity = Identity::of(&file, path)?;
        let path = std::path::absolute(path)
            .map_err(|e| Error::io(format!("cannot find {}", path.display()), e))?;
        Ok((Held { file, path }, identity))
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is nothing in it yet.
    pub fn is_empty(&self) -> Result<bool> {
        let meta = self.file.metadata();
        let meta =
            meta.map_err(|e| Error::io(format!("cannot stat {}", self.path.display()), e))?;
        Ok(meta.is_file() && meta.len() == 0)
    }

    /// Fails if the path names another file by now.
    pub fn check_named(&self) -> Result<()> {
        guard::check_named(&self.file, &self.path)
    }

    /// Makes everything in it durable, whoever wrote it.
    pub fn flush(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|e| Error::io(format!("cannot flush {}", self.path.display()), e))
    }

    /// Writes back and drops what the page cache holds of it.
    pub fn drop_cache(&self) -> Result<()> {
        guard::drop_cache(&self.file, &self.path.display().to_string())
    }
}

/// Whether the file or device at `path` can be read past the page cache.
pub fn does_direct_io(path: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(path, flags, Mode::empty()).is_ok()
}
