//! The way of somebody who has never had the product, from the package's file to the first replica, as the quick start tells it:
//! on two hosts that are plain installations of Debian with libvirt, in namespaces of this machine.
//!
//! What the packages depend on is downloaded before, so that the time that is printed is not the mirror's.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::debian::{hypervisor, Built, Root, Suite};
use tests::lab::Result;
use tests::markdown::carry_out_from_installation;
use tests::virt::{Bed, Node};

/// What a newcomer types for root's password on the other host.
const PASSWORD: &str = "a-newcomers";

/// What answers ssh's questions: whether to trust a new host, and for the password.
fn answers() -> String {
    format!("#!/bin/sh\ncase $1 in *yes/no*) echo yes ;; *) echo {PASSWORD} ;; esac\n")
}

/// The quick start for libvirt, with a running domain.
pub fn to_libvirt(built: &Built, suite: Suite) -> Result<()> {
    let bed = Bed::on(&hypervisor(suite)?)?;
    let (a, b) = (bed.a(), bed.b());
    let vm = a.boot_of_its_own("web01")?;
    a.wait_for_writes(&vm, 10)?;

    let page = include_str!("../../../docs/quickstart-libvirt.md");
    follow(page, &bed, "virt-blocksync", built, suite)?;
    assert_eq!(b.state("web01")?.as_deref(), Some("shut off"));
    let refused = b.virsh("start web01")?;
    assert!(!refused.success(), "{refused:?}");
    assert_eq!(a.state("web01")?.as_deref(), Some("running"));
    a.forget(&vm)?;
    b.forget(&vm)
}

/// Carries a page out, and prints how long it took to the first replica.
fn follow(page: &str, bed: &Bed, program: &str, built: &Built, suite: Suite) -> Result<()> {
    let package = built.file(program)?;
    let (a, b) = (bed.a(), bed.b());
    // The files that are fetched are in it.
    let root = Root::on(&hypervisor(suite)?, suite)?;
    let mut needed = root.fetch(std::slice::from_ref(&package))?;
    needed.push(package.clone());
    for node in [a, b] {
        be_new(node, &package, &needed)?;
    }

    let began = Instant::now();
    // What was typed on the first host until there was a replica, and how long all of it took.
    let typed: RefCell<Vec<(String, Duration)>> = RefCell::default();
    let replica: RefCell<Option<Duration>> = RefCell::default();
    carry_out_from_installation(page, [a.name(), b.name()], |host, command| {
        let node = if host == a.name() { a } else { b };
        let at = Instant::now();
        let said = node.run_ok(&format!(
            "cd /root && export SSH_ASKPASS=/root/answers SSH_ASKPASS_REQUIRE=force\n{command}"
        ))?;
        let mut replica = replica.borrow_mut();
        if host == a.name() && replica.is_none() {
            typed.borrow_mut().push((command.to_owned(), at.elapsed()));
            let makes = command.starts_with(&format!("{program} vm "));
            *replica = (makes && !command.contains("--dry-run")).then(|| began.elapsed());
        }
        Ok(said)
    })?;
    let typed = typed.into_inner();
    let took = replica.into_inner().unwrap_or_default();
    println!(
        "{program} on {}: the first replica after {} commands and {:.1} s:",
        suite.name(),
        typed.len(),
        took.as_secs_f64()
    );
    for (command, took) in &typed {
        println!("  {:5.1} s  {command}", took.as_secs_f64());
    }
    assert_eq!(typed.len(), 5, "the page promises five commands");
    assert!(took > Duration::ZERO, "no replica was made");
    Ok(())
}

/// Takes from a node what the bed's nodes have of the product and for each other, and gives it the package's file and what apt
/// would download.
fn be_new(node: &Node, package: &Path, needed: &[PathBuf]) -> Result<()> {
    node.run_ok(&format!(
        "rm -r /var/lib/rblocksync /root/.ssh
         echo 'root:{PASSWORD}' | chpasswd
         ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519"
    ))?;
    node.write_file("/root/answers", answers(), 0o700)?;
    let yes = "APT::Get::Assume-Yes \"true\";\n";
    node.write_file("/etc/apt/apt.conf.d/90yes", yes, 0o644)?;
    for file in needed {
        let name = file.file_name().and_then(|name| name.to_str());
        let name = name.unwrap_or_default();
        let dir = if file == package {
            "/root"
        } else {
            "/var/cache/apt/archives"
        };
        node.install(file, &format!("{dir}/{name}"))?;
    }
    Ok(())
}
