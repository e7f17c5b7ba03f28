//! `make bench`: rblocksync beside tools from Debian, both ends on this machine, through a real sshd.
//!
//! Rounds are interleaved, so that a busy machine hurts all alike. Every destination is compared with its
//! source. docs/benchmarks.md tells what is measured and how.

#[path = "bench/criteria.rs"]
mod criteria;
#[path = "bench/ends.rs"]
mod ends;
#[path = "bench/images.rs"]
mod images;
#[path = "bench/measure.rs"]
mod measure;
#[path = "bench/record.rs"]
mod record;
#[path = "bench/relay.rs"]
mod relay;
#[path = "bench/report.rs"]
mod report;
#[path = "bench/scenario.rs"]
mod scenario;
#[path = "bench/series.rs"]
mod series;
#[path = "bench/tools.rs"]
mod tools;
#[path = "bench/zstd.rs"]
mod zstd;

use ends::Ends;
use scenario::Scenario;
use serde_json::{json, Value};
use series::Series;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tools::Tool;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: bench [--rounds N] [--json FILE] [--dir DIR] [a|b|c|d|e|f|g|h]...";
/// Of what takes a second: the more rounds, the less a moment counts.
const SHORT_ROUNDS: usize = 5;

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|a| a == record::OPTION) {
        return record::main(args.split_off(1));
    }
    match Options::parse().and_then(|options| bench(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("bench: rblocksync failed, see above");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    rounds: usize,
    json: Option<PathBuf>,
    /// Where the images go.
    dir: PathBuf,
    scenarios: Vec<Scenario>,
}

impl Options {
    fn parse() -> Outcome<Options> {
        let mut options = Options {
            rounds: 3,
            json: None,
            dir: PathBuf::from("/var/tmp"),
            scenarios: Vec::new(),
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(USAGE);
            match arg.as_str() {
                "--rounds" => options.rounds = value()?.parse::<usize>()?.max(1),
                "--json" => options.json = Some(value()?.into()),
                "--dir" => options.dir = value()?.into(),
                name => {
                    let mut all = scenario::ALL.into_iter();
                    let found = all.find(|s| s.name == name).ok_or(USAGE)?;
                    options.scenarios.push(found);
                }
            }
        }
        if options.scenarios.is_empty() {
            options.scenarios = scenario::ALL.to_vec();
        }
        Ok(options)
    }
}

/// Runs all that is wanted; false if rblocksync itself failed somewhere.
fn bench(options: &Options) -> Outcome<bool> {
    let binaries =
        std::env::var_os("LAB_BINARIES").ok_or("LAB_BINARIES does not name the built programs")?;
    let dir = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(&options.dir)?;
    let ends = Ends::start(dir.path(), PathBuf::from(binaries).join("rblocksync"))?;
    let tools = present(tools::all());
    let run = |scenario: Scenario, rounds, start_up: Option<&Series>| {
        println!("\n{}: {}", scenario.name, scenario.text);
        let series = series::run(scenario, &tools, rounds, start_up, &ends, dir.path())?;
        let verdicts = criteria::judge(&series);
        report::print(&series, &verdicts);
        let json = report::json(&series, &verdicts);
        Outcome::Ok((series, json))
    };
    let (start_up, json) = run(scenario::START_UP, options.rounds.max(SHORT_ROUNDS), None)?;
    let mut all_well = is_well(&start_up);
    let mut documents = vec![json];
    for scenario in &options.scenarios {
        let rounds = match scenario.both_ways {
            true => options.rounds.max(SHORT_ROUNDS),
            false => options.rounds,
        };
        let (series, json) = run(*scenario, rounds, Some(&start_up))?;
        all_well &= is_well(&series);
        documents.push(json);
        // After each, so that a run that is cut off leaves something.
        write_json(options, &documents)?;
    }
    if options.json.is_none() {
        println!("\n{}", serde_json::to_string(&document(&documents))?);
    }
    Ok(all_well)
}

fn is_well(series: &Series) -> bool {
    let mut ours = series.rows.iter();
    ours.all(|r| r.tool.name != tools::RBLOCKSYNC || r.failure.is_none())
}

fn present(tools: Vec<Tool>) -> Vec<Tool> {
    let (there, not): (Vec<Tool>, Vec<Tool>) =
        tools.into_iter().partition(|t| t.missing().is_none());
    for tool in not {
        let missing = tool.missing().unwrap_or_default();
        println!("{} is left out: no {missing}", tool.name);
    }
    there
}

fn write_json(options: &Options, documents: &[Value]) -> Outcome<()> {
    match &options.json {
        Some(path) => Ok(std::fs::write(
            path,
            serde_json::to_vec_pretty(&document(documents))?,
        )?),
        None => Ok(()),
    }
}

fn document(scenarios: &[Value]) -> Value {
    let line = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "kernel": line("/proc/sys/kernel/osrelease").trim(),
        "cpus": cpus,
        "round_trip_s": ends::ROUND_TRIP.as_secs_f64(),
        "scenarios": scenarios,
    })
}
