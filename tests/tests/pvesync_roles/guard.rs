//! The hookscript on a host: what `qm unlock` does not open.

use tests::lab::{Lab, Result};
use tests::pair::{small, *};

const VMID: u32 = 112;

pub fn a_replica_does_not_start_even_if_it_is_unlocked(lab: &Lab) -> Result<()> {
    let b = lab.b();
    let conf = small::config(VMID);
    expect(
        b,
        &format!("qm start {VMID}"),
        255,
        &["VM is locked (migrate)"],
    )?;
    b.run_ok(&format!("cp {conf} /tmp/conf && qm unlock {VMID}"))?;
    expect(
        b,
        &format!("qm start {VMID}"),
        255,
        &["VM 112 must not start on this host: it is replica here since epoch 1"],
    )?;
    // Without the suite's state nothing is known of it any more.
    b.run_ok("mv /var/lib/rblocksync/guard /tmp/guard")?;
    b.run_ok(&format!("qm start {VMID} && qm stop {VMID}"))?;
    b.run_ok(&format!(
        "mv /tmp/guard /var/lib/rblocksync/guard && mv /tmp/conf {conf}"
    ))?;
    // It was written to: the next sync finds out, and makes the head anew.
    sync(lab, &format!("{VMID} --to hvb"))?;
    let disks = small::disks(VMID);
    let disks = disks.each_ref().map(String::as_str);
    assert_eq!(digests(b, &disks)?, digests(lab.a(), &disks)?);
    Ok(())
}
