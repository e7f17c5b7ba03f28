//! What tells what a guest has changed of its disks since it came to this host.

use crate::overlay::Overlay;
use crate::running;
use rblocksync::error::{Error, Result};
use rblocksync::qemu::{img, BitmapRecord};
use rblocksync::replica::{read_json, write_json, Generation, Layout, TargetPair};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

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

/// The names of all such records of `vm` as a source, whatever its targets.
pub(super) fn known(layout: &Layout, vm: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for target in entries(&layout.source_pairs(vm))? {
        if !target.is_dir() {
            continue;
        }
        for path in entries(&target)? {
            if path.extension().is_some_and(|e| e == "bitmap") {
                names.extend(read_json::<BitmapRecord>(&path)?.map(|record| record.name));
            }
        }
    }
    Ok(names)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let cannot = |e| Error::io(format!("cannot list {}", dir.display()), e);
    match std::fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed
            .map_err(cannot)?
            .map(|entry| entry.map(|e| e.path()).map_err(cannot))
            .collect(),
    }
}
