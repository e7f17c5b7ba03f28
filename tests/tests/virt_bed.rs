//! The bed of two libvirtd tested on itself: what the product's tests rely on is there and real.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tests::named;
use tests::virt::{suite, Bed, Disk, Result, Vm};

/// Set in the process that is to be killed while it holds a bed.
const VICTIM: &str = "VIRT_BED_VICTIM";

fn main() -> ExitCode {
    if std::env::var_os(VICTIM).is_some() {
        return victim();
    }
    suite::run(named![
        the_nodes_are_two_hosts,
        a_vm_moves_with_its_storage_and_loses_no_write,
        an_order_to_shut_down_is_obeyed,
        a_lost_write_is_found,
        a_hook_can_refuse_a_start,
        a_daemon_may_end_while_its_guests_run,
        the_link_can_be_slow_and_cut,
        background_commands_can_be_killed,
        a_killed_process_leaves_no_nodes,
    ])
}

fn the_nodes_are_two_hosts(bed: &Bed) -> Result<()> {
    let (a, b) = (bed.a(), bed.b());
    assert_eq!(a.run_ok("ssh -o BatchMode=yes kvb hostname")?, "kvb");
    assert_eq!(b.run_ok("ssh -o BatchMode=yes kva hostname")?, "kva");
    for uri in [b.peer_uri(), "qemu+ssh://kvb/system".to_owned()] {
        assert_eq!(a.run_ok(&format!("virsh -c {uri} hostname"))?, "kvb");
    }
    a.write_file("/etc/libvirt/marker", "a", 0o600)?;
    assert!(!b.run("test -e /etc/libvirt/marker")?.success());
    assert!(!std::path::Path::new("/etc/libvirt/marker").exists());
    assert_eq!(a.read_file("/etc/libvirt/marker")?, b"a");
    let pools = b.virsh_ok("pool-list --name")?;
    assert_eq!(pools, "default");
    Ok(())
}

fn a_vm_moves_with_its_storage_and_loses_no_write(bed: &Bed) -> Result<()> {
    let (a, b) = (bed.a(), bed.b());
    let vm = Vm::with_all_kinds("web01");
    a.boot(&vm)?;
    b.make_disks(&vm)?;
    let before = a.writes(&vm);
    a.virsh_ok(&format!(
        "migrate --live --p2p --persistent --undefinesource --copy-storage-all web01 {}",
        b.peer_uri()
    ))?;
    assert_eq!(a.state("web01")?, None);
    assert_eq!(b.state("web01")?.as_deref(), Some("running"));
    let known = a.writes(&vm);
    assert!(known > before, "it went on while it moved");
    b.wait_for_writes(&vm, known + 20)?;
    let known = b.writes(&vm);
    b.virsh_ok("destroy web01")?;
    let report = b.check(&vm)?;
    assert!(report.writes >= known, "{} of {known}", report.writes);
    a.forget(&vm)?;
    b.forget(&vm)
}

fn an_order_to_shut_down_is_obeyed(bed: &Bed) -> Result<()> {
    let (a, vm) = (bed.a(), Vm::with_all_kinds("web01"));
    a.boot(&vm)?;
    a.virsh_ok("shutdown web01")?;
    a.until("the end of web01", || {
        Ok(a.state("web01")?.as_deref() == Some("shut off"))
    })?;
    assert_eq!(
        a.virsh_ok("domstate --reason web01")?,
        "shut off (shutdown)"
    );
    assert_eq!(a.check(&vm)?.writes, a.writes(&vm));
    a.forget(&vm)
}

fn a_lost_write_is_found(bed: &Bed) -> Result<()> {
    let (a, vm) = (bed.a(), Vm::with_all_kinds("web01"));
    a.boot(&vm)?;
    a.wait_for_writes(&vm, 30)?;
    a.virsh_ok("destroy web01")?;
    a.check(&vm)?;
    // The second slot of the raw disk.
    let raw: &Disk = &vm.disks[1];
    a.run_ok(&format!(
        "dd if=/dev/zero of='{}' bs=4k seek=257 count=1 conv=notrunc status=none",
        raw.path
    ))?;
    let error = a.check(&vm).expect_err("a slot is lost").to_string();
    assert!(
        error.contains("disk 1 slot 1 lacks write 5, holds 0"),
        "{error}"
    );
    a.forget(&vm)
}

fn a_hook_can_refuse_a_start(bed: &Bed) -> Result<()> {
    let (a, vm) = (bed.a(), Vm::with_all_kinds("web01"));
    a.make_disks(&vm)?;
    a.define(&vm)?;
    a.hook(
        "50-no",
        "#!/bin/sh\n[ \"$2\" != prepare ] || { echo no start today >&2; exit 7; }\n",
    )?;
    let refused = a.virsh("start web01")?;
    a.run_ok("rm /etc/libvirt/hooks/qemu.d/50-no")?;
    assert!(
        refused.stderr.contains("no start today"),
        "{}",
        refused.stderr
    );
    a.virsh_ok("start web01")?;
    a.forget(&vm)
}

fn a_daemon_may_end_while_its_guests_run(bed: &Bed) -> Result<()> {
    let (a, vm) = (bed.a(), Vm::with_all_kinds("web01"));
    a.boot(&vm)?;
    a.end_daemon("KILL")?;
    assert!(!a.virsh("list")?.success());
    a.wait_for_writes(&vm, a.writes(&vm) + 10)?;
    a.start_daemon()?;
    assert_eq!(a.state("web01")?.as_deref(), Some("running"));
    a.kill_guest("web01")?;
    a.until("libvirt to see it", || {
        Ok(a.state("web01")?.as_deref() == Some("shut off"))
    })?;
    a.forget(&vm)
}

fn the_link_can_be_slow_and_cut(bed: &Bed) -> Result<()> {
    let ping = "busybox ping -c 2 -W 1 kvb";
    let sending = "ssh -o BatchMode=yes -o Compression=no kvb 'head -c 3072k /dev/zero' | wc -c";
    let timed = || -> Result<Duration> {
        let began = Instant::now();
        bed.a().run_ok(sending)?;
        Ok(began.elapsed())
    };
    bed.slow_link("8mbit")?;
    // A megabyte a second; a burst and what is on the way do not count.
    let slow = timed()?;
    assert!(slow > Duration::from_secs(2), "{slow:?}");
    bed.cut_link()?;
    assert!(!bed.a().run(ping)?.success());
    bed.mend_link()?;
    bed.mend_link()?;
    bed.a().run_ok(ping).map(drop)
}

fn background_commands_can_be_killed(bed: &Bed) -> Result<()> {
    let a = bed.a();
    let done = a.spawn("echo out; echo err >&2; exit 3")?.wait()?;
    assert_eq!(
        (done.status, done.stdout.as_str(), done.stderr.as_str()),
        (3, "out\n", "err\n")
    );
    let mut endless = a.spawn("tail -f /dev/null | cat")?;
    assert!(endless.is_running()?);
    let group = format!("pgrep -g {} | wc -l", endless.pid());
    a.until("the pipeline", || Ok(a.run_ok(&group)? == "3"))?;
    endless.signal("KILL")?;
    assert_ne!(endless.wait()?.status, 0);
    assert_eq!(a.run_ok(&group)?, "0");
    Ok(())
}

/// Holds a bed with a running VM until killed.
fn victim() -> ExitCode {
    let hold = || -> Result<()> {
        let bed = Bed::up()?;
        let vm = Vm::with_all_kinds("victim");
        bed.a().boot(&vm)?;
        let device = bed.a().run_ok(&format!("readlink {}", vm.disks[2].path))?;
        println!("{} {} {device}", bed.a().init(), bed.b().init());
        loop {
            std::thread::park();
        }
    };
    if let Err(e) = hold() {
        eprintln!("{e}");
    }
    ExitCode::FAILURE
}

fn a_killed_process_leaves_no_nodes(bed: &Bed) -> Result<()> {
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
    let [a, b, device] = words[..] else {
        panic!("the victim says {line:?}")
    };
    let lives = |pid: &str| std::path::Path::new("/proc").join(pid).exists();
    assert!(lives(a) && lives(b), "two nodes");
    let attached = || {
        let sys = device.replace("/dev/", "/sys/block/") + "/loop/backing_file";
        std::fs::read_to_string(sys).is_ok_and(|file| file.contains("-victim-"))
    };
    assert!(attached());
    child.kill().expect("kill");
    child.wait().expect("wait");
    bed.a().until("the nodes' end", || {
        Ok(!lives(a) && !lives(b) && !attached())
    })
}
