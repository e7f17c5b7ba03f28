//! The map of a sync: the same on the source, on the target, on a relay between them, and in a dry run.
#![allow(clippy::unwrap_used)]

use rblocksync::digest::HashKind;
use rblocksync::fingerprint::Key;
use rblocksync::image::{Image, MemoryImage, View};
use rblocksync::stop::Stop;
use rblocksync::sync::{
    relay, run_source, run_target, BlockMap, Compress, Extent, Geometry, Meter, Params, Summary,
};
use rblocksync::wire::Link;
use std::os::unix::net::UnixStream;

const LEAF: u64 = 4096;
const MIB: u64 = 1 << 20;
/// The last segment is short, and so is its last leaf.
const SIZE: u64 = 8 * MIB - 5000;

fn params(dry_run: bool) -> Params {
    Params {
        geometry: Geometry::new(SIZE, LEAF as u32).unwrap(),
        hash: HashKind::Blake3,
        dry_run,
        verify: false,
        bytes_per_s_max: None,
        compress: Compress::Auto,
        threads: None,
        leaf_key: Key([7; 16]),
        map: true,
        first: 0,
        delta: None,
    }
}

fn put(image: &MemoryImage, offset: u64, len: u64, byte: u8) {
    image.write_at(&vec![byte; len as usize], offset).unwrap();
}

/// Source and target, with one segment of each kind, and what the map must say of them.
fn images() -> (MemoryImage, MemoryImage, [Extent; 8]) {
    let (src, dst) = (
        MemoryImage::new(SIZE as usize),
        MemoryImage::new(SIZE as usize),
    );
    let mut all = [Extent::default(); 8];
    // 0: a hole on both sides.
    all[0].hole = MIB;
    // 1: equal.
    put(&src, MIB, MIB, 1);
    put(&dst, MIB, MIB, 1);
    all[1].unchanged = MIB;
    // 2: two leaves differ, three become zeros.
    put(&src, 2 * MIB, MIB, 1);
    put(&dst, 2 * MIB, MIB, 1);
    put(&dst, 2 * MIB, 2 * LEAF, 2);
    put(&src, 2 * MIB + 9 * LEAF, 3 * LEAF, 0);
    all[2] = Extent {
        hole: 0,
        unchanged: MIB - 5 * LEAF,
        changed: 2 * LEAF,
        zeroed: 3 * LEAF,
    };
    // 3: new.
    put(&src, 3 * MIB, MIB, 3);
    all[3].changed = MIB;
    // 4: zeros on the source, written ones; data on the target.
    put(&src, 4 * MIB, MIB, 0);
    put(&dst, 4 * MIB, MIB, 4);
    all[4].zeroed = MIB;
    // 5: a hole on the source, some data on the target.
    put(&dst, 5 * MIB + 7 * LEAF, 5 * LEAF, 5);
    all[5].zeroed = 5 * LEAF;
    all[5].hole = MIB - 5 * LEAF;
    // 6: all other.
    put(&src, 6 * MIB, MIB, 6);
    put(&dst, 6 * MIB, MIB, 7);
    all[6].changed = MIB;
    // 7: a hole on the source, all data on the target; short.
    put(&dst, 7 * MIB, MIB - 5000, 8);
    all[7].zeroed = MIB - 5000;
    (src, dst, all)
}

fn link(end: UnixStream, peer: &str) -> Link {
    let other = end.try_clone().unwrap();
    Link::handshake(end.into(), other.into(), "test", peer, Stop::new()).unwrap()
}

/// What the target's side would be given in a run of this kind.
fn target(dst: MemoryImage, params: &Params, end: UnixStream, meter: &Meter) -> Summary {
    run_target(&dst, params, &mut link(end, "source"), meter, None).unwrap()
}

/// Runs a sync; gives the maps of the source's and of the target's side.
fn direct(params: &Params) -> (Summary, [BlockMap; 2]) {
    let (src, dst, _) = images();
    let (a, b) = UnixStream::pair().unwrap();
    let meters = [Meter::new(), Meter::new()];
    let summary = std::thread::scope(|scope| {
        let other = scope.spawn(|| target(dst, params, b, &meters[1]));
        let summary = run_source(&src, params, &mut link(a, "target"), &meters[0], None).unwrap();
        other.join().unwrap();
        summary
    });
    (summary, meters.map(|meter| meter.map().unwrap()))
}

fn relayed(params: &Params) -> BlockMap {
    let (src, dst, _) = images();
    let (a, a_far) = UnixStream::pair().unwrap();
    let (b, b_far) = UnixStream::pair().unwrap();
    let meter = Meter::new();
    std::thread::scope(|scope| {
        scope.spawn(|| target(dst, params, b_far, &Meter::new()));
        scope.spawn(|| {
            run_source(&src, params, &mut link(a_far, "relay"), &Meter::new(), None).unwrap();
        });
        relay(
            &mut link(a, "source"),
            &mut link(b, "target"),
            params,
            &meter,
        )
        .unwrap();
    });
    meter.map().unwrap()
}

#[test]
fn all_that_take_part_have_the_same_map() {
    for dry_run in [false, true] {
        let params = params(dry_run);
        let (summary, [source, target]) = direct(&params);
        let expected = images().2;
        assert_eq!(source.cells(), expected.len());
        for (i, extent) in expected.iter().enumerate() {
            assert_eq!(
                source.extent(i..i + 1),
                *extent,
                "segment {i}, dry run {dry_run}"
            );
        }
        assert_eq!(target, source, "dry run {dry_run}");
        assert_eq!(relayed(&params), source, "dry run {dry_run}");
        let total = source.total();
        assert_eq!(total.len(), SIZE);
        assert_eq!(
            (total.changed, total.zeroed),
            (summary.changed, summary.zeroed)
        );
    }
}

#[test]
fn there_is_none_unless_it_was_asked_for() {
    let params = Params {
        map: false,
        ..params(false)
    };
    let (src, dst, _) = images();
    let (a, b) = UnixStream::pair().unwrap();
    let meter = Meter::new();
    std::thread::scope(|scope| {
        scope.spawn(|| target(dst, &params, b, &Meter::new()));
        run_source(&src, &params, &mut link(a, "target"), &meter, None).unwrap();
    });
    assert_eq!(meter.map(), None);
}

/// The dry run of a target that is still to be made.
#[test]
fn a_target_that_is_not_there_yet_is_all_changed() {
    let params = params(true);
    let (src, _, _) = images();
    let (a, b) = UnixStream::pair().unwrap();
    let meter = Meter::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let view = View::new(None, SIZE);
            run_target(&view, &params, &mut link(b, "source"), &Meter::new(), None).unwrap();
        });
        run_source(&src, &params, &mut link(a, "target"), &meter, None).unwrap();
    });
    let total = meter.map().unwrap().total();
    assert_eq!((total.changed, total.zeroed), (4 * MIB - 3 * LEAF, 0));
    assert_eq!(total.len(), SIZE);
}
