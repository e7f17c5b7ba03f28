//! The quick start for libvirt, carried out on the bed, command for command as the page has them.

use std::process::ExitCode;
use tests::cli::virt_blocksync;
use tests::markdown::carry_out;
use tests::named;
use tests::virt::{suite, Bed, Result};

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
    let vm = a.boot_of_its_own("web01")?;
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
