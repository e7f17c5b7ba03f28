//! The lab tested on itself: what the product's tests rely on is there and real.

use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tests::lab::pattern::{self, Violation, REGION};
use tests::lab::{suite, Error, Guest, Lab, Options, Result};
use tests::named;

/// Set in the process that is to be killed while it holds a lab.
const VICTIM: &str = "LAB_SELFTEST_VICTIM";

fn main() -> ExitCode {
    if std::env::var_os(VICTIM).is_some() {
        return victim();
    }
    suite::run(
        Options::default(),
        named![
            a_killed_process_leaves_no_guests,
            the_thin_pool_is_real,
            both_storages_do_what_proxmox_needs,
            guests_reach_each_other_by_ssh,
            the_link_can_be_slow_and_cut,
            background_commands_can_be_killed,
            files_travel_unchanged,
            a_power_cut_keeps_what_was_synced,
            a_locked_vm_does_not_start,
            a_running_vm_writes_in_order_on_two_thin_volumes,
            a_running_vm_writes_on_a_file_too_and_goes_on_after_a_restart,
        ],
    )
}

/// Holds a lab until killed.
fn victim() -> ExitCode {
    match Lab::up(Options::default()) {
        Ok(lab) => {
            let pids = [lab.a(), lab.b()].map(|guest| guest.pid().unwrap_or(0));
            println!("{} {} {}", pids[0], pids[1], lab.a().run_dir().display());
            loop {
                std::thread::park();
            }
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn a_killed_process_leaves_no_guests(_: &Lab) -> Result<()> {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("start this program again");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe"))
        .read_line(&mut line)
        .expect("its report");
    let words: Vec<&str> = line.split_whitespace().collect();
    let [a, b, dir] = words[..] else {
        panic!("the victim says {line:?}")
    };
    let lives = |pid: &str| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|text| text.windows(4).any(|w| w == b"qemu"))
    };
    assert!(lives(a) && lives(b), "two guests run");
    child.kill().expect("kill");
    child.wait().expect("wait");
    until("the guests' end", || Ok(!lives(a) && !lives(b)))?;
    assert!(
        std::path::Path::new(dir).exists(),
        "nobody was left to remove it"
    );
    tests::lab::reap();
    assert!(
        !std::path::Path::new(dir).exists(),
        "the next lab removes it"
    );
    Ok(())
}

fn the_thin_pool_is_real(lab: &Lab) -> Result<()> {
    let b = lab.b();
    b.run_ok("lvcreate -qq -V 64m -n t0 --thinpool pve/data && dd if=/dev/urandom of=/dev/pve/t0 bs=1M count=4 oflag=direct status=none")?;
    b.run_ok("lvcreate -qq -kn -n t1 -s pve/t0")?;
    b.run_ok("dd if=/dev/urandom of=/dev/pve/t0 bs=4k count=1 seek=20 oflag=direct status=none && lvcreate -qq -kn -n t2 -s pve/t0")?;
    let delta = b.run_ok(
        "set -e; dmsetup message pve-data-tpool 0 reserve_metadata_snap
         id() { lvs --noheadings -o thin_id pve/$1 | tr -d ' '; }
         thin_delta -m --snap1 $(id t1) --snap2 $(id t2) /dev/mapper/pve-data_tmeta
         dmsetup message pve-data-tpool 0 release_metadata_snap",
    )?;
    assert!(
        delta.contains(r#"data_block_size="128""#),
        "64 KiB chunks: {delta}"
    );
    assert!(
        delta.contains(r#"<different begin="1" length="1"/>"#),
        "one chunk differs, the second: {delta}"
    );
    b.run_ok("lvremove -qq -y pve/t2 pve/t1 pve/t0")?;
    Ok(())
}

fn both_storages_do_what_proxmox_needs(lab: &Lab) -> Result<()> {
    let a = lab.a();
    assert_eq!(a.run_ok("findmnt -no FSTYPE /var/lib/vz")?, "xfs");
    a.run_ok("cd /var/lib/vz/images/101 && cp --reflink=always vm-101-disk-0.raw x && cmp vm-101-disk-0.raw x && rm x")?;
    let sizes = a.run_ok("lvs --noheadings --units m --nosuffix -o lv_name,lv_size pve | grep -w vm-101-disk-0; stat -c '%s %b' /var/lib/vz/images/101/vm-101-disk-0.raw")?;
    let words: Vec<&str> = sizes.split_whitespace().collect();
    assert_eq!(words[..3], ["vm-101-disk-0", "256.00", "67108864"]);
    let sectors: u64 = words[3].parse().expect("a count of sectors");
    assert!(
        (10_000..20_000).contains(&sectors),
        "about 8 MiB of data, sparse: {sectors} sectors"
    );
    assert_eq!(
        a.run_ok("readlink -f /etc/pve/qemu-server/101.conf")?,
        "/etc/pve/nodes/hva/qemu-server/101.conf"
    );
    assert_eq!(
        lab.b()
            .run_ok("ls /etc/pve/nodes/hvb/qemu-server; ls /etc/pve/local/")?,
        "qemu-server"
    );
    Ok(())
}

fn guests_reach_each_other_by_ssh(lab: &Lab) -> Result<()> {
    assert_eq!(lab.a().run_ok("ssh -o BatchMode=yes hvb hostname")?, "hvb");
    assert_eq!(
        lab.b().run_ok("ssh -o BatchMode=yes 10.77.0.1 hostname")?,
        "hva"
    );
    // hvb's name with hva's address: the key is the wrong one.
    let wrong = lab
        .a()
        .run("ssh -o BatchMode=yes -o HostName=10.77.0.1 -o HostKeyAlias=hvb hvb hostname")?;
    assert_eq!(wrong.status, 255);
    assert!(
        wrong.stderr.contains("Host key verification failed"),
        "{}",
        wrong.stderr
    );
    Ok(())
}

fn the_link_can_be_slow_and_cut(lab: &Lab) -> Result<()> {
    let ping = "busybox ping -c 2 -W 1 hvb";
    let round_trip = || -> Result<f64> {
        let text = lab.a().run_ok(ping)?;
        let average = text
            .rsplit("= ")
            .next()
            .and_then(|times| times.split('/').nth(1));
        average
            .and_then(|ms| ms.parse().ok())
            .ok_or_else(|| Error::new(format!("ping says {text}")))
    };
    lab.set_link(150, 0.0)?;
    let slow = round_trip()?;
    assert!(slow >= 300.0, "{slow} ms");
    lab.cut_link()?;
    assert!(!lab.a().run(ping)?.success());
    lab.mend_link()?;
    lab.mend_link()?;
    let fast = round_trip()?;
    assert!(fast < 300.0, "{fast} ms");
    Ok(())
}

fn background_commands_can_be_killed(lab: &Lab) -> Result<()> {
    let a = lab.a();
    let done = a.spawn("echo out; echo err >&2; exit 3")?.wait()?;
    assert_eq!(
        (done.status, done.stdout.as_str(), done.stderr.as_str()),
        (3, "out\n", "err\n")
    );
    let mut endless = a.spawn("tail -f /dev/null | cat")?;
    let group = format!("pgrep -g {} -x 'tail|cat' | wc -l", endless.pid());
    until("the pipeline", || Ok(a.run_ok(&group)? == "2"))?;
    assert!(endless.is_running()?);
    endless.signal("KILL")?;
    assert_ne!(endless.wait()?.status, 0);
    assert_eq!(a.run_ok(&group)?, "0");
    let dropped = a.spawn("tail -f /dev/null")?;
    let pid = dropped.pid();
    drop(dropped);
    until("its end", || {
        Ok(!a.run(&format!("kill -0 {pid}"))?.success())
    })
}

fn files_travel_unchanged(lab: &Lab) -> Result<()> {
    let bytes: Vec<u8> = (0..300_000u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let path = "/root/it's a $(file)\n-x";
    lab.b().write_file(path, bytes.clone())?;
    assert!(lab.b().read_file(path)? == bytes);
    let error = lab
        .b()
        .read_file("/no/such/file")
        .expect_err("no such file")
        .to_string();
    assert!(error.contains("No such file"), "{error}");
    Ok(())
}

fn a_power_cut_keeps_what_was_synced(lab: &Lab) -> Result<()> {
    let b = lab.b();
    let boot = b.run_ok("cat /proc/sys/kernel/random/boot_id")?;
    b.run_ok(
        "set -e; lvcreate -qq -V 8m -n cut --thinpool pve/data
         dd if=/dev/urandom of=/dev/pve/cut bs=64k count=16 conv=fsync status=none
         dd if=/dev/pve/cut of=/var/lib/copy bs=64k count=16 conv=fsync status=none
         echo volatile > /run/marker; echo kept > /etc/pve/marker; echo kept > /root/marker; sync",
    )?;
    b.power_cut();
    assert_eq!(b.pid(), None);
    assert_eq!(b.run("true")?.status, 255, "nobody answers");
    b.boot_again()?;
    assert_ne!(b.run_ok("cat /proc/sys/kernel/random/boot_id")?, boot);
    b.run_ok("lvchange -ay pve/cut && cmp -n 1048576 /dev/pve/cut /var/lib/copy && grep -qx kept /etc/pve/marker /root/marker")?;
    assert!(
        !b.run("test -e /run/marker")?.success(),
        "/run does not outlive a boot"
    );
    b.run_ok("lvremove -qq -y pve/cut")?;
    assert_eq!(lab.a().run_ok("ssh hvb hostname")?, "hvb");
    Ok(())
}

fn a_locked_vm_does_not_start(lab: &Lab) -> Result<()> {
    let a = lab.a();
    a.run_ok("sed -i '1i lock: migrate' /etc/pve/qemu-server/102.conf")?;
    let refused = a.run("qm start 102")?;
    a.run_ok("sed -i '/^lock:/d' /etc/pve/qemu-server/102.conf")?;
    assert_eq!(
        (refused.status, refused.stderr.trim()),
        (255, "VM is locked (migrate)")
    );
    assert_eq!(a.run_ok("qm status 102")?, "status: stopped");
    let unknown = a.run("qm start 999")?;
    assert_eq!(
        unknown.stderr.trim(),
        "Configuration file 'nodes/hva/qemu-server/999.conf' does not exist"
    );
    Ok(())
}

fn a_running_vm_writes_in_order_on_two_thin_volumes(lab: &Lab) -> Result<()> {
    let a = lab.a();
    a.run_ok("qm start 102")?;
    assert_eq!(a.run_ok("qm status 102")?, "status: running");
    let disks = ["/dev/pve/vm-102-disk-0", "/dev/pve/vm-102-disk-1"];
    until("writes on both disks", || {
        Ok(has_begun(a, disks[0])? && has_begun(a, disks[1])?)
    })?;

    let mut monitor = a.qmp(102)?;
    monitor.execute("stop", json!({}))?;
    assert_eq!(
        monitor.execute("query-status", json!({}))?["status"],
        "paused"
    );
    let before = newest(a, disks[0])?.max(newest(a, disks[1])?);
    a.run_ok("for i in 0 1; do lvcreate -qq -kn -pr -n now-$i -s pve/vm-102-disk-$i; done")?;
    monitor.execute("cont", json!({}))?;
    assert_eq!(
        monitor.execute("query-status", json!({}))?["status"],
        "running"
    );
    drop(monitor);

    let regions = [region(a, "/dev/pve/now-0")?, region(a, "/dev/pve/now-1")?];
    let report = pattern::check_regions(&regions).map_err(told)?;
    assert_eq!(report.writes, before, "nothing is written while paused");
    until("more writes", || Ok(newest(a, disks[1])? > before + 20))?;

    // A pair that is not of one moment, to see that the check would have told.
    a.run_ok("lvcreate -qq -kn -pr -n later-1 -s pve/vm-102-disk-1")?;
    let mixed = pattern::check_regions(&[regions[0].clone(), region(a, "/dev/pve/later-1")?]);
    assert!(matches!(
        mixed.expect_err("two moments")[..],
        [Violation::Behind { disk: 0, .. }, ..]
    ));

    a.run_ok("qm stop 102 && lvremove -qq -y pve/now-0 pve/now-1 pve/later-1")?;
    assert_eq!(
        a.run_ok("qm status 102; pgrep -c qemu-system || true")?,
        "status: stopped\n0"
    );
    Ok(())
}

fn a_running_vm_writes_on_a_file_too_and_goes_on_after_a_restart(lab: &Lab) -> Result<()> {
    let a = lab.a();
    let (volume, file) = (
        "/dev/pve/vm-101-disk-0",
        "/var/lib/vz/images/101/vm-101-disk-0.raw",
    );
    a.run_ok("qm start 101")?;
    until("writes on both disks", || {
        Ok(has_begun(a, volume)? && has_begun(a, file)?)
    })?;
    let mut monitor = a.qmp(101)?;
    monitor.execute("stop", json!({}))?;
    a.run_ok(&format!("lvcreate -qq -kn -pr -n now -s pve/vm-101-disk-0 && cp --reflink=always {file} /var/lib/vz/now"))?;
    monitor.execute("cont", json!({}))?;
    drop(monitor);
    let report =
        pattern::check_regions(&[region(a, "/dev/pve/now")?, region(a, "/var/lib/vz/now")?])
            .map_err(told)?;
    assert!(report.writes > 0);

    a.run_ok("qm stop 101; qm start 101")?;
    let stopped = newest(a, volume)?.max(newest(a, file)?);
    until("the writer to go on", || {
        Ok(newest(a, volume)? > stopped && newest(a, file)? > stopped)
    })?;
    a.run_ok("qm stop 101")?;
    let report = pattern::check_regions(&[region(a, volume)?, region(a, file)?]).map_err(told)?;
    assert!(report.writes > stopped);
    a.run_ok("lvremove -qq -y pve/now; rm /var/lib/vz/now")?;
    Ok(())
}

/// The writer's region of a disk in a guest.
fn region(guest: &Guest, path: &str) -> Result<Vec<u8>> {
    slots(guest, path, pattern::SLOTS)
}

/// The first slots of the writer's region.
fn slots(guest: &Guest, path: &str, count: u64) -> Result<Vec<u8>> {
    let skip = REGION.start / pattern::SLOT;
    guest.read_command(&format!(
        "dd if={path} bs={} skip={skip} count={count} iflag=direct status=none",
        pattern::SLOT
    ))
}

/// The highest write on a disk.
fn newest(guest: &Guest, path: &str) -> Result<u32> {
    Ok(pattern::newest(&region(guest, path)?))
}

/// Whether the writer has been through the first ten slots of a disk: far cheaper to ask than [`newest`].
fn has_begun(guest: &Guest, path: &str) -> Result<bool> {
    Ok(pattern::newest(&slots(guest, path, 10)?[9 * pattern::SLOT as usize..]) > 0)
}

fn told(violations: Vec<Violation>) -> Error {
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    Error::new(lines.join("\n"))
}

/// Asks until it is so, for at most a minute.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so()? {
        if Instant::now() > deadline {
            return Err(Error::new(format!("{what}: not within a minute")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
