//! A client of the Network Block Device protocol over a unix socket: how QEMU hands out a disk, its holes and its
//! dirty bitmaps.
//!
//! The protocol is the one of `doc/proto.md` in the NBD project, and so are the names here. Spoken are the fixed
//! newstyle handshake with `NBD_OPT_GO`, structured replies if the server has them, and metadata contexts. Not spoken
//! are TLS and extended headers. What a server sends is trusted in nothing but the bytes of the disk: all lengths have
//! limits, all waits an end.

mod client;
mod errno;
mod export;
mod flight;
mod handshake;
mod pending;
mod proto;
#[cfg(feature = "fuzzing")]
pub mod replay;
mod reply;
mod socket;
mod take;

pub use client::{Client, Options};
pub use export::{Context, Export};
pub use reply::Extent;

/// The metadata context that tells data from holes.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// Before the name of a dirty bitmap, as QEMU calls the context.
pub const QEMU_DIRTY_BITMAP: &str = "qemu:dirty-bitmap:";
/// In `base:allocation`: nothing is allocated. Says nothing about what is read.
pub const STATE_HOLE: u32 = 1;
/// In `base:allocation`: reads as zeros.
pub const STATE_ZERO: u32 = 2;
/// In a dirty bitmap: was written.
pub const STATE_DIRTY: u32 = 1;

/// Limits on what a server may send, and on what is asked of it at once.
pub mod limits {
    use std::time::Duration;

    /// Quiet time after which a server counts as gone, if nothing else was asked for.
    pub const TIMEOUT: Duration = Duration::from_secs(60);
    /// A flush may be quiet for this many times the timeout, and no request may take longer in all.
    pub const PATIENCE: u32 = 10;
    /// Longest name or text, in bytes: the protocol's own limit.
    pub const STRING_BYTES_MAX: usize = 4096;
    /// Most replies to one option of the handshake.
    pub const OPTION_REPLIES_MAX: usize = 64;
    /// Longest reply to an option, in bytes: a string and what goes before it.
    pub const OPTION_REPLY_BYTES_MAX: u32 = STRING_BYTES_MAX as u32 + 64;
    /// Most metadata contexts asked for.
    pub const CONTEXTS_MAX: usize = 16;
    /// Most chunks in the reply to one request: pieces of 64 bytes in the largest read.
    pub const CHUNKS_MAX: u32 = 4096;
    /// Most extents in one chunk of block status.
    pub const EXTENTS_MAX: u32 = 1 << 20;
    /// Largest piece that is read or written in one request, in bytes.
    pub const PIECE_BYTES_MAX: u32 = 256 << 10;
    /// Largest range zeroed in one request, in bytes: a server may have to write it.
    pub const ZERO_BYTES_MAX: u32 = 16 << 20;
    /// Longest range asked about in one request, in bytes.
    pub const STATUS_BYTES_MAX: u32 = 1 << 30;
    /// Requests that one call keeps on the way.
    pub const IN_FLIGHT_MAX: usize = 8;
    /// Largest minimum block size that the protocol allows, in bytes.
    pub const MIN_BLOCK_MAX: u32 = 1 << 16;
}
