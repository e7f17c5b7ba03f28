//! One VM on both kinds of hypervisors: node A has the files of a Proxmox VE node, and node B is a libvirt host.
//!
//! The VM numbers its writes. It boots from a SCSI disk that it cannot write to, and writes to two virtio disks: a raw file and
//! a qcow2 one. On A nothing runs it: there it is always off.

use std::process::ExitCode;
use tests::cli::{pvesync, virt_blocksync};
use tests::named;
use tests::virt::{suite, Bed, Node, Result};

/// Where the node's only storage is: a file system that the test sees too.
const STORAGE: &str = "/var/lib/libvirt/images/vz";

const UUID: &str = "6d0f7a52-1f5b-4c1e-9b8e-0a6f6b3d1101";

fn main() -> ExitCode {
    suite::run(named![a_vm_of_proxmox_runs_under_libvirt_and_comes_back])
}

/// Makes A a node of Proxmox VE with VM 101 on it.
fn proxmox(node: &Node) -> Result<()> {
    node.install(pvesync(), "/usr/bin/pvesync")?;
    node.run_ok(&format!(
        "mkdir -p /etc/pve/nodes/kva/qemu-server {STORAGE}/images/101 {STORAGE}/snippets /var/lock/qemu-server \
         /run/qemu-server && ln -sfn nodes/kva /etc/pve/local && ln -sfn nodes/kva/qemu-server /etc/pve/qemu-server"
    ))?;
    let storage = format!("dir: vz\n\tpath {STORAGE}\n\tcontent images,snippets\n");
    node.write_file("/etc/pve/storage.cfg", storage, 0o640)?;
    let config = format!(
        "#The shop%3A do not touch\nboot: order=scsi0\ncores: 1\ncpu: x86-64-v2-AES\nhookscript: none\nhostpci0: 01:00\n\
         memory: 64\nname: web01\nnet0: virtio=BC:24:11:5A:10:01,bridge=vmbr0,tag=20\nonboot: 1\nostype: l26\n\
         scsi0: vz:101/vm-101-disk-2.raw,ro=1,size=1M\nscsihw: virtio-scsi-single\nserial0: socket\n\
         smbios1: uuid={UUID}\ntags: shop\nvirtio0: vz:101/vm-101-disk-0.raw,iothread=1,size=16M\n\
         virtio1: vz:101/vm-101-disk-1.qcow2,cache=directsync,size=16M\n"
    )
    .replace("hookscript: none\n", "");
    node.write_file("/etc/pve/nodes/kva/qemu-server/101.conf", config, 0o640)?;
    node.run_ok(&format!(
        "cd {STORAGE}/images/101 && cp /usr/share/bed/writer.img vm-101-disk-2.raw && truncate -s 1M vm-101-disk-2.raw \
         && truncate -s 16M vm-101-disk-0.raw && qemu-img create -q -f qcow2 vm-101-disk-1.qcow2 16M"
    ))
    .map(drop)
}

/// The numbers of the last writes in the VM's disks, below this path.
fn written(node: &Node, dir: &str, names: [&str; 2]) -> Result<u32> {
    let paths = names.map(|name| format!("{dir}/{name}"));
    let images = [(paths[0].as_str(), "raw"), (paths[1].as_str(), "qcow2")];
    Ok(node.check_images(&images)?.writes)
}

fn a_vm_of_proxmox_runs_under_libvirt_and_comes_back(bed: &Bed) -> Result<()> {
    let (a, b) = (bed.a(), bed.b());
    proxmox(a)?;
    b.install(virt_blocksync(), "/usr/bin/virt-blocksync")?;

    // What it would be there, without asking anybody.
    let shown =
        a.run_ok("pvesync vm 101 --to nowhere.invalid --print-config --target-kind libvirt")?;
    assert!(shown.contains("<name>web01</name>"), "{shown}");
    assert!(shown.contains("left out: hostpci0: 01:00"), "{shown}");
    assert_eq!(b.state("web01")?, None);

    let told = a.run_ok("pvesync vm 101 --to kvb")?;
    assert!(told.contains("(libvirt)"), "{told}");
    assert!(told.contains("hostpci0"), "{told}");
    assert!(!b.virsh("start web01")?.success());
    let domain = b.virsh_ok("dumpxml --inactive web01")?;
    for part in [
        UUID,
        "The shop: do not touch",
        "bc:24:11:5a:10:01",
        "slot='0x12'",
    ] {
        assert!(domain.contains(part), "{part} is not in {domain}");
    }

    // Its guest finds its disks, and writes to them.
    b.run_ok("virt-blocksync failover web01 --fence /bin/true")?;
    assert_eq!(b.state("web01")?.as_deref(), Some("running"));
    b.until("writes of web01", || {
        let stats = b.virsh_ok("domblkstat web01 vda")?;
        let line = stats.lines().find_map(|line| line.split_once("wr_req"));
        let count = line.and_then(|(_, count)| count.trim().parse::<u32>().ok());
        Ok(count.is_some_and(|count| count > 10))
    })?;
    b.virsh_ok("shutdown web01")?;
    b.until("the end of web01", || {
        Ok(b.state("web01")?.as_deref() == Some("shut off"))
    })?;
    let images = "/var/lib/libvirt/images";
    let names = ["vm-web01-disk-0.raw", "vm-web01-disk-1.qcow2"];
    let known = written(b, images, names)?;
    assert!(known > 20, "{known}");

    // And back: what the source had becomes a generation there, and what was written here goes onto it.
    let shown = b.run_ok("virt-blocksync vm web01 --to kva --print-config")?;
    assert!(shown.contains("virtio1: local-lvm:vm-100-disk"), "{shown}");
    b.run_ok("virt-blocksync failback web01 --to kva --no-start")?;
    assert_eq!(
        written(
            a,
            &format!("{STORAGE}/images/101"),
            ["vm-101-disk-0.raw", "vm-101-disk-1.qcow2"]
        )?,
        known
    );
    let back = a.read_file("/etc/pve/nodes/kva/qemu-server/101.conf")?;
    let back = String::from_utf8_lossy(&back);
    for line in [
        "boot: order=scsi0;virtio0;virtio1\n",
        "cpu: x86-64-v2-AES\n",
        "name: web01\n",
        "onboot: 1\n",
        "tags: shop\n",
        "scsihw: virtio-scsi-single\n",
        "serial0: socket\n",
        "virtio0: vz:101/vm-101-disk-0.raw,iothread=1,size=16M\n",
        "virtio1: vz:101/vm-101-disk-1.qcow2,cache=directsync,size=16M\n",
        "#The shop%3A do not touch\n",
    ] {
        assert!(back.contains(line), "{line:?} is not in {back}");
    }
    assert!(!back.contains("lock:"), "{back}");
    // The domain is the replica now, and does not start.
    assert!(!b.virsh("start web01")?.success());
    Ok(())
}
