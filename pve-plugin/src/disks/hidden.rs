//! Disks that no disk key tells of. A replica without them would look whole and not be.

use crate::drive::DiskKey;
use crate::vm_config::VmConfig;
use crate::volid::Vmid;

/// Keys besides the disk keys that bring disks into the VM: raw QEMU arguments, and keys of a newer
/// Proxmox whose value is a disk volume.
pub(super) fn hidden_disks(config: &VmConfig) -> impl Iterator<Item = (&str, &str, &'static str)> {
    const DRIVE_ARGUMENTS: [&str; 9] = [
        "-drive",
        "-blockdev",
        "-hda",
        "-hdb",
        "-hdc",
        "-hdd",
        "-sd",
        "-mtdblock",
        "-pflash",
    ];
    config.main().entries().filter_map(|(key, value)| {
        if key == "args" {
            let brings_disk = value
                .split_whitespace()
                .map(|word| {
                    word.strip_prefix('-')
                        .filter(|w| w.starts_with('-'))
                        .unwrap_or(word)
                })
                .any(|word| DRIVE_ARGUMENTS.contains(&word));
            return brings_disk.then_some((
                key,
                value,
                "gives QEMU a drive that Proxmox does not know",
            ));
        }
        let numbered = key.ends_with(|c: char| c.is_ascii_digit()) && DiskKey::parse(key).is_none();
        let names_disk = value.split(',').any(|part| {
            let part = part
                .strip_prefix("file=")
                .or(part.strip_prefix("volume="))
                .unwrap_or(part);
            part.split_once(':')
                .is_some_and(|(_, volname)| is_disk_volname(volname))
        });
        (numbered && names_disk).then_some((
            key,
            value,
            "is a kind of disk that this version does not know",
        ))
    })
}

fn is_disk_volname(volname: &str) -> bool {
    let name = volname.rsplit('/').next().unwrap_or(volname);
    let numbered = name.strip_prefix("vm-").or(name.strip_prefix("base-"));
    numbered
        .and_then(|rest| rest.split_once("-disk-"))
        .is_some_and(|(vmid, _)| vmid.parse::<Vmid>().is_ok())
}
