//! What travels between two ends: frames over a duplex byte stream. PROTOCOL.md beside this file is
//! the specification, byte by byte.

mod codec;
mod frame;
mod hello;
mod lanes;
mod link;
mod link_writer;
mod payload;
mod stream;
mod stripe;

pub use frame::{Delta, Entry, Extents, Frame, Grains, Held, Patch};
pub use hello::{Hello, VERSION, VERSION_MIN};
pub use lanes::Lanes;
pub use link::{Link, LinkReader, Received};
pub use link_writer::{ErrorReport, LinkWriter};
pub use payload::{Payload, Unpacker};
pub use stream::{StreamReader, StreamWriter};

/// Limits that both ends keep. A peer that exceeds one is refused.
pub mod limits {
    /// Largest leaf in bytes (`--block-size 4096`).
    pub const LEAF_BYTES_MAX: u32 = 16 << 20;
    /// Largest frame before the handshake is done, in bytes.
    pub const HELLO_FRAME_MAX: u32 = 512;
    /// Largest request, reply or error, in bytes.
    pub const CONTROL_FRAME_MAX: u32 = 4 << 20;
    /// Largest frame of all: a patch of one leaf of the largest size, and its head.
    pub const FRAME_MAX: u32 = LEAF_BYTES_MAX + 4096;
    /// Most segments of an image: of 2^63 bytes, with the smallest segments there are.
    pub const SEGMENTS_MAX: u64 = 1 << 44;
    /// Most runs in one extents frame.
    pub const RUNS_MAX: usize = 32 << 10;
    /// Most entries in one segments or grains frame.
    pub const ENTRIES_MAX: usize = 256;
    /// Segments the target may report ahead of what the source has answered.
    pub const WINDOW: usize = 256;
    /// Extents or grains frames that may lie unprocessed at the target.
    pub const SLICES_MAX: usize = 16;
    /// Lanes that a link may have besides its first stream.
    pub const LANES_MAX: u8 = 15;
    /// Seconds without any frame after which a peer counts as gone.
    pub const SILENCE_S_MAX: u64 = 30;
    /// Seconds between pings while there is nothing else to send.
    pub const PING_EVERY_S: u64 = 5;
}
