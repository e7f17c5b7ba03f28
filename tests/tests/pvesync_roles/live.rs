//! `migrate --live`: a guest goes to the other host, and back, without noticing.

use crate::migrate::{assert_off, events};
use serde_json::json;
use tests::lab::{Guest, Lab, Result};
use tests::pair::{small, *};

const VMID: u32 = 117;
const THIN: &str = "/dev/pve/vm-117-disk-0";
/// Emulated without acceleration, beside other tests, things take as long as they take.
const SLOWLY: &str = "--live --max-downtime 10m --pause-max 10m";

/// What each start of a guest has for itself, in its memory: see the writer's source.
fn born(guest: &Guest) -> Result<String> {
    let read = json!({"command-line": "xp /2xw 0x7df4"});
    let told = guest.qmp(VMID)?.execute("human-monitor-command", read)?;
    let told = told.as_str().unwrap_or_default().trim().to_owned();
    assert!(told.contains("0x"), "{told}");
    Ok(told)
}

/// The guest runs on `to`, is the one that was born then, and goes on with what it had written on `from`.
fn has_moved(from: &Guest, to: &Guest, was_born: &str) -> Result<()> {
    assert_off(from, VMID)?;
    assert_running(to, VMID)?;
    assert_eq!(born(to)?, was_born, "the guest was started anew");
    let left = one_instant(from, &[THIN, &small::disks(VMID)[1]])?;
    wait_for_writes(to, THIN, left.writes + 10)?;
    Ok(())
}

pub fn a_guest_moves_and_does_not_notice(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    small::make(a, VMID, 2)?;
    a.run_ok(&format!("qm start {VMID}"))?;
    wait_for_writes(a, THIN, 20)?;
    let was_born = born(a)?;
    let done = events(a, &format!("pvesync migrate {VMID} --to hvb {SLOWLY}"))?;
    let moved = event(&done, "migrated");
    println!("{moved}");
    assert_eq!(moved["live"], true);
    assert_eq!(moved["read_again"], json!([]), "nothing had to be read");
    has_moved(a, b, &was_born)?;
    let config = String::from_utf8_lossy(&b.read_file(&small::config(VMID))?).into_owned();
    assert!(
        config.contains("onboot: 1") && !config.contains("\nlock:"),
        "{config}"
    );
    expect(
        a,
        &format!("qm start {VMID}"),
        255,
        &["VM is locked (migrate)"],
    )?;
    a.run_ok("! ls /var/lib/rblocksync/handover/*.json /var/lib/rblocksync/replicas/*/landing.json")
        .map(drop)
}

pub fn it_goes_on_where_it_was_when_the_move_is_killed(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let was_born = born(b)?;
    let migrate = format!("pvesync migrate {VMID} --to hva {SLOWLY}");
    for point in ["paused", "memory sent", "keeper bound"] {
        let killed = format!("RBLOCKSYNC_CRASH_AT='{point}' {migrate}; exit $?");
        let killed = b.run_for(crate::migrate::MOVE_MAX, &killed)?;
        assert_eq!(
            killed.status, 137,
            "{point}: {}{}",
            killed.stdout, killed.stderr
        );
        // The keeper lets it go, and the other host ends what waited there.
        let before = newest_write(b, THIN)?;
        wait_for_writes(b, THIN, before + 10)?;
        assert_eq!(born(b)?, was_born, "{point}");
    }
    let done = events(b, &migrate)?;
    println!("{}", event(&done, "migrated"));
    has_moved(b, a, &was_born)?;
    a.run_ok(&format!("qm stop {VMID}"))?;
    one_instant(a, &[THIN, &small::disks(VMID)[1]]).map(drop)
}

pub fn what_cannot_go_along_is_refused_while_it_runs(lab: &Lab) -> Result<()> {
    let a = lab.a();
    let conf = small::config(VMID);
    a.run_ok(&format!(
        "cp {conf} /tmp/conf && sed -i '/^scsi1:/a serial1: /dev/ttyS0' {conf} && qm start {VMID}"
    ))?;
    expect(
        a,
        &format!("pvesync migrate {VMID} --to hvb --live --dry-run"),
        3,
        &["serial1 is a device of this host", "without --live"],
    )?;
    assert_running(a, VMID)?;
    a.run_ok(&format!("qm stop {VMID} && mv /tmp/conf {conf}"))
        .map(drop)
}
