//! A link that is cut anywhere in a sync: the next link goes on behind what is on the target for sure, sends nothing of
//! that again, and ends with the digest of a sync that was never cut.
#![allow(clippy::unwrap_used)]

use rblocksync::digest::HashKind;
use rblocksync::error::{Kind, Result};
use rblocksync::image::{Image, MemoryImage};
use rblocksync::stop::Stop;
use rblocksync::sync::{
    run_source, run_target, DigestTable, Geometry, Meter, Params, Summary, Tuning,
};
use rblocksync::wire::Link;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
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
        let (near, near_relay) = UnixStream::pair().unwrap();
        let (far_relay, far) = UnixStream::pair().unwrap();
        let link = |end: UnixStream| {
            let input = end.try_clone().unwrap();
            Link::handshake(input.into(), end.into(), "test", "peer", Stop::new())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| pass(&near_relay, &far_relay, cut_after));
            scope.spawn(|| pass(&far_relay, &near_relay, usize::MAX));
            let target = scope.spawn(|| {
                let (image, table) = self.target;
                run_target(image, params, &mut link(far)?, &Meter::new(), Some(table))
            });
            let (image, table) = self.source;
            let source = link(near).and_then(|mut link| {
                run_source(image, params, &mut link, &Meter::new(), Some(table))
            });
            let target = target.join().unwrap();
            assert_eq!(source.is_ok(), target.is_ok(), "the ends must agree");
            source
        })
    }
}

fn pass(mut from: &UnixStream, mut to: &UnixStream, mut left: usize) {
    let mut chunk = [0; 8192];
    while let Ok(len @ 1..) = from.read(&mut chunk) {
        let may = len.min(left);
        left -= may;
        if to.write_all(&chunk[..may]).is_err() || may < len {
            break;
        }
    }
    for end in [from, to] {
        let _ = end.shutdown(Shutdown::Both);
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
    let (a, b) = UnixStream::pair().unwrap();
    let link = |end: UnixStream| {
        let input = end.try_clone().unwrap();
        Link::handshake(input.into(), end.into(), "test", "peer", Stop::new()).unwrap()
    };
    let (mut a, mut b) = std::thread::scope(|scope| {
        let a = scope.spawn(|| link(a));
        (link(b), a.join().unwrap())
    });
    for refused in [
        run_target(&target, &params, &mut a, &Meter::new(), None),
        run_source(&source, &params, &mut b, &Meter::new(), None),
    ] {
        assert_eq!(refused.unwrap_err().kind(), Kind::Protocol);
    }
    assert_eq!(params.hash, HashKind::Blake3);
}
