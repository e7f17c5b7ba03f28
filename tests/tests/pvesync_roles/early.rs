//! `migrate --live` of a VM whose disks are all thin: its guest waits on the other host's heads while the last sync writes
//! them. Whoever is killed, it is one guest, it is not left paused, and the replica is one generation or the next.

use crate::live::{born_of, has_moved_of};
use crate::migrate::{events, MOVE_MAX};
use tests::kills::some_of;
use tests::lab::{Guest, Lab, Result};
use tests::pair::{small, *};

const VMID: u32 = 118;
const THIN: &str = "/dev/pve/vm-118-disk-0";
/// Emulated without acceleration, beside other tests, things take as long as they take.
const SLOWLY: &str = "--live --max-downtime 10m --pause-max 10m";
const LANDING: &str = "ls /var/lib/rblocksync/replicas/*/landing.json";

/// Where the driver dies before it has given the VM up.
const DRIVER: [&str; 3] = ["received early", "paused", "last sync"];
/// Where an agent on the other host dies: the one that has the guest wait, and the one that writes and seals the heads.
const AGENT: [&str; 3] = ["landing waits", "seal heads", "manifest"];

/// The guest that was born then still runs on `from`, and the other host's head is a whole generation as soon as whoever
/// waited there is gone.
fn stays(from: &Guest, to: &Guest, was_born: &str, point: &str) -> Result<()> {
    let before = newest_write(from, THIN)?;
    wait_for_writes(from, THIN, before + 10)?;
    assert_eq!(born_of(from, VMID)?, was_born, "{point}");
    // The agents there end by themselves; what one that was killed has left, the next sync ends.
    events(from, &format!("pvesync vm {VMID} --to {}", name_of(to)?))?;
    to.run_ok(&format!("! {LANDING} 2> /dev/null"))?;
    one_instant(to, &[THIN]).map(drop)
}

fn name_of(guest: &Guest) -> Result<String> {
    Ok(guest.run_ok("hostname")?.trim().to_owned())
}

/// The agents on `guest` are to die at this point; at none if it is empty.
fn agents_die_at(guest: &Guest, point: &str) -> Result<()> {
    guest.write_file("/tmp/crash-at", point)?;
    guest
        .run_ok(
            "[ -e /usr/bin/pvesync.real ] || { mv /usr/bin/pvesync /usr/bin/pvesync.real; }
cat > /usr/bin/pvesync <<'EOF' && chmod 755 /usr/bin/pvesync
#!/bin/sh
[ \"$1\" != agent ] || export RBLOCKSYNC_CRASH_AT=$(cat /tmp/crash-at)
exec /usr/bin/pvesync.real \"$@\"
EOF",
        )
        .map(drop)
}

pub fn a_guest_that_waits_early_is_one_whoever_is_killed(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    small::make(a, VMID, 1)?;
    a.run_ok(&format!("qm start {VMID}"))?;
    wait_for_writes(a, THIN, 20)?;
    let was_born = born_of(a, VMID)?;
    let migrate = format!("pvesync migrate {VMID} --to hvb {SLOWLY}");
    for point in some_of(&DRIVER) {
        let killed = format!("RBLOCKSYNC_CRASH_AT='{point}' {migrate}; exit $?");
        let killed = a.run_for(MOVE_MAX, &killed)?;
        let said = format!("{}{}", killed.stdout, killed.stderr);
        assert_eq!(killed.status, 137, "{point}: {said}");
        stays(a, b, &was_born, point)?;
    }
    for point in some_of(&AGENT) {
        agents_die_at(b, point)?;
        let failed = a.run_for(MOVE_MAX, &migrate)?;
        agents_die_at(b, "")?;
        let said = format!("{}{}", failed.stdout, failed.stderr);
        assert_ne!(failed.status, 0, "{point}: {said}");
        stays(a, b, &was_born, point)?;
    }
    b.run_ok("mv /usr/bin/pvesync.real /usr/bin/pvesync")?;
    for (from, to, name) in [(a, b, "hvb"), (b, a, "hva")] {
        let done = events(
            from,
            &format!("pvesync migrate {VMID} --to {name} {SLOWLY}"),
        )?;
        let moved = event(&done, "migrated");
        println!("{moved}");
        assert!(moved["receive_early_s"].is_number(), "{moved}");
        has_moved_of(from, to, (VMID, &[THIN]), &was_born)?;
        from.run_ok(&format!("! {LANDING} 2> /dev/null"))?;
        to.run_ok("! ls /var/lib/rblocksync/replicas/*/sealing.json 2> /dev/null")?;
    }
    a.run_ok(&format!("qm stop {VMID}")).map(drop)
}
