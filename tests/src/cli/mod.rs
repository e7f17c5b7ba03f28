//! Running the real `rblocksync` on real files and devices, and judging what it did.

mod command;
mod content;
mod disk;
mod program;
mod ways;

pub use command::{rblocksync, Outcome, Rblocksync, Running, Summary};
pub use content::{allocated, checksum, scribble, sparse_image, stamp, Untouched};
pub use disk::{is_root, Loop, Mount};
pub use program::binary;
pub use ways::{agents, all_ways, connections, on, pair, refused_everywhere, server};

/// A mebibyte.
pub const MIB: u64 = 1 << 20;
