//! How a part of an image looks on a map, and in which colours. People with any kind of
//! colour blindness, or with a printer that has only black, tell them apart.

use crate::sync::{BlockMap, Extent};

/// How a cell is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Hole,
    Unchanged,
    /// Less than a quarter of it was sent.
    Touched,
    Changed,
    Zeroed,
}

/// A colour as red, green, blue.
pub(super) type Rgb = [u8; 3];

impl Look {
    pub(super) const ALL: [Look; 5] = [
        Look::Hole,
        Look::Unchanged,
        Look::Touched,
        Look::Changed,
        Look::Zeroed,
    ];

    /// What matters most about a part of an image: a change is seen however small it is.
    pub(super) fn of(extent: &Extent) -> Look {
        match extent {
            e if e.zeroed > e.changed => Look::Zeroed,
            e if e.changed >= e.len().div_ceil(4).max(1) => Look::Changed,
            e if e.changed > 0 => Look::Touched,
            e if e.unchanged > 0 => Look::Unchanged,
            _ => Look::Hole,
        }
    }

    /// Of all cells of a map.
    pub(super) fn of_cells(map: &BlockMap) -> Vec<Look> {
        let cell = |i| Look::of(&map.extent(i..i + 1));
        (0..map.cells()).map(cell).collect()
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Look::Hole => "hole",
            Look::Unchanged => "unchanged",
            Look::Touched => "changed in part",
            Look::Changed => "changed",
            Look::Zeroed => "zeroed",
        }
    }

    /// The bytes that the legend gives for it; partly changed cells have none of their own.
    pub(super) fn bytes(self, extent: &Extent) -> Option<u64> {
        match self {
            Look::Hole => Some(extent.hole),
            Look::Unchanged => Some(extent.unchanged),
            Look::Touched => None,
            Look::Changed => Some(extent.changed),
            Look::Zeroed => Some(extent.zeroed),
        }
    }

    /// On white.
    pub(super) fn light(self) -> Rgb {
        match self {
            Look::Hole => [0xee, 0xee, 0xee],
            Look::Unchanged => [0xb4, 0xb9, 0xc0],
            Look::Touched => [0xf7, 0xd0, 0x38],
            Look::Changed => [0xd5, 0x5e, 0x00],
            Look::Zeroed => [0x00, 0x5a, 0x9c],
        }
    }

    /// On black.
    pub(super) fn dark(self) -> Rgb {
        match self {
            Look::Hole => [0x26, 0x28, 0x2b],
            Look::Unchanged => [0x6b, 0x70, 0x78],
            Look::Touched => [0xf0, 0xd0, 0x50],
            Look::Changed => [0xe8, 0x6a, 0x10],
            Look::Zeroed => [0x66, 0xb8, 0xf0],
        }
    }
}

/// What a part of an image was, in words: "changed 4.0 KiB, unchanged 1020 KiB".
pub(super) fn words(extent: &Extent) -> String {
    let order = [Look::Changed, Look::Zeroed, Look::Unchanged, Look::Hole];
    let parts: Vec<String> = order
        .iter()
        .filter_map(|look| Some((look.name(), look.bytes(extent).filter(|b| *b > 0)?)))
        .map(|(name, bytes)| format!("{name} {}", crate::cli::units::human(bytes)))
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(hole: u64, unchanged: u64, changed: u64, zeroed: u64) -> Extent {
        Extent {
            hole,
            unchanged,
            changed,
            zeroed,
        }
    }

    #[test]
    fn a_change_is_seen_however_small() {
        for (e, look) in [
            (extent(0, 0, 0, 0), Look::Hole),
            (extent(9, 0, 0, 0), Look::Hole),
            (extent(9000, 1, 0, 0), Look::Unchanged),
            (extent(9000, 90, 1, 0), Look::Touched),
            (extent(9000, 0, 0, 1), Look::Zeroed),
            (extent(0, 76, 24, 0), Look::Touched),
            (extent(0, 75, 25, 0), Look::Changed),
            (extent(0, 0, 50, 50), Look::Changed),
            (extent(0, 0, 49, 51), Look::Zeroed),
        ] {
            assert_eq!(Look::of(&e), look, "{e:?}");
        }
        assert_eq!(
            words(&extent(0, 2048, 4096, 0)),
            "changed 4.0 KiB, unchanged 2.0 KiB"
        );
    }

    /// Linear light of a colour as eyes without red, green or blue cones get it, after Machado,
    /// Oliveira and Fernandes (2009), in a space where distances are about those that are seen.
    fn seen(color: Rgb, matrix: [[f64; 3]; 3]) -> [f64; 3] {
        let linear = color.map(|c| (f64::from(c) / 255.0).powf(2.2));
        matrix.map(|row| {
            let sum: f64 = row.iter().zip(linear).map(|(m, c)| m * c).sum();
            sum.clamp(0.0, 1.0).powf(1.0 / 2.2)
        })
    }

    #[test]
    fn no_two_colours_look_alike_to_anybody() {
        let eyes = [
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            [
                [0.152286, 1.052583, -0.204868],
                [0.114503, 0.786281, 0.099216],
                [-0.003882, -0.048116, 1.051998],
            ],
            [
                [0.367322, 0.860646, -0.227968],
                [0.280085, 0.672501, 0.047413],
                [-0.011820, 0.042940, 0.968881],
            ],
            [
                [1.255528, -0.076749, -0.178779],
                [-0.078411, 0.930809, 0.147602],
                [0.004733, 0.691367, 0.303900],
            ],
            // No colours at all.
            [[0.2126, 0.7152, 0.0722]; 3],
        ];
        for (n, matrix) in eyes.into_iter().enumerate() {
            for palette in [Look::light, Look::dark] {
                for (i, a) in Look::ALL.into_iter().enumerate() {
                    for b in &Look::ALL[i + 1..] {
                        let (x, y) = (seen(palette(a), matrix), seen(palette(*b), matrix));
                        let distance: f64 = x
                            .iter()
                            .zip(y)
                            .map(|(x, y)| (x - y).powi(2))
                            .sum::<f64>()
                            .sqrt();
                        // Shades of grey alone cannot keep five apart as well as colours do.
                        let least = if n == 4 { 0.06 } else { 0.2 };
                        assert!(
                            distance > least,
                            "{a:?} and {b:?} for eyes {n}: {distance:.3}"
                        );
                    }
                }
            }
        }
    }
}
