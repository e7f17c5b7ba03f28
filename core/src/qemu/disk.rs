//! The guest's bytes in a qcow2 image, read and written by QEMU's own code: qemu-nbd serves it, and this is its only
//! client. So an image that it writes is one that QEMU would have written, bitmaps and all.
//!
//! Nothing is probed: the format of the image and of all images behind it is passed along, as the headers name them.

use super::img;
use super::nbd_server::{escaped, Export, NbdServer};
use crate::error::{Error, Kind, Result};
use crate::image::qcow2::{self, Element, Header};
use crate::image::{
    does_direct_io, Container, Held, Identity, Image, NbdImage, NbdOptions, TargetOptions,
};
use crate::range::{ByteRange, RangeSet};
use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

/// How long a server that an error came from may take to be seen to have ended.
const END_SHOWS: Duration = Duration::from_secs(1);

/// How an image is to be read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Past the page cache, or not at all. Without it that is done where the file system can.
    pub direct: bool,
    /// Read this internal snapshot, not the present state. That may be done while a QEMU has the image open: nothing
    /// that belongs to a snapshot changes as long as the snapshot is there.
    pub snapshot: Option<String>,
    /// A persistent bitmap, for [`Qcow2Disk::dirty`].
    pub bitmap: Option<String>,
}

/// The guest's disk in a qcow2 image.
pub struct Qcow2Disk {
    held: Held,
    size: AtomicU64,
    read: ReadOptions,
    writable: bool,
    /// It was not there before, so nothing in it is of any worth.
    is_new: bool,
    serving: RwLock<Option<Serving>>,
}

/// The two ends of the connection. The client's is dropped first.
struct Serving {
    image: NbdImage,
    server: NbdServer,
}

impl Qcow2Disk {
    /// Opens an image for reading. Refuses one that a QEMU has open for writing, with [`Kind::Busy`], unless a snapshot
    /// in it is to be read; and one that cannot be used, see [`qcow2::chain`].
    pub fn source(path: &Path, options: &ReadOptions) -> Result<(Qcow2Disk, Identity, Header)> {
        let (held, identity) = Held::source(path)?;
        Qcow2Disk::opened(held, options.clone(), false, identity)
    }

    /// Opens an image for writing, or with `read_only` as one that would be written, and refuses one that anybody else
    /// uses. What a program that was killed has left behind in it is put right.
    pub fn target(path: &Path, options: &TargetOptions) -> Result<(Qcow2Disk, Identity, Header)> {
        let (held, identity) = Held::target(path, options)?;
        let read = ReadOptions {
            direct: options.direct,
            ..ReadOptions::default()
        };
        if !options.read_only {
            let (header, _) = qcow2::chain(held.path())?;
            // QEMU itself puts right what its deferred reference counts lack.
            if !header.dirty {
                img::recover(held.path())?;
            }
        }
        Qcow2Disk::opened(held, read, !options.read_only, identity)
    }

    /// Opens or creates a file that becomes an image by [`Container::resize`]. It may be what is left of an earlier one.
    pub fn new_target(path: &Path, options: &TargetOptions) -> Result<(Qcow2Disk, Identity)> {
        let (held, identity) = Held::target(path, options)?;
        let disk = Qcow2Disk {
            held,
            size: AtomicU64::new(0),
            read: ReadOptions {
                direct: options.direct,
                ..ReadOptions::default()
            },
            writable: true,
            is_new: true,
            serving: RwLock::new(None),
        };
        Ok((disk, identity))
    }

    fn opened(
        held: Held,
        read: ReadOptions,
        writable: bool,
        identity: Identity,
    ) -> Result<(Qcow2Disk, Identity, Header)> {
        let disk = Qcow2Disk {
            held,
            size: AtomicU64::new(0),
            read,
            writable,
            is_new: false,
            serving: RwLock::new(None),
        };
        let header = disk.serve(&mut disk.exclusive())?;
        Ok((disk, identity, header))
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, Option<Serving>> {
        self.serving.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a server for what is in the file now.
    fn serve(&self, serving: &mut Option<Serving>) -> Result<Header> {
        let (header, chain) = qcow2::chain(self.held.path())?;
        let direct = chain.iter().all(|e| does_direct_io(&e.path));
        if self.read.direct && !direct {
            let what = format!("{} does not do direct I/O", self.name());
            return Err(Error::new(Kind::Usage, what).advise("leave out --direct"));
        }
        let mut server = NbdServer::start(&Export {
            image: image_options(&chain, self.read.snapshot.is_some()),
            name: self.name(),
            writable: self.writable,
            direct,
            snapshot: self.read.snapshot.clone(),
            bitmap: self.read.bitmap.clone(),
        })?;
        let bitmap = self.read.bitmap.as_ref();
        let options = NbdOptions {
            name: self.name(),
            bitmap: bitmap.map(|name| format!("qemu:dirty-bitmap:{name}")),
            writable: self.writable,
        };
        let image =
            NbdImage::connect(server.socket(), "", options).map_err(|e| with_end(e, &server))?;
        server.close_door();
        // It may have been replaced between our look at it and the server's.
        self.held.check_named()?;
        let is_expected = image.size() == header.virtual_size || self.read.snapshot.is_some();
        if !is_expected {
            return Err(Error::new(
                Kind::Io,
                format!("{} changed while it was opened", self.name()),
            ));
        }
        self.size.store(image.size(), Ordering::Release);
        *serving = Some(Serving { image, server });
        Ok(header)
    }

    /// What the bitmap says was written: all of it, over the whole disk.
    pub fn dirty(&self) -> Result<RangeSet> {
        self.with(NbdImage::dirty)
    }

    fn with<T>(&self, work: impl FnOnce(&NbdImage) -> Result<T>) -> Result<T> {
        let serving = self.serving.read().unwrap_or_else(PoisonError::into_inner);
        match &*serving {
            Some(serving) => work(&serving.image).map_err(|e| with_end(e, &serving.server)),
            None => Err(Error::new(
                Kind::Protocol,
                format!("{} is not open", self.name()),
            )),
        }
    }

    /// Lets the server close the image and end.
    fn stop(&self, serving: &mut Option<Serving>) -> Result<()> {
        let Some(Serving { image, server }) = serving.take() else {
            return Ok(());
        };
        drop(image);
        server.finish()
    }

    /// Makes an image of this size of a new file; what an earlier run has left is used again.
    fn begin(&self, size: u64) -> Result<()> {
        let path = self.held.path();
        if !self.held.is_empty()? {
            let left = qcow2::chain(path).and_then(|(header, chain)| {
                img::recover(path)?;
                Ok((header, chain.len()))
            });
            if let Ok((header, 1)) = left {
                if img::resize(path, header.virtual_size, size).is_ok() {
                    return Ok(());
                }
            }
        }
        img::create(path, size)
    }
}

/// The error, with the end of the server if that is behind it.
fn with_end(error: Error, server: &NbdServer) -> Error {
    match error.kind() {
        // It is there and says no.
        Kind::Space | Kind::Cancelled | Kind::Usage | Kind::Refused | Kind::NotFound => error,
        _ => match server.ended(END_SHOWS) {
            Some(end) => error.followed_by(end.message()),
            None => error,
        },
    }
}

impl Image for Qcow2Disk {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.with(|image| image.read_at(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.with(|image| image.write_at(buf, offset))
    }

    fn zero(&self, range: ByteRange) -> Result<()> {
        match range.is_empty() {
            true => Ok(()),
            false => self.with(|image| image.zero(range)),
        }
    }

    fn next_data(&self, offset: u64) -> Result<Option<ByteRange>> {
        self.with(|image| image.next_data(offset))
    }

    fn tells_holes(&self) -> bool {
        self.with(|image| Ok(image.tells_holes())).unwrap_or(false)
    }

    fn flush(&self) -> Result<()> {
        self.with(Image::flush)
    }

    fn check_unchanged(&self) -> Result<()> {
        self.held.check_named()?;
        self.with(Image::check_unchanged)
    }

    fn read_from_medium(&self) -> Result<()> {
        self.with(Image::flush)?;
        // Where the server reads past the cache there is nothing to drop.
        self.held.drop_cache()
    }

    fn name(&self) -> String {
        self.held.path().display().to_string()
    }
}

impl Container for Qcow2Disk {
    fn resize(&self, size: u64) -> Result<()> {
        img::check_size(size)?;
        let mut serving = self.exclusive();
        if self.size() == size && serving.is_some() {
            return Ok(());
        }
        self.stop(&mut serving)?;
        match self.is_new && self.size() == 0 {
            true => self.begin(size)?,
            false => img::resize(self.held.path(), self.size(), size)?,
        }
        self.serve(&mut serving).map(drop)
    }

    fn close(&self) -> Result<()> {
        self.stop(&mut self.exclusive())?;
        match self.writable {
            true => self.held.flush(),
            false => Ok(()),
        }
    }
}

/// The chain as QEMU's options: each image with its format, its driver and its path, and locks on all of them, which
/// Proxmox's QEMU would not take by itself. With `in_use`, what others have locked is read all the same.
fn image_options(chain: &[Element], in_use: bool) -> OsString {
    let mut options = OsString::new();
    for (depth, element) in chain.iter().enumerate() {
        let prefix = "backing.".repeat(depth);
        let format = element.format;
        let driver = match element.is_device {
            true => "host_device",
            false => "file",
        };
        if depth > 0 {
            options.push(",");
        }
        options.push(format!(
            "{prefix}driver={format},{prefix}file.driver={driver},{prefix}file.locking=on,{prefix}file.filename="
        ));
        options.push(escaped(element.path.as_os_str()));
    }
    if in_use {
        options.push(",force-share=on");
    }
    options
}
