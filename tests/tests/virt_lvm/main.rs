//! Domains of libvirt on thin volumes: real libvirtd in the guests of the lab, as the kernel of the machine that tests may
//! have no device-mapper.

use std::process::{Command, ExitCode};
use tests::cli::virt_blocksync;
use tests::lab::{suite, Error, Guest, Lab, Options, Result};
use tests::named;
use tests::pair::{expect, newest_write, one_instant, wait_for_writes};
use tests::virt::QEMU_CONF;

/// What the domain is made of. Its disk vdz is what it boots from: the writer.
const DOMAIN: &str = include_str!("domain.xml");
const WRITTEN: [&str; 2] = ["/dev/pve/lv01-vda", "/dev/pve/lv01-vdb"];

fn main() -> ExitCode {
    suite::run(
        Options::default(),
        named![
            a_running_domain_is_synced_by_what_changed,
            a_generation_of_it_boots,
            its_guest_moves_with_its_memory,
            it_comes_back_by_a_restart,
        ],
    )
}

/// The host runs libvirt, and has the program.
fn make_host(guest: &Guest, number: u8) -> Result<()> {
    let to = std::env::temp_dir().join(format!("virt-blocksync.{}", std::process::id()));
    let stripped = Command::new("strip")
        .arg("-o")
        .args([&to, virt_blocksync()])
        .status();
    let program = std::fs::read(&to);
    std::fs::remove_file(&to).ok();
    match (stripped, program) {
        (Ok(status), Ok(program)) if status.success() => {
            guest.write_file("/usr/bin/virt-blocksync", program)?;
        }
        failed => return Err(Error::new(format!("cannot strip the program: {failed:?}"))),
    }
    guest
        .run_ok("chmod 755 /usr/bin/virt-blocksync; mkdir -p /etc/libvirt /var/log/libvirt/qemu")?;
    guest.write_file("/etc/libvirt/qemu.conf", QEMU_CONF)?;
    let uuid = format!("ba5eba11-0000-4000-8000-00000000000{number}");
    let conf =
        format!("host_uuid = \"{uuid}\"\nauth_unix_rw = \"none\"\nunix_sock_group = \"root\"\n");
    guest.write_file("/etc/libvirt/libvirtd.conf", conf)?;
    guest
        .run_ok("libvirtd -d --pid-file /run/libvirtd.pid && virsh -q list")
        .map(drop)
}

fn state_of(guest: &Guest) -> Result<String> {
    guest.run_ok("virsh -q domstate lv01")
}

fn a_running_domain_is_synced_by_what_changed(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    make_host(a, 1)?;
    make_host(b, 2)?;
    a.run_ok(
        "set -e; for disk in vda vdb vdz; do lvcreate -qq -V 8M -n lv01-$disk --thinpool pve/data; done
         for disk in vda vdb; do
             dd if=/dev/urandom of=/dev/pve/lv01-$disk bs=1M count=4 seek=4 oflag=direct status=none
         done
         dd if=/usr/share/lab/pattern.img of=/dev/pve/lv01-vdz conv=notrunc,fsync status=none",
    )?;
    a.write_file("/root/lv01.xml", DOMAIN)?;
    a.run_ok("virsh -q define /root/lv01.xml && virsh -q start lv01")?;
    wait_for_writes(a, WRITTEN[0], 1)?;
    let sync = "virt-blocksync vm lv01 --to hvb";
    expect(a, sync, 0, &["generation rbs1 sealed"])?;
    let now = newest_write(a, WRITTEN[0])?;
    wait_for_writes(a, WRITTEN[0], now + 8)?;
    let said = expect(a, sync, 0, &["generation rbs2 sealed", "crash consistent"])?;
    assert!(!said.contains("everything is compared"), "{said}");
    let sealed = one_instant(
        b,
        &["/dev/pve/snap_lv01-vda_rbs2", "/dev/pve/snap_lv01-vdb_rbs2"],
    )?;
    assert!(sealed.writes > now, "{sealed:?}");
    expect(
        b,
        "virsh -q start lv01",
        1,
        &["not-to-be-started-on-this-host"],
    )
    .map(drop)
}

fn a_generation_of_it_boots(lab: &Lab) -> Result<()> {
    let b = lab.b();
    expect(b, "virt-blocksync test-failover lv01", 0, &[])?;
    let left = b.run_ok("lvs --noheadings -o lv_name pve; virsh -q list --all")?;
    assert!(!left.contains("test"), "{left}");
    Ok(())
}

/// The heads of a replica are not active, and libvirt activates nothing.
fn its_guest_moves_with_its_memory(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let known = newest_write(a, WRITTEN[0])?;
    let migrate =
        "virt-blocksync migrate lv01 --to hvb --live=pause --max-downtime 10m --pause-max 10m";
    expect(a, migrate, 0, &[])?;
    assert_eq!(state_of(b)?, "running");
    assert_eq!(state_of(a)?, "shut off");
    expect(
        a,
        "virsh -q start lv01",
        1,
        &["not-to-be-started-on-this-host"],
    )?;
    wait_for_writes(b, WRITTEN[0], known + 8).map(drop)
}

fn it_comes_back_by_a_restart(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    let migrate = "virt-blocksync migrate lv01 --to hva --max-downtime 10m --stop off";
    let said = expect(b, migrate, 0, &[])?;
    assert!(!said.contains("vda: everything is compared"), "{said}");
    assert_eq!(state_of(a)?, "running");
    assert_eq!(state_of(b)?, "shut off");
    let left = one_instant(b, &WRITTEN)?;
    wait_for_writes(a, WRITTEN[0], left.writes + 8)?;
    a.run_ok("virsh -q destroy lv01")?;
    one_instant(a, &WRITTEN).map(drop)
}
