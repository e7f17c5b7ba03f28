//! Values of storage.cfg's properties: flags, lists, and names that become paths and arguments, each of which is checked
//! here once.

use rustix::fs::{statx, AtFlags, StatxAttributes, StatxFlags, CWD};
use std::path::{Path, PathBuf};

pub(super) fn is_mount_point(path: &Path) -> bool {
    let root = StatxAttributes::MOUNT_ROOT;
    statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)
        .is_ok_and(|found| found.stx_attributes.contains(root))
}

pub(super) fn is_true(value: &str) -> bool {
    // A flag without a value is set.
    matches!(
        value.to_ascii_lowercase().as_str(),
        "" | "1" | "on" | "yes" | "true"
    )
}

pub(super) fn list(value: &str) -> Vec<String> {
    value
        .split([',', ';', ' ', '\t'])
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}

pub(super) fn lvm_name(name: &str) -> std::result::Result<String, String> {
    let fine = !name.starts_with('-')
        && ![".", ".."].contains(&name)
        && name.len() <= 127
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+_.-".contains(&b));
    if fine {
        Ok(name.to_owned())
    } else {
        Err(format!("\"{}\" is not an LVM name", name.escape_debug()))
    }
}

pub(super) fn absolute(path: &str) -> std::result::Result<PathBuf, String> {
    let fine = path.starts_with('/')
        && !path.chars().any(char::is_control)
        && !path.split('/').any(|part| part == "..");
    if fine {
        Ok(PathBuf::from(path))
    } else {
        Err(format!(
            "\"{}\" is not an absolute path",
            path.escape_debug()
        ))
    }
}

/// A name that becomes part of a path below `/dev`: no way out of there, and nothing that a tool could take for an
/// option.
pub(super) fn plain_name(what: &str, name: &str) -> std::result::Result<String, String> {
    let fine = !name.is_empty()
        && !name.starts_with('-')
        && ![".", ".."].contains(&name)
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b));
    match fine {
        true => Ok(name.to_owned()),
        false => Err(format!(
            "\"{}\" is not the name of {what}",
            name.escape_debug()
        )),
    }
}

/// The same with several parts.
pub(super) fn path_name(what: &str, name: &str) -> std::result::Result<String, String> {
    let wrong = |_| format!("\"{}\" is not the name of {what}", name.escape_debug());
    for part in name.split('/') {
        plain_name(what, part).map_err(wrong)?;
    }
    Ok(name.to_owned())
}

/// The path that must be a mount point: the storage's own, or the one that is named.
pub(super) fn mountpoint(
    option: Option<&str>,
    path: &Path,
) -> std::result::Result<Option<PathBuf>, String> {
    Ok(match option {
        None => None,
        Some(other) if other.starts_with('/') => Some(absolute(other)?),
        Some(flag) => is_true(flag).then(|| path.to_owned()),
    })
}

/// The directory of VM disks below the storage's path: `content-dirs images=DIR` overrides the usual one.
pub(super) fn images_dir(content_dirs: Option<&str>) -> std::result::Result<PathBuf, String> {
    let dirs = list(content_dirs.unwrap_or(""));
    let Some(dir) = dirs.iter().find_map(|d| d.strip_prefix("images=")) else {
        return Ok(PathBuf::from("images"));
    };
    let dir = dir.trim_matches('/');
    if dir.is_empty() || dir.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(format!(
            "content-dirs: \"{}\" is not a directory below the storage",
            dir.escape_debug()
        ));
    }
    Ok(PathBuf::from(dir))
}
