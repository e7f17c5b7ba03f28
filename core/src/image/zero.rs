//! Zeroing that is proved: zeros are written only where something else is read.

use super::Image;
use crate::buf::{is_zero, AlignedBuf};
use crate::error::Result;
use crate::range::ByteRange;

/// Bytes looked at in one read.
const STEP: u64 = 1 << 20;
/// Grain at which zeros are written: the engine's smallest leaf.
const GRAIN: usize = 4096;

/// Reads `range` and overwrites with zeros what is not zero, so that nothing is allocated for
/// what already reads as zeros.
pub(super) fn write_zeros_where_needed(image: &dyn Image, range: ByteRange) -> Result<()> {
    let mut buf = AlignedBuf::zeroed(STEP.min(range.len()) as usize);
    let zeros = AlignedBuf::zeroed(buf.len());
    let mut at = range.start;
    while at < range.end {
        let len = STEP.min(range.end - at) as usize;
        image.read_at(&mut buf[..len], at)?;
        for dirty in dirty_runs(&buf[..len]).iter() {
            image.write_at(&zeros[..dirty.len() as usize], at + dirty.start)?;
        }
        at += len as u64;
    }
    Ok(())
}

/// True if all of `range` reads as zeros.
pub(super) fn reads_zero(image: &dyn Image, range: ByteRange) -> Result<bool> {
    let mut buf = AlignedBuf::zeroed(STEP.min(range.len()) as usize);
    let mut at = range.start;
    while at < range.end {
        let len = STEP.min(range.end - at) as usize;
        image.read_at(&mut buf[..len], at)?;
        if !is_zero(&buf[..len]) {
            return Ok(false);
        }
        at += len as u64;
    }
    Ok(true)
}

/// Runs of grains that are not all zero, as offsets into `bytes`.
fn dirty_runs(bytes: &[u8]) -> crate::range::RangeSet {
    bytes
        .chunks(GRAIN)
        .enumerate()
        .filter(|(_, grain)| !is_zero(grain))
        .map(|(i, grain)| {
            let start = (i * GRAIN) as u64;
            ByteRange::new(start, start + grain.len() as u64)
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::image::MemoryImage;

    #[test]
    fn only_what_is_not_zero_is_written() {
        let image = MemoryImage::new(3 << 20);
        image.write_at(&[7; 4096], 8192).unwrap();
        image.write_at(&[7; 4096], 2 << 20).unwrap();
        let before = image.bytes_written();
        write_zeros_where_needed(&image, ByteRange::new(4096, 3 << 20)).unwrap();
        assert_eq!(image.bytes_written() - before, 8192);
        assert!(reads_zero(&image, ByteRange::new(0, 3 << 20)).unwrap());
    }
}
