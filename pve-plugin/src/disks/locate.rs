//! Where the volumes of each kind of storage are on a host. Follows from the configuration and the volume's name alone:
//! neither the kind nor the format of a disk is ever found by looking into it.

use crate::storage_cfg::{unsupported, Storage, StorageEntry};
use crate::volid::{Format, Volid, Volume};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::image::ImageFormat;
use std::path::{Path, PathBuf};

/// Where a volume is on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A thin LV.
    LvmThin {
        /// The volume group.
        vg: String,
        /// The LV.
        lv: String,
        /// The thin pool it belongs to.
        pool: String,
    },
    /// An LV that takes its whole size in its group.
    Lvm {
        /// The volume group.
        vg: String,
        /// The LV.
        lv: String,
        /// How the guest's bytes are arranged in it.
        format: ImageFormat,
    },
    /// A file.
    File {
        /// Absolute path.
        path: PathBuf,
        /// How its bytes are arranged.
        format: ImageFormat,
    },
    /// A file in a subvolume of btrfs that holds nothing else.
    Subvolume {
        /// Absolute path of the subvolume.
        path: PathBuf,
    },
    /// A zvol.
    Zvol {
        /// Its dataset: `rpool/data/vm-101-disk-0`.
        dataset: String,
    },
    /// An RBD image.
    Rbd {
        /// What its name is below `/dev/rbd`: pool, namespace if it has one, image.
        name: String,
    },
}

/// The file that is a raw volume on btrfs.
const DISK_FILE: &str = "disk.raw";

impl Location {
    /// The device node or file. Of an RBD image one that does not tell clusters of Ceph apart.
    pub fn path(&self) -> PathBuf {
        match self {
            Location::LvmThin { vg, lv, .. } | Location::Lvm { vg, lv, .. } => {
                PathBuf::from(format!("/dev/{vg}/{lv}"))
            }
            Location::File { path, .. } => path.clone(),
            Location::Subvolume { path } => path.join(DISK_FILE),
            Location::Zvol { dataset } => Path::new("/dev/zvol").join(dataset),
            Location::Rbd { name } => Path::new("/dev/rbd").join(name),
        }
    }

    /// How the guest's bytes are arranged.
    pub fn format(&self) -> ImageFormat {
        match self {
            Location::Lvm { format, .. } | Location::File { format, .. } => *format,
            _ => ImageFormat::Raw,
        }
    }
}

/// Finds out where a VM volume is on a host that has the storage, and what its name says about it.
/// Volumes this version cannot read or write are errors.
pub fn locate(entry: &StorageEntry, volid: &Volid) -> Result<(Volume, Location)> {
    match &entry.storage {
        Storage::LvmThin { vgname, thinpool } => {
            let volume = Volume::on_lvm_thin(volid)?;
            let location = Location::LvmThin {
                vg: vgname.clone(),
                lv: volume.name.clone(),
                pool: thinpool.clone(),
            };
            Ok((volume, location))
        }
        Storage::Lvm {
            vgname,
            volume_chains,
        } => {
            let volume = Volume::on_lvm(volid)?;
            if volume.format == Format::Qcow2 && !volume_chains {
                let what = format!(
                    "is named as a qcow2 image, which storage {} is not configured for",
                    entry.id
                );
                return Err(Error::new(Kind::Refused, what)
                    .advise("set snapshot-as-volume-chain on the storage if it is one"));
            }
            let location = Location::Lvm {
                vg: vgname.clone(),
                lv: volume.name.clone(),
                format: image_format(&volume)?,
            };
            Ok((volume, location))
        }
        Storage::Dir { path, images, .. } => {
            let volume = Volume::on_dir(volid)?;
            let location = Location::File {
                format: image_format(&volume)?,
                path: file_of(path, images, &volume, &volume.name),
            };
            Ok((volume, location))
        }
        Storage::Btrfs { path, images, .. } => {
            let volume = Volume::on_dir(volid)?;
            let location = match image_format(&volume)? {
                ImageFormat::Raw => {
                    let stem = volume.name.trim_end_matches(".raw");
                    Location::Subvolume {
                        path: file_of(path, images, &volume, stem),
                    }
                }
                format => Location::File {
                    path: file_of(path, images, &volume, &volume.name),
                    format,
                },
            };
            Ok((volume, location))
        }
        Storage::ZfsPool { pool } => {
            let volume = Volume::on_zfs(volid)?;
            let dataset = format!("{pool}/{}", volume.name);
            Ok((volume, Location::Zvol { dataset }))
        }
        Storage::Rbd { pool, namespace } => {
            let volume = Volume::on_rbd(volid)?;
            let name = match namespace {
                Some(namespace) => format!("{pool}/{namespace}/{}", volume.name),
                None => format!("{pool}/{}", volume.name),
            };
            Ok((volume, Location::Rbd { name }))
        }
        Storage::Other(kind) => Err(unsupported(&entry.id, kind)),
    }
}

fn file_of(path: &Path, images: &Path, volume: &Volume, name: &str) -> PathBuf {
    let owner = volume.owner.to_string();
    path.join(images).join(owner).join(name)
}

/// A qcow2 volume may have others behind it: the base of a linked clone, or where snapshots are chains of volumes those
/// that were taken. They are found when it is read.
fn image_format(volume: &Volume) -> Result<ImageFormat> {
    let refuse = |why: String| Err(Error::new(Kind::Refused, why));
    match volume.format {
        // Only qcow2 has a place for the name of what is behind it.
        Format::Raw if volume.base.is_some() => {
            refuse("is a linked clone, and cannot be one in format raw".into())
        }
        Format::Raw => Ok(ImageFormat::Raw),
        Format::Qcow2 => Ok(ImageFormat::Qcow2),
        Format::Vmdk | Format::Subvol => refuse(format!(
            "is in format {}, which this version cannot handle; it can raw and qcow2",
            volume.format.extension()
        )),
    }
}
