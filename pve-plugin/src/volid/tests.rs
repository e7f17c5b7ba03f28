#![allow(clippy::unwrap_used)]
use super::*;

fn thin(name: &str) -> Result<Volume> {
    Volume::on_lvm_thin(&Volid::new("local-lvm", name).unwrap())
}

fn dir(name: &str) -> Result<Volume> {
    Volume::on_dir(&Volid::new("local", name).unwrap())
}

#[test]
fn vm_ids_have_one_spelling() {
    assert_eq!("101".parse::<Vmid>().unwrap().get(), 101);
    for bad in [
        "",
        "99",
        "0101",
        "+101",
        "1e3",
        "-1",
        "1000000000",
        " 101",
        "101\n",
        "../1",
    ] {
        assert!(bad.parse::<Vmid>().is_err(), "{bad:?}");
    }
}

#[test]
fn volume_ids_that_could_mean_something_else_are_refused() {
    for bad in [
        "vm-101-disk-0",
        ":vm-101-disk-0",
        "a:vm-101-disk-0",
        "-s:vm-101-disk-0",
        "local:",
        "local:../../etc/shadow",
        "local:101/../../../etc/shadow.raw",
        "local:/etc/shadow",
        "local:101//x.raw",
        "local:101/./x.raw",
        "local:-101/x.raw",
        "local:101/-rf.raw",
        "local:101/a\u{7}.raw",
        "local:101/a\n.raw",
        "local:101/a.raw,cache=none",
        "local:101/ a.raw",
    ] {
        assert!(Volid::parse(bad).is_err(), "{bad:?}");
    }
    assert!(Volid::parse(&format!("local:{}", "x".repeat(2000))).is_err());
    let v = Volid::parse("local:iso/debian 12: net.iso").unwrap();
    assert_eq!(v.volname(), "iso/debian 12: net.iso");
    assert!(v.is_iso());
}

#[test]
fn lvm_thin_names_tell_owner_and_role() {
    let v = thin("vm-101-disk-0").unwrap();
    assert_eq!((v.owner.get(), v.role), (101, Role::Disk));
    assert_eq!(thin("base-100-disk-1").unwrap().role, Role::Base);
    assert_eq!(thin("vm-101-cloudinit").unwrap().role, Role::CloudInit);
    assert_eq!(thin("vm-101-state-before").unwrap().role, Role::VmState);
    for bad in [
        "data",
        "vm-101",
        "vm-101-",
        "vm-x-disk-0",
        "vm-101-disk-0;reboot",
        "vm-101-$(id)",
        "snap_vm-101-disk-0_x",
        "vm-101-a b",
        "101/vm-101-disk-0",
    ] {
        assert!(thin(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn directory_names_tell_owner_format_and_base() {
    let v = dir("101/vm-101-disk-0.qcow2").unwrap();
    assert_eq!(
        (v.owner.get(), v.role, v.format, v.base.as_deref()),
        (101, Role::Disk, Format::Qcow2, None)
    );
    assert_eq!(dir("101/data.raw").unwrap().role, Role::Disk);
    assert_eq!(
        dir("101/vm-101-cloudinit.qcow2").unwrap().role,
        Role::CloudInit
    );
    assert_eq!(dir("101/vm-101-state-s1.raw").unwrap().role, Role::VmState);
    let clone = dir("100/base-100-disk-0.qcow2/101/vm-101-disk-0.qcow2").unwrap();
    assert_eq!(clone.base.as_deref(), Some("100/base-100-disk-0.qcow2"));
    assert_eq!((clone.owner.get(), clone.role), (101, Role::Disk));
    for bad in [
        "iso/x.raw",
        "vm-101-disk-0.raw",
        "101/vm-101-disk-0",
        "101/vm-101-disk-0.iso",
        "101/.raw",
        "101/a b.raw",
        "101/$(id).raw",
        "101/a;b.raw",
        "101/a:b.raw",
        "1/2/3/4/5.raw",
        "x/vm-101-disk-0.raw",
    ] {
        assert!(dir(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn cloud_init_drives_are_known_on_every_storage() {
    for yes in [
        "nfs1:cloudinit",
        "local-lvm:vm-101-cloudinit",
        "local:101/vm-101-cloudinit.qcow2",
    ] {
        assert!(Volid::parse(yes).unwrap().is_cloudinit(), "{yes}");
    }
    for no in [
        "local-lvm:vm-101-disk-0",
        "local:iso/cloudinit.iso",
        "local:101/my-cloudinit.qcow2",
        "local-lvm:vm--cloudinit",
    ] {
        assert!(!Volid::parse(no).unwrap().is_cloudinit(), "{no}");
    }
}
