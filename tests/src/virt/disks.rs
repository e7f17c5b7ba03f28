//! Disks of VMs in a node: made, removed, and checked for what the writer left on them.

use super::{Disk, Error, Medium, Node, Result, Vm};
use crate::lab::inner::{run, Context};
use crate::lab::pattern::{self, Report};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

/// A loop device. It goes when nobody has it open any more, so with this process at the latest.
#[derive(Debug)]
pub(super) struct Loop {
    path: String,
    _open: File,
}

impl Node {
    /// Makes empty disks for a VM; those that are there are replaced.
    ///
    /// # Errors
    /// qemu-img or losetup fail.
    pub fn make_disks(&self, vm: &Vm) -> Result<()> {
        vm.disks.iter().try_for_each(|disk| self.make_disk(disk))
    }

    /// Makes one disk.
    ///
    /// # Errors
    /// qemu-img or losetup fail.
    pub fn make_disk(&self, disk: &Disk) -> Result<()> {
        self.remove_disk(disk)?;
        match disk.medium {
            Medium::Qcow2 | Medium::Raw => self
                .run_ok(&format!(
                    "qemu-img create -q -f {} '{}' {}M",
                    disk.medium.format(),
                    disk.path,
                    disk.mib
                ))
                .map(drop),
            Medium::Block => self.make_device(disk),
        }
    }

    fn make_device(&self, disk: &Disk) -> Result<()> {
        let backing = self.backing(disk);
        File::create(&backing)
            .and_then(|file| file.set_len(disk.mib << 20))
            .context(|| format!("cannot make {}", backing.display()))?;
        let made = run(Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&backing))?;
        let device = String::from_utf8_lossy(&made).trim().to_owned();
        // While it is open, to detach it is to have it detached at the last close.
        let open = File::open(&device);
        run(Command::new("losetup").args(["--detach", &device]))?;
        let open = open.context(|| format!("cannot open {device}"))?;
        let number = device.trim_start_matches("/dev/loop");
        self.run_ok(&format!(
            "set -e; [ -e {device} ] || mknod {device} b 7 {number}
             mkdir -p \"$(dirname '{path}')\"; ln -sfn {device} '{path}'",
            path = disk.path
        ))?;
        self.loops().push(Loop {
            path: disk.path.clone(),
            _open: open,
        });
        Ok(())
    }

    /// Removes the disks of a VM, as far as they are there.
    ///
    /// # Errors
    /// They cannot be removed.
    pub fn remove_disks(&self, vm: &Vm) -> Result<()> {
        vm.disks.iter().try_for_each(|disk| self.remove_disk(disk))
    }

    fn remove_disk(&self, disk: &Disk) -> Result<()> {
        self.loops().retain(|device| device.path != disk.path);
        self.run_ok(&format!("rm -f '{}'", disk.path))?;
        if disk.medium == Medium::Block {
            // None at the first time.
            fs::remove_file(self.backing(disk)).ok();
        }
        Ok(())
    }

    /// The file behind a block device, as this machine sees it; not where libvirt's pool would list it.
    fn backing(&self, disk: &Disk) -> PathBuf {
        let name = disk.path.replace('/', "-");
        self.images().with_file_name(format!("device{name}"))
    }

    /// Whether the disks of a VM that is off show one point in time.
    ///
    /// # Errors
    /// Everything that is wrong with them; or one cannot be read, because a QEMU has it open or it is not there.
    pub fn check(&self, vm: &Vm) -> Result<Report> {
        let images: Vec<(&str, &str)> = vm
            .disks
            .iter()
            .map(|disk| (disk.path.as_str(), disk.medium.format()))
            .collect();
        self.check_images(&images)
    }

    /// The same for any images, in the order of the disks: path in the node, and format.
    ///
    /// # Errors
    /// As of [`check`](Self::check).
    pub fn check_images(&self, images: &[(&str, &str)]) -> Result<Report> {
        let mut disks = Vec::new();
        for (index, (path, format)) in images.iter().enumerate() {
            let name = format!(".check-{index}.raw");
            self.run_ok(&format!(
                "qemu-img convert -f {format} -O raw '{path}' '/var/lib/libvirt/images/{name}'"
            ))?;
            let copy = self.images().join(name);
            disks.push(File::open(&copy).context(|| format!("cannot open {}", copy.display()))?);
            fs::remove_file(&copy).context(|| format!("cannot remove {}", copy.display()))?;
        }
        pattern::check(&mut disks).map_err(|violations| {
            let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
            Error::new(format!("{}: {}", self.name(), lines.join("\n")))
        })
    }
}
