//! Where it is known what changed: only that is read at the source, nothing at the target, only leaves that differ are
//! sent, and the digest is that of a sync which looked at everything.
#![allow(clippy::unwrap_used)]

mod pair;

use pair::Wire;
use proptest::prelude::*;
use rblocksync::error::{Kind, Result};
use rblocksync::image::{Image, MemoryImage};
use rblocksync::range::{ByteRange, RangeSet};
use rblocksync::sync::{
    run_delta_source, run_source, run_target, Compress, DigestTable, Geometry, Meter, Params,
    Since, Summary, Tuning,
};
use uuid::Uuid;

const GRAIN: u64 = 64 << 10;
const LEAF: usize = 4096;

/// A replica that is in step with its source, and the source as it is now.
struct Replica {
    dir: tempfile::TempDir,
    params: Params,
    was: MemoryImage,
    is: MemoryImage,
    changed: RangeSet,
    target: MemoryImage,
    tables: [DigestTable; 2],
}

impl Replica {
    fn new(len: usize) -> Replica {
        let bytes: Vec<u8> = (0..len)
            .map(|i| match i / LEAF % 7 {
                0 => 0,
                leaf => (i / 13 + leaf) as u8,
            })
            .collect();
        let image = || {
            let image = MemoryImage::new(len);
            image.write_at(&bytes, 0).unwrap();
            image
        };
        let tuning = Tuning {
            verify: true,
            compress: Compress::Off,
            ..Tuning::default()
        };
        let params = Params::new(Geometry::new(len as u64, 4096).unwrap(), &tuning);
        let dir = tempfile::tempdir().unwrap();
        let table = |name| {
            let point = Uuid::nil();
            DigestTable::create(&dir.path().join(name), params.hash, params.geometry, point)
                .unwrap()
        };
        let tables = [table("source"), table("target")];
        let (was, target) = (image(), MemoryImage::new(len));
        let (done, _) = pair::run(
            Wire::SOUND,
            |link| run_source(&was, &params, link, &Meter::new(), Some(&tables[0])),
            |link| run_target(&target, &params, link, &Meter::new(), Some(&tables[1])),
        );
        done.unwrap();
        Replica {
            dir,
            params: Params {
                delta: true,
                ..params
            },
            is: image(),
            was,
            changed: RangeSet::new(),
            target,
            tables,
        }
    }

    /// What a guest does; it is known by whole grains.
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.is.write_at(bytes, offset as u64).unwrap();
        let end = (offset + bytes.len()) as u64;
        let range = ByteRange::new(offset as u64, end).align_out(GRAIN);
        let all = ByteRange::new(0, self.is.size());
        self.changed.insert(range.intersection(&all));
    }

    fn sync(&self, params: &Params, wire: Wire) -> (Result<Summary>, Result<Summary>) {
        let since = Since {
            image: &self.was,
            changed: &self.changed,
        };
        pair::run(
            wire,
            |link| {
                let meter = Meter::new();
                run_delta_source(&self.is, &since, params, link, &meter, &self.tables[0])
            },
            |link| {
                let meter = Meter::new();
                run_target(&self.target, params, link, &meter, Some(&self.tables[1]))
            },
        )
    }

    /// The digest that a sync of all of it has.
    fn digest(&self) -> rblocksync::digest::Digest {
        let params = Params {
            delta: false,
            ..self.params
        };
        let (copy, meter) = (MemoryImage::new(self.is.size() as usize), Meter::new());
        let (done, _) = pair::run(
            Wire::SOUND,
            |link| run_source(&self.is, &params, link, &meter, None),
            |link| run_target(&copy, &params, link, &Meter::new(), None),
        );
        done.unwrap().digest
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_replica_follows_any_change(
        writes in prop::collection::vec((0usize..780, 1usize..40, any::<u8>()), 0..12),
        in_vain in 0u64..48,
    ) {
        let len = 780 * LEAF + 1000;
        let mut replica = Replica::new(len);
        for (leaf, count, value) in writes {
            let end = ((leaf + count) * LEAF).min(len);
            // One in two makes zeros.
            replica.write(leaf * LEAF, &vec![value & (value % 2 * 255); end - leaf * LEAF]);
        }
        // Something may be said to have changed that has not.
        replica.changed.insert(ByteRange::new(in_vain * GRAIN, (in_vain + 1) * GRAIN));
        let (done, _) = replica.sync(&replica.params, Wire::SOUND);
        let done = done.unwrap();
        prop_assert!(replica.is.bytes() == replica.target.bytes());
        prop_assert_eq!(done.digest, replica.digest());
        prop_assert_eq!(done.source.read, 2 * replica.changed.total());
        prop_assert_eq!(done.target.read, 0);
        prop_assert!(done.target.written <= replica.changed.total());
        for table in &replica.tables {
            prop_assert_eq!(table.image_digest().unwrap(), done.digest);
        }
    }
}

#[test]
fn hardly_more_than_the_changed_leaves_travels() {
    let mut replica = Replica::new(64 << 20);
    for segment in 0..64 {
        for i in 0..4 {
            replica.write(
                (segment << 20) + i * 3 * GRAIN as usize + 8192,
                &[7; 2 * LEAF],
            );
        }
    }
    let (done, _) = replica.sync(&replica.params, Wire::SOUND);
    let done = done.unwrap();
    assert_eq!(done.changed, 64 * 4 * 2 * LEAF as u64);
    let wire = done.wire_out + done.wire_in;
    assert!(wire * 100 < done.changed * 102, "{wire} bytes");
}

#[test]
fn a_change_on_another_base_is_found_out() {
    let mut replica = Replica::new(4 << 20);
    replica.write(5 * LEAF, &[9; LEAF]);
    // The target has lost a write of long ago, and its table says so.
    let other = Replica::new((4 << 20) - LEAF);
    replica.tables[1] = DigestTable::create(
        &other.dir.path().join("t"),
        replica.params.hash,
        replica.params.geometry,
        Uuid::nil(),
    )
    .unwrap();
    let (source, target) = replica.sync(&replica.params, Wire::SOUND);
    assert_eq!(source.unwrap_err().kind(), Kind::Digest);
    assert_eq!(target.unwrap_err().kind(), Kind::Digest);
}

#[test]
fn what_arrives_spoilt_is_not_written() {
    let mut replica = Replica::new(4 << 20);
    replica.write(300 * LEAF, &[9; 8 * LEAF]);
    let before = replica.target.bytes();
    let wire = Wire {
        spoilt: 12 * LEAF / 2,
        ..Wire::SOUND
    };
    let (_, target) = replica.sync(&replica.params, wire);
    let error = target.unwrap_err();
    assert_eq!(error.kind(), Kind::Digest, "{error}");
    assert!(replica.target.bytes() == before);
}

#[test]
fn cut_anywhere_it_goes_on_where_it_was() {
    let mut went_on = 0;
    for cut in (1..20).map(|i| i * 150_000) {
        let mut replica = Replica::new(24 << 20);
        for segment in 0..24 {
            replica.write((segment << 20) + 9 * LEAF, &[segment as u8 | 1; 30 * LEAF]);
        }
        let path = |name| replica.dir.path().join(name);
        let (hash, geometry) = (replica.params.hash, replica.params.geometry);
        let point = Uuid::from_u128(7);
        let base = DigestTable::open(&path("target"), hash, geometry).unwrap();
        let base = base.unwrap();
        let resume = || {
            let (table, done) = DigestTable::resume(&path("next"), hash, geometry, point).unwrap();
            table.fill_from(&base, done).unwrap();
            (table, done)
        };
        replica.tables[1] = resume().0;
        let wire = Wire {
            cut_after: cut,
            ..Wire::SOUND
        };
        if replica.sync(&replica.params, wire).0.is_ok() {
            continue;
        }
        let (table, first) = resume();
        went_on += usize::from(first > 0);
        replica.tables[1] = table;
        // The source was ahead of what got through.
        replica.tables[0].fill_from(&base, first).unwrap();
        let params = Params {
            first,
            ..replica.params
        };
        let (done, _) = replica.sync(&params, Wire::SOUND);
        assert_eq!(done.unwrap().digest, replica.digest());
        assert!(replica.is.bytes() == replica.target.bytes());
    }
    assert!(went_on > 5, "{went_on}");
}
