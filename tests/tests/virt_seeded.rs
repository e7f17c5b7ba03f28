//! `virt-blocksync migrate --live` without a pause, on the bed: what lies over the disks goes along with the memory. Whatever
//! breaks on the way, one guest runs in the end, and nothing is left over its disks.

use std::process::ExitCode;
use tests::cli::virt_blocksync;
use tests::kills::{some_of, BEFORE_GIVING_UP};
use tests::named;
use tests::virt::{repetitions, suite, Bed, Medium, Node, Result, Vm};

fn main() -> ExitCode {
    suite::run(named![
        a_guest_moves_without_a_pause,
        a_stale_base_is_refused,
        a_driver_that_dies_leaves_one_guest,
        a_driver_that_dies_behind_the_flip_leaves_one_guest,
        a_way_that_is_lost_leaves_the_guest_here,
        one_who_ends_it_keeps_the_guest_here,
        a_guest_that_may_not_come_in_stays,
        a_host_that_lost_power_finds_what_lies_over_the_disks,
        a_guest_over_whose_disks_nothing_can_lie_is_paused,
        a_small_change_is_a_small_move,
    ])
}

fn install(bed: &Bed) -> Result<()> {
    for node in [bed.a(), bed.b()] {
        node.install(virt_blocksync(), "/usr/bin/virt-blocksync")?;
    }
    Ok(())
}

/// The guest runs here and writes, and nowhere else; nothing lies over its disks.
fn stays(here: &Node, there: &Node, vm: &Vm, when: &str) -> Result<()> {
    here.until(&format!("the guest to go on after {when}"), || {
        here.is_running(vm)
    })?;
    there.until("nothing to be left there", || {
        Ok(there.state(&vm.name)?.as_deref() == Some("shut off") && there.overlays()?.is_empty())
    })?;
    here.until_settled(vm)?;
    let known = here.writes(vm);
    here.wait_for_writes(vm, known + 3)
}

/// It ends there, with all that it wrote.
fn ends(here: &Node, there: &Node, vm: &Vm) -> Result<()> {
    let known = here.writes(vm);
    here.virsh_ok(&format!("destroy {}", vm.name))?;
    assert!(here.replica_writes(vm)? >= known);
    here.forget(vm)?;
    there.forget(vm)
}

fn a_guest_moves_without_a_pause(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = Vm::new("web21").disk(Medium::Qcow2).disk(Medium::Raw);
    a.make_disks(&vm)?;
    let (path, data) = (&vm.disks[0].path, "write -P 7 16M 32M");
    a.run_ok(&format!("qemu-io -f qcow2 -c '{data}' '{path}'"))?;
    a.define_of_its_own(&vm)?;
    a.virsh_ok("start web21")?;
    a.wait_for_writes(&vm, 6)?;
    // The checkpoint of a sync does not go along.
    a.run_ok("virt-blocksync vm web21 --to kvb")?;
    for _ in 0..repetitions() {
        for (from, to) in [(a, b), (b, a)] {
            let said = from.moves(to, &vm, "--live")?;
            assert!(!said.contains("paused"), "{said}");
            assert!(!said.contains("vda: the first sync back"), "{said}");
            to.until_settled(&vm)?;
            assert_eq!(from.overlays()?, "");
            for _ in 0..2 {
                comes_back_by_its_record(to, from, &vm)?;
            }
        }
    }
    ends(a, b, &vm)
}

/// A sync of a guest that has come `here` reads of its qcow2 disk what it has written since, and not the 32 MiB that it has not.
fn comes_back_by_its_record(here: &Node, there: &Node, vm: &Vm) -> Result<()> {
    let (name, to) = (&vm.name, there.name());
    let known = here.writes(vm);
    let said = here.run_ok(&format!("virt-blocksync --json vm {name} --to {to}"))?;
    assert!(!said.contains("vda: everything is compared"), "{said}");
    let sealed = said
        .lines()
        .find(|line| line.contains("\"event\":\"sealed\""));
    let sealed: serde_json::Value = serde_json::from_str(sealed.unwrap_or_default()).expect("JSON");
    let compared = sealed["disks"][0]["summary"]["compared"].as_u64();
    println!("{name}, back to {to}: {compared:?} bytes compared of vda");
    assert!(compared.is_some_and(|bytes| bytes < 24 << 20), "{sealed}");
    assert!(there.replica_writes(vm)? >= known);
    let names = here.virsh_ok(&format!("checkpoint-list {name} --name"))?;
    assert_eq!(names.lines().count(), 1, "{names}");
    assert!(!names.contains("-taken"), "{names}");
    Ok(())
}

/// One byte of the replica is another one when what lies over it is about to come.
fn a_stale_base_is_refused(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = a.boot_of_its_own("web22")?;
    let driver = a.spawn(
        "RBLOCKSYNC_STOP_AT='handover kept' virt-blocksync migrate web22 --to kvb --live --retry-for 0s",
    )?;
    a.until("the driver to stop", || {
        Ok(a.run_ok("ps -o stat= -C virt-blocksync || true")?
            .lines()
            .any(|state| state.trim_start().starts_with('T')))
    })?;
    b.run_ok(
        "printf X | dd of=/var/lib/libvirt/images/web22-vdb.raw bs=1 seek=50000000 conv=notrunc status=none",
    )?;
    driver.signal("CONT")?;
    let done = driver.wait()?;
    assert!(!done.success(), "{done:?}");
    assert!(done.stderr.contains("is not what was sealed"), "{done:?}");
    stays(a, b, &vm, "a refusal")?;
    // What was damaged is put right by the next one.
    a.moves(b, &vm, "--live")?;
    ends(b, a, &vm)
}

fn a_driver_that_dies_leaves_one_guest(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = a.boot_of_its_own("web23")?;
    let migrate = "virt-blocksync migrate web23 --to kvb --live";
    for moment in some_of(&BEFORE_GIVING_UP) {
        let killed = a.run(&format!("RBLOCKSYNC_CRASH_AT='{moment}' {migrate}"))?;
        assert!(!killed.success(), "{moment}: {killed:?}");
        stays(a, b, &vm, moment)?;
    }
    a.moves(b, &vm, "--live")?;
    ends(b, a, &vm)
}

/// From the moment on at which this host has given the VM up there is one guest at the most, and the same command, run again,
/// ends with one: there, or here, if its memory was lost with the connection.
fn a_driver_that_dies_behind_the_flip_leaves_one_guest(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = a.boot_of_its_own("web24")?;
    for moment in some_of(&[
        "stand",
        "retired standing",
        "retired guard",
        "journal hand-over",
        "started",
        "journal reverse",
        "journal adopt",
    ]) {
        let migrate = "virt-blocksync migrate web24 --to kvb --live";
        let killed = a.run(&format!("RBLOCKSYNC_CRASH_AT='{moment}' {migrate}"))?;
        assert!(!killed.success(), "{moment}: {killed:?}");
        let both = a.is_running(&vm)? && b.is_running(&vm)?;
        assert!(!both, "{moment}: two guests");
        let again = a.run(migrate)?;
        let (here, there) = (a.is_running(&vm)?, b.is_running(&vm)?);
        assert!(here != there, "{moment}: {here} {there} {again:?}");
        assert_eq!(again.success(), there, "{moment}: {again:?}");
        if there {
            b.moves(a, &vm, "--live")?;
        }
        stays(a, b, &vm, moment)?;
    }
    ends(a, b, &vm)
}

/// The guest's memory is on its way, slowly.
fn under_way<'a>(a: &'a Node, vm: &Vm) -> Result<tests::virt::Background<'a>> {
    let name = &vm.name;
    let driver = a.spawn(&format!(
        "exec virt-blocksync migrate {name} --to kvb --live --retry-for 0s"
    ))?;
    a.until("the migration", || {
        let job = a.virsh(&format!("domjobinfo {name}"))?.stdout;
        Ok(job.contains("Outgoing migration"))
    })?;
    Ok(driver)
}

fn a_way_that_is_lost_leaves_the_guest_here(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = a.boot_of_its_own("web25")?;
    a.run_ok("virt-blocksync vm web25 --to kvb")?;
    for how in ["ssh is killed", "nothing comes through"] {
        bed.slow_link("1mbit")?;
        let driver = under_way(a, &vm)?;
        match how {
            "ssh is killed" => a.run_ok("pkill -KILL -x ssh").map(drop)?,
            _ => bed.cut_link()?,
        }
        let done = driver.wait()?;
        // The other host has noticed by itself.
        stays(a, b, &vm, how)?;
        bed.mend_link()?;
        assert!(!done.success(), "{how}: {done:?}");
    }
    a.moves(b, &vm, "--live")?;
    ends(b, a, &vm)
}

fn one_who_ends_it_keeps_the_guest_here(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = a.boot_of_its_own("web26")?;
    a.run_ok("virt-blocksync vm web26 --to kvb")?;
    for how in ["domjobabort", "INT", "KILL"] {
        bed.slow_link("1mbit")?;
        let driver = under_way(a, &vm)?;
        match how {
            "domjobabort" => a.virsh_ok("domjobabort web26").map(drop)?,
            signal => driver.signal(signal)?,
        }
        let done = driver.wait()?;
        bed.mend_link()?;
        assert!(!done.success(), "{how}: {done:?}");
        stays(a, b, &vm, how)?;
    }
    a.moves(b, &vm, "--live")?;
    ends(b, a, &vm)
}

fn a_guest_that_may_not_come_in_stays(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = a.boot_of_its_own("web27")?;
    b.hook(
        "10-no",
        "#!/bin/sh\n[ \"$2\" != migrate ] || { echo no guest today >&2; exit 7; }\n",
    )?;
    let refused = a.run("virt-blocksync migrate web27 --to kvb --live")?;
    b.run_ok("rm /etc/libvirt/hooks/qemu.d/10-no")?;
    assert!(!refused.success(), "{refused:?}");
    assert!(refused.stderr.contains("no guest today"), "{refused:?}");
    stays(a, b, &vm, "a refusal")?;
    a.moves(b, &vm, "--live")?;
    ends(b, a, &vm)
}

/// With all that runs gone at once, the domain starts from what lies over its disks, and the next sync merges it, whether it
/// was started or not.
fn a_host_that_lost_power_finds_what_lies_over_the_disks(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = a.boot_of_its_own("web28")?;
    for is_started in [true, false] {
        let driver = a.spawn(
            "RBLOCKSYNC_STOP_AT='handover kept' virt-blocksync migrate web28 --to kvb --live",
        )?;
        a.until("what lies over the disks", || {
            Ok(a.overlays()?.lines().count() == 2)
        })?;
        let known = a.writes(&vm);
        a.wait_for_writes(&vm, known + 6)?;
        // The keeper first, or it would put things right.
        a.run_ok("pkill -KILL -f 'keeper qemu:[^ ]* [w]eb28 '")?;
        driver.signal("KILL")?;
        driver.wait()?;
        let known = a.writes(&vm);
        a.kill_guest("web28")?;
        a.until("libvirt to see it", || {
            Ok(a.state("web28")?.as_deref() == Some("shut off"))
        })?;
        if is_started {
            a.virsh_ok("start web28")?;
            a.wait_for_writes(&vm, known + 3)?;
        }
        let said = a.run_ok("virt-blocksync vm web28 --to kvb")?;
        assert!(said.contains("is merged into them"), "{said}");
        a.until_settled(&vm)?;
        if !is_started {
            assert!(b.replica_writes(&vm)? >= known);
            a.virsh_ok("start web28")?;
            a.wait_for_writes(&vm, known + 3)?;
        }
    }
    a.moves(b, &vm, "--live")?;
    ends(b, a, &vm)
}

/// What libvirt would forget of a disk when it lays something over it is a reason to pause the guest, and is told.
fn a_guest_over_whose_disks_nothing_can_lie_is_paused(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = a.boot_of_its_own("web31")?;
    a.virsh_ok("destroy web31")?;
    let (plain, path) = (a.virsh_ok("dumpxml --inactive web31")?, &vm.disks[1].path);
    let own = format!("<source file='{path}'><seclabel model='dac' relabel='no'/></source>");
    let xml = plain.replace(&format!("<source file='{path}'/>"), &own);
    assert_ne!(plain, xml);
    a.virsh_with("define", &xml)?;
    a.virsh_ok("start web31")?;
    let known = a.writes(&vm);
    a.wait_for_writes(&vm, known + 3)?;
    let said = a.moves(b, &vm, "--live --max-downtime 60s")?;
    let why = "the guest has to be paused for the move: the file of its disk vdb has settings";
    assert!(said.contains(why), "{said}");
    ends(b, a, &vm)
}

/// With 1 % of the data changed since the last sync, beside libvirt's own copy of all of it.
fn a_small_change_is_a_small_move(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let data = 256;
    let mut moved = Vec::new();
    for name in ["web29", "web30"] {
        let vm = Vm::new(name)
            .disk(Medium::Qcow2)
            .disk_of(Medium::Raw, data + 16);
        let raw = &vm.disks[1].path;
        a.make_disks(&vm)?;
        a.define_of_its_own(&vm)?;
        a.run_ok(&format!(
            "dd if=/dev/urandom of='{raw}' bs=1M seek=16 count={data} conv=notrunc status=none"
        ))?;
        let ours = name == "web29";
        if ours {
            a.run_ok(&format!("virt-blocksync vm {name} --to kvb"))?;
        }
        a.run_ok(&format!(
            "dd if=/dev/urandom of='{raw}' bs=4k seek=8192 count=655 conv=notrunc status=none"
        ))?;
        a.virsh_ok(&format!("start {name}"))?;
        a.wait_for_writes(&vm, 6)?;
        let before = a.sent()?;
        let began = std::time::Instant::now();
        if ours {
            let said = a.moves(b, &vm, "--live")?;
            assert!(!said.contains("paused"), "{said}");
        } else {
            b.make_disks(&vm)?;
            b.run_ok("cp /usr/share/bed/writer.img /var/lib/libvirt/images/web30-boot.img")?;
            a.virsh_ok(&format!(
                "migrate --live --p2p --persistent --undefinesource --copy-storage-all {name} {}",
                b.peer_uri()
            ))?;
        }
        let bytes = a.sent()? - before;
        println!(
            "{}: {:.1} MiB sent, {:.1} s",
            if ours {
                "migrate --live"
            } else {
                "virsh migrate --copy-storage-all"
            },
            bytes as f64 / f64::from(1 << 20),
            began.elapsed().as_secs_f64()
        );
        moved.push(bytes);
        b.virsh_ok(&format!("destroy {name}"))?;
        a.forget(&vm)?;
        b.forget(&vm)?;
    }
    assert!(moved[0] * 5 < moved[1], "{moved:?}");
    Ok(())
}
