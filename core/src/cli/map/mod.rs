//! The map of a sync as a picture: a file (SVG or PNG), or a few lines on a terminal.

mod file;
mod grid;
mod look;
mod png;
mod svg;
mod terminal;

pub use file::MapFile;
pub use terminal::{draw, Canvas};

use crate::sync::BlockMap;
use jiff::Timestamp;

/// What a picture tells besides the map itself.
#[derive(Debug, Clone)]
pub struct Caption {
    /// Where from.
    pub source: String,
    /// Where to.
    pub target: String,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// When the sync ended.
    pub time: Timestamp,
}

impl Caption {
    fn heading(&self) -> &'static str {
        match self.dry_run {
            false => "Block map of a sync",
            true => "Block map of a dry run",
        }
    }

    fn time(&self) -> String {
        let seconds = Timestamp::from_second(self.time.as_second()).unwrap_or(self.time);
        seconds.to_string()
    }
}

/// Size, time and scale, in one line.
fn facts(caption: &Caption, map: &BlockMap, columns: usize) -> String {
    use super::units::human;
    let row = map.range(0..columns).len();
    let scale = match map.cells() {
        0 => "nothing to show".to_owned(),
        n if n <= columns => format!("a cell is {}", human(map.cell_bytes())),
        _ => format!(
            "a cell is {}, a row {}",
            human(map.cell_bytes()),
            human(row)
        ),
    };
    format!("{}, {}; {scale}", human(map.size()), caption.time())
}

#[cfg(test)]
mod tests;
