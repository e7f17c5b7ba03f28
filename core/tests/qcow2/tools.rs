//! Making images, syncing them, and asking QEMU about them.

use rblocksync::agent::BlockEnd;
use rblocksync::error::Result;
use rblocksync::image::{ImageFormat, TargetOptions};
use rblocksync::stop::Stop;
use rblocksync::sync::{Geometry, Meter, Params, Summary, Tuning};
use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const RAW: ImageFormat = ImageFormat::Raw;
pub const QCOW2: ImageFormat = ImageFormat::Qcow2;

/// Runs a program, which must succeed, and gives what it printed.
pub fn run<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> String {
    let mut command = Command::new(program);
    let out = command.args(args).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {said}");
    String::from_utf8(out.stdout).unwrap()
}

/// Arguments of which some are paths.
#[macro_export]
macro_rules! args {
    ($($arg:expr),* $(,)?) => {
        [$(std::ffi::OsStr::new($arg)),*]
    };
}

/// The files of a test. Only one test at a time has some: a program that another thread starts has our locks, too, until
/// its first instruction, and they would be found taken.
pub struct Dir(
    tempfile::TempDir,
    #[allow(dead_code)] MutexGuard<'static, ()>,
);

impl Dir {
    pub fn new() -> Dir {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Dir(tempfile::tempdir_in("/var/tmp").unwrap(), turn)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A raw file of `size` bytes that holds data at these places, of this many bytes, each different.
    pub fn raw(&self, name: &str, size: u64, data: &[(u64, u64)]) -> PathBuf {
        let path = self.path(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(size).unwrap();
        for (at, len) in data {
            file.write_all_at(&pattern(*len, *at + size), *at).unwrap();
        }
        path
    }

    /// The same as a qcow2 image.
    pub fn qcow2(&self, name: &str, size: u64, data: &[(u64, u64)]) -> PathBuf {
        let path = self.path(name);
        let raw = self.raw(&format!("{name}.raw"), size, data);
        let args = args!["convert", "-f", "raw", "-O", "qcow2", &raw, &path];
        run("qemu-img", args);
        std::fs::remove_file(raw).unwrap();
        path
    }
}

/// Bytes that are nowhere the same for long.
pub fn pattern(len: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state as u8).max(1)
        })
        .collect()
}

/// Has the guest do something: `write -P 7 1M 64k`.
pub fn guest(path: &Path, format: ImageFormat, action: &str) {
    let args = args!["-f", format.name(), "-c", action, path];
    let said = run("qemu-io", args);
    assert!(!said.contains("failed"), "{said}");
}

pub fn options(format: ImageFormat) -> TargetOptions {
    TargetOptions {
        create: true,
        format,
        ..TargetOptions::default()
    }
}

pub type Disk<'a> = (&'a Path, ImageFormat);

/// Makes `to` equal to `from`, of the same size, and lets go of both.
pub fn sync(from: Disk, to: Disk) -> Result<Summary> {
    let (mut source, from) = BlockEnd::source(from.0, from.1, false)?;
    let (mut target, opened) = BlockEnd::target(to.0, options(to.1))?;
    if opened.is_new || opened.size != from.size {
        target.resize(from.size)?;
    }
    let tuning = Tuning {
        verify: true,
        ..Tuning::default()
    };
    let params = Params::new(Geometry::new(from.size, 4096)?, &tuning);
    let summary = target.sync_from(&mut source, &params, &Meter::new(), &Stop::new())?;
    target.commit()?;
    Ok(summary)
}

/// Both show the guest the same, and a qcow2 image is as QEMU wants it.
pub fn assert_equal(a: Disk, b: Disk) {
    let args = args!["compare", "-f", a.1.name(), "-F", b.1.name(), a.0, b.0];
    run("qemu-img", args);
    let size = |(path, format): Disk| {
        let info = info(path, format);
        let rest = info.split(r#""virtual-size":"#).nth(1).unwrap();
        rest.split([',', '}']).next().unwrap().to_owned()
    };
    assert_eq!(size(a), size(b));
    for (path, format) in [a, b] {
        if format == QCOW2 {
            run("qemu-img", args!["check", "-f", "qcow2", path]);
        }
    }
}

/// What QEMU says of an image, without spaces.
pub fn info(path: &Path, format: ImageFormat) -> String {
    let args = args!["info", "--output=json", "-f", format.name(), path];
    run("qemu-img", args).split_whitespace().collect()
}

/// Bytes that the file takes.
pub fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().blocks() * 512
}

/// Waits until that is so.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
