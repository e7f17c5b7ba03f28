//! `virt-blocksync` on the bed: replicas of a real domain between two real libvirtd, and the roles of both hosts.
//!
//! The VM boots from a read-only disk, vdz, and writes to three: qcow2, a raw file, and a block device that becomes a file
//! on the other host.

use std::process::ExitCode;
use tests::cli::virt_blocksync;
use tests::named;
use tests::virt::{suite, Bed, Disk, Medium, Node, Result, Vm};

/// Where disks go that have no pool of their own.
const MAP: &str = "--pool vdc=default";

/// What the bed's VMs boot from.
const BOOT: &str = "/usr/share/bed/writer.img";

fn main() -> ExitCode {
    suite::run(named![
        a_domain_is_replicated_and_taken_over,
        a_domain_goes_and_comes_back,
        what_is_in_the_way_is_told,
    ])
}

/// Puts the program in both nodes.
fn install(bed: &Bed) -> Result<()> {
    for node in [bed.a(), bed.b()] {
        node.install(virt_blocksync(), "/usr/bin/virt-blocksync")?;
    }
    Ok(())
}

/// Makes the VM and lets it write a little. It boots from an image of its own, which goes with it.
fn write_first(node: &Node, vm: &Vm) -> Result<()> {
    let boot = format!("/var/lib/libvirt/images/{}-boot.img", vm.name);
    node.make_disks(vm)?;
    node.run_ok(&format!("cp {BOOT} {boot}"))?;
    node.virsh_with("define", &vm.xml().replace(BOOT, &boot))?;
    write_more(node, vm)
}

fn write_more(node: &Node, vm: &Vm) -> Result<()> {
    let before = node.writes(vm);
    node.virsh_ok(&format!("start {}", vm.name))?;
    node.wait_for_writes(vm, before + 10)?;
    shut_down(node, vm)
}

fn shut_down(node: &Node, vm: &Vm) -> Result<()> {
    node.virsh_ok(&format!("shutdown {}", vm.name))?;
    node.until("the end of the guest", || {
        Ok(node.state(&vm.name)?.as_deref() == Some("shut off"))
    })
}

/// The number of the last write in the disks of the replica on B, which are all files.
fn replica_writes(node: &Node, vm: &Vm) -> Result<u32> {
    let image = |disk: &Disk| {
        let (target, format) = (&disk.target, disk.medium.format());
        let path = format!("/var/lib/libvirt/images/{}-{target}.{format}", vm.name);
        (path, format)
    };
    let images: Vec<_> = vm.disks.iter().map(image).collect();
    let named: Vec<_> = images.iter().map(|(p, f)| (p.as_str(), *f)).collect();
    Ok(node.check_images(&named)?.writes)
}

/// The domain does not start, and libvirt itself says so: there is no hook here.
fn assert_no_start(node: &Node, name: &str) -> Result<()> {
    let refused = node.virsh(&format!("start {name}"))?;
    assert!(!refused.success(), "{refused:?}");
    assert!(
        refused.stderr.contains("not-to-be-started-on-this-host"),
        "{}",
        refused.stderr
    );
    assert_eq!(node.state(name)?.as_deref(), Some("shut off"));
    Ok(())
}

fn a_domain_is_replicated_and_taken_over(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = Vm::with_all_kinds("web01");
    write_first(a, &vm)?;
    let sync = format!("virt-blocksync vm web01 --to kvb {MAP}");
    let said = a.run_ok(&format!("{sync} --dry-run"))?;
    assert_eq!(b.state("web01")?, None, "{said}");
    a.run_ok(&sync)?;
    assert_eq!(replica_writes(b, &vm)?, a.check(&vm)?.writes);
    assert_no_start(b, "web01")?;
    let volumes = b.virsh_ok("vol-list default")?;
    assert!(volumes.contains("web01-vdc.raw"), "{volumes}");

    write_more(a, &vm)?;
    let told = a.run_ok(&format!("virt-blocksync --json vm web01 --to kvb {MAP}"))?;
    assert!(told.contains("\"sealed\""), "{told}");
    assert_eq!(replica_writes(b, &vm)?, a.check(&vm)?.writes);
    let listed = a.run_ok("virt-blocksync generations web01 --to kvb")?;
    assert!(listed.contains("rbs2"), "{listed}");
    b.run_ok("virt-blocksync verify web01")?;

    // While it runs.
    let before = a.writes(&vm);
    a.virsh_ok("start web01")?;
    a.wait_for_writes(&vm, before + 5)?;
    let before = a.writes(&vm);
    a.run_ok(&sync)?;
    assert!(replica_writes(b, &vm)? >= before);
    assert_eq!(a.state("web01")?.as_deref(), Some("running"));
    a.wait_for_writes(&vm, a.writes(&vm) + 5)?;
    shut_down(a, &vm)?;
    by_a_job_from_elsewhere(bed, &vm)?;

    // A clone of it boots, is connected to nothing, and goes again.
    b.run_ok("virt-blocksync test-failover web01 --timeout 3s")?;
    assert_eq!(b.virsh_ok("list --all --name")?, "web01");

    // The source still answers: it is not taken over just so.
    let refused = b.run("virt-blocksync failover web01")?;
    assert!(!refused.success(), "{refused:?}");
    assert_no_start(b, "web01")?;
    b.run_ok("virt-blocksync failover web01 --fence /bin/true")?;
    let known = a.writes(&vm);
    b.wait_for_writes(&vm, known + 5)?;
    shut_down(b, &vm)?;
    assert!(replica_writes(b, &vm)? >= known + 5);
    let refused = a.run(&sync)?;
    assert!(refused.stderr.contains("primary"), "{refused:?}");
    a.forget(&vm)?;
    b.forget(&vm)
}

/// A's job, started from B: it is A that runs it, and keeps its state.
fn by_a_job_from_elsewhere(bed: &Bed, vm: &Vm) -> Result<()> {
    let (a, b) = (bed.a(), bed.b());
    let jobs = "/etc/virt-blocksync/jobs.d";
    a.run_ok(&format!("install -d -m 755 /etc/virt-blocksync {jobs}"))?;
    let job =
        "vms = [\"web01\"]\nto = \"kvb\"\nrpo = \"1h\"\nkeep = 3\n[pool]\nvdc = \"default\"\n";
    a.write_file(&format!("{jobs}/web.toml"), job, 0o644)?;
    let there = "virt-blocksync -c qemu+ssh://root@kva/system";
    let told = b.run_ok(&format!("{there} --json job run web"))?;
    assert!(told.contains("\"done\":1"), "{told}");
    assert_eq!(replica_writes(b, vm)?, a.check(vm)?.writes);
    // The exit code is that of the run there, and what the job promises is known there alone.
    let told = b.run_ok(&format!("{there} check"))?;
    assert!(told.starts_with("OK"), "{told}");
    assert_eq!(a.run_ok("virt-blocksync check")?, told);
    let unknown = b.run("virt-blocksync check")?;
    assert!(unknown.stdout.contains("no job has an rpo"), "{unknown:?}");
    let refused = b.run(&format!("{there} vm nosuch --to kvb"))?;
    assert!(
        refused.stderr.contains("there is no domain nosuch"),
        "{refused:?}"
    );
    a.run_ok(&format!("rm -r {jobs}"))?;
    Ok(())
}

fn a_domain_goes_and_comes_back(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = Vm::new("db01").disk(Medium::Qcow2).disk(Medium::Raw);
    write_first(a, &vm)?;
    a.virsh_ok("autostart db01")?;
    a.run_ok("virt-blocksync migrate db01 --to kvb")?;
    assert_no_start(a, "db01")?;
    assert!(a
        .virsh_ok("dominfo db01")?
        .contains("Autostart:      disable"));
    assert_eq!(replica_writes(b, &vm)?, a.check(&vm)?.writes);
    write_more(b, &vm)?;
    let known = replica_writes(b, &vm)?;

    b.run_ok("virt-blocksync failback db01 --to kva")?;
    assert_no_start(b, "db01")?;
    assert!(a
        .virsh_ok("dominfo db01")?
        .contains("Autostart:      enable"));
    assert_eq!(a.check(&vm)?.writes, known);
    write_more(a, &vm)?;
    assert!(a.check(&vm)?.writes > known);
    // And on it goes the other way.
    a.run_ok("virt-blocksync vm db01 --to kvb")?;
    assert_eq!(replica_writes(b, &vm)?, a.check(&vm)?.writes);
    a.forget(&vm)?;
    b.forget(&vm)
}

fn what_is_in_the_way_is_told(bed: &Bed) -> Result<()> {
    install(bed)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = Vm::with_all_kinds("app01");
    write_first(a, &vm)?;
    let refused = |line: &str, why: &str| -> Result<()> {
        let run = a.run(&format!("virt-blocksync vm {line}"))?;
        assert!(!run.success(), "{line}: {run:?}");
        assert!(
            run.stderr.contains(why),
            "{line} lacks {why:?}: {}",
            run.stderr
        );
        Ok(())
    };
    refused("nosuch --to kvb", "there is no domain nosuch")?;
    refused("app01 --to kvb", "vdc")?;
    refused(
        &format!("app01 --to kvb {MAP} --pool vda=gone"),
        "there is no pool gone",
    )?;
    refused(
        &format!("app01 --to kvb {MAP} --exclude vdx"),
        "no such disk",
    )?;
    // A domain of that name that is not ours, and one with the UUID.
    let other = Vm {
        uuid: "00000000-0000-4000-8000-000000000001".into(),
        ..Vm::new("app01")
    };
    b.define(&other)?;
    refused(&format!("app01 --to kvb {MAP}"), "--target-name")?;
    b.virsh_ok("domrename app01 other")?;
    b.virsh_ok("undefine other")?;
    b.define(&Vm {
        uuid: vm.uuid.clone(),
        ..Vm::new("other")
    })?;
    refused(&format!("app01 --to kvb {MAP}"), "has the UUID")?;
    // Under another name it has another.
    a.run_ok(&format!(
        "virt-blocksync vm app01 --to kvb {MAP} --target-name copy01"
    ))?;
    assert_no_start(b, "copy01")?;
    b.virsh_ok("undefine other")?;
    a.forget(&vm)?;
    b.forget(&Vm::with_all_kinds("copy01"))
}
