//! `test-failover`: clones on real thin pools and reflinks, in a real QEMU.

use tests::lab::{Lab, Result};
use tests::pair::{small, *};

const VMID: u32 = 112;
/// The clone's id, unless another one is asked for.
const CLONE: u32 = 90_000;

/// What must be the same after a test as before: all volumes, files and configurations. That the generation was seen to
/// boot is noted beside it.
fn lasting(lab: &Lab) -> Result<String> {
    let text = state(lab.b())?;
    let lines = text.lines().filter(|line| !line.contains(".boot"));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

pub fn a_generation_boots_and_nothing_of_the_test_is_left(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    small::make(a, VMID, 2)?;
    small::add_firmware(a, VMID)?;
    sync(lab, &format!("{VMID} --to hvb"))?;
    sync(lab, &format!("{VMID} --to hvb"))?;
    let before = lasting(lab)?;
    // It has no agent, so that it keeps running is all there is to see.
    let weak = format!("pvesync test-failover {VMID} --timeout 2s");
    expect(
        b,
        &weak,
        0,
        &["generation rbs2", "weak sign", "the clone is gone"],
    )?;
    assert_eq!(lasting(lab)?, before);
    // The script sees the clone's own disks written to.
    b.write_file(
        "/tmp/judge",
        format!(
            "#!/bin/sh\nset -e\n[ -S \"$RBLOCKSYNC_QMP\" ]\n[ \"$RBLOCKSYNC_VM\" = {CLONE} ]\n\
             grep -q 'net\\|name: small{VMID}-test' /etc/pve/qemu-server/$RBLOCKSYNC_VM.conf\n\
             cmp -s /dev/pve/snap_vm-{VMID}-disk-0_rbs1 /dev/pve/vm-{CLONE}-disk-0 && exit 9\n\
             [ \"$1\" = 'one word' ]\n"
        ),
    )?;
    b.run_ok("chmod 755 /tmp/judge")?;
    let judged =
        format!("pvesync test-failover {VMID} --generation 1 --script \"/tmp/judge 'one word'\"");
    expect(b, &judged, 0, &["generation rbs1", "the script said so"])?;
    let unhappy =
        format!("pvesync test-failover {VMID} --script '/bin/sh -c \"echo no database; exit 5\"'");
    expect(b, &unhappy, 1, &["exit code 5", "no database"])?;
    let taken = format!("pvesync test-failover {VMID} --test-vmid {VMID}");
    expect(b, &taken, 3, &["is taken"])?;
    assert_eq!(lasting(lab)?, before);
    let listed = expect(b, &format!("pvesync generations {VMID}"), 0, &["booted"])?;
    assert_eq!(listed.matches("booted").count(), 2, "{listed}");
    // What changed of the thin volume is known still; of a stopped VM's file it never is.
    let events = sync(lab, &format!("{VMID} --to hvb"))?;
    let text = serde_json::to_string(&events).expect("events");
    assert!(!text.contains("scsi0: everything is compared"), "{text}");
    assert_eq!(event(&events, "sealed")["generation"], "rbs3");
    assert_source_clean(a)
}

pub fn a_test_that_was_killed_is_swept(lab: &Lab) -> Result<()> {
    let b = lab.b();
    let before = lasting(lab)?;
    let test = format!("pvesync test-failover {VMID} --timeout 1s");
    for point in ["trial cloned", "trial started"] {
        let killed = b.run(&format!("RBLOCKSYNC_CRASH_AT='{point}' {test}; exit $?"))?;
        assert_eq!(
            killed.status, 137,
            "{point}: {}{}",
            killed.stdout, killed.stderr
        );
        assert_ne!(lasting(lab)?, before, "{point}");
    }
    assert_running(b, CLONE)?;
    expect(b, "pvesync doctor", 1, &["a test of VM 112 was cut off"])?;
    expect(b, "pvesync doctor --repair", 0, &["put right"])?;
    assert_eq!(lasting(lab)?, before);
    expect(b, &test, 0, &["weak sign"])?;
    assert_eq!(lasting(lab)?, before);
    Ok(())
}
