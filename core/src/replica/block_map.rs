//! Where a generation has data, and where it differs from the one before: a small map of each disk, for people.
//!
//! It is made of the tables of the segments' digests when the generation has just been sealed, while both are there, and
//! has at most [`BlockMap::CELLS_MAX`] cells however large the disk is. Nothing depends on it: without a table there is no
//! map, and what cannot be read of one is as if it were not there.

use super::layout::Layout;
use super::manifest::{DiskRecord, Generation};
use super::store::{read_json, write_json};
use crate::digest::Digest;
use crate::error::Result;
use crate::sync::{DigestTable, Geometry};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The map of one disk of a generation. All cells are of the same size, but for the last one, which may be smaller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockMap {
    /// The disk's key.
    pub key: String,
    /// Of each cell how much has data, in percent of its segments of 1 MiB: 0 is none at all, 100 all of them.
    pub data: Vec<u8>,
    /// The same of what changed since the generation before; `None` if it is not known what that was.
    pub changed: Option<Vec<u8>>,
}

impl BlockMap {
    /// Most cells of a map.
    pub const CELLS_MAX: usize = 96;
}

/// The maps of a generation of a replica on this host; none where none were made.
pub fn block_maps(layout: &Layout, pair: Uuid, number: u64) -> Vec<BlockMap> {
    let found = read_json(&layout.block_maps(pair, number));
    found.ok().flatten().unwrap_or_default()
}

/// Makes the maps of a generation that has just been sealed here, and keeps them.
pub(super) fn keep(layout: &Layout, generation: &Generation) -> Result<()> {
    let parent = match generation.parent {
        Some(number) => read_json(&layout.generation(generation.pair, number))?,
        None => None,
    };
    let mut maps = Vec::new();
    for (index, disk) in generation.disks.iter().enumerate() {
        let Some(table) = open(layout, generation, index, disk)? else {
            continue;
        };
        let before = match &parent {
            Some(parent) => open_before(layout, parent, disk)?,
            None => None,
        };
        maps.push(map(&disk.key, &table, before.as_ref())?);
    }
    match maps.is_empty() {
        true => Ok(()),
        false => write_json(
            &layout.block_maps(generation.pair, generation.number),
            &maps,
        ),
    }
}

/// A table, and how many segments it has.
type Table = (DigestTable, u64);

fn open(
    layout: &Layout,
    generation: &Generation,
    index: usize,
    disk: &DiskRecord,
) -> Result<Option<Table>> {
    let path = layout.table(generation.pair, generation.number, index);
    let geometry = Geometry::new(disk.size, disk.leaf_bytes)?;
    let table = DigestTable::open(&path, disk.hash, geometry)?;
    Ok(table.map(|table| (table, geometry.segments())))
}

/// Of the same disk in the generation before, if it was cut and hashed in the same way.
fn open_before(layout: &Layout, parent: &Generation, disk: &DiskRecord) -> Result<Option<Table>> {
    let is_it =
        |d: &DiskRecord| (&d.key, d.hash, d.leaf_bytes) == (&disk.key, disk.hash, disk.leaf_bytes);
    let found = parent.disks.iter().enumerate().find(|(_, d)| is_it(d));
    match found {
        Some((index, before)) => open(layout, parent, index, before),
        None => Ok(None),
    }
}

fn map(key: &str, (table, segments): &Table, before: Option<&Table>) -> Result<BlockMap> {
    let cells = (BlockMap::CELLS_MAX as u64).min(*segments);
    let mut data = Vec::new();
    let mut changed = Vec::new();
    for cell in 0..cells {
        // In 128 bits nothing overflows, and the cells differ by one segment at most.
        let at = |n: u64| (u128::from(n) * u128::from(*segments) / u128::from(cells)) as u64;
        let (first, end) = (at(cell), at(cell + 1));
        let now = entries(table, first, end)?;
        data.push(percent(now.iter().flatten().count(), now.len()));
        if let Some((before, known)) = before {
            let mut then = entries(before, first.min(*known), end.min(*known))?;
            // A disk that has grown was nothing there before.
            then.resize(now.len(), None);
            let differ = now.iter().zip(&then).filter(|(now, then)| now != then);
            changed.push(percent(differ.count(), now.len()));
        }
    }
    Ok(BlockMap {
        key: key.to_owned(),
        data,
        changed: before.map(|_| changed),
    })
}

fn entries(table: &DigestTable, first: u64, end: u64) -> Result<Vec<Option<Digest>>> {
    let mut found = Vec::new();
    table.each(first, end, |_, digest| found.push(digest))?;
    Ok(found)
}

/// Rounded so that a little is not nothing, and all but a little is not all.
fn percent(part: usize, whole: usize) -> u8 {
    match part {
        0 => 0,
        _ if part >= whole => 100,
        _ => (part * 100 / whole).clamp(1, 99) as u8,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::digest::HashKind;
    use std::path::Path;

    const MIB: u64 = 1 << 20;

    fn table(dir: &Path, segments: u64, data: &[(u64, u8)]) -> Table {
        let geometry = Geometry::new(segments * MIB, 4096).unwrap();
        let table =
            DigestTable::create_unnamed(dir, HashKind::Blake3, geometry, Uuid::nil()).unwrap();
        for (index, byte) in data {
            table.put(*index, &Digest([*byte; 32])).unwrap();
        }
        (table, segments)
    }

    #[test]
    fn a_small_disk_has_a_cell_for_each_segment() {
        let dir = tempfile::tempdir().unwrap();
        let before = table(dir.path(), 4, &[(0, 1), (1, 1), (2, 1)]);
        // One stays, one is written, one becomes zeros, and the disk has grown.
        let now = table(dir.path(), 6, &[(0, 1), (1, 2), (5, 1)]);
        let map = map("scsi0", &now, Some(&before)).unwrap();
        assert_eq!(map.data, [100, 100, 0, 0, 0, 100]);
        assert_eq!(map.changed.unwrap(), [0, 100, 100, 0, 0, 100]);
    }

    #[test]
    fn a_large_disk_has_no_more_cells_and_the_least_change_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let segments = 16 << 10;
        let all: Vec<(u64, u8)> = (0..segments / 2).map(|index| (index, 1)).collect();
        let before = table(dir.path(), segments, &all);
        let mut written = all.clone();
        written[100].1 = 2;
        let map = map(
            "scsi0",
            &table(dir.path(), segments, &written),
            Some(&before),
        )
        .unwrap();
        assert_eq!(map.data.len(), BlockMap::CELLS_MAX);
        assert_eq!((map.data[0], map.data[47], map.data[48]), (100, 100, 0));
        let changed = map.changed.unwrap();
        assert_eq!(changed.iter().filter(|c| **c > 0).count(), 1);
        assert_eq!(changed[0], 1);
    }

    #[test]
    fn what_was_before_may_not_be_known_and_a_disk_may_be_empty() {
        let dir = tempfile::tempdir().unwrap();
        let first = map("a", &table(dir.path(), 2, &[(1, 1)]), None).unwrap();
        assert_eq!((first.data, first.changed), (vec![0, 100], None));
        let none = map("b", &table(dir.path(), 0, &[]), None).unwrap();
        assert!(none.data.is_empty());
    }

    #[test]
    fn shares_are_neither_rounded_to_nothing_nor_to_all() {
        assert_eq!(
            [(0, 9), (1, 9999), (1, 2), (9998, 9999), (9, 9), (0, 0)].map(|(p, w)| percent(p, w)),
            [0, 1, 50, 99, 100, 0]
        );
    }
}
