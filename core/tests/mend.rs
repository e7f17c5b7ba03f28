//! Putting single segments right: only what they were is taken, whoever sends it.
#![allow(clippy::unwrap_used)]

use rblocksync::digest::LeafSet;
use rblocksync::error::{Kind, Result};
use rblocksync::image::{Image, MemoryImage};
use rblocksync::stop::Stop;
use rblocksync::sync::{
    receive_segments, run_source, run_target, send_segments, DigestTable, Geometry, Meter, Params,
    Tuning,
};
use rblocksync::wire::{Frame, Link, Patch, Payload};
use std::os::unix::net::UnixStream;
use uuid::Uuid;

const MIB: usize = 1 << 20;

fn image(seed: u8) -> MemoryImage {
    let image = MemoryImage::new(4 * MIB);
    // The second segment is a hole.
    for segment in [0, 2, 3] {
        let bytes: Vec<u8> = (0..MIB).map(|i| (i / 4096) as u8 ^ seed).collect();
        image.write_at(&bytes, (segment * MIB) as u64).unwrap();
    }
    image
}

fn links() -> (Link, Link) {
    let (a, b) = UnixStream::pair().unwrap();
    let link = |end: UnixStream| {
        let input = end.try_clone().unwrap();
        Link::handshake(input.into(), end.into(), "test", "peer", Stop::new()).unwrap()
    };
    std::thread::scope(|scope| {
        let a = scope.spawn(|| link(a));
        (link(b), a.join().unwrap())
    })
}

struct World {
    params: Params,
    table: DigestTable,
    target: MemoryImage,
    _dir: tempfile::TempDir,
}

/// A target that was synced from `source`.
fn synced(source: &MemoryImage) -> World {
    let dir = tempfile::tempdir().unwrap();
    let tuning = Tuning {
        verify: true,
        ..Tuning::default()
    };
    let params = Params::new(Geometry::new(source.size(), 4096).unwrap(), &tuning);
    let table =
        DigestTable::create_unnamed(dir.path(), params.hash, params.geometry, Uuid::nil()).unwrap();
    let target = MemoryImage::new(4 * MIB);
    let (mut near, mut far) = links();
    std::thread::scope(|scope| {
        let receiving =
            scope.spawn(|| run_target(&target, &params, &mut far, &Meter::new(), Some(&table)));
        run_source(source, &params, &mut near, &Meter::new(), None).unwrap();
        receiving.join().unwrap().unwrap();
    });
    World {
        params,
        table,
        target,
        _dir: dir,
    }
}

impl World {
    fn mend(&self, source: &MemoryImage, segments: &[u64]) -> Vec<u64> {
        let wanted: Vec<_> = segments
            .iter()
            .map(|index| (*index, self.table.get(*index).unwrap()))
            .collect();
        let (mut near, mut far) = links();
        std::thread::scope(|scope| {
            let receiving =
                scope.spawn(|| receive_segments(&self.target, &self.params, &mut far, &self.table));
            let sent = send_segments(source, &self.params, &mut near, &wanted).unwrap();
            receiving.join().unwrap().unwrap();
            sent
        })
    }

    /// What the target says to these frames.
    fn says(&self, frames: &[Frame]) -> Result<()> {
        let (mut near, mut far) = links();
        std::thread::scope(|scope| {
            let receiving =
                scope.spawn(|| receive_segments(&self.target, &self.params, &mut far, &self.table));
            for frame in frames {
                near.writer.send(frame).unwrap();
            }
            near.writer.flush().unwrap();
            drop(near);
            receiving.join().unwrap()
        })
    }
}

#[test]
fn damage_goes_and_what_the_source_has_no_more_stays() {
    let source = image(1);
    let world = synced(&source);
    let right = world.target.bytes();
    for segment in 0..4 {
        world
            .target
            .write_at(&[0xaa; 8192], (segment * MIB + 4096) as u64)
            .unwrap();
    }
    source.write_at(&[7], 3 * MIB as u64).unwrap();
    assert_eq!(world.mend(&source, &[0, 1, 2, 3]), [0, 1, 2]);
    let now = world.target.bytes();
    assert!(
        now[..3 * MIB] == right[..3 * MIB],
        "a hole, too, is one again"
    );
    assert!(now[3 * MIB..] != right[3 * MIB..]);
}

#[test]
fn what_a_segment_never_was_is_refused() {
    let world = synced(&image(1));
    let before = world.target.bytes();
    let mut all = LeafSet::default();
    (0..256).for_each(|leaf| all.insert(leaf));
    let patch = |segment, digest| {
        Frame::Patch(Patch {
            segment,
            digest,
            changed: all,
            zeroed: LeafSet::default(),
            data: Payload::Stored(vec![9; MIB]),
        })
    };
    let right = |segment| world.table.get(segment).unwrap();
    let other = rblocksync::digest::segment(world.params.hash, &vec![9; MIB], 4096);
    for (frames, kind) in [
        // With a digest of its own, with the right one, and for a segment that was a hole.
        (vec![patch(0, other)], Kind::Digest),
        (vec![patch(0, right(0))], Kind::Digest),
        (vec![patch(1, None)], Kind::Protocol),
        (vec![patch(4, right(0))], Kind::Protocol),
        (vec![patch(u64::MAX, right(0))], Kind::Protocol),
        (vec![Frame::Same(1)], Kind::Protocol),
        (vec![], Kind::Remote),
    ] {
        let error = world.says(&frames).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(world.target.bytes() == before, "{error}");
    }
}
