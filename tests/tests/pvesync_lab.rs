//! `pvesync vm` between the lab's two hypervisors, on real thin pools, with a VM that writes.

use std::process::ExitCode;
use std::time::{Duration, Instant};
use tests::lab::{pattern, suite, Background, Guest, Lab, Options, Result};

fn main() -> ExitCode {
    suite::run(
        Options::default(),
        &[
            (
                "what_cannot_be_done_is_refused_and_changes_nothing",
                refusals,
            ),
            (
                "generations_of_a_running_vm_are_of_one_instant",
                one_instant,
            ),
            ("a_replica_does_not_start_until_it_is_taken_over", guarded),
            ("signals_end_a_sync_cleanly", signals),
        ],
    )
}

const SYNC: &str = "pvesync vm 102 --to hvb";

/// What may not change on a host when a request is refused.
fn state(guest: &Guest) -> Result<String> {
    guest.run_ok(
        "lvs --noheadings -o lv_name,lv_size,lv_attr,lv_tags pve | sed 's/[aoA-Z-]* *$//'; \
         find /etc/pve /var/lib/vz -type f | sort | xargs md5sum; \
         find /var/lib/rblocksync/replicas /var/lib/rblocksync/pairs -type f 2>/dev/null | sort",
    )
}

fn expect(guest: &Guest, script: &str, code: i32, words: &[&str]) -> Result<()> {
    let output = guest.run(script)?;
    let text = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.status, code, "{script}: {text}");
    for word in words {
        assert!(text.contains(word), "{script}: no {word:?} in {text}");
    }
    Ok(())
}

fn refusals(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    a.run_ok("mkdir -p /etc/pve/nodes/hvz/qemu-server && echo 'name: far' > /etc/pve/nodes/hvz/qemu-server/777.conf")?;
    let before = (state(a)?, state(b)?);
    let cases: &[(&str, i32, &[&str])] = &[
        ("pvesync vm 999 --to hvb", 1, &["no VM 999"]),
        ("pvesync vm 777 --to hvb", 1, &["hvz"]),
        (
            "pvesync vm 102 --to nowhere.invalid",
            1,
            &["nowhere.invalid"],
        ),
        ("pvesync vm 102 --to hvb --exclude scsi9", 2, &["scsi9"]),
        (
            "pvesync vm 102 --to hvb --storage local-lvm=absent",
            1,
            &["absent"],
        ),
        (
            "pvesync vm 102 --to hvb --dry-run",
            0,
            &["vm-102-disk-0", "vm-102-disk-1", "efidisk0"],
        ),
    ];
    for (script, code, words) in cases {
        expect(a, script, *code, words)?;
    }
    assert_eq!(
        (state(a)?, state(b)?),
        before,
        "a refused request changed something"
    );
    // A volume of somebody else, under the name that the replica would need.
    b.run_ok("lvcreate -qq -V 64M --thinpool pve/data -n vm-102-disk-1 && lvchange -an pve/vm-102-disk-1")?;
    let before = (state(a)?, state(b)?);
    expect(a, SYNC, 3, &["vm-102-disk-1", "not made for this replica"])?;
    assert_eq!((state(a)?, state(b)?), before);
    b.run_ok("lvremove -qq -y pve/vm-102-disk-1")?;
    Ok(())
}

/// The pattern checker over both data disks of a generation on the target.
fn check_generation(b: &Guest, name: &str) -> Result<u32> {
    let volumes = [0, 1].map(|n| format!("pve/snap_vm-102-disk-{n}_{name}"));
    let [first, second] = &volumes;
    b.run_ok(&format!("lvchange -ay -K {first} {second}"))?;
    let mut regions = Vec::new();
    for volume in &volumes {
        let read = format!("dd if=/dev/{volume} bs=1M skip=1 count=2 iflag=direct status=none");
        regions.push(b.read_command(&read)?);
    }
    b.run_ok(&format!("lvchange -an {first} {second}"))?;
    match pattern::check_regions(&regions) {
        Ok(report) => Ok(report.writes),
        Err(violations) => panic!("generation {name} is not of one instant: {violations:?}"),
    }
}

fn newest_name(a: &Guest) -> Result<String> {
    let text = a.run_ok("pvesync generations 102 --to hvb | grep ', head' | awk '{print $1}'")?;
    Ok(text.trim().to_owned())
}

fn wait_for_writes(a: &Guest, at_least: u32) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    let read = "dd if=/dev/pve/vm-102-disk-0 bs=1M skip=1 count=2 iflag=direct status=none";
    while pattern::newest(&a.read_command(read)?) < at_least {
        assert!(Instant::now() < deadline, "the VM does not write");
    }
    Ok(())
}

/// Nothing of a run is left on the source, and the VM runs on.
fn source_is_clean(a: &Guest) -> Result<()> {
    let left = a.run_ok(
        "lvs --noheadings -o lv_name pve | grep rbs; ls -A /var/lib/vz/images/* | grep rbs; true",
    )?;
    assert_eq!(left, "", "left on the source");
    assert_eq!(a.run_ok("qm status 102")?, "status: running");
    let status = a.qmp(102)?.execute("query-status", serde_json::json!({}))?;
    assert_eq!(status["status"], "running");
    Ok(())
}

fn one_instant(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    a.run_ok("qm start 102")?;
    wait_for_writes(a, 50)?;
    let mut seen = 0;
    for number in 1..=3 {
        a.run_ok(SYNC)?;
        let writes = check_generation(b, &format!("rbs{number}"))?;
        assert!(
            writes > seen,
            "generation {number} is no newer than the one before"
        );
        seen = writes;
        source_is_clean(a)?;
    }
    // Sealed ones do not change.
    assert!(check_generation(b, "rbs1")? < check_generation(b, "rbs2")?);
    let config = b.run_ok("cat /etc/pve/qemu-server/102.conf")?;
    for line in [
        "lock: migrate",
        "onboot: 0",
        "[rbs1]",
        "[rbs3]",
        "parent: rbs3",
    ] {
        assert!(config.lines().any(|l| l == line), "no {line:?} in {config}");
    }
    a.run_ok(&format!("{SYNC} --keep 2"))?;
    let kept = b.run_ok(
        "lvs --noheadings -o lv_name pve | grep -o 'snap_vm-102-disk-0_rbs.*' | tr -d ' '",
    )?;
    assert_eq!(kept, "snap_vm-102-disk-0_rbs3\nsnap_vm-102-disk-0_rbs4");
    Ok(())
}

fn guarded(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    expect(b, "qm start 102", 255, &["locked (migrate)"])?;
    let config = b.read_file("/etc/pve/qemu-server/102.conf")?;
    b.run_ok("sed -i '/^lock:/d' /etc/pve/qemu-server/102.conf")?;
    let before = state(b)?;
    expect(a, SYNC, 3, &["taken over"])?;
    assert_eq!(state(b)?, before);
    b.write_file("/etc/pve/qemu-server/102.conf", config)?;
    source_is_clean(a)
}

/// A sync in the background, past the point where the target is prepared and data flows.
fn running_sync(a: &Guest) -> Result<Background<'_>> {
    let at = newest_number(a)?;
    wait_for_writes(a, at)?;
    let mut run = a.spawn(&format!("{SYNC} --bwlimit 20K"))?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !a
        .run("lvs --noheadings -o lv_name pve | grep -q 'snap_vm-102-disk-1_rbs'")?
        .success()
    {
        assert!(
            run.is_running()? && Instant::now() < deadline,
            "the sync did not start"
        );
    }
    Ok(run)
}

/// A number of writes that makes the next sync take a while.
fn newest_number(a: &Guest) -> Result<u32> {
    let read = "dd if=/dev/pve/vm-102-disk-0 bs=1M skip=1 count=2 iflag=direct status=none";
    Ok(pattern::newest(&a.read_command(read)?) + 150)
}

/// The next plain run seals a generation that is of one instant, and leaves nothing behind.
fn converges(lab: &Lab, before: &str) -> Result<()> {
    assert_eq!(
        newest_name(lab.a())?,
        before,
        "the interrupted run sealed something"
    );
    check_generation(lab.b(), before)?;
    lab.a().run_ok(SYNC)?;
    let now = newest_name(lab.a())?;
    assert_ne!(now, before);
    check_generation(lab.b(), &now)?;
    source_is_clean(lab.a())
}

fn signals(lab: &Lab) -> Result<()> {
    let before = newest_name(lab.a())?;
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let run = running_sync(lab.a())?;
        run.signal(signal)?;
        let output = run.wait_for(Duration::from_secs(60))?;
        assert_eq!(output.status, code, "{}", output.stderr);
        source_is_clean(lab.a())?;
    }
    converges(lab, &before)
}
