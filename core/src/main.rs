//! `rblocksync SRC DST`: the plain command, and the agent that it starts on other hosts.

use clap::FromArgMatches;
use rblocksync::agent::NoService;
use rblocksync::cli::map::{draw, Canvas, Caption, MapFile};
use rblocksync::cli::units::{human, human_time};
use rblocksync::cli::{
    ended, run, run_agent, Cli, Endpoint, OutputOptions, Reporter, Transfer, CONFIGURED,
};
use rblocksync::error::Result;
use rblocksync::remote::SshOptions;
use rblocksync::stop::{on_signals, Stop};
use rblocksync::sync::{BlockMap, Summary};
use serde_json::{json, Value};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const PROGRAM: &str = CONFIGURED.name;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = args.iter().map(|a| a.to_str().unwrap_or("")).collect();
    // What other programs ask of us comes with options only: a file may have these names.
    match words.as_slice() {
        ["agent"] => run_agent(PROGRAM, &[], &mut NoService),
        ["agent", option, ..] if option.starts_with("--") => {
            run_agent(PROGRAM, &args[1..], &mut NoService)
        }
        // sudo compares arguments as one text. Who may run the agent by it must not have a file of this name synced; the
        // agent knows no such word, and says so.
        [word, ..] if word.starts_with("agent --") => run_agent(PROGRAM, &args, &mut NoService),
        ["watchdog", option, ..] if option.starts_with("--") => exit(
            rblocksync::snapshot::watchdog::main_from_args(args.into_iter().skip(1)),
        ),
        _ => command(),
    }
}

fn command() -> ExitCode {
    let line: Vec<OsString> = std::env::args_os().collect();
    // With a configuration that is wrong these are what is called.
    let plain = rblocksync::cli::command();
    if let Ok(matches) = plain.try_get_matches_from(&line) {
        let reporter = Reporter::new(OutputOptions::default());
        let done = match matches.try_get_one::<PathBuf>("config_check") {
            Ok(file) if matches.contains_id("config_check") => {
                Some(CONFIGURED.check_config(file.map(PathBuf::as_path), &reporter))
            }
            _ if matches.get_flag("config_show") => Some(CONFIGURED.show_config(None, &reporter)),
            _ if matches.get_flag("config_defaults") => Some(CONFIGURED.show_defaults(&reporter)),
            _ => None,
        };
        if let Some(done) = done {
            return ended(done.map(|()| 0), PROGRAM, &reporter, &Stop::new());
        }
    }
    match CONFIGURED.matches(&line) {
        Ok(matches) => match Cli::from_arg_matches(&matches) {
            Ok(cli) => sync(cli),
            Err(e) => e.exit(),
        },
        Err(failed) => failed.end(PROGRAM),
    }
}

fn exit(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn sync(cli: Cli) -> ExitCode {
    let reporter = Reporter::new(cli.output);
    let stop = match on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            reporter.fail(PROGRAM, &error);
            return ExitCode::FAILURE;
        }
    };
    let done = synced(&cli, &reporter, &stop).map(|()| 0);
    ended(done, PROGRAM, &reporter, &stop)
}

fn synced(cli: &Cli, reporter: &Reporter, stop: &Stop) -> Result<()> {
    let began = Instant::now();
    let mut transfer = plan(cli)?;
    let images = [&transfer.source, &transfer.target];
    let file = cli.map.as_deref();
    let file = file.map(|path| MapFile::create(path, images)).transpose()?;
    transfer.map = file.is_some() || reporter.draws();
    let ssh = SshOptions {
        // Those are for the agents of other programs.
        keys: None,
        ..cli.ssh.options(stop)
    };
    let (summary, map) = run(&transfer, &ssh, reporter, stop)?;
    report(reporter, &transfer, &summary, began.elapsed());
    match map {
        Some(map) => show(reporter, &transfer, &map, file),
        None => Ok(()),
    }
}

/// Draws the map, where it was asked for.
fn show(
    reporter: &Reporter,
    transfer: &Transfer,
    map: &BlockMap,
    file: Option<MapFile>,
) -> Result<()> {
    if reporter.draws() {
        let text = draw(map, &Canvas::stdout());
        if !text.is_empty() {
            reporter.say(text, Value::Null);
        }
    }
    let caption = Caption {
        source: transfer.source.to_string(),
        target: transfer.target.to_string(),
        dry_run: transfer.dry_run,
        time: jiff::Timestamp::now(),
    };
    file.map_or(Ok(()), |file| file.write(map, &caption))
}

/// The validated request.
fn plan(cli: &Cli) -> Result<Transfer> {
    Ok(Transfer {
        source: Endpoint::parse(&cli.src)?,
        source_format: cli.source_format,
        target: Endpoint::parse(&cli.dst)?,
        target_format: cli.target_format,
        leaf_bytes: cli.block_size * 4096,
        truncate: cli.truncate,
        ignore_size: cli.ignore_size,
        dry_run: cli.dry_run,
        tuning: cli.engine.tuning(),
        streams: cli.engine.streams,
        direct: cli.engine.direct,
        map: false,
    })
}

fn report(reporter: &Reporter, transfer: &Transfer, summary: &Summary, elapsed: Duration) {
    let head = match (transfer.dry_run, summary.changed + summary.zeroed) {
        (true, 0) => "dry run: no differences".to_owned(),
        (true, _) => format!(
            "dry run: {} would be sent, {} would become zeros",
            human(summary.changed),
            human(summary.zeroed)
        ),
        (false, _) => format!(
            "{} in sync: {} sent, {} zeroed",
            human(summary.size),
            human(summary.changed),
            human(summary.zeroed)
        ),
    };
    let text = format!(
        "{head}; {} compared, {} on the wire, {}",
        human(summary.compared),
        human(summary.wire_out + summary.wire_in),
        human_time(elapsed)
    );
    let event = json!({
        "event": "summary",
        "dry_run": transfer.dry_run,
        "source": transfer.source.to_string(),
        "target": transfer.target.to_string(),
        "seconds": elapsed.as_secs_f64(),
        "summary": summary,
    });
    reporter.say(text, event);
}
