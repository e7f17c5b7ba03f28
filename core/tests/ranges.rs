//! Where it is known where an image changed, but not what was there: only these grains are read, on both sides, and only
//! leaves that differ are sent.
#![allow(clippy::unwrap_used)]

mod pair;
#[path = "pair/replica.rs"]
mod replica;

use pair::Wire;
use proptest::prelude::*;
use rblocksync::digest;
use rblocksync::error::{Kind, Result};
use rblocksync::image::{Image, MemoryImage};
use rblocksync::range::{ByteRange, RangeSet};
use rblocksync::sync::{DeltaMode, DigestTable, Params};
use replica::{Replica, GRAIN, LEAF};
use std::sync::Mutex;
use uuid::Uuid;

/// An image that notes what is read of it, and what is written to it.
struct Watched<'a> {
    image: &'a MemoryImage,
    read: Mutex<Vec<ByteRange>>,
    written: Mutex<RangeSet>,
}

impl<'a> Watched<'a> {
    fn new(image: &'a MemoryImage) -> Self {
        Watched {
            image,
            read: Mutex::default(),
            written: Mutex::default(),
        }
    }

    /// What was read. Nothing may have been read twice.
    fn read(&self) -> RangeSet {
        let read = self.read.lock().unwrap();
        let set: RangeSet = read.iter().copied().collect();
        let bytes: u64 = read.iter().map(ByteRange::len).sum();
        assert_eq!(set.total(), bytes, "something was read twice");
        set
    }
}

impl Image for Watched<'_> {
    fn size(&self) -> u64 {
        self.image.size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let range = ByteRange::new(offset, offset + buf.len() as u64);
        self.read.lock().unwrap().push(range);
        self.image.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let range = ByteRange::new(offset, offset + buf.len() as u64);
        self.written.lock().unwrap().insert(range);
        self.image.write_at(buf, offset)
    }
    fn zero(&self, range: ByteRange) -> Result<()> {
        self.written.lock().unwrap().insert(range);
        self.image.zero(range)
    }
    fn next_data(&self, _: u64) -> Result<Option<ByteRange>> {
        panic!("nobody needs to look for data");
    }
    fn flush(&self) -> Result<()> {
        self.image.flush()
    }
    fn check_unchanged(&self) -> Result<()> {
        self.image.check_unchanged()
    }
    fn read_from_medium(&self) -> Result<()> {
        self.image.read_from_medium()
    }
    fn name(&self) -> String {
        self.image.name()
    }
}

fn replica(len: usize) -> Replica {
    let mut replica = Replica::new(DeltaMode::Ranges, len);
    replica.params.verify = false;
    replica
}

/// The leaves in which two images differ, and those of them that are zeros in the second: in bytes.
fn unlike(was: &[u8], is: &[u8]) -> (u64, u64) {
    let (mut changed, mut zeroed) = (0, 0);
    for (was, is) in was.chunks(LEAF).zip(is.chunks(LEAF)) {
        match was != is {
            true if is.iter().all(|b| *b == 0) => zeroed += is.len() as u64,
            differs => changed += u64::from(differs) * is.len() as u64,
        }
    }
    (changed, zeroed)
}

/// Runs a sync and checks all that must hold after one that goes well.
fn follow(replica: &Replica) {
    let (is, target) = (Watched::new(&replica.is), Watched::new(&replica.target));
    let (changed, zeroed) = unlike(&replica.target.bytes(), &replica.is.bytes());
    let (source, _) = replica.sync_of(&is, &target, &replica.params, Wire::SOUND);
    let done = source.unwrap();
    assert!(replica.is.bytes() == replica.target.bytes());
    assert_eq!(done.digest, replica.digest());
    for table in &replica.tables {
        assert_eq!(table.image_digest().unwrap(), done.digest);
    }
    let all = replica.changed.total();
    assert_eq!(
        (is.read(), target.read()),
        (replica.changed.clone(), replica.changed.clone())
    );
    assert_eq!(
        (done.source.read, done.target.read, done.compared),
        (all, all, all)
    );
    assert_eq!((done.changed, done.zeroed), (changed, zeroed));
    assert_eq!(done.target.written, changed);
    assert_eq!(target.written.lock().unwrap().total(), changed + zeroed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_replica_follows_any_change(
        writes in prop::collection::vec((0usize..780, 1usize..40, any::<u8>()), 0..12),
        in_vain in prop::collection::vec((0u64..49, 1u64..20), 0..6),
    ) {
        let len = 780 * LEAF + 1000;
        let mut replica = replica(len);
        for (leaf, count, value) in writes {
            let end = ((leaf + count) * LEAF).min(len);
            // One in two makes zeros.
            replica.write(leaf * LEAF, &vec![value & (value % 2 * 255); end - leaf * LEAF]);
        }
        // Far more may be said to have changed than has.
        for (first, count) in in_vain {
            let end = ((first + count) * GRAIN).min(len as u64);
            replica.changed.insert(ByteRange::new(first * GRAIN, end));
        }
        follow(&replica);
    }
}

#[test]
fn the_ends_of_an_image_are_nothing_special() {
    for len in [
        100,
        LEAF,
        GRAIN as usize + 1,
        1 << 20,
        (1 << 20) + 5,
        17 * GRAIN as usize,
    ] {
        for value in [0, 9] {
            let mut replica = replica(len);
            follow(&replica);
            replica.write(len - 1, &[value]);
            replica.write(0, &[value; 50]);
            follow(&replica);
            // What is told may be finer than grains, and longer than the image.
            replica.write(len - 1, &[value + 1]);
            let mut told = replica.changed.clone();
            told.insert(ByteRange::new(len as u64, len as u64 + GRAIN));
            replica.changed = told;
            let (source, _) = replica.sync(&replica.params, Wire::SOUND);
            assert_eq!(source.unwrap().digest, replica.digest());
            assert!(replica.is.bytes() == replica.target.bytes());
        }
    }
}

/// A list of changes as a bitmap gives it: far more grains than leaves were written.
#[test]
fn hardly_more_than_the_changed_leaves_travels() {
    let mut replica = replica(64 << 20);
    for i in 0..64 * 4 {
        replica.write(i * 4 * GRAIN as usize + 8192, &[7; 2 * LEAF]);
    }
    for i in 0..64 * 8 {
        let start = i * 2 * GRAIN;
        replica.changed.insert(ByteRange::new(start, start + GRAIN));
    }
    let marked = replica.changed.total();
    let (done, _) = replica.sync(&replica.params, Wire::SOUND);
    let done = done.unwrap();
    assert_eq!(done.changed, 64 * 4 * 2 * LEAF as u64);
    assert_eq!((done.source.read, done.target.read), (marked, marked));
    // Eight bytes for each leaf that is looked at, and what frames have besides.
    let wire = done.wire_out + done.wire_in;
    let overhead = marked / LEAF as u64 * 8 + 64 * 400;
    assert!(wire < done.changed + overhead, "{wire} bytes");
}

/// Grains of zeros cost neither fingerprints nor leaves.
#[test]
fn what_is_zeros_on_both_sides_costs_nothing() {
    let mut replica = replica(4 << 20);
    replica.write(0, &vec![0; 4 << 20]);
    follow(&replica);
    let (done, _) = replica.sync(&replica.params, Wire::SOUND);
    let done = done.unwrap();
    assert_eq!((done.changed, done.zeroed), (0, 0));
    assert!(done.wire_in + done.wire_out < 1200, "{done:?}");
}

#[test]
fn one_sync_after_another_starts_afresh() {
    let mut replica = replica(4 << 20);
    for value in 1..4 {
        replica.changed = RangeSet::new();
        replica.write((1 << 20) + 9 * LEAF, &[value; LEAF]);
        replica.write((3 << 20) + 99 * LEAF, &[value; LEAF]);
        follow(&replica);
    }
}

#[test]
fn more_segments_than_may_be_announced_at_a_time() {
    let count = 1300;
    let mut replica = Replica::of(DeltaMode::Ranges, &vec![0; count << 20]);
    for segment in 0..count {
        let start = (segment << 20) + segment % 16 * GRAIN as usize;
        match segment % 3 {
            0 => replica.write(start + LEAF, &[1; LEAF]),
            _ => replica.write(start + LEAF, &[0; LEAF]),
        }
    }
    let (done, _) = replica.sync(&replica.params, Wire::SOUND);
    let done = done.unwrap();
    assert_eq!(done.source.read, count as u64 * GRAIN);
    assert_eq!(done.changed, count.div_ceil(3) as u64 * LEAF as u64);
    assert_eq!(done.digest, replica.digest());
    let (mut is, mut target) = (vec![0; GRAIN as usize], vec![0; GRAIN as usize]);
    for part in replica.changed.iter() {
        replica.is.read_at(&mut is, part.start).unwrap();
        replica.target.read_at(&mut target, part.start).unwrap();
        assert!(is == target, "{part}");
    }
}

#[test]
fn what_arrives_spoilt_is_not_written() {
    let mut replica = replica(4 << 20);
    replica.write(300 * LEAF, &[9; 8 * LEAF]);
    let before = replica.target.bytes();
    let wire = Wire {
        spoilt: 4 * LEAF,
        ..Wire::SOUND
    };
    let (_, target) = replica.sync(&replica.params, wire);
    let error = target.unwrap_err();
    assert_eq!(error.kind(), Kind::Digest, "{error}");
    assert!(replica.target.bytes() == before);
}

#[test]
fn tables_that_differ_are_found_out() {
    let mut replica = replica(4 << 20);
    replica.write(5 * LEAF, &[9; LEAF]);
    replica.tables[1].put(3, &digest::Digest([1; 32])).unwrap();
    let (source, target) = replica.sync(&replica.params, Wire::SOUND);
    assert_eq!(source.unwrap_err().kind(), Kind::Digest);
    assert_eq!(target.unwrap_err().kind(), Kind::Digest);
}

/// The target's image is not what its table says, in a grain that is announced, and nobody can know.
fn rotten(whole: bool) -> (Replica, usize) {
    let mut replica = replica(4 << 20);
    let rot = (1 << 20) + 3 * LEAF;
    replica.target.write_at(&[0xee], rot as u64).unwrap();
    replica.write((1 << 20) + 9 * LEAF, &[9; LEAF]);
    if whole {
        replica.changed.insert(ByteRange::new(1 << 20, 2 << 20));
    }
    (replica, rot)
}

#[test]
fn rot_in_a_grain_that_is_announced_is_mended_and_never_hidden() {
    let (mut replica, _) = rotten(false);
    replica.params.verify = true;
    let (source, target) = replica.sync(&replica.params, Wire::SOUND);
    assert_eq!(source.unwrap_err().kind(), Kind::Digest);
    assert_eq!(target.unwrap_err().kind(), Kind::Digest);

    // Without looking, the leaves are put right, and the table differs from the image as it did before.
    let (replica, _) = rotten(false);
    let (source, _) = replica.sync(&replica.params, Wire::SOUND);
    assert_ne!(source.unwrap().digest, replica.digest());
    assert!(replica.is.bytes() == replica.target.bytes());
    let bytes = replica.target.bytes();
    let real = digest::segment(replica.params.hash, &bytes[1 << 20..2 << 20], LEAF);
    assert_ne!(
        replica.tables[1].get(1).unwrap(),
        real,
        "a verification tells"
    );

    // Where all of a segment is looked at, nothing of before is needed.
    let (mut replica, _) = rotten(true);
    replica.params.verify = true;
    let (source, _) = replica.sync(&replica.params, Wire::SOUND);
    assert_eq!(source.unwrap().digest, replica.digest());
    assert!(replica.is.bytes() == replica.target.bytes());
}

#[test]
fn rot_elsewhere_is_as_visible_as_before() {
    let mut replica = replica(4 << 20);
    replica
        .target
        .write_at(&[0xee], (1 << 20) + 8 * GRAIN)
        .unwrap();
    replica.write((1 << 20) + 9 * LEAF, &[9; LEAF]);
    replica.params.verify = true;
    let (source, _) = replica.sync(&replica.params, Wire::SOUND);
    assert_eq!(source.unwrap_err().kind(), Kind::Digest);
}

/// How a target goes on after its link was cut.
#[derive(Clone, Copy, PartialEq)]
enum Comeback {
    /// Its host has run all the while, and its table tells how far it got.
    WithCursor,
    /// Its table went with its host; all that was written has stayed.
    FromTheStart,
}

fn cut_and_go_on(cut: usize, comeback: Comeback) -> Option<u64> {
    let mut replica = replica(24 << 20);
    for segment in 0..24 {
        replica.write((segment << 20) + 9 * LEAF, &[segment as u8 | 1; 30 * LEAF]);
        let start = ((segment as u64) << 20) + 5 * GRAIN;
        replica.changed.insert(ByteRange::new(start, start + GRAIN));
    }
    let path = |name| replica.dir.path().join(name);
    let (hash, geometry) = (replica.params.hash, replica.params.geometry);
    let open = |name| DigestTable::open(&path(name), hash, geometry);
    let base = open("target").unwrap().unwrap();
    let resume = || {
        let point = Uuid::from_u128(7);
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
        return None;
    }
    if comeback == Comeback::FromTheStart {
        std::fs::remove_file(path("next")).unwrap();
    }
    let (table, first) = resume();
    replica.tables[1] = table;
    // The source was ahead of what got through.
    replica.tables[0].fill_from(&base, first).unwrap();
    let params = Params {
        first,
        verify: true,
        ..replica.params
    };
    let (done, _) = replica.sync(&params, Wire::SOUND);
    assert_eq!(done.unwrap().digest, replica.digest(), "cut after {cut}");
    assert!(replica.is.bytes() == replica.target.bytes());
    Some(first)
}

#[test]
fn cut_anywhere_it_goes_on_where_it_was() {
    let cuts = (0..20).map(|i| 300 + i * 150_000);
    let firsts = cuts.filter_map(|cut| cut_and_go_on(cut, Comeback::WithCursor));
    let went_on = firsts.filter(|first| *first > 0).count();
    assert!(went_on > 5, "{went_on}");
}

#[test]
fn a_target_that_has_forgotten_how_far_it_was_is_looked_at_closely() {
    let cuts = (0..10).map(|i| 200_000 + i * 280_000);
    let firsts: Vec<u64> = cuts
        .filter_map(|cut| cut_and_go_on(cut, Comeback::FromTheStart))
        .collect();
    assert!(firsts.len() > 5 && firsts.iter().all(|first| *first == 0));
}

#[test]
fn the_mode_must_be_that_of_what_is_known() {
    let replica = replica(1 << 20);
    for (delta, dry_run) in [(None, false), (Some(DeltaMode::Ranges), true)] {
        let params = Params {
            delta,
            dry_run,
            ..replica.params
        };
        let (source, _) = replica.sync(&params, Wire::SOUND);
        assert_eq!(source.unwrap_err().kind(), Kind::Usage);
    }
}
