//! The main job from its first look to the day the replica is needed, with VM 101: a thin volume and a raw
//! file on XFS.

use pvesync::vm_config::VmConfig;
use tests::lab::{Guest, Lab, Result};
use tests::pair::*;

const THIN: &str = "/dev/pve/vm-101-disk-0";
const FILE: &str = "/var/lib/vz/images/101/vm-101-disk-0.raw";
const CONFIG: &str = "/etc/pve/qemu-server/101.conf";

fn generation(number: u32) -> [String; 2] {
    [
        format!("/dev/pve/snap_vm-101-disk-0_rbs{number}"),
        format!("/var/lib/vz/images/101/.vm-101-disk-0.raw.rbs{number}"),
    ]
}

fn digests_of(lab: &Lab, number: u32) -> Result<Vec<String>> {
    let paths = generation(number);
    digests(lab.b(), &[&paths[0], &paths[1]])
}

pub fn a_dry_run_tells_the_plan_and_changes_nothing(lab: &Lab) -> Result<()> {
    let before = states(lab)?;
    expect(
        lab.a(),
        "pvesync vm 101 --to hvb --dry-run",
        0,
        &[
            "VM 101 (web01) to hvb (Proxmox VE): first generation",
            "scsi0: local-lvm:vm-101-disk-0 -> local-lvm:vm-101-disk-0 (256 MiB, ",
            "scsi1: local:101/vm-101-disk-0.raw -> local:101/vm-101-disk-0.raw (64.0 MiB, ",
            "not part of the replica: memory",
        ],
    )?;
    assert_eq!(states(lab)?, before);
    Ok(())
}

pub fn the_first_sync_copies_both_disks(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let events = sync(lab, "101 --to hvb --verify")?;
    let sealed = event(&events, "sealed");
    assert_eq!(sealed["generation"], "rbs1");
    assert_eq!(sealed["consistency"], "offline");
    let source = digests(a, &[THIN, FILE])?;
    assert_eq!(digests(b, &[THIN, FILE])?, source);
    assert_eq!(digests_of(lab, 1)?, source);

    // All that was written was read back; nothing that reads zero was sent or takes room.
    assert!(total(&events, "/target/verified") >= total(&events, "/target/written"));
    let sent = total(&events, "/changed");
    assert!((30 << 20..40 << 20).contains(&sent), "{sent} bytes");
    let used = |script: &str| -> Result<[u64; 2]> {
        let mut used = [0, 0];
        for (guest, used) in [a, b].into_iter().zip(&mut used) {
            *used = guest.run_ok(script)?.trim().parse().expect("a number");
        }
        Ok(used)
    };
    let [on_a, on_b] = used(&format!("stat -c %b {FILE}"))?;
    assert!(
        on_b <= on_a,
        "the file takes {on_b} blocks, the source's {on_a}"
    );
    let mapped = "lvchange -ay -K pve/vm-101-disk-0; lvs --noheadings --units b --nosuffix -o lv_size,data_percent \
         pve/vm-101-disk-0 | awk '{ printf \"%d\", $1 * $2 / 100 }'; lvchange -an pve/vm-101-disk-0";
    let [on_a, on_b] = used(mapped)?;
    assert!(
        on_b <= on_a && on_b > 0,
        "{on_b} bytes are mapped, {on_a} on the source"
    );

    let config =
        VmConfig::parse(&String::from_utf8_lossy(&b.read_file(CONFIG)?)).expect("a config");
    assert_eq!(config.lock(), Some("migrate"));
    assert_eq!(config.get("onboot"), Some("0"));
    assert_eq!(config.get("tags"), Some("prod;web;rblocksync-replica"));
    assert_eq!(config.get("memory"), Some("64"));
    assert_eq!(config.snapshots().count(), 0, "the file has no snapshots");
    assert!(config.pending().is_none());
    expect(b, "qm start 101", 255, &["locked (migrate)"])?;
    assert_source_clean(a)
}

pub fn the_second_sync_of_the_running_vm_sends_what_it_wrote(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let first = digests_of(lab, 1)?;
    a.run_ok("qm start 101")?;
    let wrote = wait_for_writes(a, THIN, 100)?;
    let events = sync(lab, "101 --to hvb")?;
    assert_running(a, 101)?;
    let held = event(&events, "point-in-time")["held_ms"].as_u64();
    println!("held for {held:?} ms");
    assert!(held.is_some_and(|ms| ms > 0 && ms < 8000));
    assert_eq!(event(&events, "sealed")["consistency"], "crash");

    let paths = generation(2);
    let report = one_instant(b, &[&paths[0], &paths[1]])?;
    assert!(report.writes >= wrote);
    // Each write is a leaf of its own; a few more that the firmware touched are allowed for.
    let sent = total(&events, "/changed");
    println!("{} writes, {sent} bytes sent", report.writes);
    let written = u64::from(report.writes) * pattern_slot();
    assert!(
        sent >= u64::from(wrote) * pattern_slot() && sent <= written + (256 << 10),
        "{sent} bytes for {written}"
    );
    assert_eq!(digests(b, &[THIN, FILE])?, digests_of(lab, 2)?, "the head");
    assert_eq!(digests_of(lab, 1)?, first, "a sealed generation changed");
    assert_source_clean(a)
}

fn pattern_slot() -> u64 {
    tests::lab::pattern::SLOT
}

pub fn generations_are_verified_and_damage_is_found(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let right = [
        "scsi0: local-lvm:vm-101-disk-0 is as it was sealed",
        "scsi1: local:101/vm-101-disk-0.raw is as",
    ];
    expect(
        a,
        "pvesync verify 101 --to hvb",
        0,
        &["generation rbs2:", right[0], right[1]],
    )?;
    expect(
        b,
        "pvesync verify 101 --generation 1",
        0,
        &["generation rbs1:", right[0], right[1]],
    )?;
    expect(
        b,
        "pvesync verify 101 --generation 7",
        1,
        &["no generation rbs7"],
    )?;
    expect(
        a,
        "pvesync verify 102 --to hvb",
        1,
        &["no replica of VM 102"],
    )?;
    let active = "lvs --noheadings -o lv_active pve/snap_vm-101-disk-0_rbs1";
    assert_eq!(b.run_ok(active)?.trim(), "", "it was put back to sleep");

    // One block of either disk, as a failing medium would leave it, where the source has not changed since.
    // Of the thin volume in what boots as well: it shares its blocks with the newest generation.
    let [[_, file], [thin, _]] = [generation(1), generation(2)];
    let second = digests_of(lab, 2)?;
    b.run_ok("lvchange -qq -ay -K pve/snap_vm-101-disk-0_rbs2 && lvchange -qq -p rw pve/snap_vm-101-disk-0_rbs2")?;
    for (number, path, source) in [(2, &thin, THIN), (1, &file, FILE)] {
        let segment = unchanged_segment(lab, path, source)?;
        let turn_over = format!(
            "set -e; head=$([ {number} = 1 ] || echo {THIN}); [ {number} = 1 ] || lvchange -qq -ay pve/vm-101-disk-0
             for path in {path} $head; do
             dd if=$path of=/root/block bs=4k count=1 skip={block} status=none
             tr '\\000-\\377' '\\001-\\377\\000' < /root/block |
             dd of=$path bs=4k seek={block} conv=notrunc,fsync iflag=fullblock status=none; done
             [ {number} = 1 ] || lvchange -qq -an pve/vm-101-disk-0",
            block = 256 * segment + 2
        );
        b.run_ok(&turn_over)?;
        let place = format!("bytes {}..{}", segment << 20, (segment + 1) << 20);
        let verify = format!("pvesync verify 101 --to hvb --generation {number}");
        let damaged = format!("generation rbs{number} of VM 101 is damaged: scsi");
        let found = [damaged.as_str(), "is damaged, 1.0 MiB of", &place];
        expect(a, &verify, 4, &found)?;
        let mended = [&place, "put right: 1.0 MiB", right[0], right[1]];
        expect(a, &format!("{verify} --repair"), 0, &mended)?;
    }
    assert_eq!(digests_of(lab, 2)?, second);
    assert_eq!(digests(b, &[THIN, FILE])?, second, "what boots");
    b.run_ok("rm /root/block")?;
    let sealed = "lvs --noheadings -o lv_permissions,lv_active pve/snap_vm-101-disk-0_rbs2 | xargs";
    assert_eq!(b.run_ok(sealed)?.trim(), "read-only");
    expect(b, "pvesync verify 101 --generation 1", 0, &right)?;
    Ok(())
}

/// A MiB that the source still has as it is in a volume of a generation.
fn unchanged_segment(lab: &Lab, sealed: &str, source: &str) -> Result<u64> {
    let digests = |host: &Guest, path: &str| {
        host.run_ok(&format!(
            "for i in $(seq 0 31); do dd if={path} bs=1M count=1 skip=$i status=none | sha256sum; done"
        ))
    };
    let zeros = lab.b().run_ok("head -c 1M /dev/zero | sha256sum")?;
    let (there, here) = (digests(lab.b(), sealed)?, digests(lab.a(), source)?);
    let mut pairs = there.lines().zip(here.lines());
    let found = pairs.position(|(there, here)| there == here && there != zeros.trim_end());
    Ok(found.expect("the guest has not overwritten everything") as u64)
}

pub fn old_generations_go(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let second = digests_of(lab, 2)?;
    let events = sync(lab, "101 --to hvb --keep 2")?;
    assert_eq!(event(&events, "sealed")["kept"], serde_json::json!([2, 3]));
    let sent = ["VM 101, as it was last sent to hvb", "rbs2", "rbs3"];
    expect(a, "pvesync generations 101", 0, &sent)?;
    let volumes = b.run_ok(
        "lvs --noheadings -o lv_name pve | grep 101 | sort | xargs; ls -A /var/lib/vz/images/101 | sort | xargs
         ls /var/lib/rblocksync/replicas/*/generations",
    )?;
    assert_eq!(
        volumes,
        "snap_vm-101-disk-0_rbs2 snap_vm-101-disk-0_rbs3 vm-101-disk-0\n\
         .vm-101-disk-0.raw.rbs2 .vm-101-disk-0.raw.rbs3 vm-101-disk-0.raw\n\
         000000000002-0.digests\n000000000002-1.digests\n000000000002-1.stamp\n000000000002.checked\n000000000002.json\n000000000002.map\n\
         000000000003-0.digests\n000000000003-1.digests\n000000000003-1.stamp\n000000000003.json\n000000000003.map"
    );
    assert_eq!(digests_of(lab, 2)?, second);
    let list = "pvesync generations 101 --to hvb";
    let text = expect(a, list, 0, &["rbs2", "rbs3", "crash", "head"])?;
    assert!(!text.contains("rbs1"), "{text}");
    Ok(())
}

pub fn monitoring_is_told_how_old_a_replica_is(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    for (guest, is) in [(a, "VM 101 to hvb"), (b, "VM 101 from hva")] {
        let fine = format!("OK: {is} is young enough | '{is}'=");
        expect(guest, "pvesync check --max-age 1d", 0, &[&fine])?;
        let old = format!("CRITICAL: {is} ");
        expect(
            guest,
            "pvesync check 101 --max-age 0s",
            2,
            &[&old, " s old"],
        )?;
        let nothing = "UNKNOWN: nothing is replicated";
        expect(guest, "pvesync check 999 --max-age 1d", 3, &[nothing])?;
        let words = ["VM 101", "generation 3 of ", "young enough"];
        expect(guest, "pvesync status --max-age 1d", 0, &words)?;
        let write = "pvesync status --metrics /tmp/x.prom && cat /tmp/x.prom && rm /tmp/x.prom";
        let number = "rblocksync_last_generation_number{side=";
        expect(guest, write, 0, &[number, "} 3\n"])?;
    }
    // A run that is killed is a warning, until one succeeds or the generation is too old.
    let kill = "RBLOCKSYNC_CRASH_AT='journal fork' pvesync vm 101 --to hvb; exit $?";
    expect(a, kill, 137, &[])?;
    a.run_ok("rm -r /tmp/rblocksync-ssh-*")?;
    let cut = "the last run was cut off in its step fork";
    expect(a, "pvesync check --max-age 1d", 1, &["WARNING: ", cut])?;
    expect(a, "pvesync status", 0, &[cut])?;
    expect(
        a,
        "pvesync doctor",
        1,
        &["cut off in its step fork", "run again: vm 101 --to hvb"],
    )?;
    expect(b, "pvesync doctor", 0, &["all is well"])?;
    let gone = "mv /etc/pve/qemu-server/101.conf /root; pvesync vm 101 --to hvb; code=$?
                mv /root/101.conf /etc/pve/qemu-server/; exit $code";
    expect(a, gone, 1, &["101"])?;
    expect(
        a,
        "pvesync check --max-age 1d",
        1,
        &["the last run failed: "],
    )?;
    // What is damaged costs the history, and no more.
    a.run_ok("head -c 4096 /dev/urandom > /var/lib/rblocksync/journal.db")?;
    expect(
        a,
        "pvesync status",
        1,
        &["journal.db", "move the file away"],
    )?;
    expect(a, "pvesync check --max-age 1d", 3, &["UNKNOWN: "])?;
    expect(a, "pvesync doctor", 1, &["journal.db", "doctor --repair"])?;
    expect(
        a,
        "pvesync doctor --repair",
        0,
        &["put right", "all is well now"],
    )?;
    expect(a, "pvesync doctor", 0, &["all is well"]).map(drop)
}

pub fn generations_are_pinned_and_pruned(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let third = digests_of(lab, 3)?;
    let on_b = |verb: &str| format!("pvesync {verb} --to hvb");
    expect(a, &on_b("pin 101 9"), 1, &["no generation rbs9"])?;
    expect(a, &on_b("pin 101 2"), 0, &["is pinned"])?;
    let one = "prune 101 --keep 1";
    expect(a, &on_b(one), 0, &["gone: none; kept: 2, 3"])?;
    expect(b, "pvesync unpin 101 2", 0, &["not pinned"])?;
    let weeks = format!("pvesync {one} --keep-within 4w");
    expect(b, &weeks, 0, &["gone: none; kept: 2, 3"])?;
    let before = state(b)?;
    let dry = format!("{} --dry-run", on_b(one));
    expect(a, &dry, 0, &["would go: 2; kept: 3"])?;
    assert_eq!(state(b)?, before);
    expect(a, &on_b(one), 0, &["gone: 2; kept: 3"])?;
    let volumes = "lvs --noheadings -o lv_name pve | grep 101 | sort | xargs; ls -A /var/lib/vz/images/101 | sort | xargs";
    assert_eq!(
        b.run_ok(volumes)?,
        "snap_vm-101-disk-0_rbs3 vm-101-disk-0\n.vm-101-disk-0.raw.rbs3 vm-101-disk-0.raw"
    );
    assert_eq!(digests_of(lab, 3)?, third);
    expect(a, &on_b("prune 102"), 1, &["no replica of VM 102"]).map(drop)
}

pub fn a_replica_in_use_is_left_alone(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let paths = generation(3);
    let sealed = one_instant(b, &[&paths[0], &paths[1]])?;
    let before = state(b)?;
    // Neither lock nor guard hold somebody who is determined.
    b.run_ok("mv /var/lib/rblocksync/guard/101 /root/ && qm start 101 --skiplock")?;
    expect(a, "pvesync vm 101 --to hvb", 3, &["VM 101 is running"])?;
    b.run_ok("qm stop 101 --skiplock && mv /root/101 /var/lib/rblocksync/guard/")?;

    // What qm unlock does, and somebody who takes out the hookscript, too.
    b.run_ok(&format!("sed -i '/^lock:/d; /^hookscript:/d' {CONFIG}"))?;
    b.run_ok("qm start 101")?;
    wait_for_writes(b, THIN, sealed.writes + 20)?;
    b.run_ok("qm stop 101")?;
    let used = digests(b, &[THIN, FILE])?;
    expect(a, "pvesync vm 101 --to hvb", 3, &["has been taken over"])?;
    assert_eq!(
        digests(b, &[THIN, FILE])?,
        used,
        "the taken over VM's disks changed"
    );
    let unlocked = |text: String| -> Vec<String> {
        let of_vm =
            |line: &&str| !line.contains("101.conf") && !line.contains("vm-101-disk-0.raw ");
        text.lines().filter(of_vm).map(str::to_owned).collect()
    };
    assert_eq!(unlocked(state(b)?), unlocked(before));
    a.run_ok("qm stop 101")?;
    assert_source_clean(a)
}
