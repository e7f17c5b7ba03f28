//! An export of an NBD server as an image: QEMU's view of a disk at one instant, or of one that is written.

use super::zero::write_zeros_where_needed;
use super::Image;
use crate::buf::{AlignedBuf, ALIGN};
use crate::error::{Error, Kind, Result};
use crate::nbd::{Client, Extent, Options, BASE_ALLOCATION, STATE_DIRTY, STATE_ZERO};
use crate::range::{ByteRange, RangeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes whose holes are asked for and remembered together.
const WINDOW_BYTES: u64 = 1 << 30;

/// How an export is used.
#[derive(Debug, Clone, Default)]
pub struct NbdOptions {
    /// What messages call it.
    pub name: String,
    /// Metadata context of a dirty bitmap, as `qemu:dirty-bitmap:NAME`.
    pub bitmap: Option<String>,
    /// It is to be written.
    pub writable: bool,
}

/// A connection to an export.
pub struct NbdImage {
    client: Client,
    options: NbdOptions,
    known: Mutex<Known>,
}

/// What was last learned about data and holes: nothing, to begin with.
struct Known {
    /// Where it is known.
    window: ByteRange,
    data: RangeSet,
}

impl NbdImage {
    /// Connects to the export of this name at the server on `socket`.
    ///
    /// Fails if there is no such export, and if it is to be written and cannot be, or not so that it is durable.
    /// That a bitmap is missing is told by [`NbdImage::dirty`].
    pub fn connect(socket: &Path, export: &str, options: NbdOptions) -> Result<NbdImage> {
        let mut wish = Options::new(options.name.clone(), export);
        wish.contexts = vec![BASE_ALLOCATION.to_owned()];
        wish.contexts.extend(options.bitmap.clone());
        NbdImage::over(Client::connect(socket, &wish)?, options)
    }

    /// Over a connection that was made with the contexts `base:allocation` and the bitmap's.
    pub fn over(client: Client, options: NbdOptions) -> Result<NbdImage> {
        let export = client.export();
        if options.writable {
            let refused = |kind, why: &str| {
                Error::new(kind, format!("cannot write to {}: {why}", options.name))
            };
            if export.read_only {
                let why = "the NBD server lets it be read only";
                return Err(refused(Kind::Permission, why)
                    .advise("start the server without --read-only, or export it as writable"));
            }
            if !export.can_flush {
                let why = "the NBD server cannot make writes durable: it lacks NBD_CMD_FLUSH";
                return Err(refused(Kind::Refused, why).advise("use qemu-nbd or QEMU's own server"));
            }
            if export.min_block as usize > ALIGN {
                let why = format!(
                    "the NBD server takes blocks of {} bytes, and more than {ALIGN} are not supported",
                    export.min_block
                );
                return Err(refused(Kind::Usage, &why));
            }
        }
        Ok(NbdImage {
            client,
            options,
            known: Mutex::new(Known {
                window: ByteRange::new(0, 0),
                data: RangeSet::new(),
            }),
        })
    }

    /// Whether the server has the bitmap that was asked for.
    pub fn has_bitmap(&self) -> bool {
        let name = self.options.bitmap.as_ref();
        name.is_some_and(|name| self.client.export().has_context(name))
    }

    /// All that the bitmap says was written, over the whole export.
    ///
    /// Fails with [`Kind::NotFound`] if no bitmap was asked for or the server does not have it.
    pub fn dirty(&self) -> Result<RangeSet> {
        let name = self.options.name.as_str();
        let Some(bitmap) = self.options.bitmap.as_deref() else {
            return Err(Error::new(
                Kind::NotFound,
                format!("no dirty bitmap of {name} was asked for"),
            ));
        };
        if !self.has_bitmap() {
            return Err(Error::new(
                Kind::NotFound,
                format!("the NBD server has no dirty bitmap {bitmap} of {name}"),
            )
            .advise("compare the whole disk, or export it with its bitmap"));
        }
        let size = self.size();
        let mut dirty = RangeSet::new();
        let mut at = 0;
        while at < size {
            for extent in self.status(bitmap, ByteRange::new(at, size))? {
                if extent.flags & STATE_DIRTY != 0 {
                    dirty.insert(extent.range);
                }
                at = extent.range.end;
            }
        }
        Ok(dirty)
    }

    /// Never empty, without gaps, from `range.start` on.
    fn status(&self, context: &str, range: ByteRange) -> Result<Vec<Extent>> {
        self.client.block_status(context, range)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns where data is from the start of a block on.
    fn learn(&self, start: u64) -> Result<Known> {
        let end = self.size().min(start.saturating_add(WINDOW_BYTES));
        let mut data = RangeSet::new();
        let mut at = start;
        while at < end {
            for extent in self.status(BASE_ALLOCATION, ByteRange::new(at, end))? {
                // A hole that is not said to be zeros may read as anything.
                if extent.flags & STATE_ZERO == 0 {
                    data.insert(extent.range);
                }
                at = extent.range.end;
            }
        }
        Ok(Known {
            window: ByteRange::new(start, at),
            data,
        })
    }

    /// Notes a write that has been done. Who learns at the same time has not seen it, and holds the lock.
    fn wrote(&self, range: ByteRange) {
        let mut known = self.known();
        let part = range.intersection(&known.window);
        known.data.insert(part);
    }

    fn check_writable(&self) -> Result<()> {
        match self.options.writable {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Refused,
                format!("{} was opened for reading only", self.options.name),
            )),
        }
    }

    /// Whole blocks at the front of `range`, and what is left.
    fn split(&self, range: ByteRange) -> (ByteRange, ByteRange) {
        let block = u64::from(self.client.export().min_block);
        let middle = range.end - range.len() % block;
        (
            ByteRange::new(range.start, middle),
            ByteRange::new(middle, range.end),
        )
    }

    fn write_range(&self, buf: &[u8], range: ByteRange) -> Result<()> {
        let (blocks, rest) = self.split(range);
        let (head, tail) = buf.split_at(blocks.len() as usize);
        if !blocks.is_empty() {
            self.client.write(head, blocks.start)?;
        }
        match rest.is_empty() {
            true => Ok(()),
            false => self.write_part_of_block(tail, rest.start),
        }
    }

    /// Where a file's last bytes go onto a longer export, what follows them in the block stays.
    fn write_part_of_block(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let mut block = AlignedBuf::zeroed(self.client.export().min_block as usize);
        self.client.read(&mut block, offset)?;
        block[..bytes.len()].copy_from_slice(bytes);
        self.client.write(&block, offset)
    }
}

impl Image for NbdImage {
    fn size(&self) -> u64 {
        self.client.export().size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.client.read(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_writable()?;
        let range = ByteRange::new(offset, offset.saturating_add(buf.len() as u64));
        let written = self.write_range(buf, range);
        // After an error some of it may be there.
        self.wrote(range);
        written
    }

    fn zero(&self, range: ByteRange) -> Result<()> {
        self.check_writable()?;
        if !self.client.export().can_zero {
            return write_zeros_where_needed(self, range);
        }
        let (blocks, rest) = self.split(range);
        if !blocks.is_empty() {
            self.client.write_zeroes(blocks, true)?;
        }
        match rest.is_empty() {
            true => Ok(()),
            false => self.write_part_of_block(&vec![0; rest.len() as usize], rest.start),
        }
    }

    fn next_data(&self, offset: u64) -> Result<Option<ByteRange>> {
        let size = self.size();
        if !self.tells_holes() {
            let rest = ByteRange::new(offset, size);
            return Ok(Some(rest).filter(|r| !r.is_empty()));
        }
        let block = u64::from(self.client.export().min_block);
        let mut at = offset;
        while at < size {
            let mut known = self.known();
            if !(known.window.start..known.window.end).contains(&at) {
                *known = self.learn(at - at % block)?;
            }
            if let Some(data) = known.data.next_from(at) {
                return Ok(Some(data));
            }
            at = known.window.end;
        }
        Ok(None)
    }

    fn tells_holes(&self) -> bool {
        self.client.export().has_context(BASE_ALLOCATION)
    }

    fn flush(&self) -> Result<()> {
        match self.options.writable {
            true => self.client.flush(),
            // Nothing was written.
            false => Ok(()),
        }
    }

    /// An export cannot change its size while it is connected. That it is still there is seen by reading its end.
    fn check_unchanged(&self) -> Result<()> {
        self.client.check()?;
        let block = self.size().min(u64::from(self.client.export().min_block));
        let mut last = vec![0; block as usize];
        match last.is_empty() {
            true => Ok(()),
            false => self.client.read(&mut last, self.size() - block),
        }
    }

    /// Nothing that a client could ask for. So that reads come from the medium the server must be started without a
    /// cache: `qemu-nbd --cache=none`, or a node of QEMU with `cache.direct=on`.
    fn read_from_medium(&self) -> Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        self.options.name.clone()
    }
}
