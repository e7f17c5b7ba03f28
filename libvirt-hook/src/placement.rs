//! Where the disks of a replica go on this host: into which pool or directory, under which name, and as what.
//!
//! A volume is named by its path. Without a map it goes into the pool that is called like the source's, or else to where
//! it is at the source. A file keeps its name, with the domain's new one in it if that has another.

use crate::disks::NVRAM;
use crate::pools::{self, Pool, PoolKind};
use rblocksync::error::{Error, Kind, Result};
use rblocksync::image::ImageFormat;
use rblocksync::lvm::{self, LvId, LvKind};
use rblocksync::replica::{DiskSpec, Location};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// What stands before a network in the map that is made for the target.
pub const NETWORK: &str = "network:";
/// What stands before a bridge.
pub const BRIDGE: &str = "bridge:";

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
        if let Some(path) = self.mapped_path(&source) {
            return match as_volume(&path) {
                Some((vg, name)) => self.volume(&vg, None, &stem(&name), disk, wanted, taken),
                None => self.file(&path, disk, format, taken),
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
        let mapped = |from: &str| {
            self.map
                .iter()
                .find(|(f, _)| f == from)
                .map(|(_, to)| to.as_str())
        };
        let to = mapped(&disk.key).or_else(|| mapped(pool?));
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

/// A volume at the source, as far as its name tells.
struct Source<'a> {
    path: Option<&'a Path>,
    pool: Option<&'a str>,
    name: String,
}

/// Here volumes are named by their paths; elsewhere perhaps by a storage and a name in it.
fn source_of(volume: &str) -> Source<'_> {
    let path = Path::new(volume);
    let (pool, rest) = match volume.split_once(':') {
        Some((pool, rest)) if !volume.starts_with('/') => (Some(pool), rest),
        _ => (None, volume),
    };
    Source {
        path: volume.starts_with('/').then_some(path),
        pool,
        name: rest.rsplit('/').next().unwrap_or(rest).to_owned(),
    }
}

/// Group and name, if the path is that of a logical volume.
pub(crate) fn as_volume(path: &Path) -> Option<(String, String)> {
    let parts: Vec<Component> = path.components().collect();
    let named = |part: &Component| match part {
        Component::Normal(name) => name.to_str().map(str::to_owned),
        _ => None,
    };
    match parts.as_slice() {
        [Component::RootDir, dev, mapper, name]
            if named(dev)? == "dev" && named(mapper)? == "mapper" =>
        {
            let id = LvId::from_mapper_name(&named(name)?)?;
            Some((id.vg().to_owned(), id.name().to_owned()))
        }
        [Component::RootDir, dev, vg, name] if named(dev)? == "dev" => {
            Some((named(vg)?, named(name)?))
        }
        _ => None,
    }
}

/// A path from another host, which becomes one of this host.
fn check_path(path: &Path) -> Result<()> {
    let odd = path
        .components()
        .any(|c| !matches!(c, Component::RootDir | Component::Normal(_)));
    match path.is_absolute() && !odd && path.file_name().is_some() && !path.starts_with("/dev") {
        true => Ok(()),
        false => Err(Error::new(
            Kind::Refused,
            format!("{} cannot be the path of a disk here", path.display()),
        )),
    }
}

/// The name without what tells the format.
fn stem(name: &str) -> String {
    let endings = [".qcow2", ".raw", ".img"];
    let stem = endings.iter().find_map(|ending| name.strip_suffix(ending));
    stem.filter(|s| !s.is_empty()).unwrap_or(name).to_owned()
}

/// A name with the domain's new name in it, if it has a new one.
fn renamed(name: &str, vm: &str, target_vm: &str, key: &str) -> String {
    if vm == target_vm {
        return name.to_owned();
    }
    match name.find(vm) {
        Some(_) => name.replacen(vm, target_vm, 1),
        None => format!("{target_vm}-{key}"),
    }
}

/// The name of a file that holds this disk. What ends in another format's name does not stay so.
fn file_name(
    name: &str,
    vm: &str,
    target_vm: &str,
    disk: &DiskSpec,
    format: ImageFormat,
) -> String {
    let (stem, ending) = match stem(name) {
        stem if stem == name => (stem, ""),
        stem => {
            let ending = &name[stem.len()..];
            (stem, ending)
        }
    };
    let renamed = renamed(&stem, vm, target_vm, &disk.key);
    let usual = format!(".{format}");
    // A file that has no ending and stays what it is keeps its name.
    match (ending, format == disk.format) {
        ("", true) if source_is_file(disk) => renamed,
        (".img", _) => format!("{renamed}.img"),
        (ending, true) if !ending.is_empty() => format!("{renamed}{ending}"),
        _ => format!("{renamed}{usual}"),
    }
}

fn source_is_file(disk: &DiskSpec) -> bool {
    disk.volume.starts_with('/') && !disk.volume.starts_with("/dev/")
}

/// The path, or one with the disk's key in it if another disk has it.
fn free(path: &Path, key: &str, taken: &BTreeSet<String>) -> PathBuf {
    if !taken.contains(&path.display().to_string()) {
        return path.to_owned();
    }
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    let stem = stem(name);
    path.with_file_name(format!("{stem}-{key}{}", &name[stem.len()..]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn spec(key: &str, volume: &str, format: ImageFormat) -> DiskSpec {
        DiskSpec {
            key: key.into(),
            volume: volume.into(),
            size: 1 << 20,
            used: 1 << 20,
            format,
        }
    }

    fn pool(name: &str, kind: PoolKind) -> Pool {
        Pool {
            name: name.into(),
            kind,
            active: true,
        }
    }

    /// Where a disk goes in a host with the directories `images` and `fast`, below a directory of the test's.
    fn placed(
        root: &Path,
        (disk, source_pool): (&DiskSpec, Option<&str>),
        map: &[(&str, &str)],
        target_vm: &str,
        wanted: Option<ImageFormat>,
    ) -> Result<String> {
        let pools = [
            pool("default", PoolKind::Dir(root.join("images"))),
            pool("fast", PoolKind::Dir(root.join("fast"))),
            pool("nfs", PoolKind::NetDir(root.join("nfs"))),
            pool("ceph", PoolKind::Other("rbd".into())),
        ];
        let map: Vec<_> = map
            .iter()
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .collect();
        let placing = Placing {
            host: "host2",
            pools: &pools,
            map: &map,
            vm: "web01",
            target_vm,
        };
        let placed = placing.fresh(disk, source_pool, wanted, &BTreeSet::new())?;
        let Location::File { path, .. } = &placed.1 else {
            panic!("no file")
        };
        assert_eq!(placed.0, path.display().to_string());
        Ok(path.strip_prefix(root).unwrap().display().to_string())
    }

    #[test]
    fn files_keep_their_names_where_they_can() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for dir in ["images", "fast"] {
            std::fs::create_dir(root.join(dir)).unwrap();
        }
        let in_images = root.join("images/web01.qcow2").display().to_string();
        let of = |volume: &str, format| spec("vda", volume, format);
        let qcow2 = of(&in_images, ImageFormat::Qcow2);
        let elsewhere = of("/srv/web01.img", ImageFormat::Qcow2);
        let lv = of("/dev/vg0/web01-root", ImageFormat::Raw);
        let foreign = of("local-lvm:vm-101-disk-0", ImageFormat::Raw);
        let none = None;
        let raw = Some(ImageFormat::Raw);
        let fast = root.join("fast").display().to_string();
        let images = root.join("images").display().to_string();
        type Row<'a> = (
            &'a DiskSpec,
            Option<&'a str>,
            Vec<(&'a str, &'a str)>,
            &'a str,
            Option<ImageFormat>,
            &'a str,
        );
        let table: Vec<Row> = vec![
            (&qcow2, None, vec![], "web01", none, "images/web01.qcow2"),
            (
                &qcow2,
                Some("gone"),
                vec![],
                "web01",
                none,
                "images/web01.qcow2",
            ),
            (
                &qcow2,
                Some("fast"),
                vec![],
                "web01",
                none,
                "fast/web01.qcow2",
            ),
            (
                &qcow2,
                Some("default"),
                vec![("default", "fast")],
                "web01",
                none,
                "fast/web01.qcow2",
            ),
            (
                &qcow2,
                Some("default"),
                vec![("vda", "fast")],
                "web01",
                none,
                "fast/web01.qcow2",
            ),
            (
                &qcow2,
                Some("default"),
                vec![("default", "fast")],
                "web01",
                raw,
                "fast/web01.raw",
            ),
            (&qcow2, None, vec![], "web02", none, "images/web02.qcow2"),
            (
                &qcow2,
                None,
                vec![(&images, &fast)],
                "web01",
                none,
                "fast/web01.qcow2",
            ),
            (
                &elsewhere,
                Some("default"),
                vec![],
                "db",
                none,
                "images/db.img",
            ),
            (
                &lv,
                None,
                vec![("vda", &fast)],
                "web01",
                none,
                "fast/web01-root.raw",
            ),
            (
                &lv,
                None,
                vec![("vda", "fast")],
                "x",
                none,
                "fast/x-root.raw",
            ),
            (
                &foreign,
                None,
                vec![],
                "web01",
                none,
                "images/vm-101-disk-0.raw",
            ),
            (
                &foreign,
                None,
                vec![("local-lvm", "fast")],
                "new",
                none,
                "fast/new-vda.raw",
            ),
        ];
        for (disk, pool, map, name, wanted, expected) in table {
            let got = placed(root, (disk, pool), &map, name, wanted).unwrap();
            assert_eq!(got, expected, "{} {map:?} as {name}", disk.volume);
        }
    }

    #[test]
    fn what_has_no_place_is_told_where_it_could_go() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("images")).unwrap();
        let disk = spec("vda", "/nowhere/web01.qcow2", ImageFormat::Qcow2);
        for (pool, map, said) in [
            (None, vec![], "--pool vda=POOL"),
            (Some("gone"), vec![], "--pool gone=POOL"),
            (
                Some("default"),
                vec![("default", "missing")],
                "it has default, fast, nfs, ceph",
            ),
            (Some("default"), vec![("default", "nfs")], "network share"),
            (Some("default"), vec![("default", "ceph")], "type rbd"),
            (
                Some("default"),
                vec![("default", "fast/thin")],
                "no thin pool thin",
            ),
            (None, vec![("/nowhere", "/gone/too")], "no such directory"),
            (None, vec![("vda", "/gone/too")], "no directory /gone/too"),
        ] {
            let refused = placed(root.path(), (&disk, pool), &map, "web01", None).unwrap_err();
            assert!(refused.to_string().contains(said), "{refused} lacks {said}");
        }
        let climbs = spec("vda", "/a/../../etc/passwd", ImageFormat::Raw);
        assert!(placed(root.path(), (&climbs, None), &[("/a", "/b")], "web01", None).is_err());
    }

    #[test]
    fn a_second_disk_of_the_same_name_gets_another() {
        let taken = BTreeSet::from(["/d/a.qcow2".to_owned()]);
        assert_eq!(
            free(Path::new("/d/a.qcow2"), "vdb", &taken),
            Path::new("/d/a-vdb.qcow2")
        );
        assert_eq!(free(Path::new("/d/b"), "vdb", &taken), Path::new("/d/b"));
    }

    #[test]
    fn logical_volumes_are_known_by_their_paths() {
        let of = |path: &str| as_volume(Path::new(path));
        let found = Some(("vg-0".to_owned(), "web-root".to_owned()));
        assert_eq!(of("/dev/vg-0/web-root"), found);
        assert_eq!(of("/dev/mapper/vg--0-web--root"), found);
        assert_eq!(of("/dev/sda"), None);
        assert_eq!(of("/srv/vg/x"), None);
    }
}
