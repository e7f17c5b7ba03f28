//! The quick start for libvirt, carried out on the bed, command for command as the page has them.

use std::process::ExitCode;
use tests::cli::virt_blocksync;
use tests::markdown::carry_out;
use tests::named;
use tests::virt::{suite, Bed, Medium, Result, Vm};

/// What the bed's VMs boot from.
const BOOT: &str = "/usr/share/bed/writer.img";

fn main() -> ExitCode {
    suite::run(named![the_page_is_true])
}

fn the_page_is_true(bed: &Bed) -> Result<()> {
    let (a, b) = (bed.a(), bed.b());
    for node in [a, b] {
        node.install(virt_blocksync(), "/usr/bin/virt-blocksync")?;
        // The bed has made it, for everybody; a host has none yet.
        node.run_ok("chmod 700 /var/lib/rblocksync")?;
    }
    let vm = Vm::new("web01").disk(Medium::Qcow2).disk(Medium::Raw);
    let boot = "/var/lib/libvirt/images/web01-boot.img";
    a.make_disks(&vm)?;
    a.run_ok(&format!("cp {BOOT} {boot}"))?;
    a.virsh_with("define", &vm.xml().replace(BOOT, boot))?;
    a.virsh_ok("start web01")?;
    a.wait_for_writes(&vm, 10)?;

    let page = include_str!("../../docs/quickstart-libvirt.md");
    carry_out(page, [a.name(), b.name()], |host, command| {
        if host == a.name() { a } else { b }.run_ok(command)
    })?;
    assert_eq!(b.state("web01")?.as_deref(), Some("shut off"));
    let refused = b.virsh("start web01")?;
    assert!(!refused.success(), "{refused:?}");
    assert_eq!(a.state("web01")?.as_deref(), Some("running"));
    a.forget(&vm)?;
    b.forget(&vm)
}
