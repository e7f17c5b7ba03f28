//! An image and those behind it. Each must be named with its format by the one before: a raw image that was guessed to be
//! something else would let a guest name files of the host.

use super::{read, Backing, Header};
use crate::error::{Error, Kind, Result};
use crate::image::ImageFormat;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// More images than this are no chain that anybody made on purpose.
pub const CHAIN_MAX: usize = 64;

/// One image of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// It is a block device.
    pub is_device: bool,
    /// Bytes that the file takes; of a device 0.
    pub allocated: u64,
}

/// The header of the qcow2 image at `path`, and all images that make it up, itself first.
///
/// Fails with [`Kind::Refused`] if one of them cannot be used, or is named without its format.
pub fn chain(path: &Path) -> Result<(Header, Vec<Element>)> {
    let header = read(path)?;
    let (first, id) = element(path, ImageFormat::Qcow2)?;
    let (mut elements, mut seen) = (vec![first], vec![id]);
    let mut backing = header.backing.clone();
    while let Some(named) = backing.take() {
        let above = elements[elements.len() - 1].path.clone();
        let refused = |e: Error| e.context(format!("the backing file of {}", above.display()));
        let (path, format) = resolve(&named, &above).map_err(refused)?;
        let (next, id) = element(&path, format).map_err(refused)?;
        if elements.len() == CHAIN_MAX || seen.contains(&id) {
            let what = format!(
                "{} has a chain of backing files without end",
                elements[0].path.display()
            );
            return Err(Error::new(Kind::Refused, what));
        }
        if format == ImageFormat::Qcow2 {
            backing = read(&path).map_err(refused)?.backing;
        }
        elements.push(next);
        seen.push(id);
    }
    Ok((header, elements))
}

/// The image right behind the qcow2 image at `path`, which need not be there, and its format. Nothing if there is none.
///
/// Fails as [`chain`] does.
pub fn behind(path: &Path) -> Result<Option<(PathBuf, ImageFormat)>> {
    let Some(named) = read(path)?.backing else {
        return Ok(None);
    };
    let found = resolve(&named, path);
    let context = |e: Error| e.context(format!("the backing file of {}", path.display()));
    found.map(Some).map_err(context)
}

fn element(path: &Path, format: ImageFormat) -> Result<(Element, (u64, u64))> {
    let io = |e| Error::io(format!("cannot find {}", path.display()), e);
    let path = std::path::absolute(path).map_err(io)?;
    let meta = std::fs::metadata(&path).map_err(io)?;
    let is_device = meta.file_type().is_block_device();
    if !is_device && !meta.is_file() {
        let what = format!("{} is neither a file nor a block device", path.display());
        return Err(Error::new(Kind::Usage, what));
    }
    let id = match is_device {
        true => (meta.rdev(), 0),
        false => (meta.dev(), meta.ino()),
    };
    let element = Element {
        path,
        format,
        is_device,
        allocated: meta.blocks() * 512,
    };
    Ok((element, id))
}

/// The file that `above` names as its backing file. QEMU takes a name for a protocol's if a colon comes before any
/// slash; none of these is a file of this host.
fn resolve(backing: &Backing, above: &Path) -> Result<(PathBuf, ImageFormat)> {
    let shown = String::from_utf8_lossy(&backing.name)
        .escape_debug()
        .to_string();
    let is_protocol = backing.name.iter().find(|b| matches!(b, b':' | b'/')) == Some(&b':');
    if is_protocol {
        return Err(Error::new(
            Kind::Refused,
            format!("\"{shown}\" is not named as a plain file"),
        )
        .advise("rename it with qemu-img rebase -u, or merge the two with qemu-img convert"));
    }
    let format = match &backing.format {
        None => {
            return Err(Error::new(
                Kind::Refused,
                format!("\"{shown}\" is named without its format, and guessing it is not safe"),
            )
            .advise("name it: qemu-img rebase -u -b BACKING -F FMT IMAGE"));
        }
        Some(name) => std::str::from_utf8(name)
            .ok()
            .and_then(|name| name.parse().ok()),
    };
    let format = format.ok_or_else(|| {
        Error::new(
            Kind::Refused,
            format!(
                "\"{shown}\" has a format that this version cannot handle; it can raw and qcow2"
            ),
        )
    })?;
    // As QEMU does: relative to the directory of the image that names it.
    let dir = above.parent().unwrap_or(Path::new("/"));
    Ok((dir.join(OsStr::from_bytes(&backing.name)), format))
}
