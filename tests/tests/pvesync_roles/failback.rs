//! `failback`: after a failover the old source is back, with disks that have gone their own way.

use crate::migrate::{assert_off, events};
use tests::lab::{Lab, Result};
use tests::pair::{small, *};

const VMID: u32 = 114;
const THIN: &str = "/dev/pve/vm-114-disk-0";

pub fn a_vm_comes_back_after_a_failover(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    small::make(a, VMID, 2)?;
    small::add_firmware(a, VMID)?;
    let firmware = small::firmware(VMID);
    let firmware = firmware.each_ref().map(String::as_str);
    let disks = small::disks(VMID);
    let disks = disks.each_ref().map(String::as_str);
    a.run_ok(&format!("qm start {VMID}"))?;
    wait_for_writes(a, THIN, 1)?;
    sync(lab, &format!("{VMID} --to hvb"))?;
    // It is cut off, and nobody there knows that it runs on for a while.
    let now = newest_write(a, THIN)?;
    wait_for_writes(a, THIN, now + 20)?;
    let taken = b.run(&format!(
        "pvesync failover {VMID} --source 10.77.0.9 --i-am-sure small{VMID}"
    ))?;
    assert_eq!(taken.status, 0, "{}{}", taken.stdout, taken.stderr);
    assert_running(b, VMID)?;
    let failback = format!("pvesync failback {VMID} --to hva");
    expect(
        b,
        &failback,
        3,
        &["runs on hva as well", "decide which one"],
    )?;
    assert_running(a, VMID)?;
    a.run_ok(&format!("qm stop {VMID}"))?;
    let diverged = digests(a, &disks)?;

    let done = events(b, &format!("{failback} --no-migrate"))?;
    let adopted = event(&done, "adopted");
    assert_eq!(
        adopted["read"],
        serde_json::json!(["scsi0", "scsi1", "tpmstate0"]),
        "what differs is read, and a file that nothing tells from another"
    );
    let [thin, file] = small::generation(VMID, 1);
    assert_eq!(digests(a, &[&thin, &file])?, diverged, "what it had stays");
    expect(a, &format!("pvesync verify {VMID} --generation 1"), 0, &[])?;
    // Only what differs has travelled: half of both disks is random, and the same.
    let sent = total(&done, "/changed");
    println!("{sent} bytes sent");
    assert!(sent < 2 << 20, "{sent} bytes");
    expect(a, &format!("qm start {VMID}"), 255, &["locked (migrate)"])?;
    assert_running(b, VMID)?;

    let done = events(b, &format!("{failback} --max-downtime 10m"))?;
    println!("{}", event(&done, "migrated"));
    assert_off(b, VMID)?;
    assert_running(a, VMID)?;
    let left = one_instant(b, &disks)?;
    wait_for_writes(a, THIN, left.writes + 10)?;
    assert_eq!(digests(a, &firmware)?, digests(b, &firmware)?);
    expect(b, &format!("qm start {VMID}"), 255, &["locked (migrate)"])?;
    a.run_ok(&format!("qm stop {VMID}"))?;
    Ok(())
}
