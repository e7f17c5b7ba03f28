//! A regular file as an image: buffered I/O or direct I/O, holes by SEEK_DATA and SEEK_HOLE, zeros by punching.

use super::{cache, Image};
use crate::buf::ALIGN;
use crate::error::{Error, Kind, Result};
use crate::range::ByteRange;
use crate::sys;
use rustix::fs::{
    fallocate, fcntl_getfl, open, seek, statx, AtFlags, FallocateFlags, Mode, OFlags, SeekFrom,
    StatxFlags,
};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// An open regular file.
pub struct FileImage {
    file: File,
    /// For direct I/O, if that was asked for.
    direct: Option<File>,
    path: PathBuf,
    size: AtomicU64,
    /// False once the file system refused to punch a hole: then zeros are written.
    can_punch: AtomicBool,
}

impl FileImage {
    /// Wraps an open file; `path` is for messages and for checks by name. With `direct`, what is read and written
    /// goes past the page cache; the file system must be able to do that in units of 4 KiB or less.
    pub fn new(file: File, path: &Path, direct: bool) -> Result<Self> {
        let meta = file
            .metadata()
            .map_err(|e| Error::io(format!("cannot stat {}", path.display()), e))?;
        cache::expect_no_order(&file);
        Ok(FileImage {
            direct: match direct {
                true => Some(open_direct(&file, path)?),
                false => None,
            },
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

    /// Makes this file share the blocks of `other`, if the file system can do that: ioctl_ficlone(2). Its size is
    /// to be set afterwards.
    pub fn clone_from(&self, other: &FileImage) {
        // Whatever is in the way is in the way of no sync.
        let _ = rustix::fs::ioctl_ficlone(&self.file, &other.file);
    }

    fn err(&self, what: &str, offset: u64, e: std::io::Error) -> Error {
        Error::io(format!("cannot {what} {} at byte {offset}", self.name()), e)
    }
}

/// How much of `len` bytes direct I/O can take: the rest, at the end of the file, goes through the page cache.
fn whole_units(len: usize) -> usize {
    len / ALIGN * ALIGN
}

/// The same file once more, for direct I/O.
fn open_direct(file: &File, path: &Path) -> Result<File> {
    let refused = || {
        let what = format!("{} does not do direct I/O", path.display());
        Error::new(Kind::Usage, what).advise("leave out --direct")
    };
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .map_err(|e| Error::io(format!("cannot stat {}", path.display()), e.into()))?;
    // Kernels before 6.1 do not tell: then opening and the first read will.
    let told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN);
    let units = [stat.stx_dio_offset_align, stat.stx_dio_mem_align];
    if told && units.iter().any(|&unit| unit == 0 || unit as usize > ALIGN) {
        return Err(refused());
    }
    let access = fcntl_getfl(file)
        .map_err(|e| Error::io(format!("cannot open {}", path.display()), e.into()))?
        & OFlags::RWMODE;
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    match open(
        name,
        access | OFlags::DIRECT | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(fd) => Ok(fd.into()),
        Err(Errno::INVAL) => Err(refused()),
        Err(e) => Err(Error::io(
            format!("cannot open {} for direct I/O", path.display()),
            e.into(),
        )),
    }
}

impl Image for FileImage {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let read = match &self.direct {
            None => cache::read(&self.file, buf, offset),
            Some(direct) => {
                let (head, tail) = buf.split_at_mut(whole_units(buf.len()));
                let at = offset + head.len() as u64;
                direct
                    .read_exact_at(head, offset)
                    .and_then(|()| cache::read(&self.file, tail, at))
            }
        };
        read.map_err(|e| {
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
        let written = match &self.direct {
            None => self.file.write_all_at(buf, offset),
            Some(direct) => {
                let (head, tail) = buf.split_at(whole_units(buf.len()));
                direct
                    .write_all_at(head, offset)
                    .and_then(|()| self.file.write_all_at(tail, offset + head.len() as u64))
            }
        };
        written.map_err(|e| self.err("write", offset, e))
    }

    fn start_writeback(&self, range: ByteRange) {
        if self.direct.is_some() {
            return;
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::buf::AlignedBuf;

    #[test]
    fn direct_io_takes_any_length_and_goes_past_the_cache() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        let size = (1 << 20) + 4096 + 100;
        file.as_file().set_len(size as u64).unwrap();
        let image = |direct| {
            let file = File::options().read(true).write(true).open(&file).unwrap();
            FileImage::new(file, Path::new("it"), direct)
        };
        let Ok(direct) = image(true) else {
            eprintln!("skipped: no direct I/O on this file system");
            return;
        };
        let mut buf = AlignedBuf::zeroed(size);
        let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        buf.copy_from_slice(&bytes);
        for (at, len) in [
            (0, size),
            (4096, 8192),
            (1 << 20, 4196),
            ((1 << 20) + 4096, 100),
        ] {
            direct.write_at(&buf[at..at + len], at as u64).unwrap();
        }
        let mut back = AlignedBuf::zeroed(size);
        for image in [&direct, &image(false).unwrap()] {
            back.fill(0);
            image.read_at(&mut back, 0).unwrap();
            assert!(back[..] == bytes[..]);
            back.fill(0);
            image
                .read_at(&mut back[8192..8292], (1 << 20) + 4096)
                .unwrap();
            assert_eq!(back[8192..8292], bytes[(1 << 20) + 4096..]);
        }
        // Only direct I/O minds where in memory a buffer lies.
        assert!(image(false).unwrap().read_at(&mut back[1..4097], 0).is_ok());
        assert!(direct.read_at(&mut back[1..4097], 0).is_err());
        assert!(
            direct.read_at(&mut back[..4096], 2 << 20).is_err(),
            "past the end"
        );
    }
}
