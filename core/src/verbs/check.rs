//! `check`: the same for monitoring, by the rules of Nagios' plugins: one line, and exit code 0, 1, 2 or 3
//! (the monitoring plugins' development guidelines).

use crate::cli::units::parse_time;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::job::{statuses, PairStatus, Verdict};
use crate::journal::Side;
use crate::replica::Layout;
use jiff::Timestamp;
use std::time::Duration;

/// What to check.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Only this VM
    vm: Option<String>,
    /// The oldest that a newest generation may be: 15m
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    max_age: Duration,
}

/// The line to be printed and the exit code.
pub fn check(args: &CheckArgs, layout: &Layout) -> (String, u8) {
    let now = clock::now();
    match statuses(layout, args.vm.as_deref()).and_then(|found| line(&found, args, now)) {
        Ok((verdict, line)) => (line, code(verdict)),
        Err(e) => (
            format!("UNKNOWN: {}", plain(&e.to_string())),
            code(Verdict::Unknown),
        ),
    }
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

fn line(found: &[PairStatus], args: &CheckArgs, now: Timestamp) -> Result<(Verdict, String)> {
    let max_s = args.max_age.as_secs();
    let mut judged: Vec<(Verdict, String, &PairStatus)> = found
        .iter()
        .map(|status| {
            let (verdict, why) = status.judge(max_s, now);
            (verdict, why, status)
        })
        .collect();
    judged.sort_by_key(|(verdict, _, _)| std::cmp::Reverse(*verdict));
    let Some((worst, _, _)) = judged.first() else {
        return Err(Error::new(Kind::NotFound, "nothing is replicated"));
    };
    let bad = || {
        judged
            .iter()
            .filter(|(verdict, _, _)| *verdict != Verdict::Ok)
    };
    let said = match bad().count() {
        0 if judged.len() == 1 => format!("{} is young enough", title(judged[0].2)),
        0 => format!("{} replications, all young enough", judged.len()),
        _ => bad()
            .map(|(_, why, status)| format!("{} {why}", title(status)))
            .collect::<Vec<_>>()
            .join("; "),
    };
    let figures: Vec<String> = judged
        .iter()
        .filter_map(|(_, _, status)| {
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
            last: None,
        }
    }

    fn said(found: &[PairStatus], max_s: u64) -> (u8, String) {
        let args = CheckArgs {
            vm: None,
            max_age: Duration::from_secs(max_s),
        };
        let (verdict, line) = line(found, &args, Timestamp::new(1000, 0).unwrap()).unwrap();
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
        let args = CheckArgs {
            vm: None,
            max_age: Duration::from_secs(1),
        };
        let (line, code) = check(&args, &Layout::new(dir.path()));
        assert_eq!((line.as_str(), code), ("UNKNOWN: nothing is replicated", 3));
    }
}
