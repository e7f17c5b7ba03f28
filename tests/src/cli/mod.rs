//! Running the real `rblocksync` on real files and devices, and judging what it did.

mod command;
mod content;
mod disk;
mod program;

pub use command::{rblocksync, Outcome, Rblocksync, Running, Summary};
pub use content::{allocated, checksum, scribble, sparse_image, stamp, Untouched};
pub use disk::{is_root, Loop, Mount};
pub use program::binary;

/// A mebibyte.
pub const MIB: u64 = 1 << 20;
