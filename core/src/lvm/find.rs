//! Looking volumes up: by group, by name, by device.

use super::id::{check_vg, LvId};
use super::report::{self, Lv};
use crate::cmd::{Cmd, Tool};
use crate::error::{Error, Kind, Result};
use rustix::fs::{major, minor};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path};

fn lvs() -> Cmd {
    Cmd::new(Tool::Lvs).args([
        "--reportformat",
        "json",
        "--units",
        "b",
        "--nosuffix",
        "-o",
        report::COLUMNS,
    ])
}

/// All visible volumes of a group. Fails with [`Kind::NotFound`] if there is no such group.
pub fn list(vg: &str) -> Result<Vec<Lv>> {
    check_vg(vg)?;
    report::parse(&lvs().arg(vg).run()?.stdout)
}

/// The volume of this name, if it exists. Fails with [`Kind::NotFound`] if its group does not.
pub fn find(id: &LvId) -> Result<Option<Lv>> {
    let named = format!("lv_name=\"{}\"", id.name());
    let out = lvs().args(["-S", &named]).arg(id.vg()).run()?;
    let found = report::parse(&out.stdout)?;
    Ok(found.into_iter().find(|lv| lv.id == *id))
}

/// Like [`find`], but a missing volume is an error of [`Kind::NotFound`].
pub fn get(id: &LvId) -> Result<Lv> {
    find(id)?.ok_or_else(|| no_such(id))
}

pub(super) fn no_such(id: &LvId) -> Error {
    Error::new(Kind::NotFound, format!("there is no logical volume {id}"))
}

/// The volume behind a path: a device node, a link to one, or the `/dev/VG/NAME` of a volume that is not
/// active. `None` if the path is something else, or a layer of LVM's that is no volume by itself.
pub fn find_by_path(path: &Path) -> Result<Option<Lv>> {
    by_path(path, find)
}

/// The same, where `find` knows the volumes.
pub(super) fn by_path(
    path: &Path,
    find: impl Fn(&LvId) -> Result<Option<Lv>>,
) -> Result<Option<Lv>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return inactive_by_path(path, find)?
                .map(Some)
                .ok_or_else(|| Error::io(format!("cannot find {}", path.display()), e))
        }
        Err(e) => return Err(Error::io(format!("cannot look at {}", path.display()), e)),
    };
    if !metadata.file_type().is_block_device() {
        return Ok(None);
    }
    let Some((id, uuid)) = at_device(metadata.rdev()) else {
        return Ok(None);
    };
    let lv = find(&id)?.ok_or_else(|| no_such(&id))?;
    if lv.uuid.replace('-', "") != uuid {
        return Err(Error::new(
            Kind::Io,
            format!(
                "{} is not the logical volume {id} that it is named after",
                path.display()
            ),
        )
        .advise("was the volume just renamed? look at dmsetup ls and lvs"));
    }
    Ok(Some(lv))
}

/// A volume has no device node while it is inactive, but its path still says which it is.
fn inactive_by_path(path: &Path, find: impl Fn(&LvId) -> Result<Option<Lv>>) -> Result<Option<Lv>> {
    let parts: Vec<_> = path.components().collect();
    let [Component::RootDir, Component::Normal(dev), Component::Normal(vg), Component::Normal(name)] =
        parts.as_slice()
    else {
        return Ok(None);
    };
    let (Some("dev"), Some(vg), Some(name)) = (dev.to_str(), vg.to_str(), name.to_str()) else {
        return Ok(None);
    };
    let Ok(id) = LvId::new(vg, name) else {
        return Ok(None);
    };
    match find(&id) {
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        found => found,
    }
}

/// The volume that a device number belongs to, if it is one.
pub fn id_of_device(device: u64) -> Option<LvId> {
    at_device(device).map(|(id, _)| id)
}

/// Name and undashed uuid of the volume behind a device number.
pub(super) fn at_device(device: u64) -> Option<(LvId, String)> {
    from_sysfs(Path::new("/sys/dev/block"), major(device), minor(device))
}

/// The same, from what sysfs says. The kernel's uuid of a volume is
/// `LVM-` and 32 characters each of the group's and of the volume's id; hidden layers have a suffix.
fn from_sysfs(sys_dev_block: &Path, major: u32, minor: u32) -> Option<(LvId, String)> {
    let dm = sys_dev_block.join(format!("{major}:{minor}/dm"));
    let uuid = fs::read_to_string(dm.join("uuid")).ok()?;
    let ids = uuid.trim_end().strip_prefix("LVM-")?;
    if ids.len() != 64 || !ids.is_ascii() {
        return None;
    }
    let name = fs::read_to_string(dm.join("name")).ok()?;
    let id = LvId::from_mapper_name(name.trim_end())?;
    Some((id, ids[32..].to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_known_by_what_sysfs_says() {
        let sys = tempfile::tempdir().unwrap();
        let device = |number: &str, name: &str, uuid: &str| {
            let dm = sys.path().join(number).join("dm");
            fs::create_dir_all(&dm).unwrap();
            fs::write(dm.join("name"), format!("{name}\n")).unwrap();
            fs::write(dm.join("uuid"), format!("{uuid}\n")).unwrap();
        };
        let vg = "raZX6yb9KDIrBocw6bk35CLW9363chOm";
        let lv = "LIpXj1eVWjM6Ixp8HAOGUzDQ0bKfpYRQ";
        device("253:5", "pve-vm--101--disk--0", &format!("LVM-{vg}{lv}"));
        device("253:2", "pve-data-tpool", &format!("LVM-{vg}{lv}-tpool"));
        device("253:0", "pve-data_tmeta", &format!("LVM-{vg}{lv}-tmeta"));
        device("253:7", "luks", "CRYPT-LUKS2-x");
        device("253:8", "plain", "");

        let (id, uuid) = from_sysfs(sys.path(), 253, 5).unwrap();
        assert_eq!(
            (id.to_string().as_str(), uuid.as_str()),
            ("pve/vm-101-disk-0", lv)
        );
        for minor in [2, 0, 7, 8, 99] {
            assert_eq!(from_sysfs(sys.path(), 253, minor), None, "253:{minor}");
        }
    }

    #[test]
    fn what_is_no_volume() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(find_by_path(file.path()).unwrap(), None);
        assert_eq!(find_by_path(Path::new("/dev/null")).unwrap(), None);
        let missing = find_by_path(&file.path().with_extension("gone")).unwrap_err();
        assert_eq!(missing.kind(), Kind::NotFound);
    }
}
