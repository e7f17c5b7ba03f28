//! What volumes are called, at the source and here.

use rblocksync::error::{Error, Kind, Result};
use rblocksync::image::ImageFormat;
use rblocksync::lvm::LvId;
use rblocksync::replica::DiskSpec;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// A volume at the source, as far as its name tells.
pub(super) struct Source<'a> {
    pub path: Option<&'a Path>,
    pub pool: Option<&'a str>,
    pub name: String,
}

/// Here volumes are named by their paths; elsewhere perhaps by a storage and a name in it.
pub(super) fn source_of(volume: &str) -> Source<'_> {
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
pub(super) fn check_path(path: &Path) -> Result<()> {
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
pub(super) fn stem(name: &str) -> String {
    let endings = [".qcow2", ".raw", ".img"];
    let stem = endings.iter().find_map(|ending| name.strip_suffix(ending));
    stem.filter(|s| !s.is_empty()).unwrap_or(name).to_owned()
}

/// A name with the domain's new name in it, if it has a new one.
pub(super) fn renamed(name: &str, vm: &str, target_vm: &str, key: &str) -> String {
    if vm == target_vm {
        return name.to_owned();
    }
    match name.find(vm) {
        Some(_) => name.replacen(vm, target_vm, 1),
        None => format!("{target_vm}-{key}"),
    }
}

/// The name of a file that holds this disk. What ends in another format's name does not stay so.
pub(super) fn file_name(
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
pub(super) fn free(path: &Path, key: &str, taken: &BTreeSet<String>) -> PathBuf {
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
