//! Replicas on what is no plain directory: subvolumes of btrfs and block devices, as far as they can be had on a host.
#![allow(clippy::unwrap_used)]

mod devices;
mod subvolume;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// What the program prints; nothing with the reason printed if it fails.
fn run(program: &str, args: &[&dyn AsRef<OsStr>]) -> Option<String> {
    let args = args.iter().map(|a| a.as_ref());
    match Command::new(program).args(args).output() {
        Ok(out) if out.status.success() => String::from_utf8(out.stdout).ok(),
        other => {
            println!("{program}: {other:?}");
            None
        }
    }
}

/// A loop device, gone when dropped.
struct Loop(String);

impl Loop {
    /// `None` where there are none.
    fn attach(file: &Path) -> Option<Loop> {
        let name = run("losetup", &[&"--find", &"--show", &file])?;
        Some(Loop(name.trim().to_owned()))
    }

    fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &[&"-d", &self.0]);
    }
}
