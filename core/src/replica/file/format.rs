//! What differs between raw files and qcow2 images as volumes: how large they are, and whether they are whole.

use super::{await_idle, fork_of, io, owned, remove};
use crate::cmd::Tool;
use crate::error::{Error, Kind, Result};
use crate::image::{qcow2, ImageFormat};
use crate::qemu::img;
use std::fs::File;
use std::path::Path;
use std::time::Instant;
use uuid::Uuid;

/// A volume and its format.
pub struct Image<'a> {
    pub(super) path: &'a Path,
    format: ImageFormat,
}

impl<'a> Image<'a> {
    pub fn new(path: &'a Path, format: ImageFormat) -> Self {
        Image { path, format }
    }

    /// Gives a file of this volume, at `at`, a disk of `size` bytes; an empty one becomes an image.
    pub(super) fn resize(&self, at: &Path, file: &File, size: u64) -> Result<()> {
        match self.format {
            ImageFormat::Raw => file.set_len(size).map_err(|e| io("resize", at, e)),
            ImageFormat::Qcow2 => {
                let meta = file.metadata().map_err(|e| io("stat", at, e))?;
                match meta.len() {
                    0 => img::create(at, size),
                    _ => img::resize(at, qcow2::read(at)?.virtual_size, size),
                }
            }
        }
    }
}

/// Puts right what a killed program has left in the fork, or removes it and tells why.
pub fn settle_fork(image: &Image, pair: Uuid, until: Instant) -> Result<Option<String>> {
    let fork = fork_of(image.path)?;
    if image.format.is_raw() || owned(&fork, pair)?.is_none() {
        return Ok(None);
    }
    // Whatever it fails with, the fork is to blame.
    Tool::QemuImg.path()?;
    await_idle(&fork, until)?;
    let alone = |(_, chain): (_, Vec<_>)| match chain.len() {
        1 => img::recover(&fork),
        _ => Err(Error::new(Kind::Refused, "it has a backing file")),
    };
    match qcow2::chain(&fork).and_then(alone) {
        Ok(()) => Ok(None),
        Err(e) if matches!(e.kind(), Kind::Busy | Kind::Timeout) => Err(e),
        Err(e) => {
            remove(&fork, pair)?;
            Ok(Some(e.message()))
        }
    }
}

/// Fails unless the fork is whole and nobody's any more.
pub fn check_fork(image: &Image, size: u64, until: Instant) -> Result<()> {
    let fork = fork_of(image.path)?;
    if image.format.is_raw() {
        return Ok(());
    }
    await_idle(&fork, until)?;
    let header = qcow2::read(&fork)?;
    if header.virtual_size == size && header.backing.is_none() && !header.dirty {
        return Ok(());
    }
    Err(Error::new(
        Kind::Digest,
        format!("{} is not the image that was written", fork.display()),
    ))
}
