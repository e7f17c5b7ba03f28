//! When a job runs: calendar expressions of systemd.

use crate::cmd::{Cmd, Tool};
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The longest expression that is taken, in bytes.
const EXPRESSION_BYTES_MAX: usize = 200;
/// By how much a run is put off at the most, so that not all hosts begin at once.
const DELAY_MAX: Duration = Duration::from_secs(300);
/// The same, where it is not known how often a job runs.
const DELAY_USUAL: Duration = Duration::from_secs(30);

/// A calendar expression of systemd, as in `OnCalendar=`. Safe to be written into a unit; whether systemd understands it
/// is found by [`Calendar::check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Calendar(String);

impl Calendar {
    /// The expression for "every so often". It must go into a minute, an hour, a day or a week without a rest, as the
    /// calendar knows no other repetitions.
    pub fn every(period: Duration) -> Result<Calendar> {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        const DAY: u64 = 24 * HOUR;
        let text = match period.as_secs() {
            0 => return Err(Error::new(Kind::Usage, "nothing can run every 0 seconds")),
            s @ 1..MINUTE if MINUTE.is_multiple_of(s) => format!("*:*:0/{s}"),
            MINUTE => "*:0/1".to_owned(),
            s if s < HOUR && s.is_multiple_of(MINUTE) && HOUR.is_multiple_of(s) => {
                format!("*:0/{}", s / MINUTE)
            }
            s if s.is_multiple_of(HOUR) && s < DAY && DAY.is_multiple_of(s) => {
                format!("0/{}:00", s / HOUR)
            }
            DAY => "*-*-* 00:00:00".to_owned(),
            s if s == 7 * DAY => "Mon *-*-* 00:00:00".to_owned(),
            _ => {
                let what = "a calendar cannot repeat after that time";
                return Err(Error::new(Kind::Usage, what).advise(
                    "take a part of an hour, of a day, or 1w: 5m, 15m, 30m, 1h, 6h, 1d; or say --on-calendar",
                ));
            }
        };
        Ok(Calendar(text))
    }

    /// The random delay that suits a job which runs every `period`.
    pub fn delay(period: Option<Duration>) -> Duration {
        period.map_or(DELAY_USUAL, |period| (period / 10).min(DELAY_MAX))
    }

    /// Asks systemd whether it understands the expression.
    pub fn check(&self) -> Result<()> {
        let asked = Cmd::new(Tool::SystemdAnalyze).args(["calendar", "--", &self.0]);
        asked.run().map(drop).map_err(|e| {
            let what = format!("\"{self}\" is no time that systemd understands");
            Error::new(Kind::Usage, what)
                .because(e)
                .advise("systemd.time(7) tells how to write calendar events: *:0/15, Sat 03:00")
        })
    }
}

impl FromStr for Calendar {
    type Err = Error;

    fn from_str(text: &str) -> Result<Calendar> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b" *:/.,~_+-".contains(&b);
        let is_safe = text.bytes().all(is_plain) && !text.trim().is_empty();
        match is_safe && text.len() <= EXPRESSION_BYTES_MAX {
            true => Ok(Calendar(text.trim().to_owned())),
            false => Err(Error::new(
                Kind::Usage,
                format!("\"{}\" is no calendar event", text.escape_default()),
            )
            .advise("write it as systemd does: *:0/15, Sat 03:00")),
        }
    }
}

impl TryFrom<String> for Calendar {
    type Error = Error;

    fn try_from(text: String) -> Result<Calendar> {
        text.parse()
    }
}

impl From<Calendar> for String {
    fn from(calendar: Calendar) -> String {
        calendar.0
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cli::units::parse_time;

    const PERIODS: [(&str, &str); 11] = [
        ("30s", "*:*:0/30"),
        ("60s", "*:0/1"),
        ("5m", "*:0/5"),
        ("15m", "*:0/15"),
        ("60m", "0/1:00"),
        ("6h", "0/6:00"),
        ("24h", "*-*-* 00:00:00"),
        ("1d", "*-*-* 00:00:00"),
        ("7d", "Mon *-*-* 00:00:00"),
        ("1w", "Mon *-*-* 00:00:00"),
        ("1m", "*:0/1"),
    ];

    #[test]
    fn periods_that_a_calendar_can_repeat() {
        for (period, want) in PERIODS {
            let calendar = Calendar::every(parse_time(period).unwrap()).unwrap();
            assert_eq!(calendar.to_string(), want, "{period}");
        }
        for period in [
            "0s", "7m", "45m", "90m", "5h", "25h", "2d", "2w", "61s", "7s",
        ] {
            let refused = Calendar::every(parse_time(period).unwrap());
            assert!(refused.is_err(), "{period}: {refused:?}");
        }
    }

    #[test]
    fn nothing_but_an_expression_gets_into_a_unit() {
        for bad in [
            "",
            " ",
            "*:0/15\nUnit=evil.service",
            "daily\r",
            "%i",
            "a=b",
            "a;b",
            "$(x)",
            "\u{e4}",
            &"1".repeat(201),
        ] {
            assert!(bad.parse::<Calendar>().is_err(), "{bad:?}");
        }
        assert_eq!(
            " Sat 03:00 ".parse::<Calendar>().unwrap().to_string(),
            "Sat 03:00"
        );
    }

    /// systemd itself must understand what is made here. It is on every host that the product is for.
    #[test]
    fn systemd_understands_the_expressions() {
        for (_, text) in PERIODS {
            text.parse::<Calendar>().unwrap().check().unwrap();
        }
        for bad in ["*:0/99", "Foo 03:00", "--help", "25:00"] {
            let e = bad.parse::<Calendar>().unwrap().check().unwrap_err();
            assert_eq!(e.kind(), Kind::Usage, "{bad}: {e}");
        }
    }

    #[test]
    fn the_delay_is_a_part_of_the_period() {
        let delay = |text| Calendar::delay(Some(parse_time(text).unwrap())).as_secs();
        assert_eq!((delay("15m"), delay("1d")), (90, 300));
    }
}
