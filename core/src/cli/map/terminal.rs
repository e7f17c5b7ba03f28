//! The map in a few characters, for the end of a run on a terminal.

use super::look::{Look, Rgb};
use crate::cli::units::human;
use crate::sync::BlockMap;
use std::ffi::OsString;

/// Most characters of a line of the map, and most lines.
const COLUMNS_MAX: usize = 64;
const LINES_MAX: usize = 2;

/// What a terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canvas {
    /// Characters in a line.
    pub columns: usize,
    /// Whether it shows more than ASCII.
    pub unicode: bool,
    /// Whether it is to have colours.
    pub color: bool,
}

impl Canvas {
    /// Standard output, as far as it and the environment tell.
    pub fn stdout() -> Canvas {
        let size = rustix::termios::tcgetwinsize(std::io::stdout());
        let columns = size.map_or(0, |size| size.ws_col.into());
        Canvas::new(columns, |name| std::env::var_os(name))
    }

    fn new(columns: usize, var: impl Fn(&str) -> Option<OsString>) -> Canvas {
        let set = |name: &str| var(name).filter(|value| !value.is_empty());
        // The first of them that is set counts.
        let locale = set("LC_ALL").or(set("LC_CTYPE")).or(set("LANG"));
        let locale = locale.unwrap_or_default().to_string_lossy().to_lowercase();
        Canvas {
            columns: match columns {
                0 => 80,
                columns => columns,
            },
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
            // See https://no-color.org.
            color: set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb"),
        }
    }

    fn mark(&self, look: Look) -> char {
        match (look, self.unicode) {
            (Look::Hole, true) => '\u{b7}',
            (Look::Hole, false) => '.',
            (Look::Unchanged, true) => '\u{2591}',
            (Look::Unchanged, false) => '=',
            (Look::Touched, true) => '\u{2592}',
            (Look::Touched, false) => '+',
            (Look::Changed, true) => '\u{2588}',
            (Look::Changed, false) => '#',
            (Look::Zeroed, true) => '\u{25cb}',
            (Look::Zeroed, false) => '0',
        }
    }

    /// The same marks in the colour of their look.
    fn paint(&self, look: Look, marks: &str) -> String {
        match self.color {
            true => {
                let code = near(look.dark());
                format!("\x1b[38;5;{code}m{marks}\x1b[0m")
            }
            false => marks.to_owned(),
        }
    }
}

/// The nearest of the 216 colours that terminals have had for long.
fn near(color: Rgb) -> u32 {
    // The steps of each of the three are 0, 95, 135, 175, 215, 255.
    let step = |c: u8| match c {
        0..48 => 0,
        48..115 => 1,
        c => (u32::from(c) - 35) / 40,
    };
    let [r, g, b] = color.map(step);
    // A hole would be black on black.
    match 16 + 36 * r + 6 * g + b {
        16 => 240,
        code => code,
    }
}

/// The map in lines that fit the terminal, and a legend. Nothing for an empty image.
pub fn draw(map: &BlockMap, canvas: &Canvas) -> String {
    let columns = COLUMNS_MAX.min(canvas.columns.saturating_sub(1)).max(1);
    let lines = map.cells().div_ceil(columns).min(LINES_MAX);
    if lines == 0 {
        return String::new();
    }
    // Each mark is of as many cells as the others, but for the last one.
    let in_mark = map.cells().div_ceil(columns * lines);
    let starts: Vec<usize> = (0..map.cells()).step_by(in_mark).collect();
    let looks: Vec<Look> = starts
        .iter()
        .map(|&start| Look::of(&map.extent(start..(start + in_mark).min(map.cells()))))
        .collect();
    let mut text = String::new();
    for line in looks.chunks(columns) {
        for run in line.chunk_by(|a, b| a == b) {
            let marks: String = run.iter().map(|look| canvas.mark(*look)).collect();
            text.push_str(&canvas.paint(run[0], &marks));
        }
        text.push('\n');
    }
    text.push_str(&legend(map, canvas, &looks, in_mark));
    text
}

/// Only what is there, in as many lines as it takes.
fn legend(map: &BlockMap, canvas: &Canvas, looks: &[Look], in_mark: usize) -> String {
    let total = map.total();
    let mut parts = Vec::new();
    for look in Look::ALL {
        let amount = match look.bytes(&total) {
            Some(0) => continue,
            Some(bytes) => format!(" {}", human(bytes)),
            None if looks.contains(&look) => String::new(),
            None => continue,
        };
        let mark = canvas.mark(look).to_string();
        let name = look.name();
        // The width is that without colours.
        parts.push((
            mark.chars().count() + 1 + name.len() + amount.len(),
            format!("{} {name}{amount}", canvas.paint(look, &mark)),
        ));
    }
    let scale = format!("(each {})", human(map.range(0..in_mark).len()));
    parts.push((scale.len(), scale));
    let mut text = String::new();
    let mut used = 0;
    for (width, part) in parts {
        if used > 0 && used + 2 + width >= canvas.columns {
            text.push('\n');
            used = 0;
        }
        if used > 0 {
            text.push_str("  ");
            used += 2;
        }
        text.push_str(&part);
        used += width;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_tells_what_a_terminal_shows() {
        let canvas = |vars: &[(&str, &str)]| {
            Canvas::new(100, |name| {
                let found = vars.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| value.into())
            })
        };
        let plain = canvas(&[]);
        assert!(!plain.unicode && plain.color && plain.columns == 100);
        assert!(canvas(&[("LANG", "C.UTF-8")]).unicode);
        assert!(canvas(&[("LC_ALL", ""), ("LC_CTYPE", "de_DE.utf8"), ("LANG", "C")]).unicode);
        assert!(!canvas(&[("LC_ALL", "C"), ("LANG", "C.UTF-8")]).unicode);
        assert!(!canvas(&[("NO_COLOR", "1")]).color);
        assert!(canvas(&[("NO_COLOR", "")]).color);
        assert!(!canvas(&[("TERM", "dumb")]).color);
        assert_eq!(Canvas::new(0, |_| None).columns, 80);
    }

    #[test]
    fn colours_of_terminals() {
        assert_eq!(near([0, 0, 0]), 240);
        assert_eq!(near([255, 255, 255]), 231);
        assert_eq!(near([95, 135, 175]), 67);
        let mut codes = Look::ALL.map(|look| near(look.dark())).to_vec();
        codes.dedup();
        assert_eq!(codes.len(), 5, "{codes:?}");
    }
}
