//! Small VMs of the tests' own: a thin volume `scsi0` and a raw file `scsi1`, 8 MiB each, half of it random.

use crate::lab::{Guest, Result};

/// The disks of a small VM on any host that has it under this id.
pub fn disks(vmid: u32) -> [String; 2] {
    [
        format!("/dev/pve/vm-{vmid}-disk-0"),
        format!("/var/lib/vz/images/{vmid}/vm-{vmid}-disk-0.raw"),
    ]
}

/// The volumes of a generation of it.
pub fn generation(vmid: u32, number: u32) -> [String; 2] {
    [
        format!("/dev/pve/snap_vm-{vmid}-disk-0_rbs{number}"),
        format!("/var/lib/vz/images/{vmid}/.vm-{vmid}-disk-0.raw.rbs{number}"),
    ]
}

/// The path of its configuration.
pub fn config(vmid: u32) -> String {
    format!("/etc/pve/qemu-server/{vmid}.conf")
}

/// Makes a small VM. Of its second disk only the file is made if `disks` is 1.
pub fn make(guest: &Guest, vmid: u32, disks: u32) -> Result<()> {
    let second = match disks {
        1 => String::new(),
        _ => format!("scsi1: local:{vmid}/vm-{vmid}-disk-0.raw,size=8M\n"),
    };
    guest.run_ok(&format!(
        "set -e; lvcreate -qq -V 8M -n vm-{vmid}-disk-0 --thinpool pve/data
         lvchange -qq --setautoactivation n pve/vm-{vmid}-disk-0
         dd if=/dev/urandom of=/dev/pve/vm-{vmid}-disk-0 bs=1M count=4 seek=4 oflag=direct status=none
         lvchange -qq -an pve/vm-{vmid}-disk-0
         mkdir -p /var/lib/vz/images/{vmid}; f=/var/lib/vz/images/{vmid}/vm-{vmid}-disk-0.raw; truncate -s 8M $f
         dd if=/dev/urandom of=$f bs=1M count=4 seek=4 conv=notrunc status=none"
    ))?;
    guest.write_file(
        &config(vmid),
        format!(
            "boot: order=scsi0\ncores: 1\nmachine: pc\nmemory: 64\nname: small{vmid}\nonboot: 1\n\
             scsi0: local-lvm:vm-{vmid}-disk-0,discard=on,size=8M\n{second}scsihw: virtio-scsi-single\n\
             smbios1: uuid=6d0f7a52-1f5b-4c1e-9b8e-0a6f6b3d1{vmid}\n"
        ),
    )
}

/// Adds an EFI disk on the thin pool and the state of a TPM in a file, which no guest of the lab's touches, to a VM that was
/// made with two disks; its disks [`firmware`] then.
pub fn add_firmware(guest: &Guest, vmid: u32) -> Result<()> {
    guest.run_ok(&format!(
        "set -e; lvcreate -qq -V 4M -n vm-{vmid}-disk-1 --thinpool pve/data
         lvchange -qq --setautoactivation n pve/vm-{vmid}-disk-1
         dd if=/dev/urandom of=/dev/pve/vm-{vmid}-disk-1 bs=64k count=16 oflag=direct status=none
         lvchange -qq -an pve/vm-{vmid}-disk-1
         f=/var/lib/vz/images/{vmid}/vm-{vmid}-disk-1.raw; truncate -s 4M $f
         dd if=/dev/urandom of=$f bs=64k count=16 conv=notrunc status=none"
    ))?;
    let config = config(vmid);
    let mut text = String::from_utf8_lossy(&guest.read_file(&config)?).into_owned();
    text.push_str(&format!(
        "efidisk0: local-lvm:vm-{vmid}-disk-1,efitype=4m,size=4M\n\
         tpmstate0: local:{vmid}/vm-{vmid}-disk-1.raw,size=4M,version=v2.0\n"
    ));
    guest.write_file(&config, text)
}

/// The disks that [`add_firmware`] adds.
pub fn firmware(vmid: u32) -> [String; 2] {
    [
        format!("/dev/pve/vm-{vmid}-disk-1"),
        format!("/var/lib/vz/images/{vmid}/vm-{vmid}-disk-1.raw"),
    ]
}
