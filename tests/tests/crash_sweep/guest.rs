//! A QEMU without a machine, which has a guest's states all the same.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use tests::sshd::eventually;

/// Ends when dropped.
pub struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guest {
    /// With two monitors in this directory, `monitor` and `side`.
    pub fn start(dir: &Path) -> Guest {
        let monitor = |name| format!("unix:{},server=on,wait=off", dir.join(name).display());
        let child = Command::new("qemu-system-x86_64")
            .args(["-machine", "none", "-nodefaults", "-display", "none"])
            .args(["-qmp", &monitor("monitor"), "-qmp", &monitor("side")])
            .stdin(Stdio::null())
            .spawn()
            .expect("QEMU");
        let guest = Guest(child);
        eventually("QEMU listens", || {
            std::os::unix::net::UnixStream::connect(dir.join("side")).is_ok()
        });
        guest
    }
}
