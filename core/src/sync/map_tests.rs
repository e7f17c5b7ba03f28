//! The map against a list of what every leaf was, and against reports that do not fit.

#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

const LEAF: u64 = 4096;

/// What a segment may be: a hole, partly freed, equal, or patched with so many leaves of each kind.
#[derive(Debug, Clone, Copy)]
enum Was {
    Hole,
    Freed { first: u64, leaves: u64 },
    Equal,
    Patched { changed: u64, zeroed: u64 },
}

fn was() -> impl Strategy<Value = Was> {
    prop_oneof![
        Just(Was::Hole),
        (0u64..256, 1u64..=256).prop_map(|(first, leaves)| Was::Freed { first, leaves }),
        Just(Was::Equal),
        (0u64..=128, 0u64..=128).prop_map(|(changed, zeroed)| Was::Patched { changed, zeroed }),
    ]
}

/// Marks it on the side that knows it, and gives what it comes to.
fn mark(source: &mut BlockMap, target: &mut BlockMap, segment: ByteRange, was: Was) -> Extent {
    let len = segment.len();
    let mut extent = Extent::default();
    match was {
        Was::Hole => extent.hole = len,
        Was::Freed { first, leaves } => {
            let start = segment.start + first * LEAF;
            let range = ByteRange::new(start, start + leaves * LEAF).intersection(&segment);
            target.mark_freed(range);
            extent.zeroed = range.len();
            extent.hole = len - range.len();
        }
        Was::Equal => {
            source.mark_unchanged(segment);
            extent.unchanged = len;
        }
        Was::Patched { changed, zeroed } => {
            extent.changed = (changed * LEAF).min(len);
            extent.zeroed = (zeroed * LEAF).min(len - extent.changed);
            extent.unchanged = len - extent.changed - extent.zeroed;
            source.mark_patched(segment, extent.changed, extent.zeroed);
        }
    }
    extent
}

proptest! {
    /// Every byte is one thing, in the sum and in each cell, whichever side marked it.
    #[test]
    fn each_byte_is_counted_once(
        segments in prop::collection::vec(was(), 1..60),
        cut in 0u64..1 << 20,
    ) {
        let size = ((segments.len() as u64) << 20) - cut;
        let geometry = Geometry::new(size, LEAF as u32).unwrap();
        let (mut source, mut target) = (BlockMap::new(&geometry), BlockMap::new(&geometry));
        prop_assert_eq!(source.cells(), segments.len());
        let mut total = Extent::default();
        let mut expected = Vec::new();
        for (i, was) in segments.iter().enumerate() {
            let extent = mark(&mut source, &mut target, geometry.segment(i as u64), *was);
            expected.push(extent);
            total += extent;
        }
        source.add(&target.report()).unwrap();
        prop_assert_eq!(total.len(), size);
        prop_assert_eq!(source.total(), total);
        for (i, extent) in expected.iter().enumerate() {
            prop_assert_eq!(source.extent(i..i + 1), *extent, "cell {}", i);
        }
        let mut relay = BlockMap::new(&geometry);
        let mut own = BlockMap::new(&geometry);
        own.add(&target.report()).unwrap();
        prop_assert_eq!(&own, &target);
        relay.add(&source.report()).unwrap();
        prop_assert_eq!(relay, source);
    }

    /// A long range is the same as its segments one by one, also where cells hold many segments.
    #[test]
    fn a_run_is_the_sum_of_its_segments(
        tib in 1u64..=64,
        start in 0u64..=1 << 16,
        count in 0u64..=1 << 12,
    ) {
        let geometry = Geometry::new((tib << 40) + 5000, LEAF as u32).unwrap();
        let (mut run, mut singles) = (BlockMap::new(&geometry), BlockMap::new(&geometry));
        run.mark_unchanged(geometry.span(start, start + count));
        for index in start..start + count {
            singles.mark_unchanged(geometry.segment(index));
        }
        prop_assert_eq!(&run, &singles);
        prop_assert!(run.cells() <= CELLS_MAX as usize);
        prop_assert_eq!(run.total().unchanged, count << 20);
        prop_assert_eq!(run.total().len(), geometry.size());
    }
}

#[test]
fn an_empty_image_has_no_cells() {
    let map = BlockMap::new(&Geometry::new(0, LEAF as u32).unwrap());
    assert_eq!((map.cells(), map.total()), (0, Extent::default()));
    assert!(map.total().is_empty());
}

#[test]
fn the_largest_image_has_a_bounded_map_and_its_report_fits_a_frame() {
    let geometry = Geometry::new(i64::MAX as u64, LEAF as u32).unwrap();
    let mut map = BlockMap::new(&geometry);
    assert!(map.cells() <= CELLS_MAX as usize);
    // No two neighbours alike: the longest report.
    for cell in 0..map.cells() {
        let range = map.range(cell..cell + 1);
        let third = range.len() / 3 - cell as u64;
        map.mark_unchanged(ByteRange::new(range.start, range.start + third));
        map.mark_freed(ByteRange::new(range.start + third, range.start + 2 * third));
        map.mark_patched(ByteRange::new(range.start, range.start + third), third, 0);
    }
    let json = serde_json::to_vec(&map.report()).unwrap();
    assert!(json.len() < 2 << 20, "{} bytes", json.len());
    let mut other = BlockMap::new(&geometry);
    other.add(&map.report()).unwrap();
    assert_eq!(other, map);
}

#[test]
fn a_report_that_does_not_fit_is_refused() {
    let geometry = Geometry::new((3 << 20) + 1, LEAF as u32).unwrap();
    let mut marked = BlockMap::new(&geometry);
    marked.mark_unchanged(geometry.segment(0));
    for runs in [
        vec![[5, 0, 0, 0]],
        vec![[4, 0, 0, 0], [1, 0, 0, 0]],
        vec![[u64::MAX, 0, 0, 0]],
        vec![[1, 1, 0, 0]],
        vec![[1, 0, 0, 1]],
        vec![[1, 0, 0, 0], [1, (1 << 20) + 1, 0, 0]],
        vec![[1, 0, 0, 0], [1, u64::MAX, 0, 0]],
        vec![[1, 0, 0, 0], [1, u64::MAX, 1, u64::MAX]],
        // The last cell has one byte.
        vec![[1, 0, 0, 0], [3, 2, 0, 0]],
    ] {
        let error = marked.clone().add(&MapReport(runs.clone())).unwrap_err();
        assert_eq!(error.kind(), Kind::Protocol, "{runs:?}");
    }
    marked
        .add(&MapReport(vec![[1, 0, 0, 0], [3, 0, 1, 0]]))
        .unwrap();
    assert_eq!(marked.total().changed, 3);
}
