#![allow(clippy::unwrap_used)]
use super::*;
use std::fs;

const PAIR: Uuid = Uuid::from_u128(0x1234);

/// A node `pve1` of a two-node cluster, with VM 101, container 102, and VM 103 on the other node.
fn tree() -> (tempfile::TempDir, PveTree) {
    let dir = tempfile::tempdir().unwrap();
    let pve = dir.path().join("etc/pve");
    for sub in [
        "nodes/pve1/qemu-server",
        "nodes/pve1/lxc",
        "nodes/pve2/qemu-server",
        "nodes/pve2/lxc",
    ] {
        fs::create_dir_all(pve.join(sub)).unwrap();
    }
    std::os::unix::fs::symlink("nodes/pve1", pve.join("local")).unwrap();
    fs::write(pve.join("nodes/pve1/qemu-server/101.conf"), "name: web\n").unwrap();
    fs::write(pve.join("nodes/pve1/lxc/102.conf"), "").unwrap();
    fs::write(pve.join("nodes/pve2/qemu-server/103.conf"), "").unwrap();
    fs::create_dir_all(dir.path().join("var/run/qemu-server")).unwrap();
    fs::create_dir_all(dir.path().join("proc")).unwrap();
    let tree = PveTree::new(dir.path());
    (dir, tree)
}

fn vmid(n: u32) -> Vmid {
    Vmid::new(n).unwrap()
}

fn process(dir: &tempfile::TempDir, pid: u32, arguments: &[&str]) {
    let at = dir.path().join(format!("proc/{pid}"));
    fs::create_dir_all(&at).unwrap();
    let line: String = arguments.iter().map(|a| format!("{a}\0")).collect();
    fs::write(at.join("cmdline"), line).unwrap();
}

fn standby(name: &str, lock: &str) -> String {
    format!("#[rblocksync] rblocksync-pair%3A {PAIR}\n{lock}name: {name}\n")
}

#[test]
fn vms_are_found_here_or_the_error_says_where_they_are() {
    let (_dir, tree) = tree();
    assert_eq!(tree.local_node().unwrap(), "pve1");
    assert_eq!(tree.nodes().unwrap(), ["pve1", "pve2"]);
    let found = tree.find_vm(vmid(101)).unwrap();
    assert!(found.path.ends_with("nodes/pve1/qemu-server/101.conf"));
    assert_eq!(tree.vm_config(vmid(101)).unwrap().name(), Some("web"));
    for (n, said) in [
        (
            102,
            "102 is a container, not a VM (only VMs can be replicated)",
        ),
        (
            103,
            "VM 103 is on node pve2, this is pve1 (run the command on pve2)",
        ),
        (
            104,
            "there is no VM 104 (qm list shows the VMs of this node)",
        ),
    ] {
        assert_eq!(tree.find_vm(vmid(n)).unwrap_err().to_string(), said);
    }
}

#[test]
fn a_host_without_proxmox_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let tree = PveTree::new(dir.path());
    for e in [
        tree.local_node().unwrap_err(),
        tree.find_vm(vmid(101)).unwrap_err(),
        tree.storage_cfg().unwrap_err(),
        tree.is_clustered().unwrap_err(),
    ] {
        assert_eq!(
            e.to_string(),
            "this host is not a working Proxmox VE node: /etc/pve/nodes does not exist \
             (if it should be one, look at systemctl status pve-cluster; a host with libvirt needs virt-blocksync, in the same version as here)"
        );
    }
}

#[test]
fn cluster_membership_is_corosyncs_configuration() {
    let (dir, tree) = tree();
    assert!(!tree.is_clustered().unwrap());
    fs::write(dir.path().join("etc/pve/corosync.conf"), "").unwrap();
    assert!(tree.is_clustered().unwrap());
}

#[test]
fn storage_cfg_may_be_missing_but_not_broken() {
    let (dir, tree) = tree();
    assert!(tree.storage_cfg().unwrap().get("local").is_some());
    let path = dir.path().join("etc/pve/storage.cfg");
    fs::write(&path, [b'd', 0xff]).unwrap();
    let e = tree.storage_cfg().unwrap_err().to_string();
    assert!(e.contains("it is not UTF-8"), "{e}");
    fs::write(&path, vec![b'\n'; (1 << 20) + 1]).unwrap();
    let e = tree.storage_cfg().unwrap_err().to_string();
    assert!(e.contains("larger than 1048576 bytes"), "{e}");
}

#[test]
fn errors_in_a_configuration_name_file_and_line() {
    let (dir, tree) = tree();
    let path = dir.path().join("etc/pve/nodes/pve1/qemu-server/101.conf");
    fs::write(&path, "name: web\nscsi99: a:b\n").unwrap();
    let e = tree.vm_config(vmid(101)).unwrap_err().to_string();
    assert!(e.contains("101.conf: line 2: \"scsi99: a:b\" looks"), "{e}");
}

#[test]
fn running_is_decided_by_the_process_not_by_the_pid_file() {
    let (dir, tree) = tree();
    let pid_file = dir.path().join("var/run/qemu-server/101.pid");
    let socket = "socket,id=qmp,path=/var/run/qemu-server/101.qmp,server=on";
    assert!(!tree.is_running(vmid(101)).unwrap(), "no pid file");
    fs::write(&pid_file, "4711\n").unwrap();
    assert!(!tree.is_running(vmid(101)).unwrap(), "no such process");
    process(&dir, 4711, &["/usr/sbin/sshd", "-id", "101"]);
    assert!(!tree.is_running(vmid(101)).unwrap(), "another program");
    process(&dir, 4711, &["/usr/bin/kvm", "-id", "1010"]);
    assert!(!tree.is_running(vmid(101)).unwrap(), "another VM");
    process(&dir, 4711, &["/usr/bin/kvm", "-id", "101", "-daemonize"]);
    assert_eq!(tree.running_pid(vmid(101)).unwrap(), Some(4711));
    fs::remove_file(&pid_file).unwrap();
    assert_eq!(tree.running_pid(vmid(101)).unwrap(), Some(4711));
    process(&dir, 4711, &["qemu-system-x86_64", "-chardev", socket]);
    assert_eq!(tree.running_pid(vmid(101)).unwrap(), Some(4711));
    assert!(!tree.is_running(vmid(100)).unwrap());
    assert!(tree
        .qmp_socket(vmid(101))
        .ends_with("var/run/qemu-server/101.qmp"));
}

#[test]
fn a_replica_is_written_and_rewritten_but_nothing_else_is_touched() {
    let (dir, tree) = tree();
    let path = dir.path().join("etc/pve/nodes/pve1/qemu-server/201.conf");
    let (first, second) = (
        standby("a", "lock: migrate\n"),
        standby("b", "lock: migrate\n"),
    );
    tree.write_vm_config(vmid(201), &first, PAIR).unwrap();
    tree.write_vm_config(vmid(201), &second, PAIR).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), second);

    fs::write(&path, standby("used", "")).unwrap();
    let e = tree.write_vm_config(vmid(201), &first, PAIR).unwrap_err();
    assert!(e.to_string().contains("has been taken over"), "{e}");
    fs::write(&path, "name: mine\n").unwrap();
    let e = tree.write_vm_config(vmid(201), &first, PAIR).unwrap_err();
    assert!(
        e.to_string()
            .contains("exists already and is not a replica"),
        "{e}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "name: mine\n");
    // Ids of containers and of other nodes' VMs are taken.
    for n in [101, 102, 103] {
        assert!(tree.write_vm_config(vmid(n), &first, PAIR).is_err(), "{n}");
    }
    let names: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");
}

#[test]
fn only_guarded_replicas_of_the_pair_are_written() {
    let (_dir, tree) = tree();
    let other = Uuid::from_u128(9);
    for (text, pair) in [
        (standby("a", ""), PAIR),
        (standby("a", "lock: backup\n"), PAIR),
        (standby("a", "lock: migrate\n"), other),
        ("name: a\nlock: migrate\n".to_owned(), PAIR),
        ("scsi0\n".to_owned(), PAIR),
    ] {
        assert!(
            tree.write_vm_config(vmid(201), &text, pair).is_err(),
            "{text}"
        );
    }
    assert!(tree.find_vm(vmid(201)).is_err(), "nothing was written");
}

#[test]
fn writing_respects_the_lock_of_proxmox() {
    let (_dir, tree) = tree();
    let text = standby("a", "lock: migrate\n");
    let held = tree.lock_vm(vmid(201), Duration::ZERO).unwrap();
    let e = tree
        .write_within(Duration::ZERO, vmid(201), &text, PAIR)
        .unwrap_err();
    assert_eq!(e.kind(), Kind::Busy);
    assert!(
        e.to_string().contains("var/lock/qemu-server/lock-201.conf"),
        "{e}"
    );
    assert!(tree.find_vm(vmid(201)).is_err(), "nothing was written");
    // A holder that goes away in time is waited for.
    let writer = tree.clone();
    let thread = std::thread::spawn(move || writer.write_vm_config(vmid(201), &text, PAIR));
    drop(held);
    thread.join().unwrap().unwrap();
    assert!(tree.find_vm(vmid(201)).is_ok());
}
