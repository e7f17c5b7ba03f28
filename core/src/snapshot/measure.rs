//! How large a disk is, and how much of its volume is in use.

use super::{ActiveChain, DiskSource};
use crate::cmd::Tool;
use crate::error::{Error, Result};
use crate::image::{qcow2, ImageFormat};
use crate::lvm::{self, Lv, LvKind};
use crate::thin;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What is known of a disk before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// The disk: a thin volume by its name, all else by its path.
    pub source: DiskSource,
    /// Size of the guest's disk in bytes.
    pub size: u64,
    /// Bytes that it takes at most.
    pub used: u64,
}

/// Finds out what is at `path`, and its sizes. The format is known from the configuration, so nothing is guessed from what
/// a guest could write.
pub fn measure(path: &Path, format: ImageFormat) -> Result<Measured> {
    if let Some(lv) = lvm::find_by_path(path)? {
        return measure_lv(&lv, format);
    }
    let meta = std::fs::metadata(path)
        .map_err(|e| Error::io(format!("cannot stat {}", path.display()), e))?;
    let source = DiskSource::Path(path.to_owned());
    let (size, used) = match meta.file_type().is_block_device() && format.is_raw() {
        true => {
            let size = device_bytes(path)?;
            (size, size)
        }
        false => file_bytes(path, format)?,
    };
    Ok(Measured { source, size, used })
}

/// The same of a logical volume.
pub fn measure_lv(lv: &Lv, format: ImageFormat) -> Result<Measured> {
    if lv.kind == LvKind::Thin && format.is_raw() {
        return Ok(Measured {
            source: DiskSource::Lv(lv.id.clone()),
            size: lv.size,
            used: used_bytes(lv),
        });
    }
    let size = lv_bytes(lv, format)?;
    Ok(Measured {
        // By its path: QEMU's bitmaps are for disks that have no snapshots of their own.
        source: DiskSource::Path(lv.id.path()),
        size,
        used: size,
    })
}

/// Bytes that a thin volume takes in its pool. LVM only knows it of active volumes; of the others the pool's
/// metadata tells, or else the whole size is assumed.
fn used_bytes(lv: &Lv) -> u64 {
    match lv.data_percent {
        Some(percent) => (lv.size as f64 * percent / 100.0) as u64,
        None => thin::mapped(lv).map_or(lv.size, |mapped| mapped.total()),
    }
}

/// Size of the disk in a thick volume, in bytes: the volume's, or what the qcow2 image in it says.
fn lv_bytes(lv: &Lv, format: ImageFormat) -> Result<u64> {
    if format.is_raw() {
        return Ok(lv.size);
    }
    Tool::QemuNbd.path()?;
    let _active = ActiveChain::of(lv, format)?;
    let (header, _) = qcow2::chain(&lv.id.path())?;
    Ok(header.virtual_size)
}

/// Size of a block device in bytes.
pub fn device_bytes(path: &Path) -> Result<u64> {
    let failed = |e| Error::io(format!("cannot tell the size of {}", path.display()), e);
    let mut device = File::open(path).map_err(failed)?;
    device.seek(SeekFrom::End(0)).map_err(failed)
}

/// Size of the disk in a file, and the bytes that it takes, both in bytes.
pub fn file_bytes(path: &Path, format: ImageFormat) -> Result<(u64, u64)> {
    match format {
        ImageFormat::Raw => {
            let meta = std::fs::metadata(path)
                .map_err(|e| Error::io(format!("cannot stat {}", path.display()), e))?;
            Ok((meta.len(), meta.blocks() * 512))
        }
        ImageFormat::Qcow2 => {
            Tool::QemuNbd.path()?;
            // Of a linked clone all is sent, what is in its base as well.
            let (header, chain) = qcow2::chain(path)?;
            Ok((
                header.virtual_size,
                chain.iter().map(|element| element.allocated).sum(),
            ))
        }
    }
}
