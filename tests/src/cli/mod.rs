//! Running the real `rblocksync` on real files and devices, and judging what it did.

mod command;
mod content;
mod disk;
mod program;
mod terminal;
mod ways;

pub use command::{rblocksync, Outcome, Rblocksync, Running, Summary};
pub use content::{allocated, checksum, resize, scribble, sparse_image, stamp, Untouched};
pub use disk::{is_root, Loop, Mount};
pub use program::{asked_as_front_end, binary, pvesync, virt_blocksync};
pub use terminal::{shown_on, terminal};
pub use ways::{
    agents, all_ways, connections, lanes, nobody_is_left, on, pair, refused_everywhere, server,
    started_with,
};

/// Names that a shell, an option parser or a text would make something else of.
pub const ODD_NAMES: [&[u8]; 8] = [
    b"a b",
    b"it's \"so\"",
    b";touch x;",
    b"$(touch x)",
    b"`touch x`",
    b"a\nb",
    b"*",
    b"a\xff\xfeb",
];

/// A mebibyte.
pub const MIB: u64 = 1 << 20;
