//! An image in memory: the engine's test double, and the model other backends are compared with.

use super::Image;
use crate::error::{Error, Kind, Result};
use crate::range::{ByteRange, RangeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Allocation unit of the pretended holes, in bytes.
const GRAIN: u64 = 4096;

/// A sparse image held in memory. Remembers which grains are allocated and counts what was written.
pub struct MemoryImage {
    state: Mutex<State>,
}

struct State {
    bytes: Vec<u8>,
    allocated: Vec<bool>,
    written: u64,
}

impl MemoryImage {
    /// An image of `size` bytes that is one hole.
    pub fn new(size: usize) -> Self {
        MemoryImage {
            state: Mutex::new(State {
                bytes: vec![0; size],
                allocated: vec![false; (size as u64).div_ceil(GRAIN) as usize],
                written: 0,
            }),
        }
    }

    /// A copy of the content.
    pub fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    /// Bytes given to `write_at` so far.
    pub fn bytes_written(&self) -> u64 {
        self.state().written
    }

    /// Bytes of allocated grains.
    pub fn allocated(&self) -> u64 {
        let set: RangeSet = self.state().data().collect();
        set.total()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn data(&self) -> impl Iterator<Item = ByteRange> + '_ {
        let size = self.bytes.len() as u64;
        (0u64..)
            .zip(&self.allocated)
            .filter(|(_, on)| **on)
            .map(move |(i, _)| ByteRange::new(i * GRAIN, ((i + 1) * GRAIN).min(size)))
    }

    fn slice(&mut self, offset: u64, len: usize) -> Result<&mut [u8]> {
        let start = offset as usize;
        self.bytes.get_mut(start..start + len).ok_or_else(|| {
            Error::new(
                Kind::Space,
                format!("memory image ends before byte {offset} + {len}"),
            )
        })
    }
}

impl Image for MemoryImage {
    fn size(&self) -> u64 {
        self.state().bytes.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        buf.copy_from_slice(self.state().slice(offset, buf.len())?);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut state = self.state();
        state.slice(offset, buf.len())?.copy_from_slice(buf);
        state.written += buf.len() as u64;
        let grains = ByteRange::new(offset, offset + buf.len() as u64).align_out(GRAIN);
        for i in grains.start / GRAIN..grains.end / GRAIN {
            state.allocated[i as usize] = true;
        }
        Ok(())
    }

    fn zero(&self, range: ByteRange) -> Result<()> {
        let mut state = self.state();
        state.slice(range.start, range.len() as usize)?.fill(0);
        let size = state.bytes.len() as u64;
        let end = if range.end == size {
            size.next_multiple_of(GRAIN)
        } else {
            range.end
        };
        let grains = ByteRange::new(range.start, end).align_in(GRAIN);
        for i in grains.start / GRAIN..grains.end / GRAIN {
            state.allocated[i as usize] = false;
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<ByteRange>> {
        let set: RangeSet = self.state().data().collect();
        Ok(set.next_from(offset))
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }

    fn read_from_medium(&self) -> Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        "memory image".into()
    }
}
