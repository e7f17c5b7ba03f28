//! The map as an SVG that needs nothing else: colours for light and dark, and what a part was as a
//! tool tip.

use super::grid::{Grid, WIDTH};
use super::look::{words, Look, Rgb};
use super::{facts, Caption};
use crate::cli::units::{human, printable};
use crate::sync::BlockMap;
use quick_xml::escape::escape;
use std::fmt::Write;

const LEFT: usize = 88;
const TOP: usize = 108;
const RIGHT: usize = 24;
/// Characters of a name that fit the picture's width.
const NAME_MAX: usize = 100;

pub(super) fn render(map: &BlockMap, caption: &Caption) -> String {
    let grid = Grid::of(map.cells());
    let mut svg = String::new();
    // Writing to a string does not fail.
    let written = write(&mut svg, map, caption, grid);
    debug_assert!(written.is_ok());
    svg
}

fn write(
    svg: &mut String,
    map: &BlockMap,
    caption: &Caption,
    grid: Grid,
) -> Result<(), std::fmt::Error> {
    let (width, height) = (LEFT + WIDTH + RIGHT, TOP + grid.height() + 84);
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">"#
    )?;
    writeln!(
        svg,
        "<title>{}: {} to {}</title>",
        caption.heading(),
        text(&caption.source),
        text(&caption.target)
    )?;
    writeln!(svg, "<desc>{}</desc>", text(&words(&map.total())))?;
    style(svg)?;
    writeln!(svg, r#"<rect class="paper" width="100%" height="100%"/>"#)?;
    let lines = [
        (28, "heading", caption.heading().to_owned()),
        (50, "text", format!("from {}", short(&caption.source))),
        (68, "text", format!("to {}", short(&caption.target))),
        (90, "text", facts(caption, map, grid.columns)),
    ];
    for (y, class, line) in lines {
        let line = text(&line);
        writeln!(
            svg,
            r#"<text class="{class}" x="{LEFT}" y="{y}">{line}</text>"#
        )?;
    }
    cells(svg, map, grid)?;
    legend(svg, map, TOP + grid.height() + 28)?;
    writeln!(svg, "</svg>")
}

fn style(svg: &mut String) -> std::fmt::Result {
    let rules = |color: fn(Look) -> Rgb| -> String {
        let rule = |look: Look| {
            let [r, g, b] = color(look);
            format!(".{}{{fill:#{r:02x}{g:02x}{b:02x}}}", class(look))
        };
        Look::ALL.map(rule).concat()
    };
    writeln!(
        svg,
        "<style>text{{font:13px sans-serif;fill:#222}}.heading{{font-size:18px}}.offset{{font-size:11px;text-anchor:end}}\
         .paper{{fill:#fff}}{}@media(prefers-color-scheme:dark){{text{{fill:#ddd}}.paper{{fill:#111}}{}}}</style>",
        rules(Look::light),
        rules(Look::dark)
    )
}

/// Equal neighbours in a row are one rectangle, with a tool tip that tells what is there.
fn cells(svg: &mut String, map: &BlockMap, grid: Grid) -> std::fmt::Result {
    let looks = Look::of_cells(map);
    let labels_every = grid.rows.div_ceil(16).max(1);
    for (row, in_row) in looks.chunks(grid.columns).enumerate() {
        let y = TOP + row * grid.side;
        let start = row * grid.columns;
        if row % labels_every == 0 {
            let offset = human(map.range(start..start).start);
            let (x, y) = (LEFT - 6, y + 10.min(grid.side));
            writeln!(
                svg,
                r#"<text class="offset" x="{x}" y="{y}">{offset}</text>"#
            )?;
        }
        let mut column = 0;
        for run in in_row.chunk_by(|a, b| a == b) {
            let (first, count) = (start + column, run.len());
            let range = map.range(first..first + count);
            writeln!(
                svg,
                r#"<rect class="{}" x="{}" y="{y}" width="{}" height="{}"><title>{} to {}: {}</title></rect>"#,
                class(run[0]),
                LEFT + column * grid.side,
                count * grid.side - 1,
                grid.side - 1,
                human(range.start),
                human(range.end),
                words(&map.extent(first..first + count))
            )?;
            column += count;
        }
    }
    Ok(())
}

fn legend(svg: &mut String, map: &BlockMap, y: usize) -> std::fmt::Result {
    let total = map.total();
    let step = WIDTH / Look::ALL.len();
    for (i, look) in Look::ALL.into_iter().enumerate() {
        let x = LEFT + i * step;
        let (box_y, second_y) = (y - 11, y + 18);
        let name = look.name();
        let amount = match look.bytes(&total) {
            Some(bytes) => human(bytes),
            None => "less than a quarter".to_owned(),
        };
        writeln!(
            svg,
            r#"<rect class="{}" x="{x}" y="{box_y}" width="13" height="13"/>"#,
            class(look)
        )?;
        let x = x + 20;
        writeln!(svg, r#"<text x="{x}" y="{y}">{name}</text>"#)?;
        writeln!(svg, r#"<text x="{x}" y="{second_y}">{amount}</text>"#)?;
    }
    Ok(())
}

fn class(look: Look) -> &'static str {
    match look {
        Look::Hole => "hole",
        Look::Unchanged => "unchanged",
        Look::Touched => "touched",
        Look::Changed => "changed",
        Look::Zeroed => "zeroed",
    }
}

/// Text that is safe in XML: names of files may hold anything.
fn text(raw: &str) -> String {
    let allowed = |c: char| match c {
        '\u{fffe}' | '\u{ffff}' => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    let plain: String = printable(raw).chars().map(allowed).collect();
    escape(plain).into_owned()
}

/// A name that fits the width; of a long one the end, which tells more.
fn short(name: &str) -> String {
    let name = printable(name);
    match name.chars().count().checked_sub(NAME_MAX) {
        None | Some(0) => name,
        Some(extra) => name.chars().skip(extra).fold("...".to_owned(), |mut s, c| {
            s.push(c);
            s
        }),
    }
}
