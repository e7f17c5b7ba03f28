//! What a server said about an export.

use super::limits::{MIN_BLOCK_MAX, PIECE_BYTES_MAX, STATUS_BYTES_MAX, ZERO_BYTES_MAX};
use super::proto;
use super::take::violation;
use crate::error::Result;

/// A metadata context that the server agreed to answer for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Its number on this connection.
    pub(super) id: u32,
    /// Its name, as `base:allocation`.
    pub name: String,
}

/// An export as the server described it in the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// In bytes.
    pub size: u64,
    /// The server takes no writes.
    pub read_only: bool,
    /// The server takes `NBD_CMD_FLUSH`.
    pub can_flush: bool,
    /// The server takes `NBD_CMD_WRITE_ZEROES`.
    pub can_zero: bool,
    /// Replies come in chunks.
    pub structured: bool,
    /// What block status can be asked for.
    pub contexts: Vec<Context>,
    /// Offsets and lengths must be multiples of this, in bytes: a power of two, at most 64 KiB; the size is one.
    pub min_block: u32,
    /// Most bytes in one request; a multiple of `min_block`, or 2^32 - 1 for no limit.
    pub max_block: u32,
}

/// Without a word from the server, what is safe with all of them.
const DEFAULT_MIN_BLOCK: u32 = 512;
const DEFAULT_MAX_BLOCK: u32 = 32 << 20;

impl Export {
    /// From `NBD_INFO_EXPORT` and, if the server sent one, `NBD_INFO_BLOCK_SIZE`: the smallest and the largest block.
    pub(super) fn new(
        (size, flags): (u64, u16),
        blocks: Option<(u32, u32)>,
        structured: bool,
        contexts: Vec<Context>,
    ) -> Result<Self> {
        if flags & proto::FLAG_HAS_FLAGS == 0 {
            return Err(violation("it sent no transmission flags"));
        }
        if i64::try_from(size).is_err() {
            return Err(violation(format!(
                "it says that the export has {size} bytes"
            )));
        }
        let (min_block, max_block) = match blocks {
            Some(blocks) => blocks,
            None if size % u64::from(DEFAULT_MIN_BLOCK) == 0 => {
                (DEFAULT_MIN_BLOCK, DEFAULT_MAX_BLOCK)
            }
            None => (1, DEFAULT_MAX_BLOCK),
        };
        let whole = max_block == u32::MAX || max_block % min_block.max(1) == 0;
        if !min_block.is_power_of_two()
            || min_block > MIN_BLOCK_MAX
            || max_block < min_block
            || !whole
        {
            return Err(violation(format!(
                "it says that blocks have at least {min_block} and at most {max_block} bytes"
            )));
        }
        if size % u64::from(min_block) != 0 {
            return Err(violation(format!(
                "the export has {size} bytes, and its last ones cannot be read in blocks of {min_block}"
            )));
        }
        Ok(Export {
            size,
            read_only: flags & proto::FLAG_READ_ONLY != 0,
            can_flush: flags & proto::FLAG_SEND_FLUSH != 0,
            can_zero: flags & proto::FLAG_SEND_WRITE_ZEROES != 0,
            structured,
            contexts,
            min_block,
            max_block,
        })
    }

    /// Whether block status can be asked for in the context of this name.
    pub fn has_context(&self, name: &str) -> bool {
        self.contexts.iter().any(|c| c.name == name)
    }

    /// Bytes read or written in one request.
    pub(super) fn piece(&self) -> u64 {
        self.whole_blocks(PIECE_BYTES_MAX.min(self.max_block))
    }

    /// Bytes zeroed in one request.
    pub(super) fn zero_piece(&self) -> u64 {
        self.whole_blocks(ZERO_BYTES_MAX.min(self.max_block))
    }

    /// Bytes asked about in one request, which no largest block limits.
    pub(super) fn status_piece(&self) -> u64 {
        u64::from(STATUS_BYTES_MAX)
    }

    /// Whole pages if that many bytes hold one, else whole blocks.
    fn whole_blocks(&self, bytes: u32) -> u64 {
        let page = self.min_block.max(4096);
        let grain = if bytes < page { self.min_block } else { page };
        u64::from(bytes - bytes % grain)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn export(size: u64, blocks: Option<(u32, u32)>) -> Result<Export> {
        Export::new((size, proto::FLAG_HAS_FLAGS), blocks, true, Vec::new())
    }

    #[test]
    fn pieces_are_whole_blocks_and_never_too_large() {
        for (blocks, piece, zero_piece) in [
            ((1, u32::MAX), 256 << 10, 16 << 20),
            ((512, 32 << 20), 256 << 10, 16 << 20),
            ((65536, 65536), 65536, 65536),
            ((65536, 3 * 65536), 3 * 65536, 3 * 65536),
            ((1, 100_000), 98304, 98304),
            ((512, 1536), 1536, 1536),
            ((1, 100), 100, 100),
        ] {
            let export = export(1 << 30, Some(blocks)).unwrap();
            assert_eq!(export.piece(), piece, "{blocks:?}");
            assert_eq!(export.zero_piece(), zero_piece, "{blocks:?}");
        }
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        for (size, blocks) in [
            (1000, Some((512, 4096))),
            (4096, Some((0, 4096))),
            (4096, Some((3, 4096))),
            (1 << 20, Some((1 << 17, 1 << 20))),
            (4096, Some((512, 256))),
            (4096, Some((512, 1000))),
            (1 << 63, None),
        ] {
            assert!(export(size, blocks).is_err(), "{size} {blocks:?}");
        }
        assert_eq!(export(1000, None).unwrap().min_block, 1);
        assert_eq!(export(1024, None).unwrap().min_block, 512);
        assert!(Export::new((512, 0), None, true, Vec::new()).is_err());
    }
}
