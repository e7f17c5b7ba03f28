//! Measuring one run of one tool.

use crate::ends::{Ends, Way};
use crate::record;
use crate::Outcome;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A tool that hangs is given up after this.
const RUN_SECONDS_MAX: &str = "1800";

/// One run.
#[derive(Clone, Copy, Default)]
pub struct Sample {
    pub wall_s: f64,
    /// Of the tool and all that it started here, its ssh among it.
    pub source_cpu_s: f64,
    /// Of the server and all that it started for the tool.
    pub target_cpu_s: f64,
    /// CPU time that the machine spent meanwhile on anything else.
    pub others_cpu_s: f64,
    /// Bytes over the loopback interface, both directions; through the relay: what went through it.
    pub wire: u64,
    /// Largest resident size of any one process, in bytes.
    pub source_rss: u64,
    pub target_rss: u64,
    /// Bytes that the destination takes on its disk.
    pub allocated: u64,
}

/// What a tool's script works on; it finds these in its environment as SRC, DST and HOST.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    pub src: &'a Path,
    pub dst: &'a Path,
    pub way: Way,
}

/// Runs a tool's script to its end. It must succeed.
pub fn run(script: &str, places: Places, ends: &Ends) -> Outcome<Sample> {
    remove(&ends.records)?;
    ends.wait_until_idle()?;
    let mut path = vec![ends.programs.clone()];
    path.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    let mut command = Command::new(&ends.recorder);
    command
        .arg(record::OPTION)
        .arg(&ends.records)
        .args(["source", "timeout", "-k", "5", RUN_SECONDS_MAX])
        .args(["bash", "-o", "pipefail", "-c", script])
        .env("PATH", std::env::join_paths(path)?)
        .env("RBLOCKSYNC", &ends.rblocksync)
        .env("SRC", places.src)
        .env("DST", places.dst)
        .env("HOST", places.way.host())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let bytes = || match places.way {
        Way::Near => loopback_bytes(),
        Way::Far => Ok(ends.relay.bytes()),
    };
    let (target_cpu, machine_cpu, wire) = (ends.target_cpu_s()?, machine_cpu_s()?, bytes()?);
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, said.trim()).into());
    }
    ends.wait_until_idle()?;
    let target_cpu_s = ends.target_cpu_s()? - target_cpu;
    let wire = bytes()? - wire;
    let records = fs::read_to_string(&ends.records)?;
    let source = record::of_side(&records, "source");
    let source = source.first().ok_or("the recorder wrote nothing down")?;
    let target = record::of_side(&records, "target");
    let all = machine_cpu_s()? - machine_cpu;
    Ok(Sample {
        wall_s: source.wall_s,
        source_cpu_s: source.cpu_s,
        target_cpu_s,
        others_cpu_s: (all - source.cpu_s - target_cpu_s).max(0.0),
        wire,
        source_rss: source.rss,
        target_rss: target.iter().map(|r| r.rss).max().unwrap_or(0),
        allocated: allocated(places.dst)?,
    })
}

fn machine_cpu_s() -> Outcome<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks = line.split_whitespace().skip(1);
    let ticks: Vec<u64> = ticks.filter_map(|f| f.parse().ok()).collect();
    // user, nice, system; then idle, iowait, irq, softirq.
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|i| ticks.get(*i)).sum();
    Ok(busy as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn loopback_bytes() -> Outcome<u64> {
    let text = fs::read_to_string("/sys/class/net/lo/statistics/tx_bytes")?;
    Ok(text.trim().parse()?)
}

/// Bytes that a file takes on its disk; 0 if there is none.
pub fn allocated(path: &Path) -> Outcome<u64> {
    match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        found => Ok(found?.blocks() * 512),
    }
}

/// Removes a file that may not be there.
pub fn remove(path: &Path) -> Outcome<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// The middle value; of an even number the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
