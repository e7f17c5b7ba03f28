//! The block service: opens one image, resizes it, syncs it, and puts a new file in its place.

use super::thin_map;
use crate::digest::{Digest, HashKind};
use crate::error::{Error, Kind, Result};
use crate::image::{
    self, qcow2, Handle, Identity, Image, ImageFormat, NbdImage, NbdOptions, TargetOptions, View,
};
use crate::qemu::{self, Qcow2Disk, ReadOptions};
use crate::range::RangeSet;
use crate::stop::Stop;
use crate::sync::{self, DigestTable, Geometry, Meter, Params, Since};
use crate::wire::Link;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What a driver asks of the block service. Paths are bytes: they need not be UTF-8.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum BlockRequest {
    /// Open an image for reading; answers [`Opened`].
    OpenSource(OpenSource),
    /// Open an image for writing; answers [`Opened`].
    OpenTarget(OpenTarget),
    /// Give the open target this size in bytes.
    Resize(u64),
    /// Keep a table of the digests of the open target's segments; answers how many segments from the first one on
    /// need not be synced any more.
    Table(Table),
    /// Answer, then run a sync on this link with the open image.
    Sync(Role, Params),
    /// Answer, then receive segments on this link that put the open target right.
    Mend(Mend),
    /// The open image is let go, with all that was written made durable, and a target that was created gets its name;
    /// answers nothing.
    Commit,
}

/// How to open a source.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenSource {
    /// Path of the file or device.
    pub path: Vec<u8>,
    /// Read past the page cache, also if it is a file.
    pub direct: bool,
    /// How its bytes lie in the file.
    #[serde(default)]
    pub format: ImageFormat,
}

/// How to open a target.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenTarget {
    /// Path of the file or device.
    pub path: Vec<u8>,
    /// Create the file if it is missing.
    pub create: bool,
    /// Only look at it.
    pub dry_run: bool,
    /// Read and write past the page cache, also if it is a file.
    pub direct: bool,
    /// How its bytes lie in the file.
    #[serde(default)]
    pub format: ImageFormat,
}

impl OpenTarget {
    /// The same for the image.
    pub(super) fn options(&self) -> TargetOptions {
        TargetOptions {
            create: self.create,
            read_only: self.dry_run,
            direct: self.direct,
            format: self.format,
        }
    }
}

/// A table of the segments' digests.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The file that it is in.
    pub path: Vec<u8>,
    /// The point in time whose image is to be synced.
    pub point: Uuid,
    /// Cut of the image.
    pub geometry: Geometry,
    /// Hash function of the digests.
    pub hash: HashKind,
    /// The open target is this earlier image, of which only what changed will be sent.
    #[serde(default)]
    pub base: Option<TableBase>,
}

/// The table of an earlier image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableBase {
    /// The file that it is in.
    pub path: Vec<u8>,
    /// The image digest that it must have.
    pub digest: Digest,
}

/// Segments of the open target to be put right.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mend {
    /// Cut and hash function of the image.
    pub params: Params,
    /// The file with the table of what its segments are to be.
    pub table: Vec<u8>,
    /// The image digest that the table must have.
    pub digest: Digest,
}

/// A table that is open, and how many segments from the first one on need not be synced any more.
pub(super) struct OpenTable {
    pub table: DigestTable,
    pub done: u64,
}

impl OpenTable {
    /// The table that a sync of the same image to the same point in time has left, or a new one.
    pub fn resume(wanted: &Table) -> Result<OpenTable> {
        let path = path_of(&wanted.path)?;
        let (table, done) = DigestTable::resume(&path, wanted.hash, wanted.geometry, wanted.point)?;
        if let Some(base) = &wanted.base {
            let path = path_of(&base.path)?;
            let base = open_table(&path, wanted.hash, wanted.geometry, base.digest)?;
            table.fill_from(&base, done)?;
        }
        Ok(OpenTable { table, done })
    }
}

/// The table of an image with this digest.
fn open_table(
    path: &Path,
    hash: HashKind,
    geometry: Geometry,
    digest: Digest,
) -> Result<DigestTable> {
    DigestTable::open_of(path, hash, geometry, digest)?.ok_or_else(|| {
        Error::new(
            Kind::Digest,
            format!("{} does not tell what the image was", path.display()),
        )
    })
}

/// Which end of a sync the open image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It is read.
    Source,
    /// It is written.
    Target,
}

/// What was opened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Opened {
    /// Size in bytes; 0 for a target that is to be created.
    pub size: u64,
    /// It is a block device: its size is given.
    pub is_device: bool,
    /// It did not exist and will only appear under its name once it is complete.
    pub is_new: bool,
    /// Who it is; `None` for a target that a dry run would create.
    pub identity: Option<Identity>,
    /// What the user should know.
    #[serde(default)]
    pub note: Option<String>,
}

/// An open image on this host, with what is needed to finish it.
pub struct BlockEnd {
    handle: Option<Handle>,
    /// Where a created file is to go when it is complete, and where it is until then.
    publish: Option<(PathBuf, PathBuf)>,
    dry_run: bool,
}

impl BlockEnd {
    /// Opens a source.
    pub fn source(path: &Path, format: ImageFormat, direct: bool) -> Result<(BlockEnd, Opened)> {
        if format == ImageFormat::Qcow2 {
            let options = ReadOptions {
                direct,
                ..ReadOptions::default()
            };
            return Self::qcow2_source(path, &options);
        }
        let note = Cell::new(None);
        let thin_map = |p: &Path| thin_map::of(p, Role::Source, &note);
        let opened = image::open_source(path, direct, thin_map)?;
        if qcow2::looks_like_it(path) {
            let name = path.display();
            note.set(Some(format!(
                "{name} begins like a qcow2 image, but is taken for a raw one, byte by byte"
            )));
        }
        Ok(Self::opened(opened, None, false, &note))
    }

    /// Opens a source to be read from the medium, where that can be: what is cached proves nothing.
    pub fn from_medium(path: &Path, format: ImageFormat) -> Result<(BlockEnd, Opened)> {
        Self::source(path, format, true).or_else(|_| Self::source(path, format, false))
    }

    /// Opens a qcow2 image as a source, or an internal snapshot of one.
    pub fn qcow2_source(path: &Path, options: &ReadOptions) -> Result<(BlockEnd, Opened)> {
        let (disk, identity, header) = Qcow2Disk::source(path, options)?;
        let stay = header.snapshots > 0 && options.snapshot.is_none();
        let note = stay.then(|| {
            format!(
                "{}: only the present state is read, not its internal snapshots ({})",
                path.display(),
                header.snapshots
            )
        });
        Ok(Self::opened(
            container(disk, identity),
            None,
            false,
            &Cell::new(note),
        ))
    }

    /// Opens a source whose holes need not be known.
    pub fn plain_source(path: &Path, direct: bool) -> Result<(BlockEnd, Opened)> {
        let opened = image::open_source(path, direct, |_| Ok(None))?;
        Ok(Self::opened(opened, None, false, &Cell::new(None)))
    }

    /// Opens as a source what a running QEMU shows of a disk; `name` is for messages.
    pub fn export(export: &qemu::Export, name: String) -> Result<(BlockEnd, Opened)> {
        let options = NbdOptions {
            name,
            bitmap: None,
            writable: false,
        };
        let image = NbdImage::connect(&export.socket, &export.name, options)?;
        let answer = Opened {
            size: image.size(),
            is_device: false,
            is_new: false,
            identity: None,
            note: None,
        };
        let end = BlockEnd {
            handle: Some(Handle::Nbd(Box::new(image))),
            publish: None,
            dry_run: false,
        };
        Ok((end, answer))
    }

    /// Opens a target. A raw file or device is opened directly; qcow2 images through QEMU. A file to be created is made
    /// beside its place, under a name of its own, so that
    /// nobody takes half a disk for a whole one; the next run goes on with it.
    pub fn target(path: &Path, options: TargetOptions) -> Result<(BlockEnd, Opened)> {
        let TargetOptions {
            create,
            read_only: dry_run,
            ..
        } = options;
        let missing = match std::fs::metadata(path) {
            Ok(_) => false,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
            Err(e) => return Err(Error::io(format!("cannot stat {}", path.display()), e)),
        };
        if missing && std::fs::symlink_metadata(path).is_ok() {
            let what = format!("{} is a link to something that is missing", path.display());
            return Err(
                Error::new(Kind::NotFound, what).advise("name the file itself, or remove the link")
            );
        }
        let note = Cell::new(None);
        let thin_map = |p: &Path| thin_map::of(p, Role::Target, &note);
        if !missing {
            let opened = match options.format {
                ImageFormat::Raw => image::open_target(path, options, thin_map)?,
                ImageFormat::Qcow2 => {
                    let (disk, identity, _) = Qcow2Disk::target(path, &options)?;
                    container(disk, identity)
                }
            };
            return Ok(Self::opened(opened, None, dry_run, &note));
        }
        if !create {
            return Err(
                Error::new(Kind::NotFound, format!("{} does not exist", path.display()))
                    .advise("use --truncate to create it"),
            );
        }
        let part = part_path(path)?;
        if dry_run {
            parent_exists(path)?;
            let end = BlockEnd {
                handle: None,
                publish: None,
                dry_run,
            };
            let opened = Opened {
                size: 0,
                is_device: false,
                is_new: true,
                identity: None,
                note: None,
            };
            return Ok((end, opened));
        }
        let opened = match options.format {
            ImageFormat::Raw => image::open_target(&part, options, thin_map),
            ImageFormat::Qcow2 => Qcow2Disk::new_target(&part, &options)
                .map(|(disk, identity)| container(disk, identity)),
        };
        let opened = opened.map_err(|e| e.context(format!("cannot create {}", path.display())))?;
        let publish = Some((part, path.to_owned()));
        Ok(Self::opened(opened, publish, dry_run, &note))
    }

    fn opened(
        opened: image::Opened,
        publish: Option<(PathBuf, PathBuf)>,
        dry_run: bool,
        note: &Cell<Option<String>>,
    ) -> (BlockEnd, Opened) {
        let answer = Opened {
            size: match publish {
                Some(_) => 0,
                None => opened.image.image().size(),
            },
            is_device: opened.image.is_device(),
            is_new: publish.is_some(),
            identity: Some(opened.identity),
            note: note.take(),
        };
        let end = BlockEnd {
            handle: Some(opened.image),
            publish,
            dry_run,
        };
        (end, answer)
    }

    /// Gives the target `size` bytes, or in a dry run would.
    pub fn resize(&mut self, size: u64) -> Result<()> {
        match &self.handle {
            Some(handle) if !self.dry_run => handle.resize(size),
            _ => Ok(()),
        }
    }

    /// Runs one side of a sync. The segments' digests go into `table` if there is one.
    pub fn sync(
        &mut self,
        role: Role,
        params: &Params,
        link: &mut Link,
        meter: &Meter,
        table: Option<&DigestTable>,
    ) -> Result<sync::Summary> {
        self.with_image(params, |image| match role {
            Role::Source => sync::run_source(image, params, link, meter, table),
            Role::Target => sync::run_target(image, params, link, meter, table),
        })
    }

    /// Sends what this image has become since it was `since`, of which all but `changed` is the same. Without `since` the
    /// target is asked what it was there. See [`sync::run_delta_source`].
    pub fn sync_since(
        &mut self,
        (since, changed): (Option<&mut BlockEnd>, &RangeSet),
        params: &Params,
        link: &mut Link,
        meter: &Meter,
        table: &DigestTable,
    ) -> Result<sync::Summary> {
        self.with_image(params, |image| {
            let mut send = |earlier: Option<&dyn Image>| {
                let since = Since {
                    image: earlier,
                    changed,
                };
                sync::run_delta_source(image, &since, params, link, meter, table)
            };
            match since {
                Some(since) => since.with_image(params, |earlier| send(Some(earlier))),
                None => send(None),
            }
        })
    }

    /// Lets a target that is being created begin as a clone of `source`, where the file system can do that:
    /// then the sync writes nothing, and the copy takes no space until one of the two changes. Its size is to be
    /// set afterwards.
    pub fn begin_as_clone_of(&self, source: &BlockEnd) {
        if let (Some(Handle::File(target)), Some(Handle::File(source)), Some(_)) =
            (&self.handle, &source.handle, &self.publish)
        {
            target.clone_from(source);
        }
    }

    /// Makes this target equal to `source`, both of them on this host.
    pub fn sync_from(
        &mut self,
        source: &mut BlockEnd,
        params: &Params,
        meter: &Meter,
        stop: &Stop,
    ) -> Result<sync::Summary> {
        self.with_image(params, |target| {
            source.with_image(params, |source| {
                sync::run_local(source, target, params, stop, meter)
            })
        })
    }

    /// Reads these segments and calls `each` with the digests of those that hold data, see [`sync::scan`].
    pub fn scan(
        &mut self,
        params: &Params,
        segments: Range<u64>,
        stop: &Stop,
        each: impl FnMut(u64, Result<Option<Digest>>) -> Result<()> + Send,
    ) -> Result<()> {
        self.with_image(params, |image| {
            sync::scan(image, params, segments, stop, &Meter::new(), each)
        })
    }

    /// Sends those of the `wanted` segments that are here as they should be, see [`sync::send_segments`].
    pub fn send_segments(
        &mut self,
        params: &Params,
        link: &mut Link,
        wanted: &[(u64, Option<Digest>)],
    ) -> Result<Vec<u64>> {
        self.with_image(params, |image| {
            sync::send_segments(image, params, link, wanted)
        })
    }

    /// Takes segments in, each of them only as the table says.
    pub(super) fn receive_segments(&mut self, mend: &Mend, link: &mut Link) -> Result<()> {
        let params = &mend.params;
        let path = path_of(&mend.table)?;
        let table = open_table(&path, params.hash, params.geometry, mend.digest)?;
        self.with_image(params, |image| {
            sync::receive_segments(image, params, link, &table)
        })
    }

    /// Calls `work` with the image as a sync is to see it.
    fn with_image<T>(
        &mut self,
        params: &Params,
        work: impl FnOnce(&dyn Image) -> Result<T>,
    ) -> Result<T> {
        if self.dry_run {
            return work(&View::new(self.handle.take(), params.geometry.size()));
        }
        let Some(handle) = &self.handle else {
            return Err(Error::new(
                Kind::Protocol,
                "a sync was asked for before an image was opened",
            ));
        };
        let image = handle.image();
        if image.size() < params.geometry.size() {
            return Err(Error::new(
                Kind::Protocol,
                format!("{} is smaller than the sync", image.name()),
            ));
        }
        work(image)
    }

    /// Lets go of the image, with all that was written made durable, and puts a created file in its place. Nothing can
    /// be done with it afterwards.
    pub fn commit(&mut self) -> Result<()> {
        if let Some(handle) = &self.handle {
            handle.close()?;
        }
        let Some((part, path)) = self.publish.take() else {
            return Ok(());
        };
        name_without_replacing(&part, &path).map_err(|e| {
            Error::io(
                format!("cannot name the finished file {}", path.display()),
                e.into(),
            )
        })?;
        image::flush_parent(&path)
    }
}

fn container(disk: Qcow2Disk, identity: Identity) -> image::Opened {
    image::Opened {
        image: Handle::Container(Box::new(disk)),
        identity,
    }
}

/// Renames `part` to `path`, but never over something that appeared there meanwhile.
fn name_without_replacing(part: &Path, path: &Path) -> rustix::io::Result<()> {
    use rustix::fs::{renameat_with, RenameFlags, CWD};
    match renameat_with(CWD, part, CWD, path, RenameFlags::NOREPLACE) {
        // NFS among others cannot do that in one step.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_and_unlink(part, path),
        done => done,
    }
}

fn link_and_unlink(part: &Path, path: &Path) -> rustix::io::Result<()> {
    rustix::fs::link(part, path)?;
    rustix::fs::unlink(part)
}

pub(super) fn part_path(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(Error::new(
            Kind::Usage,
            format!("{} names no file", path.display()),
        ));
    };
    let mut part = OsString::from(".");
    part.push(name);
    part.push(".rblocksync-part");
    Ok(path.with_file_name(part))
}

fn parent_exists(path: &Path) -> Result<()> {
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    std::fs::metadata(parent)
        .map(|_| ())
        .map_err(|e| Error::io(format!("cannot create a file in {}", parent.display()), e))
}

/// Path to bytes, for the wire.
pub fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// Bytes off the wire to a path. NUL and the empty path are refused.
pub(super) fn path_of(bytes: &[u8]) -> Result<PathBuf> {
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(Error::new(
            Kind::Usage,
            "a path is empty or holds a NUL byte",
        ));
    }
    Ok(PathBuf::from(OsString::from_vec(bytes.to_vec())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_file_never_replaces_another() {
        let dir = tempfile::tempdir().unwrap();
        let (part, path) = (dir.path().join("part"), dir.path().join("path"));
        for name in [name_without_replacing, link_and_unlink] {
            std::fs::write(&part, "new").unwrap();
            name(&part, &path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"new");
            assert!(!part.exists());
            std::fs::write(&part, "newer").unwrap();
            assert_eq!(name(&part, &path), Err(Errno::EXIST));
            assert_eq!(std::fs::read(&path).unwrap(), b"new");
            std::fs::remove_file(&path).unwrap();
        }
    }
}
