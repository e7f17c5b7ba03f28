//! Many VMs in one run. `FLEET_VMS` tells how many, 4 if it is not set: docs/benchmarks.md has the figures of 20.

use serde_json::Value;
use std::time::Duration;
use tests::lab::{Lab, Result};
use tests::pair::{small, *};

const FIRST: u32 = 180;
/// How long a run of all of them may take.
const FLEET_MAX: Duration = Duration::from_secs(1800);
/// At once.
const PARALLEL: usize = 2;

/// Notes every second how many of our processes there are, and how many KiB they have together. The watchdogs and agents
/// of ssh count, too.
const WATCH: &str = "
    while [ ! -e /tmp/fleet.end ]; do
        for p in $(ls -l /proc/[0-9]*/exe 2> /dev/null | sed -n 's|.* /proc/\\([0-9]*\\)/exe -> .*/pvesync$|\\1|p'); do
            cat /proc/$p/status 2> /dev/null
        done | awk '/^VmRSS/ { n++; kib += $2 } END { print n + 0, kib + 0 }'
        sleep 1
    done > /tmp/fleet.watch";

pub fn one_broken_vm_does_not_stop_the_rest_of_a_fleet(lab: &Lab) -> Result<()> {
    let a = lab.a();
    let count = match std::env::var("FLEET_VMS") {
        Ok(count) => count.parse().expect("a number of VMs"),
        Err(_) => 4,
    };
    let vms: Vec<u32> = (FIRST..FIRST + count).collect();
    let (&broken, &last) = (&vms[1], &vms[2]);
    for &vm in &vms {
        small::make(a, vm, 1)?;
    }
    // It is the only one with a generation, so it is the least overdue.
    sync(lab, &format!("{last} --to hvb"))?;
    a.run_ok(&format!(
        "lvremove -qq -y pve/vm-{broken}-disk-0; rm -f /tmp/fleet.end"
    ))?;
    let watch = a.spawn(WATCH)?;
    let fleet = format!(
        "pvesync vm {FIRST}-{} --to hvb --parallel {PARALLEL} --rpo 1h --json",
        FIRST + count - 1
    );
    let run = a.run_for(FLEET_MAX, &fleet)?;
    a.run_ok("touch /tmp/fleet.end")?;
    watch.wait_for(LONG)?;
    let text = format!("{}{}", run.stdout, run.stderr);
    assert_eq!(run.status, 5, "some failed: {text}");
    let events: Vec<Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}")))
        .collect();
    let of = |event: &Value| event["vm"].as_str().unwrap_or_default().to_owned();
    let (mut at_once, mut most, mut started) = (0, 0, Vec::new());
    for event in &events {
        match event["event"].as_str() {
            Some("vm-started") => {
                started.push(of(event));
                at_once += 1;
                most = most.max(at_once);
            }
            Some("vm-ended") => {
                at_once -= 1;
                assert_eq!(event["ok"], of(event) != broken.to_string(), "{event}");
            }
            _ => {}
        }
    }
    assert_eq!((most, started.len()), (PARALLEL, vms.len()), "{text}");
    assert_eq!(
        started.last(),
        Some(&last.to_string()),
        "the most overdue go first"
    );
    let report = event(&events, "fleet");
    assert_eq!(
        (&report["done"], &report["failed"]),
        (&(count - 1).into(), &1.into())
    );
    for &vm in vms.iter().filter(|vm| **vm != broken) {
        let head = format!("/dev/pve/vm-{vm}-disk-0");
        let sealed = format!(
            "/dev/pve/snap_vm-{vm}-disk-0_rbs{}",
            1 + u32::from(vm == last)
        );
        let source = digests(a, &[&head])?;
        assert_eq!(digests(lab.b(), &[&sealed])?, source, "VM {vm}");
    }
    expect(
        lab.b(),
        &format!("qm status {broken}"),
        255,
        &["does not exist"],
    )?;
    let watched = a.run_ok(
        "sort -n /tmp/fleet.watch | tail -n 1; sort -n -k 2 /tmp/fleet.watch | tail -n 1",
    )?;
    println!(
        "{count} VMs, {PARALLEL} at once: {} s; most processes, and KiB: {}",
        report["seconds"],
        watched.replace('\n', " | ")
    );
    assert_source_clean(a)
}
