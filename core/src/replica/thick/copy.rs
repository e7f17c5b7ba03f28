//! Copying one volume into another of this host, past the page cache.

use crate::buf::AlignedBuf;
use crate::error::{Error, Kind, Result};
use crate::image::{open_source, open_target, TargetOptions};
use crate::range::ByteRange;
use std::path::Path;

const PIECE_BYTES: u64 = 4 << 20;

/// Copies what both have of the first `size` bytes, and makes it durable.
pub fn copy(from: &Path, to: &Path, size: u64) -> Result<()> {
    let source = open_source(from, false, |_| Ok(None))?;
    let target = open_target(to, TargetOptions::default(), |_| Ok(None))?;
    let (source, target) = (source.image.image(), target.image.image());
    if target.size() < size {
        return Err(Error::new(
            Kind::Io,
            format!("{} is smaller than what is to be in it", to.display()),
        ));
    }
    let end = size.min(source.size());
    let mut piece = AlignedBuf::zeroed(PIECE_BYTES as usize);
    let mut at = 0;
    while at < end {
        let len = PIECE_BYTES.min(end - at);
        source.read_at(&mut piece[..len as usize], at)?;
        target.write_at(&piece[..len as usize], at)?;
        at += len;
    }
    target.flush()
}

/// Makes everything from byte `size` on zeros, and that durable.
pub fn zero_from(path: &Path, size: u64) -> Result<()> {
    let target = open_target(path, TargetOptions::default(), |_| Ok(None))?;
    let target = target.image.image();
    if size >= target.size() {
        return Ok(());
    }
    // Whole blocks, and what of the first one belongs to the disk stays.
    let start = size.next_multiple_of(4096).min(target.size());
    target.zero(ByteRange::new(start, target.size()))?;
    let edge = size - size % 4096;
    if edge < size {
        let mut block = AlignedBuf::zeroed((start - edge) as usize);
        target.read_at(&mut block, edge)?;
        let kept = (size - edge) as usize;
        if block[kept..].iter().any(|b| *b != 0) {
            block[kept..].fill(0);
            target.write_at(&block, edge)?;
        }
    }
    target.flush()
}
