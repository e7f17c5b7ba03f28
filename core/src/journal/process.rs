//! What tells a process from all others that this host has had and will have: the boot, its number, and when
//! it was started.

use crate::error::{Error, Result};

/// This process.
pub(super) fn this() -> Result<String> {
    let pid = std::process::id();
    identity(pid).map_err(|e| Error::io("cannot read /proc about this process", e))
}

/// Whether that process is still there.
pub(super) fn is_there(process: &str) -> bool {
    let pid = process.split(' ').nth(1).and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid| identity(pid).is_ok_and(|now| now == process))
}

fn identity(pid: u32) -> std::io::Result<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses, which may hold anything; the start time is field 22
    // (proc_pid_stat(5)).
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let started = after_name.split_whitespace().nth(19).unwrap_or_default();
    Ok(format!("{} {pid} {started}", boot.trim()))
}
