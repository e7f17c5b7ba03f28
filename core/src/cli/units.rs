//! Sizes and times as people read and write them.

use crate::error::{Error, Kind, Result};

/// `bytes` with a binary unit and at most one decimal: "17.5 MiB".
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ if value < 99.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// `text` fit for one line on a terminal: control characters, which names of files and words of other
/// hosts may hold, are shown as escapes.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// Reads "500", "64K", "1.5M", "2G", "1T" (binary units, with or without "iB" or "B") as bytes.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let bad = || {
        Error::new(
            Kind::Usage,
            format!("'{text}' is not a size such as 500K, 64M or 1.5G"),
        )
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1u64,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(bad()),
    };
    let plain = |c: char| c.is_ascii_digit() || c == '.';
    if digits.is_empty() || !digits.chars().all(plain) {
        return Err(bad());
    }
    let value: f64 = digits.parse().map_err(|_| bad())?;
    let bytes = value * factor as f64;
    match bytes.is_finite() && bytes < u64::MAX as f64 {
        true => Ok(bytes as u64),
        false => Err(bad()),
    }
}

/// Reads a limit of bytes a second; it cannot be zero.
pub fn parse_rate(text: &str) -> Result<u64> {
    match parse_bytes(text)? {
        0 => Err(Error::new(
            Kind::Usage,
            "a limit of 0 bytes a second would never end",
        )),
        rate => Ok(rate),
    }
}

/// Reads a time span: a number and a unit of s, m, h, d or w.
pub fn parse_time(text: &str) -> Result<std::time::Duration> {
    let bad = || {
        Error::new(
            Kind::Usage,
            format!("{} is not a time span", printable(text)),
        )
        .advise("write a number and s, m, h, d or w: 15m")
    };
    let unit = text.chars().last().ok_or_else(bad)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(bad()),
    };
    let number = &text[..text.len() - 1];
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    // A thousand years are more than any clock here can tell.
    let max = 1000 * 365 * 86_400;
    let number: u64 = number.parse().map_err(|_| bad())?;
    match number.checked_mul(seconds) {
        Some(total) if total <= max => Ok(std::time::Duration::from_secs(total)),
        _ => Err(bad()),
    }
}

/// A time span in its two largest units: "1 h 02 min", "3.2 s".
pub fn human_time(time: std::time::Duration) -> String {
    let s = time.as_secs();
    match s {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\n\x1b[2Jb \u{e4}"), "a\\n\\u{1b}[2Jb \u{e4}");
    }

    #[test]
    fn time_spans_need_a_unit() {
        let seconds = |text| parse_time(text).map(|time| time.as_secs());
        assert_eq!(seconds("15m").unwrap(), 900);
        assert_eq!(seconds("4w").unwrap(), 28 * 86_400);
        assert_eq!(seconds("0s").unwrap(), 0);
        let wrong = [
            "",
            "15",
            "m",
            "1.5h",
            "-1h",
            "+1h",
            "1\u{b5}",
            "9999999999999999d",
            "2000000w",
        ];
        for text in wrong {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_and_written() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(600 << 20), "600 MiB");
        assert_eq!(human(16 << 40), "16.0 TiB");
        for (text, bytes) in [
            ("500", 500),
            ("64k", 65536),
            ("1.5M", 1572864),
            ("2GiB", 2 << 30),
            ("1TB", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for bad in [
            "",
            "k",
            "-1",
            "1x",
            "1e9",
            "nan",
            "inf",
            "1 M",
            "99999999999T",
        ] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
