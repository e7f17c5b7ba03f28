//! `migrate`: a VM with four disks on two storages, there and back again.

use serde_json::Value;
use std::time::Duration;
use tests::kills::some_of;
use tests::lab::{Guest, Lab, Result};
use tests::pair::{small, *};

const VMID: u32 = 113;
const THIN: &str = "/dev/pve/vm-113-disk-0";
const FILE: &str = "/var/lib/vz/images/113/vm-113-disk-0.raw";
/// All of them; the guest writes to the first two.
const DISKS: [&str; 4] = [
    THIN,
    FILE,
    "/dev/pve/vm-113-disk-1",
    "/var/lib/vz/images/113/vm-113-disk-1.raw",
];
/// Emulated without acceleration, beside other tests, things take as long as they take.
const SLOWLY: &str = "--max-downtime 10m";

/// Four disks on two storages.
fn make(guest: &Guest) -> Result<()> {
    small::make(guest, VMID, 2)?;
    small::add_firmware(guest, VMID)
}

/// How long one of them may take: it is several syncs.
pub const MOVE_MAX: Duration = Duration::from_secs(900);

/// Runs a command that must succeed; its events.
pub fn events(guest: &Guest, command: &str) -> Result<Vec<Value>> {
    let done = guest.run_for(MOVE_MAX, &format!("{command} --json"))?;
    assert_eq!(done.status, 0, "{command}: {}{}", done.stdout, done.stderr);
    let text = done.stdout;
    let parse = |line: &str| -> Value {
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?} is no event: {e}"))
    };
    Ok(text.lines().map(parse).collect())
}

/// The VM does not run there.
pub fn assert_off(guest: &Guest, vmid: u32) -> Result<()> {
    let status = guest.run_ok(&format!("qm status {vmid}"))?;
    assert!(status.contains("stopped"), "VM {vmid}: {status}");
    Ok(())
}

pub fn a_vm_moves_with_all_its_disks(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    make(a)?;
    a.run_ok(&format!("qm start {VMID}"))?;
    let wrote = wait_for_writes(a, THIN, 20)?;
    expect(
        a,
        &format!("pvesync migrate {VMID} --to hvb --dry-run"),
        0,
        &["then: syncs until the last one is expected to take at most 10"],
    )?;
    let done = events(a, &format!("pvesync migrate {VMID} --to hvb {SLOWLY}"))?;
    let moved = event(&done, "migrated");
    println!("{moved}");
    assert!(moved["downtime_s"].as_f64().is_some_and(|s| s > 0.0));
    assert_eq!(
        moved["read_again"],
        serde_json::json!([]),
        "nothing had to be read"
    );
    assert_eq!(moved["epoch"], 2);
    assert_off(a, VMID)?;
    assert_running(b, VMID)?;
    // All that the guest has written is there, and it goes on with it.
    let left = one_instant(a, &[THIN, FILE])?;
    assert!(left.writes >= wrote);
    wait_for_writes(b, THIN, left.writes + 10)?;
    assert_eq!(digests(b, &DISKS[2..])?, digests(a, &DISKS[2..])?);
    let config = String::from_utf8_lossy(&b.read_file(&small::config(VMID))?).into_owned();
    for line in [
        "onboot: 1",
        "name: small113",
        "efidisk0: local-lvm:",
        "tpmstate0: local:",
    ] {
        assert!(config.contains(line), "{line}: {config}");
    }
    assert!(!config.contains("\nlock:"), "{config}");
    // What stayed here is a replica that can be proved.
    expect(a, &format!("pvesync verify {VMID}"), 0, &["rbs1"])?;
    assert_source_clean_but_for_the_guard(a)
}

fn assert_source_clean_but_for_the_guard(guest: &Guest) -> Result<()> {
    let left = guest.run_ok(&format!(
        "lvs --noheadings -o lv_tags,lv_name pve | grep {VMID} | grep -e rbs.pit= -e rbs.sent=
         ls -A /var/lib/rblocksync/handover | grep {VMID}; ls /var/lib/rblocksync/replicas/*/adopting.json 2> /dev/null
         pgrep -x pvesync; true"
    ))?;
    assert_eq!(left, "", "left on the source");
    Ok(())
}

pub fn what_has_gone_does_not_start(lab: &Lab) -> Result<()> {
    let a = lab.a();
    let conf = small::config(VMID);
    expect(
        a,
        &format!("qm start {VMID}"),
        255,
        &["VM is locked (migrate)"],
    )?;
    a.run_ok(&format!("cp {conf} /tmp/conf && qm unlock {VMID}"))?;
    expect(
        a,
        &format!("qm start {VMID}"),
        255,
        &["VM 113 must not start on this host"],
    )?;
    a.run_ok(&format!("mv /tmp/conf {conf}"))?;
    let kept = a.run_ok(&format!("cat /var/lib/rblocksync/retired/{VMID}.conf.2"))?;
    assert!(
        kept.contains("onboot: 1") && !kept.contains("lock:"),
        "{kept}"
    );
    // And it sends nothing.
    expect(a, &format!("pvesync vm {VMID} --to hvb"), 3, &[])?;
    assert_running(lab.b(), VMID)
}

pub fn the_first_sync_back_is_a_delta(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let done = events(b, &format!("pvesync vm {VMID} --to hva"))?;
    let sealed = event(&done, "sealed");
    assert_eq!(sealed["generation"], "rbs2");
    let compared = |key: &str| {
        let disks = sealed["disks"].as_array().expect("disks").iter();
        let mut of_key = disks.filter(|d| d["key"] == key);
        let summary = &of_key.next().expect("the disk")["summary"];
        println!("{key}: {summary}");
        summary["compared"].as_u64().expect("a number")
    };
    assert_eq!(compared("efidisk0"), 0, "nothing has changed");
    assert!(compared("scsi0") < 8 << 20, "only what changed is read");
    let notes: Vec<&Value> = done.iter().filter(|e| e["event"] == "note").collect();
    let told = format!("{notes:?}");
    assert!(
        !told.contains("scsi0: everything") && !told.contains("efidisk0: everything"),
        "{told}"
    );
    let generation = [
        format!("/dev/pve/snap_vm-{VMID}-disk-0_rbs2"),
        format!("/var/lib/vz/images/{VMID}/.vm-{VMID}-disk-0.raw.rbs2"),
    ];
    one_instant(a, &[&generation[0], &generation[1]])?;
    Ok(())
}

pub fn killed_at_its_records_it_still_arrives(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let migrate = format!("pvesync migrate {VMID} --to hva {SLOWLY}");
    for point in some_of(&[
        "stopped",
        "journal retire",
        "journal hand-over",
        "journal start",
        "adopt manifest",
    ]) {
        let killed = format!("RBLOCKSYNC_CRASH_AT='{point}' {migrate}; exit $?");
        let killed = b.run_for(MOVE_MAX, &killed)?;
        assert_eq!(
            killed.status, 137,
            "{point}: {}{}",
            killed.stdout, killed.stderr
        );
        assert_off(b, VMID)?;
    }
    assert_running(a, VMID)?;
    events(b, &migrate)?;
    assert_off(b, VMID)?;
    let left = one_instant(b, &[THIN, FILE])?;
    wait_for_writes(a, THIN, left.writes + 10)?;
    expect(
        b,
        &format!("qm start {VMID}"),
        255,
        &["VM is locked (migrate)"],
    )?;
    Ok(())
}

pub fn a_guest_that_does_not_listen_stays(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    a.run_ok(&format!("touch /run/qemu-server/{VMID}.deaf"))?;
    let migrate = format!("pvesync migrate {VMID} --to hvb {SLOWLY}");
    expect(
        a,
        &format!("{migrate} --shutdown-timeout 3s"),
        1,
        &["has not shut down within 3", "VM 113 stays on this host"],
    )?;
    assert_running(a, VMID)?;
    assert_off(b, VMID)?;
    events(a, &format!("{migrate} --stop off"))?;
    assert_off(a, VMID)?;
    assert_running(b, VMID)?;
    let left = one_instant(a, &[THIN, FILE])?;
    wait_for_writes(b, THIN, left.writes + 10)?;
    b.run_ok(&format!("qm stop {VMID}"))?;
    Ok(())
}
