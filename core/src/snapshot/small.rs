//! Small disks of a running VM, which are copied while the guest is held: what firmware and TPM keep.
//!
//! QEMU cannot keep those. The TPM's is open in another program, and of the firmware's it shows only as much as it uses
//! of a volume that LVM has rounded up. They are a few MiB at the most, so a copy takes less than a snapshot.

use crate::error::{Error, Kind, Result};
use crate::lock::private_dir;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What is larger is no small disk. Proxmox makes these of 528 KiB and 4 MiB, and LVM may round up.
const BYTES_MAX: u64 = 8 << 20;

/// Whether a disk is small.
pub(super) fn is_small(path: &Path) -> Result<bool> {
    let mut file = open(path)?;
    let size = file.seek(SeekFrom::End(0)).map_err(|e| failed(path, e))?;
    Ok(size <= BYTES_MAX)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| failed(path, e))
}

fn failed(path: &Path, e: std::io::Error) -> Error {
    Error::io(format!("cannot copy {}", path.display()), e)
}

/// Where copies are, for root alone. Goes with all in it when it is dropped.
#[derive(Debug)]
pub(super) struct Copies {
    dir: PathBuf,
}

impl Copies {
    /// In `scratch`, by a name that whoever sweeps there knows.
    pub fn new(scratch: &Path, run: &str) -> Result<Copies> {
        let dir = scratch.join(format!("rbs-{run}-small"));
        private_dir(&dir)?;
        Ok(Copies { dir })
    }

    /// Copies the disk, all of it.
    pub fn take(&self, index: usize, from: &Path) -> Result<PathBuf> {
        let path = self.dir.join(index.to_string());
        let mut bytes = Vec::new();
        let read = open(from)?.take(BYTES_MAX + 1).read_to_end(&mut bytes);
        let size = read.map_err(|e| failed(from, e))?;
        if size as u64 > BYTES_MAX {
            let what = format!("{} has become larger", from.display());
            return Err(Error::new(Kind::Busy, what).advise("run again"));
        }
        let mut options = OpenOptions::new();
        let created = options.write(true).create_new(true).mode(0o600).open(&path);
        let written = created.and_then(|mut file| std::io::Write::write_all(&mut file, &bytes));
        match written {
            Ok(()) => Ok(path),
            Err(e) => Err(Error::io(format!("cannot write {}", path.display()), e)),
        }
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // What is left the next run sweeps.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_whole_and_goes_with_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("efi");
        std::fs::write(&disk, vec![7; 528 << 10]).unwrap();
        assert!(is_small(&disk).unwrap());
        let copies = Copies::new(&dir.path().join("scratch"), "0af").unwrap();
        let copy = copies.take(1, &disk).unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), vec![7; 528 << 10]);
        drop(copies);
        assert!(!copy.parent().unwrap().exists());

        File::create(&disk).unwrap().set_len(BYTES_MAX + 1).unwrap();
        assert!(!is_small(&disk).unwrap());
        let copies = Copies::new(&dir.path().join("scratch"), "0af").unwrap();
        assert_eq!(copies.take(0, &disk).unwrap_err().kind(), Kind::Busy);
    }
}
