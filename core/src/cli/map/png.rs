//! The map as a PNG, without words: the field of cells, and below it a bar that shows what share of the
//! image is a hole, unchanged, changed and zeroed, in this order. What it shows is in its text chunks.

use super::grid::{Grid, WIDTH};
use super::look::{words, Look};
use super::{facts, Caption};
use crate::cli::units::printable;
use crate::sync::{BlockMap, Extent};
use png::{BitDepth, ColorType, Compression, Encoder, EncodingError};

const BAR_GAP: usize = 12;
const BAR_HEIGHT: usize = 24;
/// A share that is there at all is seen.
const SHARE_WIDTH_MIN: usize = 4;

/// Index of white in the palette; a look's index is one more than its place in [`Look::ALL`].
const PAPER: u8 = 0;

pub(super) fn render(map: &BlockMap, caption: &Caption) -> Result<Vec<u8>, EncodingError> {
    let grid = Grid::of(map.cells());
    let height = grid.height() + BAR_GAP + BAR_HEIGHT;
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, WIDTH as u32, height as u32);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Balanced);
    let mut palette = vec![0xff; 3];
    palette.extend(Look::ALL.into_iter().flat_map(Look::light));
    encoder.set_palette(palette);
    let from_to = format!("{} to {}", caption.source, caption.target);
    let comment = format!(
        "{}; {}",
        facts(caption, map, grid.columns),
        words(&map.total())
    );
    encoder.add_itxt_chunk("Title".into(), caption.heading().into())?;
    encoder.add_itxt_chunk("Description".into(), printable(&from_to))?;
    encoder.add_itxt_chunk("Comment".into(), comment)?;
    encoder
        .write_header()?
        .write_image_data(&pixels(map, grid, height))?;
    Ok(out)
}

fn index(look: Look) -> u8 {
    let place = Look::ALL.iter().position(|l| *l == look);
    place.map_or(PAPER, |i| i as u8 + 1)
}

fn pixels(map: &BlockMap, grid: Grid, height: usize) -> Vec<u8> {
    let mut pixels = vec![PAPER; WIDTH * height];
    for (cell, look) in Look::of_cells(map).into_iter().enumerate() {
        let (x, y) = (
            cell % grid.columns * grid.side,
            cell / grid.columns * grid.side,
        );
        // One pixel stays free between two cells.
        for line in pixels.chunks_mut(WIDTH).skip(y).take(grid.side - 1) {
            line[x..x + grid.side - 1].fill(index(look));
        }
    }
    let bar = bar(&map.total());
    for line in pixels.chunks_mut(WIDTH).skip(grid.height() + BAR_GAP) {
        line.copy_from_slice(&bar);
    }
    pixels
}

/// One line of the bar.
fn bar(total: &Extent) -> Vec<u8> {
    let mut shares: Vec<(Look, usize)> = Look::ALL
        .into_iter()
        .filter_map(|look| Some((look, look.bytes(total).filter(|b| *b > 0)?)))
        .map(|(look, bytes)| {
            let width = u128::from(bytes) * WIDTH as u128 / u128::from(total.len());
            (look, (width as usize).max(SHARE_WIDTH_MIN))
        })
        .collect();
    // The largest makes up for rounding and for those that were made wider.
    let sum: usize = shares.iter().map(|(_, width)| width).sum();
    if let Some((_, width)) = shares.iter_mut().max_by_key(|(_, width)| *width) {
        *width = (*width + WIDTH).saturating_sub(sum);
    }
    let mut bar: Vec<u8> = shares
        .into_iter()
        .flat_map(|(look, width)| std::iter::repeat_n(index(look), width))
        .collect();
    bar.resize(WIDTH, PAPER);
    bar
}
