//! The quick start for Proxmox VE, carried out in the lab, command for command as the page has them.

use std::process::ExitCode;
use std::time::Instant;
use tests::lab::{suite, Lab, Options, Result};
use tests::markdown::steps;
use tests::named;

fn main() -> ExitCode {
    suite::run(Options::default(), named![the_page_is_true])
}

fn the_page_is_true(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let steps = steps(include_str!("../../docs/quickstart-proxmox.md"));
    assert!(steps.len() >= 5, "the page has {} steps", steps.len());
    for (host, command) in steps {
        let guest = match host.as_str() {
            "host1" => a,
            "host2" => b,
            other => panic!("there is no {other}"),
        };
        let command = command.replace("host1", "hva").replace("host2", "hvb");
        let began = Instant::now();
        let said = guest.run_ok(&command)?;
        let took = began.elapsed().as_secs_f64();
        println!("{}# {command}   [{took:.1} s]\n{said}", guest.name());
    }
    let config = b.run_ok("cat /etc/pve/qemu-server/101.conf")?;
    assert!(config.contains("lock: "), "{config}");
    let refused = b.run("qm start 101")?;
    assert!(!refused.success(), "{}", refused.stdout);
    Ok(())
}
