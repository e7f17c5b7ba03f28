//! `check`: the same for monitoring, by the rules of Nagios' plugins: one line, and exit code 0, 1, 2 or 3
//! (the monitoring plugins' development guidelines).

use super::Promised;
use crate::cli::config::{Failed, Program};
use crate::cli::units::parse_time;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::job::fleet::{with_status, Ages};
use crate::job::{statuses, PairStatus, Verdict};
use crate::journal::Side;
use crate::replica::Layout;
use clap::{ArgMatches, FromArgMatches};
use jiff::Timestamp;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// What to check.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Only this VM
    vm: Option<String>,
    /// The oldest that a newest generation may be: 15m. By default each VM with the RPO of its job, also those that
    /// were never synced
    #[arg(long, visible_alias = "rpo", value_name = "TIME", value_parser = parse_time)]
    max_age: Option<Duration>,
}

/// The line to be printed and the exit code.
pub fn check(args: &CheckArgs, layout: &Layout, promised: Promised) -> (String, u8) {
    match judged(args, layout, promised).and_then(|found| line(&found, clock::now())) {
        Ok((verdict, line)) => (line, code(verdict)),
        Err(e) => unknown(&e),
    }
}

/// The line and the exit code if nothing can be told.
/// The answer where it cannot be told how things stand: the line and the exit code.
pub fn unknown(error: &Error) -> (String, u8) {
    let line = format!("UNKNOWN: {}", plain(&error.to_string()));
    (line, code(Verdict::Unknown))
}

/// Prints the line of a check, and ends with its exit code.
pub fn answered(line: &str, code: u8) -> ExitCode {
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::from(code),
        // Nobody can read it: unknown.
        Err(_) => ExitCode::from(3),
    }
}

/// What a command line says, with the program's name in front, and what clap found in it. Else the exit code, after it was told
/// that the configuration is wrong. A line that is wrong ends the process.
pub fn parsed<C: FromArgMatches>(
    program: &Program,
    line: &[OsString],
) -> std::result::Result<(C, ArgMatches), ExitCode> {
    let matches = program
        .matches(line)
        .map_err(|failed| misconfigured(program.name, &failed))?;
    match C::from_arg_matches(&matches) {
        Ok(cli) => Ok((cli, matches)),
        Err(e) => e.exit(),
    }
}

/// Tells that the configuration is wrong; of a check that is the answer. Gives the exit code.
fn misconfigured(program: &str, failed: &Failed) -> ExitCode {
    match failed.verb.as_deref() {
        Some("check") => {
            let (line, code) = unknown(&failed.error);
            answered(&line, code)
        }
        _ => failed.end(program),
    }
}

/// What is to be judged, and how old it may be in seconds.
fn judged(args: &CheckArgs, layout: &Layout, promised: Promised) -> Result<Vec<(PairStatus, u64)>> {
    let found = statuses(layout, args.vm.as_deref())?;
    if let Some(max) = args.max_age {
        return Ok(found.into_iter().map(|s| (s, max.as_secs())).collect());
    }
    let mut promised = promised()?;
    if promised.is_empty() {
        return Err(Error::new(Kind::Usage, "no job has an rpo")
            .advise("say how old generations may be: --max-age 15m"));
    }
    promised.retain(|e| args.vm.as_ref().is_none_or(|vm| e.vm == *vm));
    Ok(with_status(&promised, &found, &Ages::read(layout)?))
}

fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Ok => 0,
        Verdict::Warning => 1,
        Verdict::Critical => 2,
        Verdict::Unknown => 3,
    }
}

/// A pipe begins the figures, and a line is all that is shown.
fn plain(text: &str) -> String {
    text.replace('|', "/").replace(['\n', '\r'], " ")
}

fn line(found: &[(PairStatus, u64)], now: Timestamp) -> Result<(Verdict, String)> {
    let mut judged: Vec<(Verdict, String, &PairStatus, u64)> = found
        .iter()
        .map(|(status, max_s)| {
            let (verdict, why) = status.judge(*max_s, now);
            (verdict, why, status, *max_s)
        })
        .collect();
    judged.sort_by_key(|(verdict, ..)| std::cmp::Reverse(*verdict));
    let Some((worst, ..)) = judged.first() else {
        return Err(Error::new(Kind::NotFound, "nothing is replicated"));
    };
    let bad = || {
        judged
            .iter()
            .filter(|(verdict, ..)| *verdict != Verdict::Ok)
    };
    let said = match bad().count() {
        0 if judged.len() == 1 => format!("{} is young enough", title(judged[0].2)),
        0 => format!("{} replications, all young enough", judged.len()),
        _ => bad()
            .map(|(_, why, status, _)| format!("{} {why}", title(status)))
            .collect::<Vec<_>>()
            .join("; "),
    };
    let figures: Vec<String> = judged
        .iter()
        .filter_map(|(_, _, status, max_s)| {
            let label = title(status).replace(['\'', '='], "_");
            let age = status.age_s(now)?;
            Some(format!("'{label}'={}s;;{max_s};0", age.max(0)))
        })
        .collect();
    let verdict = match worst {
        Verdict::Ok => "OK",
        Verdict::Warning => "WARNING",
        Verdict::Unknown => "UNKNOWN",
        Verdict::Critical => "CRITICAL",
    };
    let line = format!(
        "{verdict}: {} | {}",
        plain(&said),
        plain(&figures.join(" "))
    );
    Ok((*worst, line))
}

fn title(status: &PairStatus) -> String {
    match status.side {
        Side::Source => format!("VM {} to {}", status.vm, status.peer),
        Side::Target => format!("VM {} from {}", status.vm, status.peer),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::job::fleet::Expected;

    fn status(peer: &str, second: Option<i64>) -> PairStatus {
        PairStatus {
            side: Side::Target,
            vm: "101".into(),
            name: String::new(),
            peer: peer.into(),
            pair: None,
            standing: None,
            generation: second.map(|_| 1),
            taken_at: second.map(|s| Timestamp::new(s, 0).unwrap()),
            generations: Some(1),
            booted: None,
            checked: None,
            last: None,
        }
    }

    fn said(found: &[PairStatus], max_s: u64) -> (u8, String) {
        let found: Vec<_> = found.iter().map(|s| (s.clone(), max_s)).collect();
        let (verdict, line) = line(&found, Timestamp::new(1000, 0).unwrap()).unwrap();
        (code(verdict), line)
    }

    #[test]
    fn the_worst_is_said_first_and_decides() {
        let both = [status("a", Some(400)), status("b|'=c", None)];
        assert_eq!(
            said(&both, 600),
            (
                2,
                "CRITICAL: VM 101 from b/'=c no generation yet | 'VM 101 from a'=600s;;600;0"
                    .into()
            )
        );
        assert_eq!(said(&both[..1], 600).0, 0);
        assert_eq!(said(&both[..1], 599).0, 2);
        assert_eq!(
            said(&[status("a'='|\n", Some(2000))], 600),
            (
                3,
                "UNKNOWN: VM 101 from a'='/  the newest generation is 1000 s of the future: a clock was set back | \
                 'VM 101 from a___/ '=0s;;600;0"
                    .into()
            )
        );
    }

    #[test]
    fn nothing_at_all_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let args = |seconds: Option<u64>, vm: Option<&str>| CheckArgs {
            vm: vm.map(Into::into),
            max_age: seconds.map(Duration::from_secs),
        };
        let layout = Layout::new(dir.path());
        let nothing = || Ok(Vec::new());
        let (line, code) = check(&args(Some(1), None), &layout, &nothing);
        assert_eq!((line.as_str(), code), ("UNKNOWN: nothing is replicated", 3));
        // Without jobs there is nothing to go by.
        assert_eq!(check(&args(None, None), &layout, &nothing).1, 3);
        let job = || {
            Ok(vec![Expected {
                vm: "101".into(),
                host: "host2".into(),
                rpo_s: 900,
            }])
        };
        // What a job promises is missed, although no run ever told of it.
        let (line, code) = check(&args(None, None), &layout, &job);
        assert_eq!(
            (line.as_str(), code),
            ("CRITICAL: VM 101 to host2 no generation yet | ", 2)
        );
        assert_eq!(check(&args(None, Some("102")), &layout, &job).1, 3);
    }
}
