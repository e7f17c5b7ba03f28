//! Whatever ends a run in the middle: the guest runs on, what the target had stays as it was, and the next
//! run makes up for it. On a small VM, so that runs are short.

use std::process::ExitCode;
use std::time::{Duration, Instant};
use tests::lab::{suite, Guest, Lab, Options, Result};
use tests::named;
use tests::pair::{small, *};

fn main() -> ExitCode {
    suite::run(
        Options::default(),
        named![
            signals_end_a_run_cleanly,
            after_kill_9_the_next_run_sweeps_and_seals,
            a_killed_agent_ends_the_run_and_no_more,
            a_power_cut_of_the_target_costs_only_the_run,
            the_target_may_lose_power_at_each_record,
            a_run_outlives_a_half_open_link,
            a_guest_is_not_left_paused_when_its_run_dies,
            a_seal_that_was_cut_off_is_finished,
            the_source_may_lose_power_while_its_guest_is_held,
            what_was_said_to_be_sealed_outlives_a_power_cut,
        ],
    )
}

const VMID: u32 = 103;
const THIN: &str = "/dev/pve/vm-103-disk-0";
/// One that gives up when the connection is lost, and one that tries again.
const SYNC: &str = "103 --to hvb --retry-for 0s";
const PATIENT: &str = "103 --to hvb";

fn generation_digests(lab: &Lab, number: u32) -> Result<Vec<String>> {
    let [thin, file] = small::generation(VMID, number);
    digests(lab.b(), &[&thin, &file])
}

/// A run must be over so soon after the other host or the network has vanished. The links' limit of silence
/// and ssh's own keepalive lie below it.
const NOTICED_WITHIN: Duration = Duration::from_secs(45);

fn assert_untouched(lab: &Lab) -> Result<()> {
    assert_running(lab.a(), VMID)?;
    assert_source_clean(lab.a())
}

fn signals_end_a_run_cleanly(lab: &Lab) -> Result<()> {
    let a = lab.a();
    small::make(a, VMID, 2)?;
    a.run_ok(&format!("qm start {VMID}"))?;
    wait_for_writes(a, THIN, 1)?;
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let run = half_way(lab, SYNC)?;
        run.signal(signal)?;
        let output = run.wait_for(LONG)?;
        assert_eq!(output.status, code, "{}", said(lab)?);
        assert_untouched(lab)?;
    }
    expect(a, "pvesync generations 103 --to hvb", 1, &["no replica"])?;
    assert!(!lab
        .b()
        .run(&format!("cat {}", small::config(VMID)))?
        .success());
    Ok(())
}

fn after_kill_9_the_next_run_sweeps_and_seals(lab: &Lab) -> Result<()> {
    let a = lab.a();
    let run = half_way(lab, SYNC)?;
    a.run_ok(&format!("kill -KILL {}", run.pid()))?;
    assert_running(a, VMID)?;
    let left = "lvs --noheadings -o lv_tags,lv_name pve | grep -c 'rbs.pit=.*snap_vm-103'; ls -A /var/lib/vz/images/103 | grep -c rbs";
    assert_eq!(a.run_ok(left)?, "1\n1", "it had taken its point in time");
    let events = sync(lab, SYNC)?;
    let swept = events.iter().filter(|e| e["event"] == "swept").count();
    assert_eq!(swept, 2, "{events:?}");
    let [thin, file] = small::generation(VMID, 1);
    one_instant(lab.b(), &[&thin, &file])?;
    // The killed run's ssh has ended; the directory of its socket goes with a run an hour later or more.
    a.run_ok("rm -r /tmp/rblocksync-ssh-*")?;
    assert_untouched(lab)
}

fn a_killed_agent_ends_the_run_and_no_more(lab: &Lab) -> Result<()> {
    let first = generation_digests(lab, 1)?;
    let run = half_way(lab, SYNC)?;
    lab.b().run_ok("pkill -KILL -x pvesync")?;
    let output = run.wait_for(LONG)?;
    assert_eq!(output.status, 1, "{}", said(lab)?);
    assert!(
        said(lab)?.contains("the pvesync agent on hvb"),
        "{}",
        said(lab)?
    );
    assert_untouched(lab)?;
    assert_eq!(generation_digests(lab, 1)?, first);
    Ok(())
}

fn a_power_cut_of_the_target_costs_only_the_run(lab: &Lab) -> Result<()> {
    let first = generation_digests(lab, 1)?;
    let run = half_way(lab, SYNC)?;
    lab.b().power_cut();
    let cut = Instant::now();
    let output = run.wait_for(LONG)?;
    println!("noticed after {:?}", cut.elapsed());
    assert!(cut.elapsed() < NOTICED_WITHIN);
    assert_eq!(output.status, 1, "{}", said(lab)?);
    assert_untouched(lab)?;
    lab.b().boot_again()?;
    assert_eq!(generation_digests(lab, 1)?, first);
    assert_eq!(
        digests(lab.b(), &small::disks(VMID).each_ref().map(String::as_str))?,
        first
    );
    Ok(())
}

/// The transfer is the test before. `POWER_CUTS=all` asks for the other records, too: there nothing changes on the
/// target.
fn the_target_may_lose_power_at_each_record(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let first = generation_digests(lab, 1)?;
    let steps: &[&str] = match std::env::var("POWER_CUTS").as_deref() {
        Ok("all") => &["plan", "sweep", "fork", "snap", "transfer", "seal"],
        _ => &["seal"],
    };
    for step in steps {
        let stopped = format!("exec env RBLOCKSYNC_STOP_AT='journal {step}' pvesync vm {SYNC}");
        let run = a.spawn(&stopped)?;
        wait_until_stopped(a, &run.pid().to_string(), step)?;
        b.power_cut();
        a.run_ok(&format!("kill -CONT {}", run.pid()))?;
        let output = run.wait_for(LONG)?;
        assert_eq!(
            output.status, 1,
            "{step}: {}{}",
            output.stdout, output.stderr
        );
        assert_untouched(lab)?;
        b.boot_again()?;
        assert_eq!(generation_digests(lab, 1)?, first, "{step}");
        let heads = small::disks(VMID);
        let heads = digests(b, &heads.each_ref().map(String::as_str))?;
        assert_eq!(heads, first, "{step}");
    }
    Ok(())
}

/// Neither end is told that the link is gone. The agents that hold the replica notice as the driver does.
fn a_run_outlives_a_half_open_link(lab: &Lab) -> Result<()> {
    let first = generation_digests(lab, 1)?;
    let run = half_way(lab, PATIENT)?;
    lab.cut_link()?;
    let cut = Instant::now();
    while !said(lab)?.contains("\"connection-lost\"") {
        assert!(cut.elapsed() < NOTICED_WITHIN, "{}", said(lab)?);
    }
    println!("noticed after {:?}", cut.elapsed());
    lab.mend_link()?;
    let output = run.wait_for(LONG)?;
    assert_eq!(output.status, 0, "{}", said(lab)?);
    assert!(said(lab)?.contains("\"generation\":\"rbs2\""));
    let [thin, file] = small::generation(VMID, 2);
    one_instant(lab.b(), &[&thin, &file])?;
    assert_eq!(generation_digests(lab, 1)?, first);
    assert_untouched(lab)
}

fn a_guest_is_not_left_paused_when_its_run_dies(lab: &Lab) -> Result<()> {
    let a = lab.a();
    let run = a.run(&format!(
        "RBLOCKSYNC_CRASH_AT=held pvesync vm {SYNC}; exit $?"
    ))?;
    assert_eq!(run.status, 137, "{}{}", run.stdout, run.stderr);
    let died = Instant::now();
    while assert_is_paused(lab)? {
        assert!(died.elapsed() < Duration::from_secs(8), "nobody let it go");
    }
    let now = newest_write(a, THIN)?;
    wait_for_writes(a, THIN, now + 10)?;
    a.run_ok("rm -r /tmp/rblocksync-ssh-*")?;
    let left =
        a.run_ok("lvs --noheadings -o lv_tags,lv_name pve | grep -c 'rbs.pit=.*snap_vm-103'")?;
    assert_eq!(left, "1", "it died with its snapshots taken");
    Ok(())
}

fn assert_is_paused(lab: &Lab) -> Result<bool> {
    let mut monitor = lab.a().qmp(VMID)?;
    let state = monitor.execute("query-status", serde_json::json!({}))?;
    Ok(state["status"] == "paused")
}

/// Where the target's agent dies, in turn: the first run transfers and dies while it seals, the following ones
/// die further on while they finish what it announced.
const POINTS: [&str; 4] = ["seal scsi1", "head scsi1", "swap scsi1", "publish"];

/// At this one the host loses power instead: one head is exchanged, the other is not.
const POWER_CUT_AT: &str = "swap scsi1";

fn target_loses_power_at(lab: &Lab, point: &str) -> Result<()> {
    let b = lab.b();
    b.write_file("/tmp/crash-at", "")?;
    b.write_file("/tmp/stop-at", point)?;
    let run = lab.a().spawn(&format!("exec pvesync vm {SYNC}"))?;
    wait_until_stopped(b, "$(pidof pvesync.real | tr ' ' '\n' | tail -n 1)", point)?;
    b.power_cut();
    let output = run.wait_for(LONG)?;
    let text = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.status, 1, "{point}: {text}");
    b.boot_again()
}

/// Waits until a process has reached the point where it is to stop.
fn wait_until_stopped(guest: &Guest, pid: &str, point: &str) -> Result<()> {
    let state = format!("cut -d')' -f2 /proc/{pid}/stat; true");
    let deadline = Instant::now() + LONG;
    while !guest.run_ok(&state)?.trim().starts_with('T') {
        assert!(Instant::now() < deadline, "{point}: it was never reached");
    }
    Ok(())
}

fn a_seal_that_was_cut_off_is_finished(lab: &Lab) -> Result<()> {
    let b = lab.b();
    // Lost with the power it would be replaced by a program that is brought along, which dies nowhere.
    b.run_ok(
        "set -e; mv /usr/bin/pvesync /usr/bin/pvesync.real && cat > /usr/bin/pvesync <<'EOF' && chmod 755 /usr/bin/pvesync
#!/bin/sh
export RBLOCKSYNC_CRASH_AT=$(cat /tmp/crash-at) RBLOCKSYNC_STOP_AT=$(cat /tmp/stop-at)
exec /usr/bin/pvesync.real \"$@\"
EOF
sync",
    )?;
    let second = generation_digests(lab, 2)?;
    let heads = small::disks(VMID);
    let heads = [heads[0].as_str(), heads[1].as_str()];
    let fork = [
        "/dev/pve/snap_vm-103-disk-0_rbs3",
        "/var/lib/vz/images/103/.vm-103-disk-0.raw.rbs-fork",
    ];
    let mut third = Vec::new();
    for point in POINTS {
        if point == POWER_CUT_AT {
            target_loses_power_at(lab, point)?;
            continue;
        }
        b.write_file("/tmp/crash-at", point)?;
        b.write_file("/tmp/stop-at", "")?;
        let run = lab.a().run(&format!("pvesync vm {SYNC}"))?;
        let text = format!("{}{}", run.stdout, run.stderr);
        assert_eq!(run.status, 1, "{point}: {text}");
        assert!(text.contains("killed by a signal"), "{point}: {text}");
        assert_untouched(lab)?;
        if third.is_empty() {
            third = digests(b, &fork)?;
            assert_eq!(
                digests(b, &heads)?,
                second,
                "the head before the seal is done"
            );
        }
    }
    assert_eq!(generation_digests(lab, 2)?, second);
    assert_eq!(digests(b, &heads)?, third);
    b.run_ok("echo prune > /tmp/crash-at")?;
    let run = lab.a().run(&format!("pvesync vm {SYNC} --keep 2"))?;
    assert_eq!(run.status, 1, "{}{}", run.stdout, run.stderr);
    assert!(
        run.stdout
            .contains("generation rbs3 of a run that was cut off is sealed"),
        "{}",
        run.stdout
    );
    b.run_ok("mv /usr/bin/pvesync.real /usr/bin/pvesync")?;
    assert_eq!(generation_digests(lab, 3)?, third);
    let [thin, file] = small::generation(VMID, 3);
    one_instant(b, &[&thin, &file])?;

    // The last one, of the stopped VM: equal to it, and all that was to go is gone.
    lab.a().run_ok(&format!("qm stop {VMID}"))?;
    let events = sync(lab, &format!("{SYNC} --keep 2"))?;
    assert_eq!(event(&events, "sealed")["kept"], serde_json::json!([4, 5]));
    let source = digests(lab.a(), &heads)?;
    assert_eq!(digests(b, &heads)?, source);
    assert_eq!(generation_digests(lab, 5)?, source);
    let volumes = b.run_ok(
        "lvs --noheadings -o lv_name pve | grep 103 | sort | xargs; ls -A /var/lib/vz/images/103 | sort | xargs
         ls -A /var/lib/rblocksync/replicas/*/ | grep -c sealing; true",
    )?;
    assert_eq!(
        volumes,
        "snap_vm-103-disk-0_rbs4 snap_vm-103-disk-0_rbs5 vm-103-disk-0\n\
         .vm-103-disk-0.raw.rbs4 .vm-103-disk-0.raw.rbs5 vm-103-disk-0.raw\n0"
    );
    assert_source_clean(lab.a())
}

/// Its snapshots are taken, and nobody has let it go yet.
fn the_source_may_lose_power_while_its_guest_is_held(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let newest = generation_digests(lab, 5)?;
    a.run_ok(&format!("qm start {VMID}"))?;
    wait_for_writes(a, THIN, 1)?;
    let run = a.spawn(&format!(
        "exec env RBLOCKSYNC_STOP_AT=held pvesync vm {SYNC}"
    ))?;
    wait_until_stopped(a, &run.pid().to_string(), "held")?;
    a.power_cut();
    a.boot_again()?;
    assert_eq!(generation_digests(lab, 5)?, newest);
    let left =
        a.run_ok("lvs --noheadings -o lv_tags,lv_name pve | grep -c 'rbs.pit=.*snap_vm-103'")?;
    assert_eq!(left.trim(), "1", "it died with its snapshots taken");
    let events = sync(lab, SYNC)?;
    assert_eq!(event(&events, "sealed")["generation"], "rbs6");
    let heads = small::disks(VMID);
    let heads = heads.each_ref().map(String::as_str);
    assert_eq!(digests(b, &heads)?, digests(a, &heads)?);
    assert_source_clean(a)
}

/// At the last record, right after the target has said so.
fn what_was_said_to_be_sealed_outlives_a_power_cut(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    a.run_ok(&format!(
        "lvchange -ay pve/vm-{VMID}-disk-0 && head -c 3M /dev/urandom | dd of={THIN} bs=1M oflag=direct iflag=fullblock \
         status=none && lvchange -an pve/vm-{VMID}-disk-0"
    ))?;
    let stopped = "exec env RBLOCKSYNC_STOP_AT='journal release' pvesync vm";
    let run = a.spawn(&format!("{stopped} {SYNC}"))?;
    wait_until_stopped(a, &run.pid().to_string(), "release")?;
    b.power_cut();
    a.run_ok(&format!("kill -CONT {}", run.pid()))?;
    let output = run.wait_for(LONG)?;
    assert_eq!(output.status, 0, "{}{}", output.stdout, output.stderr);
    b.boot_again()?;
    let heads = small::disks(VMID);
    let heads = heads.each_ref().map(String::as_str);
    let source = digests(a, &heads)?;
    assert_eq!(generation_digests(lab, 7)?, source);
    assert_eq!(digests(b, &heads)?, source);
    assert_source_clean(a)
}
