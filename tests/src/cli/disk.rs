//! Loop devices and small file systems, for root. Names of loop devices come from losetup alone, and
//! whatever is made is unmade when it is dropped.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether we may make devices and mount. Tests that must skip what they cannot do say so.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can make loop devices and mount");
    }
    root
}

/// Runs a tool of the system; returns what it printed.
#[track_caller]
fn tool<A: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = A>) -> String {
    let out = Command::new(name)
        .args(args)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(out.status.success(), "{name}: {out:?}");
    String::from_utf8(out.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

/// A loop device over a file.
pub struct Loop {
    device: PathBuf,
}

impl Loop {
    /// Attaches a loop device to `file`.
    pub fn attach(file: &Path) -> Loop {
        Loop::with(file, &[])
    }

    /// One that cannot be written.
    pub fn read_only(file: &Path) -> Loop {
        Loop::with(file, &["--read-only"])
    }

    fn with(file: &Path, options: &[&str]) -> Loop {
        let mut args: Vec<&OsStr> = vec!["--show".as_ref(), "-f".as_ref()];
        args.extend(options.iter().map(OsStr::new));
        args.push(file.as_os_str());
        Loop {
            device: tool("losetup", args).into(),
        }
    }

    /// Its node.
    pub fn path(&self) -> &Path {
        &self.device
    }
}

impl AsRef<Path> for Loop {
    fn as_ref(&self) -> &Path {
        &self.device
    }
}

impl AsRef<OsStr> for Loop {
    fn as_ref(&self) -> &OsStr {
        self.device.as_os_str()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("-d").arg(&self.device).status();
        if !detached.is_ok_and(|s| s.success()) {
            eprintln!("{} is still attached", self.device.display());
        }
    }
}

/// A small file system on a loop device.
pub struct Mount {
    dir: PathBuf,
    device: Loop,
}

impl Mount {
    /// Makes an ext4 of `size` bytes from a file in `dir`, mounted below `dir` as well.
    pub fn ext4(dir: &Path, size: u64) -> Mount {
        Mount::make(dir, size, "mkfs.ext4", &["-q", "-m0"])
    }

    /// The same with an XFS, which makes reflink clones.
    pub fn xfs(dir: &Path, size: u64) -> Mount {
        Mount::make(dir, size, "mkfs.xfs", &["-q"])
    }

    fn make(dir: &Path, size: u64, mkfs: &str, options: &[&str]) -> Mount {
        let file = dir.join("file-system");
        std::fs::File::create(&file)
            .and_then(|f| f.set_len(size))
            .expect("a file");
        let options = options.iter().map(OsStr::new);
        tool(mkfs, options.chain([file.as_os_str()]));
        let device = Loop::attach(&file);
        let mount = Mount {
            dir: dir.join("mounted"),
            device,
        };
        std::fs::create_dir(&mount.dir).expect("a directory");
        tool("mount", [mount.device.path(), &mount.dir]);
        mount
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The device it lives on.
    pub fn device(&self) -> &Path {
        self.device.path()
    }

    /// From now on it cannot be written.
    pub fn make_read_only(&self) {
        tool(
            "mount",
            ["-o".as_ref(), "remount,ro".as_ref(), self.dir.as_os_str()],
        );
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.dir).status();
        if !done.is_ok_and(|s| s.success()) {
            eprintln!("{} is still mounted", self.dir.display());
        }
    }
}
