//! Where the disks of a replica go on this host: into which pool or directory, under which name, and as what.
//!
//! A volume is named by its path. Without a map it goes into the pool that is called like the source's, or else to where
//! it is at the source. A file keeps its name, with the domain's new one in it if that has another.

mod names;
#[cfg(test)]
mod tests;

pub(crate) use names::as_volume;

use crate::disks::NVRAM;
use crate::pools::{self, Pool, PoolKind};
use names::{check_path, file_name, free, renamed, source_of, stem, Source};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::image::ImageFormat;
use rblocksync::lvm::{self, LvId, LvKind};
use rblocksync::replica::{DiskSpec, Location};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What is to be placed, and what is known of the host.
pub struct Placing<'a> {
    /// The host's name.
    pub host: &'a str,
    /// Its pools.
    pub pools: &'a [Pool],
    /// Source pool, directory or disk, to pool or directory here.
    pub map: &'a [(String, String)],
    /// The domain's name at the source.
    pub vm: &'a str,
    /// Its name here.
    pub target_vm: &'a str,
}

/// Where a volume can be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Room {
    Dir(PathBuf),
    Group { vg: String, pool: Option<String> },
}

impl Placing<'_> {
    /// Where a disk goes that is new here. `pool` is the source's; `taken` are paths of other disks.
    pub fn fresh(
        &self,
        disk: &DiskSpec,
        pool: Option<&str>,
        wanted: Option<ImageFormat>,
        taken: &BTreeSet<String>,
    ) -> Result<(String, Location)> {
        let source = source_of(&disk.volume);
        let pool = pool.or(source.pool);
        let format = wanted.unwrap_or(disk.format);
        // What is said of this very disk goes before what is said of its directory.
        if let (Some(path), None) = (self.mapped_path(&source), self.mapped(&disk.key)) {
            let renamed = |name: &str| renamed(&stem(name), self.vm, self.target_vm, &disk.key);
            return match as_volume(&path) {
                Some((vg, name)) => self.volume(&vg, None, &renamed(&name), disk, wanted, taken),
                None => {
                    let name = path
                        .file_name()
                        .and_then(|n| n.to_str())
                        .unwrap_or_default();
                    let name = file_name(name, self.vm, self.target_vm, disk, format);
                    self.file(&path.with_file_name(name), disk, format, taken)
                }
            };
        }
        match self.room(disk, &source, pool)? {
            Room::Dir(dir) => {
                let name = file_name(&source.name, self.vm, self.target_vm, disk, format);
                self.file(&dir.join(name), disk, format, taken)
            }
            Room::Group { vg, pool } => {
                let name = renamed(&stem(&source.name), self.vm, self.target_vm, &disk.key);
                self.volume(&vg, pool.as_deref(), &name, disk, wanted, taken)
            }
        }
    }

    /// What the volume is that a disk was placed on before, of this format if it is a file.
    pub fn again(&self, volume: &str, format: ImageFormat) -> Result<Location> {
        match as_volume(Path::new(volume)) {
            Some((vg, name)) => self.location(&LvId::new(vg, name)?, None),
            None => Ok(file_at(Path::new(volume), format)),
        }
    }

    /// What the map says of a pool, or of a disk.
    fn mapped(&self, from: &str) -> Option<&str> {
        let found = self.map.iter().find(|(f, _)| f == from);
        found.map(|(_, to)| to.as_str())
    }

    /// The path by a map of directories.
    fn mapped_path(&self, source: &Source) -> Option<PathBuf> {
        let path = source.path?;
        let maps = self
            .map
            .iter()
            .filter(|(from, to)| from.starts_with('/') && to.starts_with('/'));
        let fits = maps.filter_map(|(from, to)| {
            let rest = path.strip_prefix(Path::new(from)).ok()?;
            Some((
                Path::new(from).components().count(),
                Path::new(to).join(rest),
            ))
        });
        fits.max_by_key(|(depth, _)| *depth).map(|(_, path)| path)
    }

    fn room(&self, disk: &DiskSpec, source: &Source, pool: Option<&str>) -> Result<Room> {
        let to = self.mapped(&disk.key).or_else(|| self.mapped(pool?));
        if let Some(to) = to {
            return self.room_named(to);
        }
        let same = pool.filter(|name| self.pools.iter().any(|p| p.name == *name && p.active));
        if let (Some(name), true) = (same, disk.key != NVRAM) {
            return self.room_named(name);
        }
        let Some(path) = source.path else {
            // Of another hypervisor.
            return self.room_named("default");
        };
        if let Some((vg, _)) = as_volume(path) {
            return Ok(Room::Group { vg, pool: None });
        }
        match path.parent() {
            Some(dir) if dir.is_dir() && !path.starts_with("/dev") => Ok(Room::Dir(dir.to_owned())),
            _ => Err(self.nowhere(disk, source, pool)),
        }
    }

    fn nowhere(&self, disk: &DiskSpec, source: &Source, pool: Option<&str>) -> Error {
        let dir = source.path.and_then(Path::parent).unwrap_or(Path::new("/"));
        let what = format!(
            "{} is at the source, and {} has neither {} nor the directory {}",
            disk.volume,
            self.host,
            match pool {
                Some(pool) => format!("a pool {pool} that is started"),
                None => "a pool for it".to_owned(),
            },
            dir.display()
        );
        Error::new(Kind::NotFound, what).advise(match pool {
            Some(pool) => format!(
                "say where it goes: --pool {pool}=POOL, or --path {}/=DIR/",
                dir.display()
            ),
            None => format!(
                "say where it goes: --pool {}=POOL, or --path {}/=DIR/",
                disk.key,
                dir.display()
            ),
        })
    }

    /// A pool, with a thin pool of its group if one is named (`vms/thin`), or a directory.
    fn room_named(&self, to: &str) -> Result<Room> {
        if to.starts_with('/') {
            let path = Path::new(to);
            return match path.is_dir() {
                true => Ok(Room::Dir(path.to_owned())),
                false => Err(Error::new(
                    Kind::NotFound,
                    format!("there is no directory {to} on {}", self.host),
                )),
            };
        }
        let (name, thin) = match to.split_once('/') {
            Some((name, thin)) => (name, Some(thin.to_owned())),
            None => (to, None),
        };
        let pool = pools::usable(self.pools, name, self.host)?;
        match (&pool.kind, thin) {
            (PoolKind::Dir(dir), None) => Ok(Room::Dir(dir.clone())),
            (PoolKind::Group(vg), pool) => Ok(Room::Group {
                vg: vg.clone(),
                pool,
            }),
            (PoolKind::Dir(_), Some(thin)) => Err(Error::new(
                Kind::Usage,
                format!(
                    "pool {name} on {} is a directory and has no thin pool {thin}",
                    self.host
                ),
            )),
            (PoolKind::NetDir(_), _) => Err(unfit(
                name,
                "nothing keeps another host from writing to a replica on a network share",
            )),
            (PoolKind::Other(kind), _) => Err(unfit(
                name,
                &format!("it is of the type {kind}, in which no volumes are made"),
            )),
        }
    }

    fn file(
        &self,
        path: &Path,
        disk: &DiskSpec,
        format: ImageFormat,
        taken: &BTreeSet<String>,
    ) -> Result<(String, Location)> {
        check_path(path)?;
        if !path.parent().is_some_and(Path::is_dir) {
            let what = format!(
                "{} cannot be made on {}: there is no such directory",
                path.display(),
                self.host
            );
            return Err(Error::new(Kind::NotFound, what)
                .advise("make the directory there, or name another with --path SRC=DST"));
        }
        let path = free(path, &disk.key, taken);
        Ok((path.display().to_string(), file_at(&path, format)))
    }

    fn volume(
        &self,
        vg: &str,
        pool: Option<&str>,
        name: &str,
        disk: &DiskSpec,
        wanted: Option<ImageFormat>,
        taken: &BTreeSet<String>,
    ) -> Result<(String, Location)> {
        if wanted.is_some_and(|format| !format.is_raw()) {
            let what =
                format!("a logical volume of {vg} holds a raw disk, and cannot be another format");
            return Err(
                Error::new(Kind::Refused, what).advise("leave --format out, or name a directory")
            );
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '_' | '.' | '-');
        let name: String = name
            .chars()
            .map(|c| if fits(c) { c } else { '_' })
            .collect();
        let name = name.trim_start_matches('-');
        let path = free(&Path::new("/dev").join(vg).join(name), &disk.key, taken);
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        let location = self.location(&LvId::new(vg, name)?, pool)?;
        Ok((path.display().to_string(), location))
    }

    /// What a logical volume is, or would be. One that is new is thin if its group has one thin pool, or one is named.
    fn location(&self, lv: &LvId, pool: Option<&str>) -> Result<Location> {
        let all = lvm::list(lv.vg()).map_err(|e| match e.kind() {
            Kind::NotFound => Error::new(
                Kind::NotFound,
                format!("there is no volume group {} on {}", lv.vg(), self.host),
            )
            .advise("say where the disk goes: --pool SRC=POOL, or --path SRC/=DIR/"),
            _ => e,
        })?;
        if let Some(found) = all.iter().find(|found| found.id == *lv) {
            return Ok(match &found.pool {
                Some(pool) => Location::ThinLv {
                    lv: lv.clone(),
                    pool: pool.clone(),
                },
                None => Location::ThickLv { lv: lv.clone() },
            });
        }
        let pools: Vec<&LvId> = all
            .iter()
            .filter(|l| l.kind == LvKind::ThinPool)
            .map(|l| &l.id)
            .collect();
        let found = match (pool, pools.as_slice()) {
            (Some(name), _) => match pools.iter().find(|p| p.name() == name) {
                Some(found) => found,
                None => {
                    let what = format!(
                        "volume group {} on {} has no thin pool {name}",
                        lv.vg(),
                        self.host
                    );
                    return Err(Error::new(Kind::NotFound, what));
                }
            },
            (None, [only]) => only,
            (None, []) => return Ok(Location::ThickLv { lv: lv.clone() }),
            (None, several) => {
                let names: Vec<&str> = several.iter().map(|p| p.name()).collect();
                let what = format!(
                    "volume group {} on {} has several thin pools: {}",
                    lv.vg(),
                    self.host,
                    names.join(", ")
                );
                return Err(
                    Error::new(Kind::Refused, what).advise("name one: --pool SRC=POOL/THINPOOL")
                );
            }
        };
        Ok(Location::ThinLv {
            lv: lv.clone(),
            pool: (*found).clone(),
        })
    }
}

fn unfit(pool: &str, why: &str) -> Error {
    Error::new(
        Kind::Refused,
        format!("pool {pool} cannot hold a replica: {why}"),
    )
    .advise("name a pool of the type dir, fs or logical with --pool SRC=DST")
}

fn file_at(path: &Path, format: ImageFormat) -> Location {
    Location::File {
        path: path.to_owned(),
        format,
        subvolume: false,
    }
}
