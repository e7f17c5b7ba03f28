//! `bench --record FILE SIDE PROGRAM...`: runs a program and writes down what it took.
//!
//! A process of its own, and a small one: what the kernel counts for its children is then this run and
//! nothing else, to the last moment. A program starts with the peak memory of the process that it was
//! forked from, so that one must be small. What the program leaves behind, an ssh that went to the
//! background, comes back to this process and is counted too.

use crate::Outcome;
use nix::sys::resource::{getrusage, UsageWho};
use nix::sys::time::TimeValLike;
use rustix::process::{getpid, set_child_subreaper, wait, WaitOptions};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// The option that makes the bench this.
pub const OPTION: &str = "--record";

/// How long something left behind may take to end.
const LEFT_BEHIND_MAX: Duration = Duration::from_secs(2);

/// What one program and all that it started took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record {
    /// Until the program itself had ended.
    pub wall_s: f64,
    pub cpu_s: f64,
    /// Largest resident size that any one process had, in bytes.
    pub rss: u64,
}

/// Runs the program; ends as it did.
pub fn main(args: Vec<OsString>) -> ExitCode {
    match args.as_slice() {
        [file, side, program, rest @ ..] => record(Path::new(file), side, program, rest)
            .unwrap_or_else(|error| {
                eprintln!("bench {OPTION}: {error}");
                ExitCode::FAILURE
            }),
        _ => ExitCode::FAILURE,
    }
}

fn record(
    file: &Path,
    side: &OsString,
    program: &OsString,
    args: &[OsString],
) -> Outcome<ExitCode> {
    set_child_subreaper(Some(getpid()))?;
    let began = Instant::now();
    let status = Command::new(program).args(args).status()?;
    let wall = began.elapsed();
    while began.elapsed() < wall + LEFT_BEHIND_MAX {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(_) => break,
        }
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu_us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    // One short write, so that lines of several processes do not mix.
    let line = format!(
        "{} {} {cpu_us} {}\n",
        side.to_string_lossy(),
        wall.as_micros(),
        usage.max_rss(),
    );
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(line.as_bytes())?;
    Ok(match status.code() {
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => ExitCode::FAILURE,
    })
}

/// The records of one side in the text of such a file.
pub fn of_side(text: &str, side: &str) -> Vec<Record> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            if words.next()? != side {
                return None;
            }
            let mut number = || words.next()?.parse::<u64>().ok();
            Some(Record {
                wall_s: number()? as f64 / 1e6,
                cpu_s: number()? as f64 / 1e6,
                rss: number()? * 1024,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        let text = "source 1500000 20000 4\ntarget 1 2 3\nnonsense\n";
        let expected = Record {
            wall_s: 1.5,
            cpu_s: 0.02,
            rss: 4096,
        };
        assert_eq!(of_side(text, "source"), [expected]);
        assert_eq!(of_side(text, "target").len(), 1);
    }
}
