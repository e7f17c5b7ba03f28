//! A block device as an image: direct I/O, so that a hypervisor's page cache is left alone; extents
//! from the thin pool's own mapping where there is one; zeros by discard, which is then checked.

use super::room::Room;
use super::zero::{reads_zero, write_zeros_where_needed};
use super::Image;
use crate::buf::{AlignedBuf, ALIGN};
use crate::error::{Error, Kind, Result};
use crate::range::{ByteRange, RangeSet};
use crate::sys;
use rustix::fs::{fallocate, FallocateFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Which chunks of a thin volume the pool has mapped. Unmapped chunks read as zeros.
pub struct ThinMap {
    chunk: u64,
    /// Whether the pool zeroes a chunk when it is first written (lvm2's `--zero y`).
    zeroes_new: bool,
    bits: Vec<AtomicU64>,
    /// In the pool, for a volume that is written.
    room: Option<Box<Room>>,
}

impl ThinMap {
    /// From the mapped byte ranges of a volume of `size` bytes in a pool with chunks of `chunk` bytes.
    pub fn new(size: u64, chunk: u64, zeroes_new: bool, mapped: &RangeSet) -> Self {
        let chunks = size.div_ceil(chunk.max(1)) as usize;
        let map = ThinMap {
            chunk: chunk.max(1),
            zeroes_new,
            bits: (0..chunks.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
            room: None,
        };
        for range in mapped.within(ByteRange::new(0, size)) {
            map.mark(range);
        }
        map
    }

    /// Has every write ask `room` first.
    pub fn with_room(self, room: Room) -> Self {
        ThinMap {
            room: Some(Box::new(room)),
            ..self
        }
    }

    fn chunks(&self, range: ByteRange) -> std::ops::Range<u64> {
        let aligned = range.align_out(self.chunk);
        aligned.start / self.chunk..aligned.end / self.chunk
    }

    fn is_mapped(&self, chunk: u64) -> bool {
        let word = self.bits.get((chunk / 64) as usize);
        word.is_some_and(|w| w.load(Ordering::Acquire) >> (chunk % 64) & 1 == 1)
    }

    fn mark(&self, range: ByteRange) {
        for chunk in self.chunks(range) {
            if let Some(word) = self.bits.get((chunk / 64) as usize) {
                word.fetch_or(1 << (chunk % 64), Ordering::AcqRel);
            }
        }
    }

    /// The first run of mapped chunks that ends after `offset`, cut to `offset..size`.
    fn next_data(&self, offset: u64, size: u64) -> Option<ByteRange> {
        if offset >= size {
            return None;
        }
        let end = size.div_ceil(self.chunk);
        let mut first = offset / self.chunk;
        while first < end && !self.is_mapped(first) {
            // Skips 64 chunks at once where none is mapped: a large sparse volume is mostly that.
            let word = self.bits.get((first / 64) as usize);
            first = match word.map(|w| w.load(Ordering::Acquire) >> (first % 64)) {
                Some(0) => (first / 64 + 1) * 64,
                Some(w) => first + u64::from(w.trailing_zeros()),
                None => end,
            };
        }
        if first >= end {
            return None;
        }
        let mut last = first;
        while last < end && self.is_mapped(last) {
            last += 1;
        }
        let start = (first * self.chunk).max(offset);
        Some(ByteRange::new(start, (last * self.chunk).min(size)))
    }
}

/// An open block device.
pub struct BlockImage {
    file: File,
    path: PathBuf,
    size: u64,
    /// Logical block size in bytes: the unit of direct I/O.
    block: usize,
    thin: Option<ThinMap>,
    /// Serialises the first write into chunks that the pool does not zero.
    first_write: Mutex<()>,
    can_punch: AtomicBool,
    /// Bytes that a discard frees as a unit; 0 where discard is not to be used (any more).
    discard_grain: AtomicU64,
}

impl BlockImage {
    /// Wraps a device opened with O_DIRECT; `thin` is its mapping if it is a thin volume.
    pub fn new(file: File, path: &Path, thin: Option<ThinMap>) -> Result<Self> {
        let name = path.display();
        let size = sys::device_size(&file)
            .map_err(|e| Error::io(format!("cannot tell the size of {name}"), e.into()))?;
        let block = sys::logical_block_size(&file)
            .map_err(|e| Error::io(format!("cannot tell the block size of {name}"), e.into()))?;
        if block as usize > ALIGN {
            return Err(Error::new(
                Kind::Usage,
                format!(
                    "{name} has logical blocks of {block} bytes; at most {ALIGN} are supported"
                ),
            ));
        }
        Ok(BlockImage {
            discard_grain: AtomicU64::new(discard_grain(&file)),
            can_punch: AtomicBool::new(thin.is_none()),
            file,
            path: path.to_owned(),
            size,
            block: block as usize,
            thin,
            first_write: Mutex::new(()),
        })
    }

    fn err(&self, what: &str, offset: u64, e: std::io::Error) -> Error {
        Error::io(format!("cannot {what} {} at byte {offset}", self.name()), e)
    }

    fn read_raw(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file
            .read_exact_at(buf, offset)
            .map_err(|e| self.err("read", offset, e))
    }

    fn write_raw(&self, buf: &[u8], offset: u64) -> Result<()> {
        let (blocks, rest) = buf.split_at(buf.len() - buf.len() % self.block);
        self.file
            .write_all_at(blocks, offset)
            .map_err(|e| self.err("write", offset, e))?;
        if rest.is_empty() {
            return Ok(());
        }
        // Where a file's last bytes go onto a longer device, what follows them in the block stays.
        let at = offset + blocks.len() as u64;
        let mut last = AlignedBuf::zeroed(self.block);
        self.read_raw(&mut last, at)?;
        last[..rest.len()].copy_from_slice(rest);
        self.file
            .write_all_at(&last, at)
            .map_err(|e| self.err("write", at, e))
    }

    /// In a pool without zeroing, a write that covers only part of an unmapped chunk would expose
    /// what the pool's disk held there before: so the rest of the chunk is zeroed first.
    fn prepare_chunks(&self, map: &ThinMap, range: ByteRange) -> Result<()> {
        for chunk in map.chunks(range) {
            if map.zeroes_new || map.is_mapped(chunk) {
                continue;
            }
            let whole = ByteRange::new(chunk * map.chunk, ((chunk + 1) * map.chunk).min(self.size));
            if whole.intersection(&range) == whole {
                continue;
            }
            let _guard = self
                .first_write
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if map.is_mapped(chunk) {
                continue;
            }
            let zeros = AlignedBuf::zeroed(whole.len().min(1 << 20) as usize);
            let mut at = whole.start;
            while at < whole.end {
                let len = (zeros.len() as u64).min(whole.end - at) as usize;
                self.write_raw(&zeros[..len], at)?;
                at += len as u64;
            }
            map.mark(whole);
        }
        Ok(())
    }

    fn punch(&self, range: ByteRange) -> Result<bool> {
        if !self.can_punch.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let whole = range.align_in(self.block as u64);
        if whole.is_empty() {
            return Ok(false);
        }
        // On a block device this either makes the range read as zeros or fails: fallocate(2).
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::io::retry_on_intr(|| fallocate(&self.file, flags, whole.start, whole.len())) {
            Ok(()) => {
                write_zeros_where_needed(self, ByteRange::new(range.start, whole.start))?;
                write_zeros_where_needed(self, ByteRange::new(whole.end, range.end))?;
                Ok(true)
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.can_punch.store(false, Ordering::Relaxed);
                Ok(false)
            }
            Err(e) => Err(self.err("punch a hole into", range.start, e.into())),
        }
    }

    /// Discards the whole grains in `range` and proves that they read as zeros. False: not done.
    fn discard(&self, range: ByteRange) -> Result<bool> {
        let grain = self.discard_grain.load(Ordering::Relaxed);
        let whole = match grain {
            0 => return Ok(false),
            grain => range.align_in(grain),
        };
        if whole.is_empty() {
            return Ok(false);
        }
        if sys::discard(&self.file, whole.start, whole.len()).is_err() || !reads_zero(self, whole)?
        {
            // Discards that are refused, or ignored: writing is what is left, from now on.
            self.discard_grain.store(0, Ordering::Relaxed);
            return Ok(false);
        }
        for edge in [
            ByteRange::new(range.start, whole.start),
            ByteRange::new(whole.end, range.end),
        ] {
            write_zeros_where_needed(self, edge)?;
        }
        Ok(true)
    }

    fn zero_mapped(&self, range: ByteRange) -> Result<()> {
        if self.punch(range)? || self.discard(range)? {
            return Ok(());
        }
        write_zeros_where_needed(self, range)
    }
}

impl Image for BlockImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (blocks, rest) = buf.split_at_mut(buf.len() - buf.len() % self.block);
        self.read_raw(blocks, offset)?;
        if !rest.is_empty() {
            let mut last = AlignedBuf::zeroed(self.block);
            self.read_raw(&mut last, offset + blocks.len() as u64)?;
            rest.copy_from_slice(&last[..rest.len()]);
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let range = ByteRange::new(offset, offset + buf.len() as u64);
        if let Some(map) = &self.thin {
            if let Some(room) = &map.room {
                // All chunks may be new, or still be shared with a snapshot.
                room.take(range.align_out(map.chunk).len())
                    .map_err(|e| e.context(self.name()))?;
            }
            self.prepare_chunks(map, range)?;
        }
        self.write_raw(buf, offset)?;
        if let Some(map) = &self.thin {
            map.mark(range);
        }
        Ok(())
    }

    fn zero(&self, range: ByteRange) -> Result<()> {
        if self.thin.is_none() {
            return match range.is_empty() {
                true => Ok(()),
                false => self.zero_mapped(range),
            };
        }
        let mut at = range.start;
        while let Some(data) = self.next_data(at)? {
            let part = data.intersection(&range);
            if part.is_empty() {
                break;
            }
            self.zero_mapped(part)?;
            at = part.end;
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<ByteRange>> {
        Ok(match &self.thin {
            Some(map) => map.next_data(offset, self.size),
            // Nothing tells: all of it may be data.
            None if offset < self.size => Some(ByteRange::new(offset, self.size)),
            None => None,
        })
    }

    fn tells_holes(&self) -> bool {
        self.thin.is_some()
    }

    fn flush(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|e| Error::io(format!("cannot flush {}", self.name()), e))
    }

    fn check_unchanged(&self) -> Result<()> {
        super::guard::check_same_device(&self.file, &self.path, self.size)
    }

    fn read_from_medium(&self) -> Result<()> {
        // Reads are direct as it is.
        Ok(())
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// `discard_granularity` of the device's queue, 0 if it does not discard or says nothing.
fn discard_grain(file: &File) -> u64 {
    let read = || -> Option<u64> {
        let rdev = file.metadata().ok()?.rdev();
        let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
        let dir = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        // A partition's queue is its disk's.
        let text = [dir.join("queue"), dir.join("../queue")]
            .iter()
            .find_map(|q| std::fs::read_to_string(q.join("discard_granularity")).ok())?;
        let grain: u64 = text.trim().parse().ok()?;
        Some(if grain == 0 {
            0
        } else {
            grain.max(ALIGN as u64)
        })
    };
    read().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thin_map_finds_runs_of_mapped_chunks() {
        let chunk = 65536;
        let size = 300 * chunk + 4096;
        let mapped: RangeSet = [
            ByteRange::new(2 * chunk, 5 * chunk),
            ByteRange::new(200 * chunk, 201 * chunk),
            ByteRange::new(300 * chunk, 301 * chunk),
        ]
        .into_iter()
        .collect();
        let map = ThinMap::new(size, chunk, true, &mapped);
        let mut seen = Vec::new();
        let mut at = 0;
        while let Some(r) = map.next_data(at, size) {
            seen.push(r);
            at = r.end;
        }
        assert_eq!(
            seen,
            [
                ByteRange::new(2 * chunk, 5 * chunk),
                ByteRange::new(200 * chunk, 201 * chunk),
                ByteRange::new(300 * chunk, size),
            ]
        );
        assert_eq!(
            map.next_data(3 * chunk + 512, size),
            Some(ByteRange::new(3 * chunk + 512, 5 * chunk))
        );
        map.mark(ByteRange::new(100 * chunk + 4096, 100 * chunk + 8192));
        assert_eq!(
            map.next_data(6 * chunk, size),
            Some(ByteRange::new(100 * chunk, 101 * chunk))
        );
    }
}
