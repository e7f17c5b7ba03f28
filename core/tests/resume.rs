//! A link that is cut anywhere in a sync: the next link goes on behind what is on the target for sure, sends nothing of
//! that again, and ends with the digest of a sync that was never cut.
#![allow(clippy::unwrap_used)]

mod pair;

use pair::Wire;
use rblocksync::digest::HashKind;
use rblocksync::error::{Kind, Result};
use rblocksync::image::{Image, MemoryImage};
use rblocksync::sync::{
    run_source, run_target, DigestTable, Geometry, Meter, Params, Summary, Tuning,
};
use uuid::Uuid;

const SEGMENT: usize = 1 << 20;
const SEGMENTS: usize = 24;
const POINT: Uuid = Uuid::from_u128(5);

/// Bytes that do not shrink, with a hole now and then.
fn content(seed: u64) -> MemoryImage {
    let image = MemoryImage::new(SEGMENTS * SEGMENT - 5000);
    let mut state = seed;
    for segment in (0..SEGMENTS).filter(|i| i % 5 != 3) {
        let mut bytes = vec![0; SEGMENT.min(image.size() as usize - segment * SEGMENT)];
        for byte in &mut bytes {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        image.write_at(&bytes, (segment * SEGMENT) as u64).unwrap();
    }
    image
}

struct Ends<'a> {
    source: (&'a dyn Image, &'a DigestTable),
    target: (&'a dyn Image, &'a DigestTable),
}

impl Ends<'_> {
    /// One sync over a link that is cut after so many bytes from the source.
    fn sync(&self, params: &Params, cut_after: usize) -> Result<Summary> {
        let wire = Wire {
            cut_after,
            ..Wire::SOUND
        };
        let none = Meter::new();
        let (source, target) = (self.source, self.target);
        pair::run(
            wire,
            |link| run_source(source.0, params, link, &none, Some(source.1)),
            |link| run_target(target.0, params, link, &Meter::new(), Some(target.1)),
        )
        .0
    }
}

fn params(image: &dyn Image) -> Params {
    Params::new(
        Geometry::new(image.size(), 4096).unwrap(),
        &Tuning::default(),
    )
}

#[test]
fn a_sync_that_was_cut_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (source, old) = (content(1), content(2));
    let mut went_on = 0;
    for cut in (1..SEGMENTS).map(|i| i * SEGMENT * 9 / 10) {
        let target = MemoryImage::new(old.size() as usize);
        target.write_at(&old.bytes(), 0).unwrap();
        let mut params = params(&source);
        let path = dir.path().join("table");
        let (table, done) =
            DigestTable::resume(&path, params.hash, params.geometry, Uuid::new_v4()).unwrap();
        assert_eq!(done, 0);
        drop(table);
        let (table, _) = DigestTable::resume(&path, params.hash, params.geometry, POINT).unwrap();
        let own =
            DigestTable::create_unnamed(dir.path(), params.hash, params.geometry, POINT).unwrap();
        let sync = |table: &DigestTable, params: &Params, cut| {
            let ends = Ends {
                source: (&source, &own),
                target: (&target, table),
            };
            ends.sync(params, cut)
        };
        if sync(&table, &params, cut).is_ok() {
            continue;
        }
        drop(table);
        let (table, done) =
            DigestTable::resume(&path, params.hash, params.geometry, POINT).unwrap();
        // What was sent is there, but for what was still on its way.
        assert!(done as usize + 8 >= cut / SEGMENT, "{done} after {cut}");
        went_on += usize::from(done > 0);
        params.first = done;
        let left = (SEGMENTS - done as usize) * (SEGMENT + 4096) + 65536;
        let summary = sync(&table, &params, usize::MAX).unwrap();
        assert!(
            summary.wire_out < left as u64,
            "{} > {left}",
            summary.wire_out
        );
        assert!(target.bytes() == source.bytes(), "cut after {cut}");
        assert_eq!(table.image_digest().unwrap(), summary.digest);
        let whole = digest_of_whole(&source, dir.path());
        assert_eq!(summary.digest, whole);
        // Nothing is left to do, and both agree on that.
        let (table, done) =
            DigestTable::resume(&path, params.hash, params.geometry, POINT).unwrap();
        assert_eq!(done, SEGMENTS as u64);
        params.first = done;
        let again = sync(&table, &params, usize::MAX).unwrap();
        assert_eq!((again.digest, again.changed), (whole, 0));
        // A new point in time begins at the beginning.
        drop(table);
        let (_, done) =
            DigestTable::resume(&path, params.hash, params.geometry, Uuid::new_v4()).unwrap();
        assert_eq!(done, 0);
    }
    assert!(went_on > SEGMENTS / 2, "{went_on}");
}

/// The digest that a sync has which is never cut.
fn digest_of_whole(source: &MemoryImage, dir: &std::path::Path) -> rblocksync::digest::Digest {
    let params = params(source);
    let table = || DigestTable::create_unnamed(dir, params.hash, params.geometry, POINT).unwrap();
    let target = MemoryImage::new(source.size() as usize);
    let ends = Ends {
        source: (source, &table()),
        target: (&target, &table()),
    };
    ends.sync(&params, usize::MAX).unwrap().digest
}

#[test]
fn without_a_table_nothing_can_be_left_out() {
    let (source, target) = (content(1), content(1));
    let mut params = params(&source);
    params.first = 3;
    let (near, far) = pair::run(
        Wire::SOUND,
        |link| run_source(&source, &params, link, &Meter::new(), None),
        |link| run_target(&target, &params, link, &Meter::new(), None),
    );
    for refused in [near, far] {
        assert_eq!(refused.unwrap_err().kind(), Kind::Protocol);
    }
    assert_eq!(params.hash, HashKind::Blake3);
}
