//! VM 102, whose guest numbers its writes over two thin volumes in order: each generation shows one instant.
//! It also has all the rest a real VM has: EFI variables, cloud-init, a CD, a snapshot of its own.

use pvesync::vm_config::VmConfig;
use tests::lab::{Guest, Lab, Result};
use tests::pair::*;

const SOURCE: &str = "/dev/pve/vm-102-disk-0";
const CONFIG: &str = "/etc/pve/qemu-server/102.conf";

fn volumes(number: u32) -> [String; 2] {
    [0, 1].map(|disk| format!("/dev/pve/snap_vm-102-disk-{disk}_rbs{number}"))
}

fn config(guest: &Guest) -> Result<VmConfig> {
    let text = guest.read_file(CONFIG)?;
    Ok(VmConfig::parse(&String::from_utf8_lossy(&text)).expect("a configuration"))
}

pub fn every_generation_of_a_writing_vm_shows_one_instant(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.a(), lab.b());
    a.run_ok("qm start 102")?;
    let mut seen = wait_for_writes(a, SOURCE, 50)?;
    for number in 1..=3 {
        let events = sync(lab, "102 --to hvb --jobs 3")?;
        let [first, second] = volumes(number);
        let report = one_instant(b, &[&first, &second])?;
        println!(
            "rbs{number}: {} writes, held for {} ms",
            report.writes,
            event(&events, "point-in-time")["held_ms"]
        );
        assert!(
            report.writes > seen,
            "no newer than what was seen before it"
        );
        seen = report.writes;
        if number == 1 {
            let plan = event(&events, "plan")["notes"].to_string();
            assert!(plan.contains("own snapshots stay behind: clean"), "{plan}");
            assert!(plan.contains("ide0"), "{plan}");
        }
        assert_running(a, 102)?;
        assert_source_clean(a)?;
    }
    // The first one is as it was: older than the last, and still of one instant.
    let [first, second] = volumes(1);
    assert!(one_instant(b, &[&first, &second])?.writes < seen);
    Ok(())
}

pub fn its_configuration_is_carried_over(lab: &Lab) -> Result<()> {
    let b = lab.b();
    let config = config(b)?;
    for (key, value) in [
        ("bios", "ovmf"),
        (
            "efidisk0",
            "local-lvm:vm-102-disk-2,efitype=4m,pre-enrolled-keys=1,size=4M",
        ),
        ("ide0", "local-lvm:vm-102-cloudinit,media=cdrom,size=4M"),
        ("ide2", "none,media=cdrom"),
        ("ipconfig0", "ip=192.0.2.12/24,gw=192.0.2.1"),
        ("lock", "migrate"),
        ("net0", "virtio=BC:24:11:5A:10:02,bridge=vmbr0,tag=20"),
        ("onboot", "0"),
        ("parent", "rbs3"),
        ("scsi0", "local-lvm:vm-102-disk-0,discard=on,size=64M,ssd=1"),
        (
            "scsi1",
            "local-lvm:vm-102-disk-1,backup=0,discard=on,size=64M",
        ),
        ("tags", "rblocksync-replica"),
    ] {
        assert_eq!(config.get(key), Some(value), "{key}");
    }
    let names: Vec<&str> = config.snapshots().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["rbs1", "rbs2", "rbs3"],
        "all disks are thin volumes"
    );
    for (name, section) in config.snapshots() {
        assert!(
            section.get("scsi0").is_some() && section.get("efidisk0").is_some(),
            "{name}"
        );
        assert!(
            section.get("snaptime").is_some() && section.get("lock").is_none(),
            "{name}"
        );
    }
    let efi = "/dev/pve/vm-102-disk-2";
    assert_eq!(digests(b, &[efi])?, digests(lab.a(), &[efi])?);
    Ok(())
}

/// Proxmox's rollback, LvmThinPlugin's commands by hand: the names are what it looks for.
pub fn proxmox_could_roll_back_to_a_generation(lab: &Lab) -> Result<()> {
    let b = lab.b();
    let sealed = digests(b, &["/dev/pve/snap_vm-102-disk-0_rbs1"])?;
    assert_ne!(digests(b, &[SOURCE])?, sealed);
    b.run_ok(
        "lvremove -qq -f pve/vm-102-disk-0 && lvcreate -qq -kn -n vm-102-disk-0 -s pve/snap_vm-102-disk-0_rbs1",
    )?;
    assert_eq!(digests(b, &[SOURCE])?, sealed);
    // That volume is not ours any more.
    let refused = expect(lab.a(), "pvesync vm 102 --to hvb", 3, &["vm-102-disk-0"])?;
    assert!(refused.contains("not made for this replica"), "{refused}");
    assert_eq!(digests(b, &[SOURCE])?, sealed);
    lab.a().run_ok("qm stop 102")?;
    Ok(())
}
