//! The header of a qcow2 image, versions 2 and 3, after QEMU's docs/interop/qcow2.txt. Nothing else of the format is
//! read here: the guest's bytes are read and written by QEMU's own program.
//!
//! The header says what must be known before that program is started: how large the disk is, and which other files
//! would be opened along with it. Every field is taken for a lie until it is within its bounds.

mod chain;

pub use chain::{behind, chain, Element, CHAIN_MAX};

use crate::error::{Error, Kind, Result};
use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

/// The first bytes of every qcow2 image.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

const V2_BYTES: usize = 72;
const V3_BYTES: usize = 104;
/// QEMU makes no larger clusters (2 MiB), and the header with all that belongs to it is in the first one.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Most entries of QEMU's first table (QCOW_MAX_L1_SIZE, 32 MiB).
const L1_ENTRIES_MAX: u64 = (32 << 20) / 8;
/// QCOW_MAX_SNAPSHOTS.
const SNAPSHOTS_MAX: u32 = 65536;
/// Longest name of a backing file.
const BACKING_NAME_MAX: usize = 1023;
/// Longest name of a format that is taken.
const FORMAT_NAME_MAX: usize = 63;

mod incompatible {
    pub const DIRTY: u64 = 1;
    pub const CORRUPT: u64 = 1 << 1;
    pub const DATA_FILE: u64 = 1 << 2;
    pub const COMPRESSION: u64 = 1 << 3;
    pub const EXTENDED_L2: u64 = 1 << 4;
    pub const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
}

mod extension {
    pub const END: u32 = 0;
    pub const BACKING_FORMAT: u32 = 0xe279_2aca;
    pub const BITMAPS: u32 = 0x2385_2875;
    pub const DATA_FILE: u32 = 0x4441_5441;
}

/// What the header of a qcow2 image says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Size of the guest's disk in bytes, a multiple of 512.
    pub virtual_size: u64,
    /// Bytes of a cluster, as a power of two.
    pub cluster_bits: u32,
    /// The image that shows where this one has nothing.
    pub backing: Option<Backing>,
    /// Number of internal snapshots.
    pub snapshots: u32,
    /// Number of persistent bitmaps.
    pub bitmaps: u32,
    /// The guest's bytes are encrypted.
    pub encrypted: bool,
    /// It was not closed properly by a program that defers its reference counts.
    pub dirty: bool,
    /// QEMU found it corrupt.
    pub corrupt: bool,
    /// The guest's bytes are in another file.
    pub data_file: bool,
    /// How compressed clusters are compressed: 0 is zlib, 1 zstd.
    pub compression_type: u8,
    /// Clusters have subclusters.
    pub extended_l2: bool,
    /// Features that must be understood to read it and that are unknown here.
    pub unknown: u64,
}

/// The image that shows where another has nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// Its name, relative to the image that names it.
    pub name: Vec<u8>,
    /// Its format, if the header names one.
    pub format: Option<Vec<u8>>,
}

/// Reads the header from the beginning of an image, of which 2 MiB are enough.
///
/// Fails with [`Kind::Refused`] if it is no header of a version known, or one that cannot be.
pub fn parse(bytes: &[u8]) -> Result<Header> {
    let refuse = |why: &str| Error::new(Kind::Refused, format!("the qcow2 header is bad: {why}"));
    if bytes.get(..4) != Some(&MAGIC[..]) {
        return Err(Error::new(Kind::Refused, "it is no qcow2 image"));
    }
    let fields = Fields(bytes);
    let version = fields.u32(4)?;
    if !matches!(version, 2 | 3) {
        return Err(refuse(&format!("version {version} is unknown")));
    }
    let cluster_bits = fields.u32(20)?;
    if !CLUSTER_BITS.contains(&cluster_bits) {
        return Err(refuse("the size of its clusters is absurd"));
    }
    let cluster = 1usize << cluster_bits;
    let (features, header_bytes) = match version {
        2 => (0, V2_BYTES),
        _ => (fields.u64(72)?, fields.u32(100)? as usize),
    };
    if header_bytes > cluster || (version == 3 && header_bytes < V3_BYTES) || header_bytes % 8 != 0
    {
        return Err(refuse("its length is absurd"));
    }
    let mut header = Header {
        version,
        virtual_size: fields.u64(24)?,
        cluster_bits,
        backing: None,
        snapshots: fields.u32(60)?,
        bitmaps: 0,
        encrypted: fields.u32(32)? != 0,
        dirty: features & incompatible::DIRTY != 0,
        corrupt: features & incompatible::CORRUPT != 0,
        data_file: features & incompatible::DATA_FILE != 0,
        compression_type: match features & incompatible::COMPRESSION != 0 {
            true => fields.u8(104)?,
            false => 0,
        },
        extended_l2: features & incompatible::EXTENDED_L2 != 0,
        unknown: features & !incompatible::KNOWN,
    };
    if !header.size_fits(fields.u32(36)?) {
        return Err(refuse("the size of the disk is absurd"));
    }
    if header.snapshots > SNAPSHOTS_MAX {
        return Err(refuse("the number of snapshots is absurd"));
    }
    let (name_at, name_len) = (fields.u64(8)?, fields.u32(16)? as usize);
    let mut extensions_end = cluster;
    if name_at != 0 {
        let at = usize::try_from(name_at).unwrap_or(usize::MAX);
        let end = at.saturating_add(name_len);
        let name = bytes.get(at..end).filter(|name| {
            at >= header_bytes
                && end <= cluster
                && (1..=BACKING_NAME_MAX).contains(&name.len())
                && !name.contains(&0)
        });
        let name = name.ok_or_else(|| refuse("the name of its backing file is absurd"))?;
        extensions_end = at;
        header.backing = Some(Backing {
            name: name.to_vec(),
            format: None,
        });
    }
    header.extensions(fields, header_bytes, extensions_end)?;
    Ok(header)
}

impl Header {
    /// Whether the first table, of so many entries, covers the disk: what QEMU asks for as well.
    fn size_fits(&self, l1_entries: u32) -> bool {
        let entry_bits = if self.extended_l2 { 4 } else { 3 };
        let covered_bits = self.cluster_bits + self.cluster_bits - entry_bits;
        let needed = self.virtual_size.div_ceil(1 << covered_bits);
        let l1 = u64::from(l1_entries);
        self.virtual_size <= i64::MAX as u64
            && self.virtual_size.is_multiple_of(512)
            && l1 <= L1_ENTRIES_MAX
            && needed <= l1
    }

    fn extensions(&mut self, fields: Fields, mut at: usize, end: usize) -> Result<()> {
        let refuse = || {
            Error::new(
                Kind::Refused,
                "the qcow2 header is bad: an extension is cut off",
            )
        };
        let end = end.min(fields.0.len());
        while end.saturating_sub(at) >= 8 {
            let (kind, len) = (fields.u32(at)?, fields.u32(at + 4)? as usize);
            if kind == extension::END {
                break;
            }
            let data = at + 8;
            if len > end - data {
                return Err(refuse());
            }
            match kind {
                extension::BACKING_FORMAT => {
                    let name = &fields.0[data..data + len];
                    if len > FORMAT_NAME_MAX {
                        return Err(Error::new(
                            Kind::Refused,
                            "the qcow2 header is bad: the name of a format is absurd",
                        ));
                    }
                    if let Some(backing) = &mut self.backing {
                        backing.format = Some(name.to_vec());
                    }
                }
                extension::BITMAPS if len >= 4 => self.bitmaps = fields.u32(data)?,
                extension::DATA_FILE => self.data_file = true,
                _ => {}
            }
            at = data + len.next_multiple_of(8);
        }
        Ok(())
    }

    /// Refuses what cannot be read by its meaning: with [`Kind::Refused`].
    pub fn check_usable(&self) -> Result<()> {
        let refuse = |why: String, advice: &str| {
            let error = Error::new(Kind::Refused, why);
            Err(match advice {
                "" => error,
                advice => error.advise(advice),
            })
        };
        if self.corrupt {
            return refuse(
                "it is marked as corrupt".into(),
                "look at it with qemu-img check, and put it right first",
            );
        }
        if self.encrypted {
            return refuse("it is encrypted".into(), "");
        }
        if self.data_file {
            return refuse(
                "the guest's bytes are in another file, its data file".into(),
                "convert it with qemu-img convert, or sync the data file",
            );
        }
        if self.unknown != 0 {
            return refuse(
                format!(
                    "it has features that are unknown here ({:#x})",
                    self.unknown
                ),
                "",
            );
        }
        if self.compression_type > 1 {
            return refuse("its compression is unknown".into(), "");
        }
        Ok(())
    }
}

/// Reads the header of the image at `path`, and refuses what cannot be used. Opens no other file.
pub fn read(path: &Path) -> Result<Header> {
    let context = |e: Error| e.context(path.display());
    let io = |e| {
        Error::io(
            format!("cannot read the qcow2 header of {}", path.display()),
            e,
        )
    };
    let kind = std::fs::metadata(path).map_err(io)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let what = "it is neither a file nor a block device";
        return Err(context(Error::new(Kind::Usage, what)));
    }
    let file = File::open(path).map_err(io)?;
    let header = parse(&beginning(&file).map_err(io)?).map_err(context)?;
    header.check_usable().map_err(context)?;
    Ok(header)
}

/// Whether the file at `path` begins as a qcow2 image does. For messages only.
pub fn looks_like_it(path: &Path) -> bool {
    let mut magic = [0; 4];
    let is_file = std::fs::metadata(path).is_ok_and(|meta| meta.is_file());
    let read = |file: File| file.read_exact_at(&mut magic, 0).is_ok();
    is_file && File::open(path).is_ok_and(read) && magic == MAGIC
}

/// The first cluster, whatever its size, or less if there is less.
fn beginning(file: &File) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 1 << CLUSTER_BITS.end()];
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Big-endian numbers at offsets in bytes.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let bytes = at.checked_add(N).and_then(|end| self.0.get(at..end));
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| Error::new(Kind::Refused, "the qcow2 header is bad: it is cut off"))
    }

    fn u8(&self, at: usize) -> Result<u8> {
        self.bytes(at).map(u8::from_be_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32> {
        self.bytes(at).map(u32::from_be_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64> {
        self.bytes(at).map(u64::from_be_bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
