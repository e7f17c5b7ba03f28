//! RBD images of Ceph as block devices of this host.
//!
//! Only images that the kernel has mapped can be read: what a VM has open through librbd is nobody's device. The device
//! nodes are those that udev makes: `/dev/rbd-pve/FSID/POOL/IMAGE` on Proxmox VE, where clusters of the same pool names
//! can be told apart, and `/dev/rbd/POOL/IMAGE`.

use rblocksync::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};

/// The device of the image `name` (`POOL/IMAGE` or `POOL/NAMESPACE/IMAGE`), if exactly one is mapped.
pub fn mapped_device(name: &str) -> Result<PathBuf> {
    mapped_below(Path::new("/dev"), name)
}

fn mapped_below(dev: &Path, name: &str) -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let clusters = dev.join("rbd-pve");
    match std::fs::read_dir(&clusters) {
        Ok(entries) => {
            for entry in entries {
                let failed = |e| Error::io(format!("cannot list {}", clusters.display()), e);
                let device = entry.map_err(failed)?.path().join(name);
                if device.exists() {
                    found.push(device);
                }
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io(format!("cannot list {}", clusters.display()), e)),
    }
    let plain = dev.join("rbd").join(name);
    if found.is_empty() && plain.exists() {
        found.push(plain);
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([device]) => Ok(device),
        Err(none) if none.is_empty() => Err(Error::new(
            Kind::NotFound,
            format!("the RBD image {name} is not mapped as a device of this host"),
        )
        .advise(match rbd_is_there() {
            true => format!(
                "set krbd 1 on the storage and start the VM, or stop the VM and map the image: rbd map {name}"
            ),
            false => "the program rbd is not installed: install the package ceph-common, set krbd 1 on the storage, \
                      and start the VM or map the image"
                .to_owned(),
        })),
        Err(several) => Err(Error::new(
            Kind::Refused,
            format!(
                "the RBD image {name} is mapped from {} clusters of Ceph, and the configuration does not tell which",
                several.len()
            ),
        )
        .advise("unmap those of other clusters, see rbd showmapped")),
    }
}

fn rbd_is_there() -> bool {
    ["/usr/bin/rbd", "/bin/rbd"]
        .iter()
        .any(|path| Path::new(path).exists())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_image_is_found_where_exactly_one_cluster_has_it() {
        let dev = tempfile::tempdir().unwrap();
        let device = |path: &str| {
            let path = dev.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        let find = || mapped_below(dev.path(), "vms/vm-101-disk-0");
        let missing = find().unwrap_err();
        assert_eq!(missing.kind(), Kind::NotFound);
        assert!(missing.to_string().contains("krbd 1"), "{missing}");
        let plain = device("rbd/vms/vm-101-disk-0");
        assert_eq!(find().unwrap(), plain);
        let one = device("rbd-pve/fsid-1/vms/vm-101-disk-0");
        device("rbd-pve/fsid-2/vms/vm-102-disk-0");
        assert_eq!(find().unwrap(), one);
        device("rbd-pve/fsid-2/vms/vm-101-disk-0");
        assert_eq!(find().unwrap_err().kind(), Kind::Refused);
    }
}
