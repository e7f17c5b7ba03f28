//! `rblocksync SRC DST` as a user runs it: real files, loop devices and a real sshd.
//!
//! Needs root for loop devices and mounts.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod endings;
mod uses;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use tests::sshd::{Sshd, HOST};

const LEAF: u64 = 4096;
const MIB: u64 = 1 << 20;

/// The program under test: where `make build` put it, or else built now.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(dir) = std::env::var_os("LAB_BINARIES") {
            let path = Path::new(&dir).join("rblocksync");
            assert!(
                path.exists(),
                "{} is missing: run make build",
                path.display()
            );
            return path;
        }
        let status = Command::new(env!("CARGO"))
            .args(["build", "-q", "-p", "rblocksync"])
            .status()
            .unwrap();
        assert!(status.success());
        let exe = std::env::current_exe().unwrap();
        exe.parent().unwrap().with_file_name("rblocksync")
    })
}

/// What a run printed and how it ended.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        Run {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into(),
            stderr: String::from_utf8_lossy(&output.stderr).into(),
        }
    }
}

impl Run {
    /// The run must have succeeded.
    fn ok(self) -> Run {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// The run must have failed with `code`, and said all of `words`.
    fn fails(self, code: i32, words: &[&str]) -> Run {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(
                self.stderr.contains(word),
                "no {word:?} in: {}",
                self.stderr
            );
        }
        self
    }
}

fn command(args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(program());
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs the program to its end.
fn run(args: &[impl AsRef<OsStr>]) -> Run {
    command(args).output().unwrap().into()
}

/// A world of its own: a directory, and a server that reaches this machine.
struct World {
    dir: tempfile::TempDir,
    sshd: Sshd,
}

impl World {
    fn new() -> World {
        let sshd = Sshd::start();
        sshd.install("rblocksync", &fs::read(program()).unwrap());
        World {
            dir: tempfile::tempdir_in("/var/tmp").unwrap(),
            sshd,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same path, seen through SSH.
    fn remote(&self, path: &Path) -> String {
        format!("{HOST}:{}", path.display())
    }

    fn config(&self) -> String {
        format!("--ssh-config={}", self.sshd.client_config().display())
    }

    /// A sparse image: stretches of data with holes between, in all `size` bytes.
    fn image(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        let file = File::create_new(&path).unwrap();
        file.set_len(size).unwrap();
        for (i, at) in (0..size).step_by(3 * MIB as usize).enumerate() {
            let len = MIB.min(size - at) as usize;
            let bytes: Vec<u8> = (0..len)
                .map(|n| (n / 4096 * 7 + i * 13 + n % 251) as u8 | 1)
                .collect();
            file.write_all_at(&bytes, at).unwrap();
        }
        file.sync_all().unwrap();
        path
    }
}

fn write(path: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

fn same(a: &Path, b: &Path) {
    let status = Command::new("cmp").args([a, b]).status().unwrap();
    assert!(
        status.success(),
        "{} and {} differ",
        a.display(),
        b.display()
    );
}

fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

/// A loop device over a file, detached when dropped.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path, options: &[&str]) -> Loop {
        let output = Command::new("losetup")
            .args(["--show", "-f"])
            .args(options)
            .arg(file)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Loop(String::from_utf8(output.stdout).unwrap().trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let status = Command::new("losetup").arg("-d").arg(&self.0).status();
        drop(status);
    }
}

/// A small ext4 file system in a file, mounted until dropped.
struct Mount {
    at: PathBuf,
    device: Loop,
}

impl Mount {
    fn new(world: &World, name: &str, size: u64) -> Mount {
        let file = world.path(&format!("{name}.fs"));
        File::create_new(&file).unwrap().set_len(size).unwrap();
        let device = Loop::over(&file, &[]);
        let at = world.path(name);
        fs::create_dir(&at).unwrap();
        done(
            Command::new("mkfs.ext4")
                .args(["-q", "-m", "0"])
                .arg(&device.0),
        );
        done(Command::new("mount").arg(&device.0).arg(&at));
        Mount { at, device }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.at).status();
        drop(status);
    }
}

fn done(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}");
}
