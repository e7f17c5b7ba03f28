//! How the cells of a map lie in a picture: in rows, like text.

/// Width of the field of cells, in pixels.
pub(super) const WIDTH: usize = 768;

/// Columns, rows, and pixels of a cell's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub columns: usize,
    pub rows: usize,
    pub side: usize,
}

impl Grid {
    /// About as high as wide. A power of two of columns, so that a row is a round number of bytes.
    pub(super) fn of(cells: usize) -> Grid {
        let mut columns = 32;
        while columns < 128 && columns * columns < cells {
            columns *= 2;
        }
        Grid {
            columns,
            rows: cells.div_ceil(columns),
            side: WIDTH / columns,
        }
    }

    pub(super) fn height(&self) -> usize {
        self.rows * self.side
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cells_have_a_place() {
        for cells in [0, 1, 31, 32, 33, 1024, 1025, 8193, 16384] {
            let grid = Grid::of(cells);
            assert!(grid.columns * grid.rows >= cells, "{cells}");
            assert!(
                grid.height() <= WIDTH && grid.columns * grid.side == WIDTH,
                "{cells}"
            );
        }
        let largest = Grid {
            columns: 128,
            rows: 128,
            side: 6,
        };
        assert_eq!(Grid::of(16384), largest);
    }
}
