//! What tells what a guest has changed of its disks since it came to this host.

use crate::overlay::Overlay;
use crate::running;
use rblocksync::error::Result;
use rblocksync::qemu::{img, BitmapRecord};
use rblocksync::replica::{write_json, Generation, Layout, TargetPair};
use std::path::Path;

/// Has QEMU note what the guest changes of a disk since `generation`, which is what lies below the empty `overlay`: the first
/// sync back needs to read no more. QEMU merges the record with what lies over the disk; a raw disk cannot keep one.
pub(super) fn begin(
    layout: &Layout,
    pair: &TargetPair,
    generation: &Generation,
    overlay: &Overlay,
) -> Result<()> {
    let mut disks = generation.disks.iter();
    let Some(index) = disks.position(|disk| disk.target == overlay.base) else {
        return Ok(());
    };
    let record = BitmapRecord {
        name: running::taken_name(pair.pair, generation.number),
        // It is in the file, but only libvirt can tell what of it is sound.
        persistent: false,
    };
    img::begin_bitmap(Path::new(&overlay.path), &record.name)?;
    let path = layout.taken_bitmap(pair.pair, generation.number, index);
    write_json(&path, &record)
}
