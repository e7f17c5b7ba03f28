//! How long a VM stands still that has 10 GiB, of which 1 MiB changes a second: told, and not judged, as everything here is
//! emulated. `lvs` alone is timed beside it, for it is what most of that time goes into: on a host of its own it takes
//! 20 to 60 ms.

use crate::migrate::{assert_off, events};
use std::time::Instant;
use tests::lab::{Guest, Lab, Result};
use tests::pair::{small, *};

const VMID: u32 = 115;
const THIN: &str = "/dev/pve/vm-115-disk-0";

fn make(guest: &Guest) -> Result<()> {
    guest.run_ok(&format!(
        "set -e; lvcreate -qq -V 10G -n vm-{VMID}-disk-0 --thinpool pve/data
         lvchange -qq --setautoactivation n pve/vm-{VMID}-disk-0
         dd if=/dev/urandom of={THIN} bs=1M count=32 seek=100 oflag=direct status=none
         lvchange -qq -an pve/vm-{VMID}-disk-0"
    ))?;
    guest.write_file(
        &small::config(VMID),
        format!(
            "boot: order=scsi0\ncores: 1\nmachine: pc\nmemory: 64\nname: ten\n\
             scsi0: local-lvm:vm-{VMID}-disk-0,discard=on,size=10G\nscsihw: virtio-scsi-single\n\
             smbios1: uuid=6d0f7a52-1f5b-4c1e-9b8e-0a6f6b3d1{VMID}\n"
        ),
    )
}

/// What writes 1 MiB a second to the disk, as long as the VM runs.
fn busy(guest: &Guest) -> Result<()> {
    guest.run_ok(&format!(
        "setsid bash -c 'cd /; while [ -e /run/qemu-server/{VMID}.pid ] && grep -qs qemu /proc/$(cat /run/qemu-server/{VMID}.pid)/cmdline
         do dd if=/dev/urandom of={THIN} bs=1M count=1 seek=$((4 + RANDOM % 90)) oflag=direct conv=notrunc status=none; sleep 1
         done' > /dev/null 2>&1 < /dev/null &"
    ))
    .map(drop)
}

pub fn it_is_told_how_long_ten_gib_stand_still(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    make(a)?;
    a.run_ok(&format!("qm start {VMID}"))?;
    wait_for_writes(a, THIN, 5)?;
    for (from, to, name, how) in [(a, b, "hvb", ""), (b, a, "hva", "--live --pause-max 10m")] {
        // A paused guest writes nothing, and whoever writes for it does not know that it is.
        if how.is_empty() {
            busy(from)?;
        }
        let began = Instant::now();
        from.run_ok("lvs > /dev/null")?;
        let lvs = began.elapsed();
        let done = events(
            from,
            &format!("pvesync migrate {VMID} --to {name} --max-downtime 10m {how}"),
        )?;
        println!(
            "lvs alone: {} ms\n{}",
            lvs.as_millis(),
            event(&done, "migrated")
        );
        assert_off(from, VMID)?;
        assert_running(to, VMID)?;
    }
    a.run_ok(&format!("qm stop {VMID}")).map(drop)
}
