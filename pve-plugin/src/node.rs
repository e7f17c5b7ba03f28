//! This Proxmox node: which VMs and nodes there are, their files, and whether a VM runs.
//!
//! All paths hang below a root, `/` on a real node, so that the same code works on a copy of a node's tree.
//! `/etc/pve` is pmxcfs, a small replicated database behind FUSE: files are at most 1 MiB, a rename is
//! atomic in the whole cluster, and the same VM id cannot exist twice in it.

use crate::replica_config::{standing, Standing};
use crate::storage_cfg::StorageCfg;
use crate::vm_config::VmConfig;
use crate::volid::Vmid;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::files::remove_present;
use rblocksync::hypervisor::Hold;
use rblocksync::runbook::Runbook;
use rustix::fs::{flock, FlockOperation};
use rustix::io::Errno;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Most bytes a file of /etc/pve can have: pmxcfs's own limit.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Most bytes looked at of a process's command line; QEMU's are about 5 KiB.
const MAX_CMDLINE_BYTES: u64 = 1 << 20;
/// How long another process may hold a VM's lock file before we give up. Proxmox's own limit.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two tries to get a lock.
const LOCK_RETRY: Duration = Duration::from_millis(50);

/// A VM's configuration file on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundVm {
    /// The file.
    pub path: PathBuf,
    /// This node's name.
    pub node: String,
}

/// A VM or a container, somewhere in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guest {
    pub(crate) vmid: Vmid,
    pub(crate) node: String,
    pub(crate) is_container: bool,
}

/// Proxmox's lock on a VM's configuration, released on drop.
#[derive(Debug)]
pub struct VmLock {
    _file: File,
}

impl Hold for VmLock {}

/// The files of a Proxmox node.
#[derive(Debug, Clone)]
pub struct PveTree {
    root: PathBuf,
}

impl PveTree {
    /// The node whose files are below `root`; `/` for the host itself.
    pub fn new(root: impl Into<PathBuf>) -> PveTree {
        PveTree { root: root.into() }
    }

    fn pve(&self) -> PathBuf {
        self.root.join("etc/pve")
    }

    /// Errors unless this is a Proxmox node with its cluster file system mounted.
    fn check_is_pve(&self) -> Result<()> {
        let nodes = self.pve().join("nodes");
        match nodes.symlink_metadata() {
            Ok(meta) if meta.is_dir() => Ok(()),
            Ok(_) => Err(no_pve("it is no directory".to_owned())),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                Err(no_pve("/etc/pve/nodes does not exist".to_owned()))
            }
            Err(e) => Err(Error::io(format!("cannot read {}", nodes.display()), e)),
        }
    }

    /// This node's name: what /etc/pve/local points at, else the host name without its domain.
    pub fn local_node(&self) -> Result<String> {
        self.check_is_pve()?;
        let local = self.pve().join("local");
        let name = match std::fs::read_link(&local) {
            Ok(target) => target
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            Err(_) => {
                let uname = rustix::system::uname();
                let host = uname.nodename().to_string_lossy().into_owned();
                host.split('.').next().unwrap_or_default().to_owned()
            }
        };
        if is_node_name(&name) && self.node_dir(&name).is_dir() {
            return Ok(name);
        }
        Err(Error::new(
            Kind::NotFound,
            format!("cannot tell which node of /etc/pve/nodes this host is ({name:?} is none)"),
        )
        .advise("a host must not be renamed once Proxmox VE runs on it"))
    }

    fn node_dir(&self, node: &str) -> PathBuf {
        self.pve().join("nodes").join(node)
    }

    /// All nodes of the cluster, sorted; just this one without a cluster.
    pub fn nodes(&self) -> Result<Vec<String>> {
        self.check_is_pve()?;
        let dir = self.pve().join("nodes");
        let failed = |e| Error::io(format!("cannot list {}", dir.display()), e);
        let mut nodes = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            nodes.extend(name.to_str().filter(|n| is_node_name(n)).map(str::to_owned));
        }
        nodes.sort();
        Ok(nodes)
    }

    /// Whether this node is part of a cluster, where VM ids are unique over all nodes.
    pub fn is_clustered(&self) -> Result<bool> {
        self.check_is_pve()?;
        let path = self.pve().join("corosync.conf");
        path.try_exists()
            .map_err(|e| Error::io(format!("cannot look for {}", path.display()), e))
    }

    /// Where a VM's configuration is or would be on this node.
    pub fn vm_config_path(&self, vmid: Vmid) -> Result<PathBuf> {
        let node = self.local_node()?;
        Ok(self.guest_file(&node, "qemu-server", vmid))
    }

    fn guest_file(&self, node: &str, kind: &str, vmid: Vmid) -> PathBuf {
        self.node_dir(node).join(kind).join(format!("{vmid}.conf"))
    }

    /// Finds a VM of this node. Errors say whether it is elsewhere, a container, or nowhere.
    pub fn find_vm(&self, vmid: Vmid) -> Result<FoundVm> {
        let node = self.local_node()?;
        match self.guest(vmid)? {
            Some((at, "qemu-server")) if at == node => Ok(FoundVm {
                path: self.guest_file(&node, "qemu-server", vmid),
                node,
            }),
            Some((at, "qemu-server")) => Err(Error::new(
                Kind::NotFound,
                format!("VM {vmid} is on node {at}, this is {node}"),
            )
            .advise(format!("run the command on {at}"))),
            Some(_) => Err(
                Error::new(Kind::Refused, format!("{vmid} is a container, not a VM"))
                    .advise("only VMs can be replicated"),
            ),
            None => Err(Error::new(Kind::NotFound, format!("there is no VM {vmid}"))
                .advise("qm list shows the VMs of this node")),
        }
    }

    /// The node and kind (`qemu-server` or `lxc`) of the guest with this id, if there is one.
    pub(crate) fn guest(&self, vmid: Vmid) -> Result<Option<(String, &'static str)>> {
        for node in self.nodes()? {
            for kind in ["qemu-server", "lxc"] {
                let path = self.guest_file(&node, kind, vmid);
                let exists = path
                    .try_exists()
                    .map_err(|e| Error::io(format!("cannot look for {}", path.display()), e))?;
                if exists {
                    return Ok(Some((node, kind)));
                }
            }
        }
        Ok(None)
    }

    /// All guests of the cluster, by id. What vanishes meanwhile is not among them.
    pub(crate) fn guests(&self) -> Result<Vec<Guest>> {
        let mut guests = Vec::new();
        for node in self.nodes()? {
            for kind in ["qemu-server", "lxc"] {
                let dir = self.node_dir(&node).join(kind);
                let failed = |e| Error::io(format!("cannot list {}", dir.display()), e);
                let entries = match std::fs::read_dir(&dir) {
                    Ok(entries) => entries,
                    Err(e) if e.kind() == ErrorKind::NotFound => continue,
                    Err(e) => return Err(failed(e)),
                };
                for entry in entries {
                    let file = entry.map_err(failed)?.file_name();
                    let id = file.to_str().and_then(|f| f.strip_suffix(".conf"));
                    guests.extend(id.and_then(|id| id.parse().ok()).map(|vmid| Guest {
                        vmid,
                        node: node.clone(),
                        is_container: kind == "lxc",
                    }));
                }
            }
        }
        guests.sort_by_key(|guest| guest.vmid);
        Ok(guests)
    }

    /// The text of a guest's configuration, on whichever node it is.
    pub(crate) fn guest_text(&self, guest: &Guest) -> Result<String> {
        let kind = if guest.is_container {
            "lxc"
        } else {
            "qemu-server"
        };
        read_text(&self.guest_file(&guest.node, kind, guest.vmid))
    }

    /// The text of user.cfg, where the pools are. Empty if there is none.
    pub(crate) fn user_cfg(&self) -> Result<String> {
        match read_text(&self.pve().join("user.cfg")) {
            Err(e) if e.kind() == Kind::NotFound => Ok(String::new()),
            read => read,
        }
    }

    /// Reads a VM's configuration; the VM must be on this node.
    pub fn vm_config(&self, vmid: Vmid) -> Result<VmConfig> {
        let found = self.find_vm(vmid)?;
        let text = read_text(&found.path)?;
        VmConfig::parse(&text).map_err(|e| e.context(found.path.display()))
    }

    /// A file of the whole cluster below /etc/pve; `None` if there is none.
    pub(crate) fn cluster_file(&self, name: &str) -> Result<Option<String>> {
        match read_text(&self.pve().join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads storage.cfg. A node without the file has the default storage only.
    pub fn storage_cfg(&self) -> Result<StorageCfg> {
        self.check_is_pve()?;
        match read_text(&self.pve().join("storage.cfg")) {
            Ok(text) => Ok(StorageCfg::parse(&text)),
            Err(e) if e.kind() == Kind::NotFound => Ok(StorageCfg::parse("")),
            Err(e) => Err(e),
        }
    }

    fn runtime(&self, vmid: Vmid, extension: &str) -> PathBuf {
        self.root
            .join("var/run/qemu-server")
            .join(format!("{vmid}.{extension}"))
    }

    /// A path of the host, below this tree's root.
    pub(crate) fn below_root(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The VM's QMP socket. One client at a time: Proxmox needs it, too.
    pub fn qmp_socket(&self, vmid: Vmid) -> PathBuf {
        self.runtime(vmid, "qmp")
    }

    /// The socket on which a QEMU of the VM waits for the guest's memory.
    pub fn migrate_socket(&self, vmid: Vmid) -> PathBuf {
        self.runtime(vmid, "migrate")
    }

    /// The socket of the VM's guest agent.
    pub fn qga_socket(&self, vmid: Vmid) -> PathBuf {
        self.runtime(vmid, "qga")
    }

    /// The process id of the VM's QEMU, or `None` when the VM is stopped. A pid file may be stale or
    /// gone, so the processes themselves decide.
    pub fn running_pid(&self, vmid: Vmid) -> Result<Option<u32>> {
        let pid_file = self.runtime(vmid, "pid");
        match read_text(&pid_file) {
            Ok(text) => {
                if let Ok(pid) = text.trim().parse() {
                    if self.is_qemu_of(pid, vmid)? {
                        return Ok(Some(pid));
                    }
                }
            }
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => return Err(e),
        }
        let proc = self.root.join("proc");
        let failed = |e| Error::io(format!("cannot list {}", proc.display()), e);
        for entry in std::fs::read_dir(&proc).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(pid) = name.to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            if self.is_qemu_of(pid, vmid)? {
                return Ok(Some(pid));
            }
        }
        Ok(None)
    }

    /// Whether the VM runs.
    pub fn is_running(&self, vmid: Vmid) -> Result<bool> {
        Ok(self.running_pid(vmid)?.is_some())
    }

    fn is_qemu_of(&self, pid: u32, vmid: Vmid) -> Result<bool> {
        let path = self.root.join(format!("proc/{pid}/cmdline"));
        let mut bytes = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(MAX_CMDLINE_BYTES).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(is_qemu_command(&bytes, vmid)),
            // The process ended while we looked.
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) if e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(false),
            Err(e) => Err(Error::io(format!("cannot read {}", path.display()), e)),
        }
    }

    /// Writes the configuration of a replica of `pair` to this node, replacing only a guarded replica of the same pair.
    /// Under the VM's lock file and by rename, as Proxmox does.
    pub fn write_vm_config(&self, vmid: Vmid, text: &str, pair: Uuid) -> Result<()> {
        self.write_within(LOCK_TIMEOUT, vmid, text, pair)
    }

    fn write_within(&self, wait: Duration, vmid: Vmid, text: &str, pair: Uuid) -> Result<()> {
        let path = self.vm_config_path(vmid)?;
        let what = || format!("cannot write {}", path.display());
        let too_long = u64::try_from(text.len()).map_or(true, |len| len > MAX_CONFIG_BYTES);
        let new = VmConfig::parse(text).map_err(|e| e.context(what()))?;
        if too_long || standing(&new, pair) != Standing::Standby {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "{}: the new text is not a guarded replica of pair {pair}",
                    what()
                ),
            ));
        }
        let lock = self.lock_vm(vmid, wait)?;
        if self.guest(vmid)?.is_some() {
            self.check_replaceable(vmid, pair)?;
        }
        self.replace_config(&lock, vmid, text)
    }

    /// Writes the configuration of a VM of this node by rename, as Proxmox does. Whoever calls it has the VM's lock, and
    /// has looked at what is there.
    pub(crate) fn replace_config(&self, _lock: &VmLock, vmid: Vmid, text: &str) -> Result<()> {
        let path = self.vm_config_path(vmid)?;
        let what = || format!("cannot write {}", path.display());
        VmConfig::parse(text).map_err(|e| e.context(what()))?;
        let temporary = path.with_extension(format!("conf.tmp.{}", std::process::id()));
        let written = write_new(&temporary, text).and_then(|()| std::fs::rename(&temporary, &path));
        written.map_err(|e| {
            // Already on the way out with an error; a left-over temporary file does no harm.
            let _ = std::fs::remove_file(&temporary);
            Error::io(what(), e)
        })
    }

    /// Makes a VM of another node of the cluster one of this node, by its file's rename: the cluster lets one node win.
    pub(crate) fn move_here(&self, _lock: &VmLock, vmid: Vmid, from: &str) -> Result<()> {
        let (old, new) = (
            self.guest_file(from, "qemu-server", vmid),
            self.vm_config_path(vmid)?,
        );
        std::fs::rename(&old, &new)
            .map_err(|e| Error::io(format!("cannot move {} to this node", old.display()), e))
    }

    /// The configuration of a VM on another node of the cluster.
    pub(crate) fn vm_config_at(&self, vmid: Vmid, node: &str) -> Result<VmConfig> {
        let path = self.guest_file(node, "qemu-server", vmid);
        VmConfig::parse(&read_text(&path)?).map_err(|e| e.context(path.display()))
    }

    /// Removes the configuration of a VM of this node.
    pub(crate) fn remove_config(&self, _lock: &VmLock, vmid: Vmid) -> Result<()> {
        let path = self.vm_config_path(vmid)?;
        remove_present(&path).map(drop)
    }

    pub(crate) fn check_replaceable(&self, vmid: Vmid, pair: Uuid) -> Result<()> {
        let present = self.vm_config(vmid)?;
        match standing(&present, pair) {
            Standing::Standby => Ok(()),
            Standing::TakenOver => Err(Error::new(
                Kind::Refused,
                format!("replica {vmid} has been taken over: its lock is gone"),
            )
            .advise(format!(
                "if it is not in use, lock it again: qm set {vmid} --lock migrate"
            ))),
            Standing::Foreign => Err(Error::new(
                Kind::Refused,
                format!("VM {vmid} exists already and is not a replica of this pair"),
            )
            .advise("choose another VM id for the replica")
            .see(Runbook::WrongVmid)),
        }
    }

    /// Takes Proxmox's lock on a VM: until it is dropped no task of Proxmox's starts or changes the VM.
    pub fn hold_vm(&self, vmid: Vmid) -> Result<VmLock> {
        self.lock_vm(vmid, LOCK_TIMEOUT)
    }

    fn lock_vm(&self, vmid: Vmid, wait: Duration) -> Result<VmLock> {
        let dir = self.root.join("var/lock/qemu-server");
        let path = dir.join(format!("lock-{vmid}.conf"));
        let failed = |e: std::io::Error| Error::io(format!("cannot lock {}", path.display()), e);
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(failed)?;
        let deadline = Instant::now() + wait;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(VmLock { _file: file }),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    return Err(Error::new(
                        Kind::Busy,
                        format!("another process holds the lock {}", path.display()),
                    )
                    .advise("a Proxmox task works on the VM: wait for it"));
                }
                Err(e) => return Err(failed(e.into())),
            }
        }
    }
}

fn no_pve(why: String) -> Error {
    Error::new(
        Kind::NotFound,
        format!("this host is not a working Proxmox VE node: {why}"),
    )
    .advise(
        "if it should be one, look at systemctl status pve-cluster; a host with libvirt needs virt-blocksync, in the same \
         version as here",
    )
}

fn is_node_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn read_text(path: &Path) -> Result<String> {
    let what = || format!("cannot read {}", path.display());
    let file = File::open(path).map_err(|e| Error::io(what(), e))?;
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io(what(), e))?;
    if u64::try_from(bytes.len()).map_or(true, |len| len > MAX_CONFIG_BYTES) {
        return Err(Error::new(
            Kind::Refused,
            format!("{}: it is larger than {MAX_CONFIG_BYTES} bytes", what()),
        ));
    }
    String::from_utf8(bytes).map_err(|e| {
        Error::new(Kind::Refused, format!("{}: it is not UTF-8", what())).because(e.utf8_error())
    })
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    // Left behind by a process that died and had our process id.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Whether a command line (arguments ended by NUL bytes) is that of a VM's QEMU: Proxmox's QEMU is told
/// `-id VMID`; any QEMU serving the VM is told the path of its QMP socket.
fn is_qemu_command(cmdline: &[u8], vmid: Vmid) -> bool {
    let arguments: Vec<&[u8]> = cmdline.split(|b| *b == 0).collect();
    let program = arguments.first().copied().unwrap_or_default();
    let program = program.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let is_qemu = program == b"kvm" || program.starts_with(b"qemu-system-");
    if !is_qemu {
        return false;
    }
    let id = vmid.to_string();
    let socket = format!("/qemu-server/{vmid}.qmp");
    let has_id = arguments
        .windows(2)
        .any(|pair| pair[0] == b"-id" && pair[1] == id.as_bytes());
    has_id
        || arguments.iter().any(|argument| {
            argument
                .split(|b| *b == b',')
                .any(|part| part.ends_with(socket.as_bytes()))
        })
}

#[cfg(test)]
#[path = "node/tests.rs"]
mod tests;
