//! A regular file as an image: buffered I/O, holes by SEEK_DATA and SEEK_HOLE, zeros by punching.

use super::{cache, Image};
use crate::error::{Error, Kind, Result};
use crate::range::ByteRange;
use crate::sys;
use rustix::fs::{fallocate, seek, FallocateFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// An open regular file.
pub struct FileImage {
    file: File,
    path: PathBuf,
    size: AtomicU64,
    /// False once the file system refused to punch a hole: then zeros are written.
    can_punch: AtomicBool,
}

impl FileImage {
    /// Wraps an open file; `path` is for messages and for checks by name.
    pub fn new(file: File, path: &Path) -> Result<Self> {
        let meta = file
            .metadata()
            .map_err(|e| Error::io(format!("cannot stat {}", path.display()), e))?;
        cache::expect_no_order(&file);
        Ok(FileImage {
            file,
            path: path.to_owned(),
            size: AtomicU64::new(meta.len()),
            can_punch: AtomicBool::new(true),
        })
    }

    /// Sets the file's size; new space reads as zeros and is a hole.
    pub fn resize(&self, size: u64) -> Result<()> {
        self.file
            .set_len(size)
            .map_err(|e| Error::io(format!("cannot set {} to {size} bytes", self.name()), e))?;
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    /// Makes this file share the blocks of `other`, if the file system can do that: ioctl_ficlone(2).
    pub fn clone_from(&self, other: &FileImage) -> Result<bool> {
        if rustix::fs::ioctl_ficlone(&self.file, &other.file).is_err() {
            return Ok(false);
        }
        let meta = self.file.metadata();
        let meta = meta.map_err(|e| Error::io(format!("cannot stat {}", self.name()), e))?;
        self.size.store(meta.len(), Ordering::Release);
        Ok(true)
    }

    fn err(&self, what: &str, offset: u64, e: std::io::Error) -> Error {
        Error::io(format!("cannot {what} {} at byte {offset}", self.name()), e)
    }
}

impl Image for FileImage {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        cache::read(&self.file, buf, offset).map_err(|e| {
            if e.kind() == std::io::ErrorKind::UnexpectedEof {
                Error::new(
                    Kind::Io,
                    format!("{} became shorter while it was read", self.name()),
                )
                .advise("sync from a snapshot, or stop whatever changes the file's size")
            } else {
                self.err("read", offset, e)
            }
        })
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.file
            .write_all_at(buf, offset)
            .map_err(|e| self.err("write", offset, e))
    }

    fn start_writeback(&self, range: ByteRange) {
        // A hint. What it cannot write is told by the flush.
        let _ = sys::start_writeback(&self.file, range.start, range.len());
    }

    fn zero(&self, range: ByteRange) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        if self.can_punch.load(Ordering::Relaxed) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match rustix::io::retry_on_intr(|| {
                fallocate(&self.file, flags, range.start, range.len())
            }) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                    self.can_punch.store(false, Ordering::Relaxed)
                }
                Err(e) => return Err(self.err("punch a hole into", range.start, e.into())),
            }
        }
        super::zero::write_zeros_where_needed(self, range)
    }

    fn next_data(&self, offset: u64) -> Result<Option<ByteRange>> {
        let size = self.size();
        if offset >= size {
            return Ok(None);
        }
        let start = match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // A file system without hole support: all of it may be data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(ByteRange::new(offset, size))),
            Err(e) => return Err(self.err("find data in", offset, e.into())),
        };
        if start >= size {
            return Ok(None);
        }
        let end = match seek(&self.file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            // The data vanished between the two calls: somebody punches or truncates the file.
            Err(Errno::NXIO) => size,
            Err(e) => return Err(self.err("find a hole in", start, e.into())),
        };
        Ok(Some(ByteRange::new(start, end)))
    }

    fn flush(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|e| Error::io(format!("cannot flush {}", self.name()), e))?;
        // The data is safe; that others have less cache for it is no failure.
        let _ = cache::drop_clean(&self.file);
        Ok(())
    }

    fn check_unchanged(&self) -> Result<()> {
        super::guard::check_same_file(&self.file, &self.path, self.size())
    }

    fn read_from_medium(&self) -> Result<()> {
        super::guard::drop_cache(&self.file, &self.name())
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}
