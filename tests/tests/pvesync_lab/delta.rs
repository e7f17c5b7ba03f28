//! Syncs that cost what changed: what is read is counted by the kernel, and whatever makes a list of changes doubtful
//! makes the next sync look at everything.

use tests::lab::{Guest, Lab, Result};
use tests::pair::{small, *};

const LEAF: u64 = 4096;
const CHUNK: u64 = 64 << 10;

/// So often a sync of one thin disk that sends what changed may call LVM: on the source, and on the target. Each call scans
/// all disks, and waits for the group's lock.
const LVM_CALLS_MAX: [usize; 2] = [10, 14];

/// What each look at a volume's cost is about: its size in GiB, and MiB of it that hold data. `DELTA_SIZES=full` takes
/// those that docs/benchmarks.md tells of.
fn sizes() -> Vec<(u64, u64)> {
    match std::env::var_os("DELTA_SIZES") {
        Some(_) => vec![(2, 500), (10, 500), (20, 500)],
        None => vec![(10, 50)],
    }
}

/// Bytes read so far from the data of the thin pool, from its metadata, and from the disk below, by proc(5).
fn reads(guest: &Guest) -> Result<[u64; 3]> {
    let text = guest.run_ok(
        "count() { awk -v major=$1 -v minor=$2 '$1 == major && $2 == minor { print $6 }' /proc/diskstats; }
         for d in pve-data_tdata pve-data_tmeta; do count $(dmsetup info -c --noheadings --separator ' ' -o major,minor $d); done
         count $(stat -Lc '%Hr %Lr' $(pvs --noheadings -o pv_name -S vg_name=pve))",
    )?;
    let sectors: Vec<u64> = text
        .lines()
        .map(|line| line.parse().expect("sectors"))
        .collect();
    Ok(sectors
        .iter()
        .map(|sectors| sectors * 512)
        .collect::<Vec<_>>()
        .try_into()
        .expect("three devices"))
}

pub fn only_what_changed_is_read(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    for (vmid, (gib, used)) in (160..).zip(sizes()) {
        let disk = format!("/dev/pve/vm-{vmid}-disk-0");
        // Content that shrinks, so that the first sync is short; every leaf is another one.
        a.run_ok(&format!(
            "set -e; lvcreate -qq -V {gib}G -n vm-{vmid}-disk-0 --thinpool pve/data
             lvchange -qq --setautoactivation n pve/vm-{vmid}-disk-0
             seq -f '%04095.0f' 1 {leaves} | dd of={disk} bs=1M iflag=fullblock oflag=direct status=none
             lvchange -qq -an pve/vm-{vmid}-disk-0",
            leaves = used * 256,
        ))?;
        a.write_file(
            &small::config(vmid),
            format!(
                "cores: 1\nmemory: 64\nname: large{vmid}\nscsi0: local-lvm:vm-{vmid}-disk-0,size={gib}G\n\
                 smbios1: uuid=6d0f7a52-1f5b-4c1e-9b8e-0a6f6b3d1{vmid}\n"
            ),
        )?;
        sync(lab, &format!("{vmid} --to hvb"))?;
        // One chunk in a hundred, each with two leaves that changed, one chunk that is new, and one that is gone.
        let chunks = used * 16 / 100;
        a.run_ok(&format!(
            "set -e; lvchange -qq -ay pve/vm-{vmid}-disk-0
             for i in $(seq 0 {last}); do dd if=/dev/urandom of={disk} bs=4k count=2 seek=$((i * 1600 + 5)) conv=notrunc oflag=direct status=none; done
             dd if=/dev/urandom of={disk} bs=4k count=1 seek={new} conv=notrunc oflag=direct status=none
             blkdiscard -o {gone} -l {CHUNK} {disk}
             lvchange -qq -an pve/vm-{vmid}-disk-0",
            last = chunks - 1,
            new = (1 << 30) / LEAF,
            gone = 50 * CHUNK,
        ))?;
        let changed_chunks = (chunks + 2) * CHUNK;
        let changed_leaves = (2 * chunks + 1) * LEAF;
        expect(
            a,
            &format!("pvesync vm {vmid} --to hvb --dry-run"),
            0,
            &[&format!(
                "scsi0: at most {} changed, which alone is read",
                match changed_chunks {
                    0..=1_048_575 => format!("{} KiB", changed_chunks >> 10),
                    _ => format!("{:.1} MiB", changed_chunks as f64 / 1048576.0),
                }
            )],
        )?;
        // Looking at what is read calls LVM as well.
        let before = [reads(a)?, reads(b)?];
        note_lvm_calls(a)?;
        note_lvm_calls(b)?;
        let events = sync(lab, &format!("{vmid} --to hvb --compress off"))?;
        let calls = [lvm_calls(a)?, lvm_calls(b)?];
        let after = [reads(a)?, reads(b)?];
        println!(
            "calls of LVM: {} + {}: {calls:#?}",
            calls[0].len(),
            calls[1].len()
        );
        assert!(calls[0].len() <= LVM_CALLS_MAX[0] && calls[1].len() <= LVM_CALLS_MAX[1]);
        let read = |host: usize, what: usize| after[host][what] - before[host][what];
        let wire = total(&events, "/wire_out") + total(&events, "/wire_in");
        println!(
            "{gib} GiB, {used} MiB used, {changed_chunks} bytes in changed chunks, {changed_leaves} in changed leaves: \
             data read {} + {}, metadata {} + {}, disk {} + {}; wire {wire}; {} s",
            read(0, 0), read(1, 0), read(0, 1), read(1, 1), read(0, 2), read(1, 2),
            event(&events, "sealed")["seconds"],
        );
        assert_eq!(total(&events, "/changed"), changed_leaves);
        assert_eq!(total(&events, "/source/read"), 2 * changed_chunks);
        assert_eq!(total(&events, "/target/read"), 0);
        // Unmapped chunks cost no read. On the target the pool itself copies shared chunks that are written.
        assert!(read(0, 0) <= 2 * changed_chunks, "{} bytes", read(0, 0));
        assert!(read(1, 0) <= changed_chunks, "{} bytes", read(1, 0));
        assert!(wire * 10 <= changed_leaves * 11, "{wire} bytes");
        // Sums over all of 10 GiB take too long.
        let sum = |guest: &Guest, volume: &str| {
            guest.run_ok(&format!(
                "lvchange -qq -ay -K pve/{volume}; dd if=/dev/pve/{volume} bs=1M count={} iflag=direct status=none | sha256sum
                 dd if=/dev/pve/{volume} bs=1M count=1 skip=1024 iflag=direct status=none | sha256sum; lvchange -qq -an pve/{volume}",
                used + 1
            ))
        };
        let here = sum(a, &format!("vm-{vmid}-disk-0"))?;
        assert_eq!(sum(b, &format!("vm-{vmid}-disk-0"))?, here);
        assert_eq!(sum(b, &format!("snap_vm-{vmid}-disk-0_rbs2"))?, here);
    }
    assert_source_clean(a)
}

/// What makes the next sync of VM 150 look at everything, and what it says then.
const DOUBTS: [(&str, &str, &str); 3] = [
    // This would be lost if the changes were trusted.
    (
        "b",
        "g=$(lvs --noheadings -o lv_name pve | grep -o 'snap_vm-150-disk-0_rbs.*'); lvchange -qq -prw pve/$g; lvchange -qq -ay -K pve/$g
         dd if=/dev/urandom of=/dev/pve/$g bs=4k count=1 seek=1100 oflag=direct status=none; lvchange -qq -an pve/$g; lvchange -qq -pr pve/$g",
        "on the target: the replica was written to",
    ),
    (
        "a",
        "lvremove -qq -y $(lvs --noheadings -o lv_name,lv_tags pve | awk '/rbs.sent=/ { print \"pve/\" $1 }')",
        "the snapshot that was sent last is gone",
    ),
    (
        "a",
        "rm /var/lib/rblocksync/pairs/150/*/*.digests",
        "the digests of what was sent last are gone",
    ),
];

pub fn changes_that_are_not_proved_are_not_trusted(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    small::make(a, 150, 1)?;
    sync(lab, "150 --to hvb")?;
    for (host, doubt, words) in DOUBTS {
        let host = if host == "a" { a } else { b };
        host.run_ok(doubt)?;
        let said = expect(a, "pvesync vm 150 --to hvb", 0, &[words])?;
        assert!(said.contains("everything is compared"), "{said}");
        assert_as_here(lab)?;
        assert_source_clean(a)?;
    }
    let is_delta = |events: &[serde_json::Value], read: u64| {
        assert_eq!(total(events, "/target/read"), 0);
        assert_eq!(total(events, "/source/read"), 2 * read);
    };
    // Back to an older state, as Proxmox rolls back: another volume of the same name. Then one leaf is written.
    a.run_ok(
        "set -e; lvcreate -qq -s -n old pve/vm-150-disk-0; d=/dev/pve/vm-150-disk-0; lvchange -qq -ay $d
         dd if=/dev/urandom of=$d bs=1M count=1 seek=5 oflag=direct status=none; lvchange -qq -an $d
         lvremove -qq -y pve/vm-150-disk-0; lvcreate -qq -s -kn -n vm-150-disk-0 pve/old; lvremove -qq -y pve/old
         dd if=/dev/urandom of=$d bs=4k count=1 seek=1300 oflag=direct status=none; lvchange -qq -an $d",
    )?;
    is_delta(&sync(lab, "150 --to hvb")?, CHUNK);
    assert_as_here(lab)?;
    // A run that was ended leaves a fork with something in it: that is no base.
    a.run_ok(
        "set -e; lvchange -qq -ay pve/vm-150-disk-0; dd if=/dev/urandom of=/dev/pve/vm-150-disk-0 bs=1M count=4 oflag=direct status=none
         lvchange -qq -an pve/vm-150-disk-0",
    )?;
    let run = half_way(lab, "150 --to hvb")?;
    run.signal("TERM")?;
    run.wait()?;
    is_delta(&sync(lab, "150 --to hvb --no-base")?, 4 << 20);
    assert_as_here(lab)?;
    expect(
        a,
        "pvesync verify 150 --to hvb",
        0,
        &["is as it was sealed"],
    )?;
    let left = a.run_ok("lvs --noheadings -o lv_name pve | grep snap_vm-150; true")?;
    assert_eq!(left, "", "kept without need");
    Ok(())
}

/// From a thin volume to a file, and only what changed.
pub fn a_replica_may_be_a_file(lab: &Lab) -> Result<()> {
    let a = lab.a();
    small::make(a, 151, 1)?;
    let [here, there] = small::disks(151);
    sync(lab, "151 --to hvb --storage local-lvm=local")?;
    a.run_ok(&format!(
        "lvchange -qq -ay pve/vm-151-disk-0 && dd if=/dev/urandom of={here} bs=4k count=1 seek=1300 oflag=direct status=none
         lvchange -qq -an pve/vm-151-disk-0"
    ))?;
    let events = sync(lab, "151 --to hvb")?;
    assert_eq!(total(&events, "/changed"), LEAF);
    assert_eq!(total(&events, "/target/read"), 0);
    assert_eq!(digests(lab.b(), &[&there])?, digests(a, &[&here])?);
    Ok(())
}

fn assert_as_here(lab: &Lab) -> Result<()> {
    let disk = "/dev/pve/vm-150-disk-0";
    assert_eq!(digests(lab.b(), &[disk])?, digests(lab.a(), &[disk])?);
    Ok(())
}
