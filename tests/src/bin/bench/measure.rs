//! Measuring one command: time, CPU of the whole machine, bytes over loopback, peak memory.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Programs whose memory counts: the machine may run others meanwhile.
const MEASURED: [&str; 5] = ["rblocksync", "rsync", "tar", "dd", "b3sum"];

/// One run.
#[derive(Clone, Copy, Default)]
pub struct Sample {
    pub wall_s: f64,
    /// CPU time that the machine spent while it ran: both ends, ssh, and whatever else went on.
    pub cpu_s: f64,
    /// Bytes over the loopback interface, both directions.
    pub wire: u64,
    /// Largest resident size of any one process that the run started.
    pub rss: u64,
    /// Bytes that the destination takes on its disk.
    pub allocated: u64,
}

/// Whether a program is on the path.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Runs a command to its end. It must succeed.
pub fn run(mut command: Command) -> Outcome<Sample> {
    let before = processes();
    let (cpu, wire) = (cpu_s()?, loopback_bytes()?);
    let done = AtomicBool::new(false);
    let began = Instant::now();
    let (output, wall_s, rss) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                for pid in processes().into_iter().filter(|p| !before.contains(p)) {
                    peak = peak.max(peak_rss(pid));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
        let wall_s = began.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        (output, wall_s, watch.join().unwrap_or(0))
    });
    let output = output?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(Sample {
        wall_s,
        cpu_s: cpu_s()? - cpu,
        wire: loopback_bytes()? - wire,
        rss,
        allocated: 0,
    })
}

fn processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect()
}

fn peak_rss(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let name = status.lines().next().and_then(|l| l.strip_prefix("Name:"));
    if !name.is_some_and(|n| MEASURED.contains(&n.trim())) {
        return 0;
    }
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn cpu_s() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|f| f.parse().ok())
        .collect();
    // user, nice, system; then idle, iowait, irq, softirq.
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|i| ticks.get(*i)).sum();
    Ok(busy as f64 / 100.0)
}

fn loopback_bytes() -> Outcome<u64> {
    let text = std::fs::read_to_string("/sys/class/net/lo/statistics/tx_bytes")?;
    Ok(text.trim().parse()?)
}

/// Bytes that a file takes on its disk; 0 if there is none.
pub fn allocated(path: &Path) -> Outcome<u64> {
    Ok(std::fs::metadata(path).map_or(0, |m| m.blocks() * 512))
}

/// Removes a file that may not be there.
pub fn remove(path: &Path) -> Outcome<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// The middle value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
