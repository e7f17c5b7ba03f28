//! What processes have cost so far: other than the time on the clock it is nearly the same on a busy machine.

use std::fs;
use std::io;

/// CPU seconds of a process and of all that it has started and that has ended.
///
/// # Errors
/// There is no such process.
pub fn seconds_of(pid: u32) -> io::Result<f64> {
    // utime, stime, cutime and cstime are fields 14 to 17 (proc(5)); the state, after the name, is field 3.
    Ok(seconds(&stat(pid)?, 11, 4))
}

/// CPU seconds of all that this process has started, whether it runs or has ended.
pub fn seconds_of_children() -> f64 {
    let own = std::process::id();
    let ended = stat(own).map_or(0.0, |stat| seconds(&stat, 13, 2));
    let children = fs::read_dir("/proc").into_iter().flatten().flatten();
    let running = children
        .filter_map(|entry| stat(entry.file_name().to_str()?.parse().ok()?).ok())
        .filter(|stat| stat.split_whitespace().nth(1) == Some(own.to_string().as_str()))
        .map(|stat| seconds(&stat, 11, 4));
    ended + running.sum::<f64>()
}

/// The fields of proc(5)'s stat behind the process's name, which may hold anything.
fn stat(pid: u32) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(text.rsplit(')').next().unwrap_or_default().to_owned())
}

fn seconds(stat: &str, skip: usize, take: usize) -> f64 {
    let ticks = stat.split_whitespace().skip(skip).take(take);
    let ticks: u64 = ticks.filter_map(|t| t.parse::<u64>().ok()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}
