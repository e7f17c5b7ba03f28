//! Who has a file or a block device open. Not every QEMU takes locks on images, and other programs do not, so the
//! kernel's list of open files is asked.

use crate::error::{Error, Result};
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What tells one file or device from another, whatever name it was opened by.
#[derive(PartialEq, Eq)]
enum Identity {
    Device(u64),
    File(u64, u64),
}

fn identity(meta: &Metadata) -> Identity {
    match meta.file_type().is_block_device() {
        true => Identity::Device(meta.rdev()),
        false => Identity::File(meta.dev(), meta.ino()),
    }
}

/// A process that has one of these open, in words; `None` if there is none. What does not exist is open nowhere. Our own
/// descriptors do not count.
pub fn of(paths: &[PathBuf]) -> Result<Option<String>> {
    let mut wanted = Vec::new();
    for path in paths {
        match std::fs::metadata(path) {
            Ok(meta) => wanted.push((path, identity(&meta))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(format!("cannot stat {}", path.display()), e)),
        }
    }
    let entries = std::fs::read_dir("/proc").map_err(|e| Error::io("cannot list /proc", e))?;
    for entry in entries {
        let process = entry.map_err(|e| Error::io("cannot list /proc", e))?.path();
        let name = process.file_name().and_then(|n| n.to_str());
        let Some(pid) = name.and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        if let Some(path) = open_in(&process, &wanted) {
            return Ok(Some(format!(
                "process {pid} still has {} open",
                path.display()
            )));
        }
    }
    Ok(None)
}

/// A process that ends while it is looked at has nothing open.
fn open_in<'a>(process: &Path, wanted: &[(&'a PathBuf, Identity)]) -> Option<&'a PathBuf> {
    let descriptors = std::fs::read_dir(process.join("fd")).ok()?;
    for descriptor in descriptors.flatten() {
        // It follows the link, so it is the open file itself, also when that was renamed.
        let Ok(meta) = std::fs::metadata(descriptor.path()) else {
            continue;
        };
        let found = identity(&meta);
        if let Some((path, _)) = wanted.iter().find(|(_, identity)| *identity == found) {
            return Some(path);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn another_process_with_the_file_open_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        let paths = [path.clone(), PathBuf::from("/nonexistent/x")];
        assert_eq!(of(&paths).unwrap(), None, "ours does not count");
        // It ends when its stdin does.
        let mut child = Command::new("cat")
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(file.reopen().unwrap())
            .spawn()
            .unwrap();
        let found = of(&paths).unwrap().unwrap();
        assert!(found.contains(&child.id().to_string()), "{found}");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(of(&paths).unwrap(), None);
    }
}
