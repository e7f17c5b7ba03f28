//! The files in which QEMU keeps what a guest overwrites while a point in time of its disks is read.
//!
//! A guest whose old data cannot be kept would get an I/O error, or wait. So the space is taken from the file system
//! before, and a guard gives the point in time up while there is still some of it left.

use crate::bell::Bell;
use crate::error::{Error, Kind, Result};
use rustix::fs::{fallocate, statvfs, FallocateFlags};
use rustix::io::retry_on_intr;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where scratch files may be, and how large they may get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScratchSpace {
    /// A directory for root alone.
    pub dir: PathBuf,
    /// Most bytes for one VM; `None`: a quarter of what is free there.
    pub bytes_max: Option<u64>,
}

/// Less than this is of no use.
const BYTES_MIN: u64 = 16 << 20;
/// Of the space that was taken, the part that is left when the point in time is given up: 1 / SPARE.
const SPARE: u64 = 4;
/// How often the guard looks. A disk that takes 1 GB/s is 100 MB further then.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl ScratchSpace {
    /// Bytes for each of these disks, of which none needs more than it has, and a bit for QEMU's own tables.
    pub fn shares(&self, sizes: &[u64]) -> Result<Vec<u64>> {
        // It is made when it is needed.
        let mut above = self.dir.ancestors();
        let there = above.find(|dir| dir.exists()).unwrap_or(&self.dir);
        let stat = statvfs(there).map_err(|e| {
            let what = format!("cannot tell the free space of {}", self.dir.display());
            Error::io(what, e.into())
        })?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let most = self.bytes_max.unwrap_or(free / 4);
        let needs: Vec<u64> = sizes.iter().map(|s| s + s / 256 + (4 << 20)).collect();
        let all: u64 = needs.iter().sum::<u64>().max(1);
        let shares: Vec<u64> = needs
            .iter()
            .map(|need| {
                let share = u128::from(most) * u128::from(*need) / u128::from(all);
                u64::try_from(share).unwrap_or(u64::MAX).min(*need)
            })
            .collect();
        let scarce = |(share, need): (&u64, &u64)| *share < BYTES_MIN.min(*need);
        if shares.iter().zip(&needs).any(scarce) {
            return Err(Error::new(
                Kind::Space,
                format!(
                    "{} has too little room for what the guest overwrites during the sync: {most} bytes may be used \
                     for {} disks",
                    self.dir.display(),
                    sizes.len()
                ),
            )
            .advise("make room there, or name another directory with --scratch"));
        }
        Ok(shares)
    }
}

/// One scratch file. Removed when dropped.
#[derive(Debug)]
pub struct ScratchFile {
    /// Where it is.
    pub path: PathBuf,
    file: File,
    /// As large as it may get.
    pub bytes_max: u64,
}

impl ScratchFile {
    /// Makes it, empty, for this user alone.
    pub fn create(path: PathBuf, bytes_max: u64) -> Result<ScratchFile> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io(format!("cannot create {}", path.display()), e))?;
        Ok(ScratchFile {
            path,
            file,
            bytes_max,
        })
    }

    /// Takes the space: what is written to the file up to its limit finds room.
    pub fn reserve(&self) -> Result<()> {
        let keep = FallocateFlags::KEEP_SIZE;
        match retry_on_intr(|| fallocate(&self.file, keep, 0, self.bytes_max)) {
            Ok(()) => Ok(()),
            Err(e) => Err(Error::io(
                format!(
                    "cannot take {} bytes for {}",
                    self.bytes_max,
                    self.path.display()
                ),
                e.into(),
            )
            .advise("make room there, or name another directory with --scratch")),
        }
    }

    fn len(&self) -> Result<u64> {
        let stat = self.file.metadata();
        Ok(stat
            .map_err(|e| Error::io(format!("cannot stat {}", self.path.display()), e))?
            .len())
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // Whoever wants to know removes the directory, which then is not empty.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Looks at the scratch files of a point in time, until it is dropped.
pub struct Guard {
    over: Arc<Bell>,
    failed: Arc<Mutex<Option<Error>>>,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    /// Calls `give_up`, once, when one of these files is about to be full.
    pub fn start(
        files: Vec<Arc<ScratchFile>>,
        give_up: impl FnOnce() + Send + 'static,
    ) -> Result<Guard> {
        let over = Arc::new(Bell::new()?);
        let failed = Arc::new(Mutex::new(None));
        let (bell, slot) = (Arc::clone(&over), Arc::clone(&failed));
        let thread = std::thread::spawn(move || {
            while !bell.wait(LOOK_EVERY) {
                let Some(error) = files.iter().find_map(|file| full(file).err()) else {
                    continue;
                };
                // Told before the reads begin to fail.
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return give_up();
            }
        });
        Ok(Guard {
            over,
            failed,
            thread: Some(thread),
        })
    }

    /// Fails if the point in time was given up.
    pub fn check(&self) -> Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.take().map_or(Ok(()), Err)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.over.ring();
        if let Some(thread) = self.thread.take() {
            // It does not panic, and if it did there would be nothing left to guard.
            let _ = thread.join();
        }
    }
}

fn full(file: &ScratchFile) -> Result<()> {
    if file.len()? <= file.bytes_max - file.bytes_max / SPARE {
        return Ok(());
    }
    Err(Error::new(
        Kind::Space,
        format!(
            "the guest overwrote so much during the sync that the {} bytes for its old data in {} are nearly used up",
            file.bytes_max,
            file.path.parent().unwrap_or(Path::new("/")).display()
        ),
    )
    .advise("allow more with --scratch-max, or sync when it writes less"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn space_is_shared_by_size() {
        let dir = tempfile::tempdir().unwrap();
        let space = |bytes_max| ScratchSpace {
            dir: dir.path().to_owned(),
            bytes_max: Some(bytes_max),
        };
        let shares = space(300 << 20).shares(&[1 << 30, 2 << 30]).unwrap();
        assert!(
            shares[0] >= 100 << 20 && shares[1] > 199 << 20,
            "{shares:?}"
        );
        assert!(shares.iter().sum::<u64>() <= 300 << 20);
        let plenty = space(1 << 40).shares(&[1 << 20]).unwrap();
        assert!((5 << 20..6 << 20).contains(&plenty[0]), "{plenty:?}");
        assert_eq!(
            space(20 << 20)
                .shares(&[1 << 30, 1 << 30])
                .unwrap_err()
                .kind(),
            Kind::Space
        );
    }

    #[test]
    fn the_guard_gives_up_before_the_file_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let file = ScratchFile::create(dir.path().join("0"), 64 << 20).unwrap();
        file.reserve().unwrap();
        assert_eq!(file.len().unwrap(), 0, "reserved behind its end");
        let file = Arc::new(file);
        let (told, heard) = channel();
        let guard = Guard::start(vec![Arc::clone(&file)], move || told.send(()).unwrap()).unwrap();
        file.file.set_len(48 << 20).unwrap();
        guard.check().unwrap();
        file.file.set_len((48 << 20) + 1).unwrap();
        heard.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(guard.check().unwrap_err().kind(), Kind::Space);
        drop((guard, file));
        assert!(!dir.path().join("0").exists());
    }
}
