//! `virt-blocksync` and domains that run, on the bed: points in time through libvirt's backup jobs, and moving a guest with
//! its memory.
//!
//! The guest numbers its writes over three disks in turn (qcow2, a raw file, a block device), so any image of them of one
//! instant holds exactly the writes up to some number, and a guest that was booted anew would begin by reading, not by the
//! next number on its serial line.

use std::process::ExitCode;
use tests::cli::virt_blocksync;
use tests::named;
use tests::virt::{repetitions, suite, Bed, Medium, Result, Vm};

/// Where disks go that have no pool of their own, and the disk that the guest boots from, which all nodes have.
const HOW: &str = "--pool vdc=default --exclude vdz";

fn main() -> ExitCode {
    suite::run(named![
        a_running_domain_is_synced_as_of_one_instant,
        a_killed_qemu_is_compared_with_all_of_it,
        a_backup_of_somebody_else_is_told,
        a_killed_driver_leaves_the_guest_running,
        a_guest_moves_with_its_memory,
        a_guest_moves_by_a_restart,
        a_guest_that_may_not_come_in_stays,
        a_killed_move_leaves_one_guest,
        a_restarted_daemon_does_not_end_a_sync,
    ])
}

fn install(bed: &Bed) -> Result<()> {
    for node in [bed.a(), bed.b()] {
        node.install(virt_blocksync(), "/usr/bin/virt-blocksync")?;
    }
    Ok(())
}

fn a_running_domain_is_synced_as_of_one_instant(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b, vm) = (bed.a(), bed.b(), Vm::with_all_kinds("web01"));
    a.boot(&vm)?;
    let sync = format!("virt-blocksync vm web01 --to kvb {HOW}");
    for round in 0..3 {
        let before = a.writes(&vm);
        let said = a.run_ok(&sync)?;
        assert!(said.contains("crash consistent"), "{said}");
        // libvirt keeps a record for the qcow2 disk, and none for the others.
        let compared = said.contains("vda: everything is compared");
        assert!(!compared, "round {round}: {said}");
        assert_eq!(
            said.contains("vdb: everything is compared"),
            round > 0,
            "{said}"
        );
        assert!(b.replica_writes(&vm)? >= before);
        assert!(a.is_running(&vm)?);
        let names = a.virsh_ok("checkpoint-list web01 --name")?;
        assert_eq!(names.lines().count(), 1, "the last one only: {names}");
        let left = a.run_ok("find /var/lib/rblocksync/scratch -type f | wc -l")?;
        assert_eq!(left, "0", "scratch files");
        a.wait_for_writes(&vm, a.writes(&vm) + 6)?;
    }
    a.forget(&vm)?;
    b.forget(&vm)
}

fn a_killed_qemu_is_compared_with_all_of_it(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b, vm) = (bed.a(), bed.b(), Vm::with_all_kinds("web02"));
    a.boot(&vm)?;
    let sync = format!("virt-blocksync vm web02 --to kvb {HOW}");
    a.run_ok(&sync)?;
    a.kill_guest("web02")?;
    a.until("libvirt to see it", || {
        Ok(a.state("web02")?.as_deref() == Some("shut off"))
    })?;
    let known = a.writes(&vm);
    a.virsh_ok("start web02")?;
    a.wait_for_writes(&vm, known + 6)?;
    let said = a.run_ok(&sync)?;
    assert!(said.contains("vda: everything is compared"), "{said}");
    assert!(said.contains("inconsistent"), "{said}");
    assert!(b.replica_writes(&vm)? >= known);
    // From then on it is known again.
    let said = a.run_ok(&sync)?;
    assert!(!said.contains("vda: everything is compared"), "{said}");
    b.replica_writes(&vm)?;
    a.forget(&vm)?;
    b.forget(&vm)
}

fn a_backup_of_somebody_else_is_told(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b, vm) = (bed.a(), bed.b(), Vm::new("web03").disk(Medium::Qcow2));
    a.boot(&vm)?;
    a.virsh_with(
        "backup-begin web03",
        "<domainbackup mode='pull'><server transport='unix' socket='/run/theirs.sock'/><disks>\
         <disk name='vda' backup='yes' type='file'><scratch file='/var/lib/libvirt/images/theirs'/></disk>\
         <disk name='vdz' backup='no'/></disks></domainbackup>",
    )?;
    let refused = a.run("virt-blocksync vm web03 --to kvb --exclude vdz")?;
    assert!(!refused.success(), "{refused:?}");
    assert!(
        refused.stderr.contains("a backup is under way"),
        "{refused:?}"
    );
    assert!(a.is_running(&vm)?);
    assert!(
        a.virsh_ok("domjobinfo web03")?.contains("Backup"),
        "theirs goes on"
    );
    a.virsh_ok("domjobabort web03")?;
    a.run_ok("virt-blocksync vm web03 --to kvb --exclude vdz")?;
    b.replica_writes(&vm)?;
    a.run_ok("rm -f /var/lib/libvirt/images/theirs")?;
    a.forget(&vm)?;
    b.forget(&vm)
}

fn a_killed_driver_leaves_the_guest_running(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b, vm) = (bed.a(), bed.b(), Vm::with_all_kinds("web04"));
    a.boot(&vm)?;
    let sync = format!("virt-blocksync vm web04 --to kvb {HOW}");
    a.run_ok(&sync)?;
    // With the guest held and the backup begun.
    let killed = a.run(&format!("RBLOCKSYNC_CRASH_AT=held {sync}"))?;
    assert!(!killed.success(), "{killed:?}");
    a.until("the guest to go on", || a.is_running(&vm))?;
    let known = a.writes(&vm);
    a.wait_for_writes(&vm, known + 6)?;
    assert!(a.virsh_ok("domjobinfo web04")?.contains("Backup"), "left");
    // The next run ends what is left, and knows what changed all the while.
    let said = a.run_ok(&sync)?;
    assert!(!said.contains("vda: everything is compared"), "{said}");
    assert!(b.replica_writes(&vm)? >= known);
    let left = a.run_ok("find /var/lib/rblocksync/scratch -type f | wc -l")?;
    assert_eq!(left, "0", "scratch files");
    a.forget(&vm)?;
    b.forget(&vm)
}

/// Restarted while the disks are read, just before a point in time begins, and when it has begun and the guest is still held:
/// then it is undone and taken again.
fn a_restarted_daemon_does_not_end_a_sync(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b, vm) = (bed.a(), bed.b(), Vm::with_all_kinds("web05"));
    a.boot(&vm)?;
    for (moment, is_again) in [("journal transfer", false), ("begin", true), ("held", true)] {
        let known = a.writes(&vm);
        let sync = a.spawn(&format!(
            "RBLOCKSYNC_STOP_AT='{moment}' virt-blocksync vm web05 --to kvb --hold-max 60 {HOW}"
        ))?;
        let until_it_stops = || {
            a.until(&format!("the driver to stop at {moment}"), || {
                let states = a.run_ok("ps -o stat= -C virt-blocksync || true")?;
                Ok(states.lines().any(|s| s.trim_start().starts_with('T')))
            })
        };
        until_it_stops()?;
        a.end_daemon("KILL")?;
        a.start_daemon()?;
        sync.signal("CONT")?;
        if is_again {
            // It gets there a second time.
            until_it_stops()?;
            sync.signal("CONT")?;
        }
        let done = sync.wait()?;
        assert_eq!(done.status, 0, "{moment}: {done:?}");
        assert_eq!(
            done.stdout.contains("was taken again"),
            is_again,
            "{done:?}"
        );
        // What was begun twice has left one record, which can be relied on.
        let first = moment == "journal transfer";
        let compared = done.stdout.contains("vda: everything is compared");
        assert!(first || !compared, "{moment}: {done:?}");
        let names = a.virsh_ok("checkpoint-list web05 --name")?;
        assert_eq!(names.lines().count(), 1, "{moment}: {names}");
        assert!(b.replica_writes(&vm)? >= known);
        assert!(a.is_running(&vm)?);
        let left = a.run_ok("find /var/lib/rblocksync/scratch -type f | wc -l")?;
        assert_eq!(left, "0", "{moment}: scratch files");
        a.wait_for_writes(&vm, known + 6)?;
    }
    a.forget(&vm)?;
    b.forget(&vm)
}

/// Paused while its memory is sent.
const PAUSED: &str = "--live=pause --max-downtime 60s";

fn a_guest_moves_with_its_memory(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = a.boot_of_its_own("web06")?;
    for _ in 0..repetitions() {
        a.moves(b, &vm, PAUSED)?;
        b.moves(a, &vm, PAUSED)?;
    }
    let known = a.writes(&vm);
    a.virsh_ok("destroy web06")?;
    assert!(a.check(&vm)?.writes >= known);
    a.forget(&vm)?;
    b.forget(&vm)
}

/// Shut down here, and started there.
fn a_guest_moves_by_a_restart(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = a.boot_of_its_own("web09")?;
    for _ in 0..repetitions() {
        for (from, to) in [(a, b), (b, a)] {
            let known = from.writes(&vm);
            from.run_ok(&format!(
                "virt-blocksync migrate web09 --to {} --max-downtime 60s",
                to.name()
            ))?;
            assert!(to.is_running(&vm)? && !from.is_running(&vm)?);
            to.wait_for_writes(&vm, known.max(from.writes(&vm)) + 3)?;
        }
    }
    let known = a.writes(&vm);
    a.virsh_ok("destroy web09")?;
    assert!(a.check(&vm)?.writes >= known);
    a.forget(&vm)?;
    b.forget(&vm)
}

/// Whatever the moment at which the driver dies before the VM is given up, one guest runs in the end, where it was, and the
/// same command moves it.
fn a_killed_move_leaves_one_guest(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = a.boot_of_its_own("web08")?;
    let migrate = "virt-blocksync migrate web08 --to kvb --live=pause --max-downtime 60s";
    for moment in ["paused", "received", "memory sent", "keeper bound"] {
        let killed = a.run(&format!("RBLOCKSYNC_CRASH_AT='{moment}' {migrate}"))?;
        assert!(!killed.success(), "{moment}: {killed:?}");
        a.until(&format!("the guest to go on after {moment}"), || {
            a.is_running(&vm)
        })?;
        b.until("nothing to be left there", || {
            Ok(b.state("web08")?.as_deref() == Some("shut off"))
        })?;
        let known = a.writes(&vm);
        a.wait_for_writes(&vm, known + 3)?;
    }
    a.moves(b, &vm, PAUSED)?;
    let known = b.writes(&vm);
    b.virsh_ok("destroy web08")?;
    assert!(b.replica_writes(&vm)? >= known);
    a.forget(&vm)?;
    b.forget(&vm)
}

fn a_guest_that_may_not_come_in_stays(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = a.boot_of_its_own("web07")?;
    b.hook(
        "10-no",
        "#!/bin/sh\n[ \"$2\" != migrate ] || { echo no guest today >&2; exit 7; }\n",
    )?;
    let migrate = "virt-blocksync migrate web07 --to kvb --live=pause --max-downtime 60s";
    let refused = a.run(migrate)?;
    b.run_ok("rm /etc/libvirt/hooks/qemu.d/10-no")?;
    assert!(!refused.success(), "{refused:?}");
    assert!(refused.stderr.contains("no guest today"), "{refused:?}");
    assert!(a.is_running(&vm)?, "it goes on where it is");
    let known = a.writes(&vm);
    a.wait_for_writes(&vm, known + 6)?;
    assert_eq!(b.state("web07")?.as_deref(), Some("shut off"));
    // Nothing of that is in the way of the next attempt.
    a.run_ok(migrate)?;
    b.wait_for_writes(&vm, known + 12)?;
    b.virsh_ok("destroy web07")?;
    assert!(b.replica_writes(&vm)? >= known + 12);
    a.forget(&vm)?;
    b.forget(&vm)
}
