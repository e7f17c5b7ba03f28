//! The quick start for Proxmox VE, carried out in the lab, command for command as the page has them.

use std::process::ExitCode;
use tests::lab::{suite, Lab, Options, Result};
use tests::markdown::carry_out;
use tests::named;

fn main() -> ExitCode {
    suite::run(Options::default(), named![the_page_is_true])
}

fn the_page_is_true(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let page = include_str!("../../docs/quickstart-proxmox.md");
    carry_out(page, [a.name(), b.name()], |host, command| {
        if host == a.name() { a } else { b }.run_ok(command)
    })?;
    let config = b.run_ok("cat /etc/pve/qemu-server/101.conf")?;
    assert!(config.contains("lock: "), "{config}");
    let refused = b.run("qm start 101")?;
    assert!(!refused.success(), "{}", refused.stdout);
    Ok(())
}
