//! The map of a disk as a strip from its first byte to its last: what has data hangs below the line, what changed stands
//! above it. So each is told by its place, not by its colour.

use super::words::name;
use crate::replica::BlockMap;
use maud::{html, Markup};
use std::fmt::Write;

/// Where the line is, in pixels from above, and how high the strip is.
const LINE: u32 = 15;
const HEIGHT: u32 = 28;
/// Pixels of the least and of the most that a cell may have.
const LEAST: u32 = 3;
const MOST: u32 = 12;

/// Draws it. Nothing of a disk without cells.
pub(super) fn draw(map: &BlockMap) -> Markup {
    // It may be of another host.
    let cells = map.data.len().min(BlockMap::CELLS_MAX);
    if cells == 0 {
        return html! {};
    }
    let data = &map.data[..cells];
    let changed = map.changed.as_ref().map(|c| &c[..c.len().min(cells)]);
    let said = said(&map.key, data, changed);
    html! {
        svg.map width="100%" height=(HEIGHT) viewBox=(format!("0 0 {cells} {HEIGHT}")) preserveAspectRatio="none" role="img"
            aria-label=(said) {
            title { (said) }
            path.data d=(bars(data, false)) {}
            @if let Some(changed) = changed { path.changed d=(bars(changed, true)) {} }
            path.line d=(format!("M0 {LINE}h{cells}")) {}
        }
    }
}

/// The same in words.
fn said(key: &str, data: &[u8], changed: Option<&[u8]>) -> String {
    let cells = data.len();
    let some = |of: &[u8]| of.iter().filter(|share| **share > 0).count();
    let changed = match changed {
        Some(changed) => format!("{} changed in the last sync", some(changed)),
        None => "which of them changed is not known".to_owned(),
    };
    let parts = match cells {
        1 => "1 part".to_owned(),
        n => format!("{n} equal parts"),
    };
    format!(
        "{}, of {parts} from its beginning to its end: {} have data, {changed}",
        name(key),
        some(data)
    )
}

/// One shape for all cells; neighbours of the same height are drawn as one.
fn bars(shares: &[u8], up: bool) -> String {
    let mut path = String::new();
    let mut at = 0;
    for run in shares.chunk_by(|a, b| height(*a) == height(*b)) {
        let (width, height) = (run.len(), height(run[0]));
        if height > 0 {
            let (down, back) = match up {
                true => (-i64::from(height), i64::from(height)),
                false => (i64::from(height), -i64::from(height)),
            };
            // Writing to a string does not fail.
            let _ = write!(path, "M{at} {LINE}h{width}v{down}h-{width}v{back}z");
        }
        at += width;
    }
    path
}

/// In pixels. The least is seen.
fn height(share: u8) -> u32 {
    match share {
        0 => 0,
        _ => LEAST + (MOST - LEAST) * u32::from(share.min(100)) / 100,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_stands_above_what_has_data() {
        assert_eq!(bars(&[0, 100, 100, 0], false), "M1 15h2v12h-2v-12z");
        assert_eq!(bars(&[1], true), "M0 15h1v-3h-1v3z");
        let drawn = draw(&BlockMap {
            key: "scsi<0>".into(),
            data: vec![0, 50, 100],
            changed: Some(vec![0, 0, 7]),
        });
        let drawn = drawn.into_string();
        assert!(drawn.contains("scsi&lt;0&gt;, of 3 equal parts"), "{drawn}");
        assert!(drawn.contains("2 have data, 1 changed in the last sync"));
    }

    #[test]
    fn a_map_from_elsewhere_takes_no_more_room() {
        let map = BlockMap {
            key: "scsi0".into(),
            data: (0..=255).cycle().take(100_000).collect(),
            changed: Some((0..=255).cycle().take(50).collect()),
        };
        let drawn = draw(&map).into_string();
        assert!(drawn.len() < 5000, "{}", drawn.len());
        let unknown = BlockMap {
            changed: None,
            ..map
        };
        assert!(draw(&unknown).into_string().contains("is not known"));
    }
}
