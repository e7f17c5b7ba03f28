//! `make bench`: rblocksync beside tools from Debian, both ends on this machine, through a real sshd.
//!
//! Rounds are interleaved, so that a busy machine hurts all alike; the table shows medians. Every
//! destination is compared with its source. Tools that are not installed are left out and named.

#[path = "bench/images.rs"]
mod images;
#[path = "bench/measure.rs"]
mod measure;

use images::Scenario;
use measure::Sample;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use tests::sshd::Sshd;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A tool: its name and the command that makes `dst` equal to `src`.
struct Tool {
    name: &'static str,
    needs: &'static str,
    command: fn(&Setup, &Path, &Path) -> Command,
    /// Whether it writes a destination that is to be compared.
    copies: bool,
    /// Whether it reads holes too, so that a huge sparse image would take it hours.
    reads_holes: bool,
}

struct Setup {
    rblocksync: PathBuf,
    ssh_config: PathBuf,
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "rblocksync",
        needs: "ssh",
        copies: true,
        reads_holes: false,
        command: |setup, src, dst| {
            let mut c = Command::new(&setup.rblocksync);
            c.args(["-q", "--truncate", "--ssh-config"])
                .arg(&setup.ssh_config)
                .arg(src);
            c.arg(format!("bench:{}", dst.display()));
            c
        },
    },
    Tool {
        name: "rsync --inplace",
        needs: "rsync",
        copies: true,
        reads_holes: true,
        command: |setup, src, dst| {
            let mut c = Command::new("rsync");
            c.args(["-I", "--inplace", "-e"])
                .arg(format!("ssh -F {}", setup.ssh_config.display()));
            c.arg(src).arg(format!("bench:{}", dst.display()));
            c
        },
    },
    Tool {
        name: "tar -S | ssh",
        needs: "tar",
        copies: true,
        reads_holes: false,
        command: |setup, src, dst| {
            pipe("tar -C \"$1\" -S -cf - \"$2\" | ssh -F \"$3\" bench \"tar -C $4 -xf - --transform s/.*/$5/\"", setup, src, dst)
        },
    },
    Tool {
        name: "dd | ssh dd",
        needs: "dd",
        copies: true,
        reads_holes: true,
        command: |setup, src, dst| {
            pipe("dd if=\"$1/$2\" bs=1M status=none | ssh -F \"$3\" bench \"dd of=$4/$5 bs=1M conv=notrunc,sparse status=none\"", setup, src, dst)
        },
    },
    Tool {
        name: "b3sum of both",
        needs: "b3sum",
        copies: false,
        reads_holes: true,
        command: |_, src, dst| {
            let mut c = Command::new("b3sum");
            c.args(["--num-threads", "2"]).arg(src).arg(dst);
            c
        },
    },
];

/// A pipeline; the paths are arguments, and the bench chooses them itself.
fn pipe(script: &str, setup: &Setup, src: &Path, dst: &Path) -> Command {
    let part = |p: Option<&Path>| p.unwrap_or(Path::new("/")).to_owned();
    let name = |p: &Path| p.file_name().unwrap_or_default().to_owned();
    let mut c = Command::new("bash");
    c.args(["-c", &format!("set -o pipefail; {script}"), "bench"]);
    c.arg(part(src.parent()))
        .arg(name(src))
        .arg(&setup.ssh_config);
    c.arg(part(dst.parent())).arg(name(dst));
    c
}

fn bench() -> Outcome<()> {
    let mut rounds = 3;
    let mut wanted = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => rounds = args.next().ok_or("--rounds takes a number")?.parse()?,
            name => wanted.push(name.to_owned()),
        }
    }
    let binaries =
        std::env::var_os("LAB_BINARIES").ok_or("LAB_BINARIES does not name the built programs")?;
    let rblocksync = PathBuf::from(binaries).join("rblocksync");
    let sshd = Sshd::start();
    sshd.install("rblocksync", &std::fs::read(&rblocksync)?);
    let setup = Setup {
        rblocksync,
        ssh_config: sshd.client_config(),
    };
    let dir = tempfile::tempdir_in("/var/tmp")?;
    let mut all = Vec::new();
    for scenario in Scenario::all() {
        if wanted.is_empty() || wanted.iter().any(|w| w == scenario.name()) {
            all.push(run(scenario, rounds, &setup, dir.path())?);
        }
    }
    println!("{}", serde_json::to_string(&all)?);
    Ok(())
}

/// Whether a tool can take part.
fn fits(tool: &Tool, scenario: Scenario) -> bool {
    (tool.copies || !scenario.is_first_copy()) && !(tool.reads_holes && scenario.is_huge())
}

fn run(scenario: Scenario, rounds: usize, setup: &Setup, dir: &Path) -> Outcome<serde_json::Value> {
    println!("\n{}: {}", scenario.name(), scenario.describe());
    let src = dir.join(format!("{}.src", scenario.name()));
    let old = dir.join(format!("{}.old", scenario.name()));
    let data = scenario.build(&src, &old)?;
    let mut samples: Vec<(&Tool, Vec<Sample>)> = Vec::new();
    for tool in TOOLS.iter().filter(|t| fits(t, scenario)) {
        match measure::installed(tool.needs) {
            true => samples.push((tool, Vec::new())),
            false => println!("  ({} is not installed)", tool.name),
        }
    }
    for _ in 0..rounds {
        for (tool, results) in &mut samples {
            let dst = dir.join("dst.img");
            images::restore(&old, &dst)?;
            let sample = measure::run((tool.command)(setup, &src, &dst))?;
            if tool.copies {
                images::check_equal(&src, &dst, tool.name)?;
            }
            results.push(Sample {
                allocated: measure::allocated(&dst)?,
                ..sample
            });
            measure::remove(&dst)?;
        }
    }
    println!(
        "  {:<18} {:>8} {:>8} {:>10} {:>9} {:>9}",
        "tool", "wall s", "cpu s", "wire MB", "RSS MB", "du MB"
    );
    let mut rows = Vec::new();
    for (tool, results) in &samples {
        let median = |of: fn(&Sample) -> f64| measure::median(results.iter().map(of).collect());
        let row = [
            median(|s| s.wall_s),
            median(|s| s.cpu_s),
            median(|s| s.wire as f64 / 1e6),
            median(|s| s.rss as f64 / 1e6),
            median(|s| s.allocated as f64 / 1e6),
        ];
        println!(
            "  {:<18} {:>8.2} {:>8.2} {:>10.3} {:>9.1} {:>9.1}",
            tool.name, row[0], row[1], row[2], row[3], row[4]
        );
        rows.push(json!({
            "tool": tool.name, "wall_s": row[0], "cpu_s": row[1], "wire_mb": row[2], "rss_mb": row[3], "allocated_mb": row[4],
        }));
    }
    println!("  data in the source: {:.1} MB", data as f64 / 1e6);
    measure::remove(&src)?;
    measure::remove(&old)?;
    Ok(
        json!({"scenario": scenario.name(), "data_mb": data as f64 / 1e6, "rounds": rounds, "tools": rows}),
    )
}
