//! libvirtd and sshd of a node: their configuration, their start and their end.

use super::{Node, Result, NODES};
use crate::lab::inner::{run, Context};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Nothing of a host that a namespace lacks: no security driver, no control groups, no log daemon.
pub const QEMU_CONF: &str = r#"user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
"#;

const SSHD_CONF: &str = "ListenAddress 0.0.0.0
PidFile none
PermitRootLogin yes
StrictModes no
PasswordAuthentication yes
KbdInteractiveAuthentication no
UsePAM no
LogLevel ERROR
Subsystem sftp internal-sftp
";

/// How libvirtd is started: it returns when commands are taken.
const START: &str = "libvirtd -d --listen --pid-file /run/libvirtd.pid";

/// Lays out what a node has of its own: `keys` for SSH, and the configuration.
pub(super) fn write_files(own: &Path, keys: &Path, name: &str, number: u8) -> Result<()> {
    let cannot = || format!("cannot write below {}", own.display());
    for dir in ["etc/libvirt", "etc/ssh"] {
        fs::create_dir_all(own.join(dir)).context(cannot)?;
    }
    run(Command::new("cp").arg("-a").arg(keys.join(".")).arg(own))?;
    let write = |path: &str, text: &str| fs::write(own.join(path), text).context(cannot);
    let hosts: String = NODES
        .iter()
        .map(|(name, number)| format!("10.77.0.{number} {name}\n"))
        .collect();
    write("etc/hosts", &format!("127.0.0.1 localhost\n{hosts}"))?;
    let host_key = format!("HostKey /etc/ssh/host-keys/{name}\n");
    write("etc/ssh/bed_sshd_config", &(host_key + SSHD_CONF))?;
    write("etc/libvirt/qemu.conf", QEMU_CONF)?;
    write("etc/libvirt/libvirtd.conf", &libvirtd_conf(number))
}

/// Anybody who reaches it may do anything: nobody but the other node and this machine's root can.
fn libvirtd_conf(number: u8) -> String {
    format!(
        "host_uuid = \"ba5eba11-0000-4000-8000-00000000000{number}\"\n\
         listen_tls = 0\nlisten_tcp = 1\nlisten_addr = \"0.0.0.0\"\nauth_tcp = \"none\"\n\
         auth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\n\
         log_outputs = \"2:file:/var/log/libvirt/qemu/libvirtd.log\"\n"
    )
}

impl Node {
    /// Starts sshd and libvirtd, which has a pool "default" of files as hosts usually have.
    pub(super) fn start_services(&self) -> Result<()> {
        self.run_ok("/usr/sbin/sshd -f /etc/ssh/bed_sshd_config")?;
        self.start_daemon()?;
        self.virsh_ok("pool-define-as default dir --target /var/lib/libvirt/images")?;
        self.virsh_ok("pool-start default")?;
        self.virsh_ok("pool-autostart default").map(drop)
    }

    /// Starts libvirtd after its end.
    ///
    /// # Errors
    /// It does not come up; its log is in [`logs`](Self::logs).
    pub fn start_daemon(&self) -> Result<()> {
        self.run_ok(START).map(drop)
    }

    /// Ends libvirtd by a signal ("TERM", "KILL") and waits for its end. Guests run on.
    ///
    /// # Errors
    /// It does not run, or stays.
    pub fn end_daemon(&self, signal: &str) -> Result<()> {
        self.run_ok(&format!(
            "pid=$(cat /run/libvirtd.pid) && kill -{signal} $pid && timeout 60 tail --pid=$pid -f /dev/null \
             && rm -f /run/libvirtd.pid"
        ))
        .map(drop)
    }

    /// Ends a guest's QEMU as a crash would, and waits for its end.
    ///
    /// # Errors
    /// The guest does not run.
    pub fn kill_guest(&self, name: &str) -> Result<()> {
        self.run_ok(&format!(
            "pid=$(cat '/run/libvirt/qemu/{name}.pid') && kill -KILL $pid && timeout 60 tail --pid=$pid -f /dev/null"
        ))
        .map(drop)
    }

    /// Installs a hook of libvirt's: `script` as /etc/libvirt/hooks/qemu.d/NAME. A daemon that found no hook when it
    /// started is told to look again.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn hook(&self, name: &str, script: &str) -> Result<()> {
        self.write_file(&format!("/etc/libvirt/hooks/qemu.d/{name}"), script, 0o755)?;
        self.run_ok("kill -HUP $(cat /run/libvirtd.pid)").map(drop)
    }
}
