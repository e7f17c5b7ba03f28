//! Times, shares and foreign text, as the page shows them.

use crate::cli::units::printable;
use jiff::Timestamp;

/// Characters of a name that are shown.
pub(super) const NAME_MAX: usize = 64;
/// Characters of an error or a note that are shown.
pub(super) const TEXT_MAX: usize = 600;

/// Bytes of a word that goes into a command: as long as a host's name can be.
const WORD_BYTES_MAX: usize = 255;

/// A name or text from elsewhere, on one line and not longer than `max` characters. What turns the direction of writing
/// or cannot be seen is shown as an escape: a name must not look like another one.
pub(super) fn clip(text: &str, max: usize) -> String {
    let mut out = String::new();
    // Most bytes are plain ones. An escape counts as one character.
    for (n, c) in text.chars().enumerate() {
        if n == max {
            out.push_str("...");
            break;
        }
        match is_hidden(c) {
            true => out.extend(c.escape_unicode()),
            false => out.push_str(&printable(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out
}

fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{fffe}'
            | '\u{ffff}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// A name.
pub(super) fn name(text: &str) -> String {
    clip(text, NAME_MAX)
}

/// A span of time in one or two units: "42 s", "4 min", "3 h 05 min", "5 d 3 h".
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 if seconds % 3600 < 60 => format!("{} h", seconds / 3600),
        3600..86_400 => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        _ if seconds % 86_400 < 3600 => format!("{} d", seconds / 86_400),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// How long ago `at` is; "from the future" where it is not.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    match now.duration_since(at).as_secs() {
        s @ 0.. => format!("{} ago", span(s.unsigned_abs())),
        // Two clocks are never quite the same.
        -60..0 => "just now".to_owned(),
        _ => "from the future".to_owned(),
    }
}

/// A point in time to the minute, in UTC: "2026-03-01 04:05".
pub(super) fn minute(at: Timestamp) -> String {
    let text = at.to_string();
    match text.get(..16) {
        Some(to_minute) => to_minute.replace('T', " "),
        None => text,
    }
}

/// A share in percent with as many digits as tell something: "0.03 %", "4.2 %", "37 %".
pub(super) fn percent(part: u64, whole: u64) -> String {
    let percent = part as f64 * 100.0 / whole.max(1) as f64;
    match percent {
        p if part == 0 || p >= 9.95 => format!("{p:.0} %"),
        p if p >= 0.995 => format!("{p:.1} %"),
        p if p >= 0.01 => format!("{p:.2} %"),
        _ => "under 0.01 %".to_owned(),
    }
}

/// `word` as one word of a shell command that is copied from the page: names that hold anything else than what no
/// shell looks at are quoted. What cannot be shown as it is cannot be copied either: `NAME` stands for it.
pub(super) fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/@".contains(c);
    let unfit = |c: char| c.is_control() || is_hidden(c);
    match word {
        _ if word.len() > WORD_BYTES_MAX || word.chars().any(unfit) => "NAME".to_owned(),
        _ if !word.is_empty() && word.chars().all(plain) => word.to_owned(),
        _ => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_the_units_that_matter() {
        let texts = [0, 59, 60, 3599, 3600, 3660, 86_399, 86_400, 90_000, 864_000].map(span);
        assert_eq!(
            texts.join(", "),
            "0 s, 59 s, 1 min, 59 min, 1 h, 1 h 01 min, 23 h 59 min, 1 d, 1 d 1 h, 10 d"
        );
    }

    #[test]
    fn text_from_elsewhere_is_one_short_line_that_hides_nothing() {
        assert_eq!(clip("a\nb\u{202e}c\u{200b}", 9), "a\\nb\\u{202e}c\\u{200b}");
        assert_eq!(clip("abc", 3), "abc");
        assert_eq!(clip("abcd", 3), "abc...");
    }

    #[test]
    fn shares_are_not_rounded_to_nothing() {
        let texts = [(0, 9), (1, 1 << 40), (1, 3000), (1, 60), (1, 3), (5, 0)];
        assert_eq!(
            texts.map(|(part, whole)| percent(part, whole)).join(", "),
            "0 %, under 0.01 %, 0.03 %, 1.7 %, 33 %, 500 %"
        );
    }

    #[test]
    fn a_copied_command_runs_nothing_else() {
        assert_eq!(shell("root@host-2:22"), "root@host-2:22");
        assert_eq!(shell("a;rm -r /"), "'a;rm -r /'");
        assert_eq!(shell("it's"), r"'it'\''s'");
        assert_eq!(shell(""), "''");
        assert_eq!(shell("a\nb"), "NAME");
        assert_eq!(shell("a\u{202e}b"), "NAME");
    }
}
