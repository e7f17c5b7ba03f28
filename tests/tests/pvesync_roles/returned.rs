//! `boot-check`: a host comes back that was replaced while it was away. Its VM would start with it.

use tests::lab::{Lab, Result};
use tests::pair::{small, *};

const VMID: u32 = 116;
const THIN: &str = "/dev/pve/vm-116-disk-0";
const CHECK: &str = "pvesync boot-check 116 --wait 20s";

fn start() -> String {
    format!("qm start {VMID}")
}

pub fn a_host_that_cannot_ask_does_as_it_is_told(lab: &Lab) -> Result<()> {
    let a = lab.a();
    small::make(a, VMID, 2)?;
    a.run_ok(&start())?;
    wait_for_writes(a, THIN, 1)?;
    sync(lab, &format!("{VMID} --to hvb"))?;
    // A VM that runs is left alone, and all is well.
    expect(
        a,
        CHECK,
        0,
        &["VM 116 may start", "hvb is replica in epoch 1"],
    )?;
    a.run_ok(&format!("qm stop {VMID}"))?;
    // Nobody has this address.
    let alone = "pvesync boot-check 116 --wait 3s --reach hvb=10.77.0.9";
    expect(
        a,
        alone,
        0,
        &["VM 116 may start: although hvb could not be asked"],
    )?;
    let held = format!("{alone} --unreachable hold");
    expect(a, &held, 3, &["VM 116 is kept off", "--i-am-sure 116"])?;
    expect(
        a,
        &start(),
        255,
        &["VM 116 must not start on this host: it is held here since epoch 1"],
    )?;
    let sure = format!("{held} --i-am-sure {VMID}");
    expect(a, &sure, 0, &["VM 116 may start: as somebody is sure"])?;
    a.run_ok(&format!("{} && qm stop {VMID}", start()))?;
    expect(a, &held, 3, &["VM 116 is kept off"])?;
    expect(
        a,
        &format!("{CHECK} --unreachable hold"),
        0,
        &["VM 116 may start"],
    )?;
    a.run_ok(&start())?;
    wait_for_writes(a, THIN, 1)?;
    sync(lab, &format!("{VMID} --to hvb"))?;
    Ok(())
}

pub fn a_source_that_was_replaced_does_not_start_its_vm(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    a.power_cut();
    expect(
        b,
        &format!("pvesync failover {VMID}"),
        0,
        &["primary in epoch 2"],
    )?;
    assert_running(b, VMID)?;
    a.boot_again()?;
    // Before anybody has looked it would.
    let config = String::from_utf8_lossy(a.read_file(&small::config(VMID))?.as_ref()).into_owned();
    assert!(
        config.contains("onboot: 1") && !config.contains("lock:"),
        "{config}"
    );
    for verb in ["vm", "migrate"] {
        let refused = format!("pvesync {verb} {VMID} --to hvb");
        expect(
            a,
            &refused,
            3,
            &["the target is primary for VM 116 since epoch 2"],
        )?;
    }
    let told = "VM 116 does not start, it was given up: hvb is primary since epoch 2";
    expect(a, &format!("{CHECK} --dry-run"), 0, &[told])?;
    expect(
        a,
        &format!("pvesync status {VMID}"),
        0,
        &["primary in epoch 1"],
    )?;
    expect(a, CHECK, 0, &[told])?;
    expect(a, &start(), 255, &["VM is locked (migrate)"])?;
    a.run_ok(&format!("qm unlock {VMID}"))?;
    expect(
        a,
        &start(),
        255,
        &["VM 116 must not start on this host: it is retired here since epoch 2: it has gone to hvb"],
    )?;
    expect(
        a,
        &format!("pvesync status {VMID}"),
        0,
        &["retired in epoch 2"],
    )?;
    let config = String::from_utf8_lossy(a.read_file(&small::config(VMID))?.as_ref()).into_owned();
    assert!(config.contains("onboot: 0"), "{config}");
    // At the next boot nobody has to be asked, and the lock is there again.
    expect(
        a,
        &format!("{CHECK} --reach hvb=10.77.0.9"),
        0,
        &["VM 116 does not start"],
    )?;
    expect(a, &start(), 255, &["VM is locked (migrate)"])?;
    for verb in ["vm", "migrate", "failback"] {
        let refused = a.run(&format!("pvesync {verb} {VMID} --to hvb"))?;
        assert!(
            !refused.success(),
            "{verb}: {}{}",
            refused.stdout,
            refused.stderr
        );
    }
    assert_running(b, VMID)?;
    b.run_ok(&format!("qm stop {VMID}")).map(drop)
}
