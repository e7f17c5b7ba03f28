//! What the tests of `pvesync` share: running it, and looking at both hosts independently of it.

pub mod small;

use crate::lab::pattern::{self, Report};
use crate::lab::{quote, Background, Guest, Lab, Output, Result};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Longest time anything is waited for.
pub const LONG: Duration = Duration::from_secs(240);

/// Runs a command that must end with this exit code and say all these words; returns what it said.
pub fn expect(guest: &Guest, script: &str, code: i32, words: &[&str]) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = guest.run(script)?;
    let text = format!("{stdout}{stderr}");
    assert_eq!(status, code, "{script}: {text}");
    for word in words {
        assert!(text.contains(word), "{script}: no {word:?} in {text}");
    }
    Ok(text)
}

/// Runs a sync that must succeed; its events.
pub fn sync(lab: &Lab, arguments: &str) -> Result<Vec<Value>> {
    let text = lab.a().run_ok(&format!("pvesync vm {arguments} --json"))?;
    let parse = |line: &str| -> Value {
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?} is no event: {e}"))
    };
    Ok(text.lines().map(parse).collect())
}

/// The only event of this kind.
pub fn event<'a>(events: &'a [Value], kind: &str) -> &'a Value {
    let mut found = events.iter().filter(|e| e["event"] == kind);
    match (found.next(), found.next()) {
        (Some(event), None) => event,
        _ => panic!("not one {kind} event: {events:?}"),
    }
}

/// Sum of a counter over all disks of a `sealed` event.
pub fn total(events: &[Value], pointer: &str) -> u64 {
    let disks = event(events, "sealed")["disks"].as_array();
    let disks = disks.expect("a list of disks").iter();
    disks
        .map(|d| d["summary"].pointer(pointer).and_then(Value::as_u64))
        .map(|number| number.unwrap_or_else(|| panic!("no number {pointer} in {events:?}")))
        .sum()
}

/// Has every call of LVM on a host noted, until [`lvm_calls`].
pub fn note_lvm_calls(guest: &Guest) -> Result<()> {
    guest
        .run_ok(
            r#"set -e; rm -f /tmp/lvm.calls; lvm=$(readlink -f /usr/sbin/lvm); mv $lvm $lvm.real
         printf '#!/bin/bash\necho "${0##*/} $*" >> /tmp/lvm.calls\nexec -a "$0" %s.real "$@"\n' $lvm > $lvm
         chmod 755 $lvm"#,
        )
        .map(drop)
}

/// The calls since [`note_lvm_calls`], and no more of them are noted.
pub fn lvm_calls(guest: &Guest) -> Result<Vec<String>> {
    let text = guest.run_ok(
        "set -e; lvm=$(readlink -f /usr/sbin/lvm); mv $lvm.real $lvm; touch /tmp/lvm.calls; cat /tmp/lvm.calls",
    )?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// All that must not change on a host when something is refused: volumes, files, configuration, state.
/// Locks, the journal of runs and times of access do not count.
pub fn state(guest: &Guest) -> Result<String> {
    guest.run_ok(
        "lvs --noheadings -o lv_name,lv_uuid,lv_size,lv_tags,lv_skip_activation pve
         find /var/lib/vz -type f -printf '%p %s %T@ %m %i\\n' | sort
         find /etc/pve /var/lib/rblocksync -type f ! -path '*/lock/*' ! -name 'journal.db*' -printf '%p %T@ ' -exec sha256sum {} \\; | sort",
    )
}

/// Both hosts' [`state`].
pub fn states(lab: &Lab) -> Result<(String, String)> {
    Ok((state(lab.a())?, state(lab.b())?))
}

/// SHA-256 of volumes and files. Thin volumes that were inactive are so again afterwards.
pub fn digests(guest: &Guest, paths: &[&str]) -> Result<Vec<String>> {
    paths.iter().map(|path| digest(guest, path)).collect()
}

fn digest(guest: &Guest, path: &str) -> Result<String> {
    let path = quote(path);
    let text = guest.run_ok(&format!(
        "set -e; opened=; case {path} in /dev/pve/*) [ -e {path} ] || {{ lvchange -qq -ay -K {path}; opened=1; }};; esac
         sha256sum {path}; [ -z \"$opened\" ] || lvchange -qq -an {path}"
    ))?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

/// Checks that the images show one instant, and tells which. Thin volumes must not be in use.
pub fn one_instant(guest: &Guest, paths: &[&str]) -> Result<Report> {
    let mut regions = Vec::new();
    for path in paths {
        let path = quote(path);
        regions.push(guest.read_command(&format!(
            "set -e; case {path} in /dev/pve/*) lvchange -qq -ay -K {path};; esac
             dd if={path} bs=1M skip=1 count=2 status=none
             case {path} in /dev/pve/*) lvchange -qq -an {path};; esac"
        ))?);
    }
    Ok(pattern::check_regions(&regions).unwrap_or_else(|bad| panic!("{paths:?}: {bad:?}")))
}

/// The newest write on a disk that its VM is writing to.
pub fn newest_write(guest: &Guest, device: &str) -> Result<u32> {
    let read = format!("dd if={device} bs=1M skip=1 count=2 iflag=direct status=none");
    Ok(pattern::newest(&guest.read_command(&read)?))
}

/// Waits until the VM has written this often.
pub fn wait_for_writes(guest: &Guest, device: &str, at_least: u32) -> Result<u32> {
    let deadline = Instant::now() + LONG;
    loop {
        let newest = newest_write(guest, device)?;
        if newest >= at_least {
            return Ok(newest);
        }
        assert!(Instant::now() < deadline, "stuck at write {newest}");
    }
}

/// The VM runs, by its own monitor.
pub fn assert_running(guest: &Guest, vmid: u32) -> Result<()> {
    let status = guest
        .qmp(vmid)?
        .execute("query-status", serde_json::json!({}))?;
    assert_eq!(status["status"], "running", "VM {vmid}");
    Ok(())
}

/// Nothing that a run makes for itself is left on the source.
pub fn assert_source_clean(guest: &Guest) -> Result<()> {
    let left = guest.run_ok(
        "lvs --noheadings -o lv_name,lv_tags pve | grep rbs | grep -v rbs.sent=
         lvs --noheadings -o lv_name,lv_tags pve | grep rbs.sent= | grep rbs.pit=
         find /var/lib/vz -name '*rbs*'; find /tmp -maxdepth 1 -name 'rblocksync*'
         grep -l '^lock:' /etc/pve/qemu-server/*.conf
         dmsetup status pve-data-tpool | awk '$7 != \"-\" { print \"metadata snapshot held\" }'
         pgrep -x pvesync; true",
    )?;
    assert_eq!(left, "", "left on the source");
    Ok(())
}

/// A sync that has got as far as moving data, and will take a while.
pub fn half_way<'a>(lab: &'a Lab, arguments: &str) -> Result<Background<'a>> {
    let a = lab.a();
    a.run_ok("rm -f /tmp/run.log")?;
    let mut run = a.spawn(&format!(
        "exec pvesync vm {arguments} --json --compress off --bwlimit 100K > /tmp/run.log 2>&1"
    ))?;
    let deadline = Instant::now() + LONG;
    while !a.run("grep -q '\"sent\":[1-9]' /tmp/run.log")?.success() {
        assert!(
            run.is_running()? && Instant::now() < deadline,
            "the sync moves nothing: {}",
            a.run_ok("cat /tmp/run.log")?
        );
    }
    Ok(run)
}

/// What the run started by [`half_way`] said.
pub fn said(lab: &Lab) -> Result<String> {
    lab.a().run_ok("cat /tmp/run.log")
}
