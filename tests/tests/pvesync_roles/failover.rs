//! `failover`: the source is asked, cut off or lost, and its replica takes over.

use tests::lab::{Lab, Result};
use tests::pair::{small, *};

const VMID: u32 = 111;
const THIN: &str = "/dev/pve/vm-111-disk-0";

/// Where a run dies, in the order of a failover: each goes on from where the one before was killed.
const POINTS: [&str; 8] = [
    "journal plan",
    "journal hand-over",
    "take-over announced",
    "take-over swap scsi1",
    "take-over heads",
    "take-over standing",
    "take-over guard",
    "journal start",
];

pub fn a_source_that_answers_is_not_replaced(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    small::make(a, VMID, 2)?;
    small::add_firmware(a, VMID)?;
    a.run_ok(&format!("qm start {VMID}"))?;
    wait_for_writes(a, THIN, 1)?;
    sync(lab, &format!("{VMID} --to hvb"))?;
    let now = newest_write(a, THIN)?;
    wait_for_writes(a, THIN, now + 20)?;
    sync(lab, &format!("{VMID} --to hvb"))?;
    let before = state(b)?;
    let words = [
        "primary in epoch 1, VM 111 runs there",
        "--i-am-sure small111",
    ];
    let failover = format!("pvesync failover {VMID}");
    expect(b, &failover, 3, &words)?;
    expect(b, &format!("{failover} --dry-run"), 0, &words[..1])?;
    expect(
        b,
        &format!("{failover} --i-am-sure web"),
        2,
        &["not \"web\""],
    )?;
    let fenced = format!("{failover} --fence '/bin/sh -c \"echo still on; exit 1\"'");
    expect(b, &fenced, 1, &["still on"])?;
    let unknown = format!("{failover} --source nowhere.invalid");
    expect(b, &unknown, 3, &["cannot be told whether hva is up"])?;
    assert_eq!(state(b)?, before);
    assert_running(a, VMID)
}

pub fn killed_at_each_record_an_older_generation_takes_over(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let [thin, file] = small::generation(VMID, 1);
    let first = digests(b, &[&thin, &file])?;
    let [thin, file] = small::generation(VMID, 2);
    let second = digests(b, &[&thin, &file])?;
    let sealed = one_instant(
        b,
        &[
            &small::generation(VMID, 1)[0],
            &small::generation(VMID, 1)[1],
        ],
    )?;
    assert_ne!(first, second);
    let firmware = small::firmware(VMID);
    let firmware = firmware.each_ref().map(String::as_str);
    let kept = digests(a, &firmware)?;
    a.power_cut();
    let failover = format!("pvesync failover {VMID} --generation 1");
    for point in POINTS {
        let killed = b.run(&format!(
            "RBLOCKSYNC_CRASH_AT='{point}' {failover}; exit $?"
        ))?;
        let text = format!("{}{}", killed.stdout, killed.stderr);
        assert_eq!(killed.status, 137, "{point}: {text}");
        assert!(
            !b.run(&format!("qm status {VMID} | grep -q running"))?
                .success(),
            "{point}"
        );
    }
    let disks = small::disks(VMID);
    let disks = disks.each_ref().map(String::as_str);
    assert_eq!(digests(b, &disks)?, first);
    assert_eq!(digests(b, &firmware)?, kept);
    let done = format!("{failover} --json");
    expect(
        b,
        &done,
        0,
        &[
            "\"event\":\"failed-over\"",
            "\"generation\":\"rbs1\"",
            "\"epoch\":2",
        ],
    )?;
    assert_running(b, VMID)?;
    wait_for_writes(b, THIN, sealed.writes + 10)?;
    assert_eq!(digests(b, &[&thin, &file])?, second, "the newer one stays");
    expect(b, &failover, 0, &["runs on this host"])?;
    expect(
        b,
        &format!("pvesync status {VMID}"),
        0,
        &["primary in epoch 2"],
    )?;
    let config = b.read_file(&small::config(VMID))?;
    let config = String::from_utf8_lossy(config.as_ref()).into_owned();
    assert!(
        !config.contains("\nlock:") && config.contains("onboot: 1"),
        "{config}"
    );
    Ok(())
}

pub fn the_old_source_is_refused_when_it_is_back(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    a.boot_again()?;
    expect(a, &format!("pvesync vm {VMID} --to hvb"), 3, &["VM 111"])?;
    b.run_ok(&format!("qm stop {VMID}"))?;
    let disks = small::disks(VMID);
    let disks = disks.each_ref().map(String::as_str);
    let before = digests(b, &disks)?;
    expect(
        a,
        &format!("pvesync vm {VMID} --to hvb"),
        3,
        &["the target is primary for VM 111 since epoch 2"],
    )?;
    assert_eq!(digests(b, &disks)?, before);
    b.run_ok(&format!("qm start {VMID}"))?;
    assert_running(b, VMID)
}
