//! The directory of one running lab: disks, sockets, logs, keys. Locked while its lab lives; the next lab that comes up
//! removes those whose lab died.

use super::artifacts::lock_file;
use super::error::{Context, Result};
use super::paths;
use rustix::fs::{flock, FlockOperation};
use rustix::process::{kill_process, Pid, Signal};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const PREFIX: &str = "rbs-lab-";

/// A run directory; dropping it removes it.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Reaps dead labs and makes a new directory.
    pub fn create() -> Result<RunDir> {
        let runs = paths::runs();
        reap_in(&runs);
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&runs)
            .context(|| format!("cannot make a directory in {}", runs.display()))?
            .keep();
        // Named "lock" only when it is locked: another lab reaping now must not take this one for dead.
        let lock = lock_file(&path.join("lock.new"))?;
        flock(&lock, FlockOperation::LockExclusive).context(|| "cannot lock the run directory")?;
        fs::rename(path.join("lock.new"), path.join("lock"))
            .context(|| "cannot name the lock of the run directory")?;
        Ok(RunDir { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // What stays is reaped by the next lab.
        fs::remove_dir_all(&self.path).ok();
    }
}

/// Removes what labs that did not end in order left behind. [`Lab::up`](super::Lab::up) does it too.
pub fn reap() {
    reap_in(&paths::runs());
}

/// Removes the run directories of labs that are gone, and ends what they left running.
fn reap_in(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else {
        return;
    };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        let Ok(lock) = File::open(entry.path().join("lock")) else {
            continue;
        };
        if ours && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            kill_left_over(&entry.path());
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// Kills processes that name `dir` on their command line: started by its lab, and by nobody else.
fn kill_left_over(dir: &Path) {
    let needle = [dir.as_os_str().as_encoded_bytes(), b"/"].concat();
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    for entry in entries.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw);
        let (Some(pid), Ok(command)) = (pid, fs::read(entry.path().join("cmdline"))) else {
            continue;
        };
        let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
        let ours = program.ends_with(b"qemu-system-x86_64") || program.ends_with(b"ssh");
        if ours && command.windows(needle.len()).any(|window| window == needle) {
            kill_process(pid, Signal::KILL).ok();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_dead_labs_are_reaped() {
        let runs = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let dir = runs.path().join(name);
            fs::create_dir(&dir).unwrap();
            lock_file(&dir.join("lock")).unwrap()
        };
        drop(make("rbs-lab-dead"));
        let alive = make("rbs-lab-alive");
        flock(&alive, FlockOperation::LockExclusive).unwrap();
        drop(make("something-else"));
        reap_in(runs.path());
        assert!(!runs.path().join("rbs-lab-dead").exists());
        assert!(runs.path().join("rbs-lab-alive").exists());
        assert!(runs.path().join("something-else").exists());
    }
}
