//! What can be read and written: one small trait, and the backends behind it.
//!
//! The block engine knows nothing else of a disk. Capabilities are asked, not assumed: an image says
//! which ranges hold data, and [`Image::zero`] makes a range read as zeros however the backend can.

mod block;
mod cache;
mod container;
mod file;
mod format;
mod guard;
mod memory;
mod nbd;
pub mod open;
pub mod qcow2;
mod room;
mod view;
mod zero;

pub use block::{BlockImage, ThinMap};
pub use container::{does_direct_io, Container, Held};
pub use file::FileImage;
pub use format::ImageFormat;
pub use guard::Identity;
pub use memory::MemoryImage;
pub use nbd::{NbdImage, NbdOptions};
pub use open::{flush_parent, open_source, open_target, Handle, Opened, TargetOptions};
pub use room::Room;
pub use view::View;

use crate::error::Result;
use crate::range::ByteRange;

/// A disk image or block device.
///
/// Offsets and lengths are bytes. Buffers are [`crate::buf::AlignedBuf`]s (or aligned pieces of one):
/// backends may use direct I/O. Ranges given to `read_at` and `write_at` start at multiples of 4 KiB
/// and end at one or at the end of what is synced, which is the image's end or, if sizes may differ,
/// any byte before it. All methods may be called from several threads at once on
/// ranges that do not overlap.
pub trait Image: Send + Sync {
    /// Size in bytes as it was when the image was opened or last resized.
    fn size(&self) -> u64;

    /// Fills `buf` from `offset`; short reads are an error.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Writes all of `buf` at `offset`. Durable only after [`Image::flush`].
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()>;

    /// Hint that no more is written to `range` for now: it may go to the medium while other work goes on,
    /// so that less is left for [`Image::flush`].
    fn start_writeback(&self, _range: ByteRange) {}

    /// Makes `range` read as zeros: deallocated where that is possible and proved, else written.
    fn zero(&self, range: ByteRange) -> Result<()>;

    /// The first range at or after `offset` that may hold data, or `None` if only holes follow.
    /// What lies outside of the ranges it gives reads as zeros.
    fn next_data(&self, offset: u64) -> Result<Option<ByteRange>>;

    /// Whether [`Image::next_data`] tells data from holes. If not, what it gives may be zeros as well.
    fn tells_holes(&self) -> bool {
        true
    }

    /// Makes everything written durable, metadata that is needed to read it included.
    fn flush(&self) -> Result<()>;

    /// Fails if the image's size is no longer what it was, or the image is gone.
    fn check_unchanged(&self) -> Result<()>;

    /// Asks that later reads come from the medium, not from a cache: for verification.
    fn read_from_medium(&self) -> Result<()>;

    /// Name for messages: the path, mostly.
    fn name(&self) -> String;
}
