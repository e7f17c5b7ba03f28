//! Where it is known what changed: only that is read at the source, nothing at the target, only leaves that differ are
//! sent, and the digest is that of a sync which looked at everything.
#![allow(clippy::unwrap_used)]

mod pair;
#[path = "pair/replica.rs"]
mod replica;

use pair::Wire;
use proptest::prelude::*;
use rblocksync::error::Kind;
use rblocksync::range::ByteRange;
use rblocksync::sync::{DeltaMode, DigestTable, Params};
use replica::{Replica, GRAIN, LEAF};
use uuid::Uuid;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_replica_follows_any_change(
        writes in prop::collection::vec((0usize..780, 1usize..40, any::<u8>()), 0..12),
        in_vain in 0u64..48,
    ) {
        let len = 780 * LEAF + 1000;
        let mut replica = Replica::new(DeltaMode::Image, len);
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
    let mut replica = Replica::new(DeltaMode::Image, 64 << 20);
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
    let mut replica = Replica::new(DeltaMode::Image, 4 << 20);
    replica.write(5 * LEAF, &[9; LEAF]);
    // The target has lost a write of long ago, and its table says so.
    let other = Replica::new(DeltaMode::Image, (4 << 20) - LEAF);
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
    let mut replica = Replica::new(DeltaMode::Image, 4 << 20);
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
        let mut replica = Replica::new(DeltaMode::Image, 24 << 20);
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
