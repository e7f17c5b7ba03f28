//! VM 170: a thin volume, a raw file and a qcow2 file, the files where nothing can be cloned, and a guest that numbers
//! its writes over all three in order. Whatever happens between two syncs, each generation shows one instant.

use serde_json::{json, Value};
use std::process::ExitCode;
use std::time::Instant;
use tests::lab::pattern::{self, Report};
use tests::lab::{suite, Guest, Lab, Options, Result, RUN_TIMEOUT};
use tests::named;
use tests::pair::*;

const THIN: &str = "/dev/pve/vm-170-disk-0";
const IMAGES: &str = "/var/lib/plain/images/170";

fn main() -> ExitCode {
    suite::run(
        Options::default(),
        named![
            only_what_was_written_is_read,
            each_generation_shows_one_instant_whatever_happens,
            what_was_sent_can_be_verified,
            a_running_vms_qcow2_disk_may_become_a_thin_volume,
        ],
    )
}

/// Syncs of the long test; `MIXED_SYNCS` asks for another number.
fn syncs() -> u32 {
    let asked = std::env::var("MIXED_SYNCS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(7)
}

fn make(lab: &Lab) -> Result<()> {
    for host in [lab.a(), lab.b()] {
        // On ext4, where files cannot share blocks.
        host.run_ok(
            "printf 'dir: plain\\n\\tpath /var/lib/plain\\n\\tcontent images\\n\\n' >> /etc/pve/storage.cfg
             mkdir -p /var/lib/plain/images",
        )?;
    }
    // All that the guest will write to is there already: what a disk maps anew is lost when QEMU is killed or the power cut
    // before a flush, and the lab's writer never flushes.
    lab.a().run_ok(&format!(
        "set -e; lvcreate -qq -V 64M -n vm-170-disk-0 --thinpool pve/data; lvchange -qq --setautoactivation n pve/vm-170-disk-0
         mkdir -p {IMAGES}; truncate -s 64M {IMAGES}/vm-170-disk-1.raw
         qemu-img create -q -f qcow2 {IMAGES}/vm-170-disk-2.qcow2 64M
         for d in /dev/pve/vm-170-disk-0 {IMAGES}/vm-170-disk-1.raw; do
             dd if=/dev/zero of=$d bs=1M seek=1 count=2 conv=notrunc,fsync status=none
         done
         lvchange -qq -an pve/vm-170-disk-0
         qemu-io -f qcow2 -c 'write -q -P 0 1M 2M' -c flush {IMAGES}/vm-170-disk-2.qcow2"
    ))?;
    lab.a().write_file(
        "/etc/pve/qemu-server/170.conf",
        "cores: 1\nmachine: pc\nmemory: 64\nname: mixed\nscsi0: local-lvm:vm-170-disk-0,size=64M\n\
         scsi1: plain:170/vm-170-disk-1.raw,size=64M\nscsi2: plain:170/vm-170-disk-2.qcow2,size=64M\n\
         scsihw: virtio-scsi-single\nsmbios1: uuid=6d0f7a52-1f5b-4c1e-9b8e-0a6f6b3d1170\n",
    )
}

/// What the newest generation shows.
fn shown(lab: &Lab, number: u32) -> Result<Report> {
    let b = lab.b();
    let thin = format!("/dev/pve/snap_vm-170-disk-0_rbs{number}");
    // For qemu-img, what is skipped is part of the count.
    let regions = [
        format!(
            "set -e; lvchange -qq -ay -K {thin}; dd if={thin} bs=1M skip=1 count=2 status=none; lvchange -qq -an {thin}"
        ),
        format!("dd if={IMAGES}/vm-170-disk-1.raw bs=1M skip=1 count=2 status=none"),
        format!(
            "set -e; f={IMAGES}/vm-170-disk-2.qcow2; qemu-img check -q -f qcow2 $f
             qemu-img dd -f qcow2 -O raw bs=1M skip=1 count=3 if=$f of=/tmp/region; cat /tmp/region; rm /tmp/region"
        ),
    ];
    let regions: Vec<Vec<u8>> = regions
        .iter()
        .map(|script| b.read_command(script))
        .collect::<Result<_>>()?;
    Ok(pattern::check_regions(&regions).unwrap_or_else(|bad| panic!("rbs{number}: {bad:?}")))
}

fn number(events: &[Value]) -> u32 {
    let name = event(events, "sealed")["generation"].as_str();
    let digits = name.and_then(|name| name.strip_prefix("rbs"));
    digits.expect("a generation").parse().expect("a number")
}

/// The disks of which everything was compared, with the reasons.
fn compared(events: &[Value]) -> Vec<String> {
    let notes = events.iter().filter(|e| e["event"] == "note");
    let texts = notes.filter_map(|e| e["text"].as_str());
    texts
        .filter(|text| text.contains("everything is compared"))
        .map(str::to_owned)
        .collect()
}

fn sync_now(lab: &Lab) -> Result<(Report, Vec<String>)> {
    let events = sync(lab, "170 --to hvb --keep 2")?;
    let report = shown(lab, number(&events))?;
    assert_running(lab.a(), 170)?;
    assert_source_clean(lab.a())?;
    let left = lab.a().run_ok("ls -A /var/lib/rblocksync/scratch/170")?;
    assert_eq!(left, "", "scratch files");
    Ok((report, compared(&events)))
}

fn only_what_was_written_is_read(lab: &Lab) -> Result<()> {
    let a = lab.a();
    make(lab)?;
    a.run_ok("qm start 170")?;
    let seen = wait_for_writes(a, THIN, 60)?;
    let (first, _) = sync_now(lab)?;
    assert!(first.writes >= seen);
    // The writer goes round in 512 slots of 4 KiB on each disk; elsewhere is 1 MiB that stays as it is.
    let events = sync(lab, "170 --to hvb --keep 2")?;
    assert_eq!(compared(&events), Vec::<String>::new());
    let second = shown(lab, number(&events))?;
    let written = u64::from(second.writes - first.writes) * 4096;
    let read = total(&events, "/source/read") + total(&events, "/target/read");
    println!(
        "{written} bytes written, {read} read, {} changed, wire {}",
        total(&events, "/changed"),
        total(&events, "/wire_out") + total(&events, "/wire_in")
    );
    assert!(total(&events, "/changed") <= written);
    let text = expect(
        a,
        "pvesync vm 170 --to hvb --dry-run",
        0,
        &["scsi1", "scsi2"],
    )?;
    assert_eq!(
        text.matches("changed, which alone is read").count(),
        3,
        "{text}"
    );
    Ok(())
}

fn each_generation_shows_one_instant_whatever_happens(lab: &Lab) -> Result<()> {
    let a = lab.a();
    let mut seen = newest_write(a, THIN)?;
    for round in 1..=syncs() {
        let mut lost = 0;
        match round % 10 {
            // What QEMU knew of changes is gone, or does not have what was written last.
            2 => {
                let now = newest_write(a, THIN)?;
                wait_for_writes(a, THIN, now + 30)?;
                a.run_ok("kill -KILL $(cat /var/run/qemu-server/170.pid); qm start 170")?;
                lost = 2;
            }
            4 => {
                let run = half_way(lab, "170 --to hvb --keep 2")?;
                // Its ssh is left as well, and where that meets others.
                a.run_ok(&format!(
                    "kill -KILL {}; rm -r /tmp/rblocksync-ssh-*",
                    run.pid()
                ))?;
                assert_running(a, 170)?;
            }
            // A clean stop keeps the bitmap that is in the qcow2 file.
            5 => {
                a.run_ok("qm stop 170 && qm start 170")?;
                lost = 1;
            }
            8 => {
                a.power_cut();
                a.boot_again()?;
                a.run_ok("qm start 170")?;
                lost = 2;
            }
            _ => {}
        }
        let now = newest_write(a, THIN)?;
        wait_for_writes(a, THIN, now + 10)?;
        let (report, compared) = sync_now(lab)?;
        println!("{round}: {} writes; {compared:?}", report.writes);
        assert!(report.writes > seen, "older than what was seen before");
        assert_eq!(compared.len(), lost, "{compared:?}");
        seen = report.writes;
    }
    Ok(())
}

fn what_was_sent_can_be_verified(lab: &Lab) -> Result<()> {
    let a = lab.a();
    expect(
        a,
        "pvesync verify 170 --to hvb",
        0,
        &["is as it was sealed"],
    )?;
    a.run_ok("qm stop 170")?;
    // Off, it is read in place.
    let events = sync(lab, "170 --to hvb --keep 2")?;
    shown(lab, number(&events))?;
    Ok(())
}

/// Waits until VM 171 has written more often than this, by what QEMU has counted since its start: its file cannot be looked
/// into while it runs.
fn wait_for_more(guest: &Guest, than: u64) -> Result<u64> {
    let until = Instant::now() + RUN_TIMEOUT;
    let mut monitor = guest.qmp(171)?;
    loop {
        let told = monitor.execute("query-blockstats", json!({}))?;
        let drives = told.as_array().into_iter().flatten();
        let writes = drives.filter_map(|drive| drive["stats"]["wr_operations"].as_u64());
        let written = writes.sum();
        if written > than {
            return Ok(written);
        }
        assert!(Instant::now() < until, "stuck at write {written}");
    }
}

fn a_running_vms_qcow2_disk_may_become_a_thin_volume(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let image = "/var/lib/plain/images/171/vm-171-disk-0.qcow2";
    a.run_ok(&format!(
        "set -e; mkdir -p $(dirname {image}); qemu-img create -q -f qcow2 {image} 16M"
    ))?;
    a.write_file(
        "/etc/pve/qemu-server/171.conf",
        "cores: 1\nmachine: pc\nmemory: 64\nname: other\nscsi0: plain:171/vm-171-disk-0.qcow2,size=16M\n\
         scsihw: virtio-scsi-single\nsmbios1: uuid=6d0f7a52-1f5b-4c1e-9b8e-0a6f6b3d1171\n",
    )?;
    a.run_ok("qm start 171")?;
    let (mut seen, mut written) = (0, 0);
    for round in 1..=3 {
        written = wait_for_more(a, written)?;
        let events = sync(lab, "171 --to hvb --storage plain=local-lvm")?;
        let volume = format!("/dev/pve/snap_vm-171-disk-0_rbs{round}");
        let report = one_instant(b, &[&volume])?;
        assert!(
            report.writes > seen,
            "round {round}: {} writes",
            report.writes
        );
        if round > 1 {
            assert_eq!(compared(&events), Vec::<String>::new());
            assert!(
                total(&events, "/target/read") <= 2 << 20,
                "only what changed"
            );
        }
        seen = report.writes;
    }
    // Off, its file still has the bitmap, and says so again the next time.
    a.run_ok("qm stop 171")?;
    for round in 4..=5 {
        let events = sync(lab, "171 --to hvb")?;
        assert_eq!(compared(&events), Vec::<String>::new());
        let volume = format!("/dev/pve/snap_vm-171-disk-0_rbs{round}");
        one_instant(b, &[&volume])?;
        let there = digests(b, &[&volume])?;
        let here = a.run_ok(&format!(
            "qemu-img dd -f qcow2 -O raw bs=1M if={image} of=/tmp/whole; sha256sum /tmp/whole | cut -d' ' -f1; rm /tmp/whole"
        ))?;
        assert_eq!(there, [here.trim().to_owned()]);
    }
    Ok(())
}
