//! The target's side where only what changed is sent, against a source that says whatever: a leaf holds what it held, or
//! what a change with its proof said; success is only told of the digest that follows from the changes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::digest::{Digest, GrainSum, ImageDigest};
use rblocksync::sync::{run_target, DeltaMode, DigestTable, Meter};
use rblocksync::wire::{Delta, Frame, Hello, Unpacker};
use rblocksync_fuzz::memory;
use rblocksync_fuzz::session::{encoded, link, put_digest, tell, Setup, RIGHT, SIDE_BYTES_MAX};
use rblocksync_fuzz::stream::{frame_of, pieces, Far, Sender};

/// Where a change has its proof, behind type, shift, segment and flag.
const PROOF_AT: usize = 1 + 32 + 8 + 1;

/// What the image may become, and the digests of its segments with it.
struct Model {
    bytes: Vec<u8>,
    sums: Vec<GrainSum>,
}

fn sums(setup: &Setup) -> Vec<GrainSum> {
    let segments = 0..setup.params.geometry.segments();
    segments
        .map(|index| GrainSum::of(setup.segment_digest(setup.segment(&setup.bytes, index))))
        .collect()
}

/// The proof that a change would have if it were an honest one.
fn proof(setup: &Setup, delta: &Delta) -> Option<Digest> {
    let geometry = &setup.params.geometry;
    let len = geometry.segment(delta.patch.segment).len() as usize;
    let runs = delta.patch.changed.runs();
    let places = runs
        .iter()
        .map(|(first, count)| geometry.leaves(*first, *count, len));
    let bytes: usize = places.map(|place| place.len()).sum();
    let mut unpacker = Unpacker::default();
    let leaves = unpacker.unpack(&delta.patch.data, bytes).ok()?;
    Some(delta.proof(setup.params.hash, &[leaves]))
}

/// Plays the source.
fn play(setup: &Setup, input: &[u8], model: &mut Model, sender: &mut Sender) {
    sender.send(&encoded(&Frame::Hello(Hello::ours("far"))));
    let mut next = 0;
    for piece in pieces(input) {
        let mut piece = piece.to_vec();
        match frame_of(&piece) {
            Some(Frame::Delta(delta)) => {
                if delta.patch.digest == Some(RIGHT) {
                    put_digest(&mut piece, PROOF_AT, proof(setup, &delta).unwrap_or(RIGHT));
                }
                let index = delta.patch.segment;
                if index >= next && index < setup.params.geometry.segments() {
                    next = index + 1;
                    setup.patch(&mut model.bytes, &delta.patch);
                    let sum = &mut model.sums[index as usize];
                    *sum = sum.plus(delta.shift);
                }
            }
            Some(Frame::Done(RIGHT, _)) => {
                put_digest(&mut piece, 1, image_digest(setup, &model.sums));
            }
            _ => {}
        }
        sender.send(&piece);
        if let Some(Frame::Done(..)) = frame_of(&piece) {
            // A source that went now would be missed.
            sender.insist();
            sender.wait(|frames| {
                let ended = matches!(frames.last(), Some(Frame::Finished(..) | Frame::Error(_)));
                ended.then_some(())
            });
        }
    }
}

fn image_digest(setup: &Setup, sums: &[GrainSum]) -> Digest {
    let geometry = &setup.params.geometry;
    let (leaf, segment) = (geometry.leaf_bytes(), geometry.segment_bytes());
    let mut digest = ImageDigest::new(setup.params.hash, leaf, segment);
    for (index, sum) in (0..).zip(sums) {
        digest.add(index, sum.digest());
    }
    digest.finish(geometry.size())
}

fuzz_target!(|input: &[u8]| {
    let Some((mut setup, input)) = Setup::take(input) else {
        return;
    };
    setup.params.delta = Some(DeltaMode::Image);
    let (hash, geometry) = (setup.params.hash, setup.params.geometry);
    let dir = std::env::temp_dir();
    let table = DigestTable::create_unnamed(&dir, hash, geometry, Default::default())
        .expect("a file for the table");
    let mut model = Model {
        bytes: setup.bytes.clone(),
        sums: sums(&setup),
    };
    for (index, sum) in (0..).zip(&model.sums) {
        if let Some(digest) = sum.digest() {
            table.put(index, &digest).expect("an entry");
        }
    }
    let image = setup.image();
    let meter = Meter::new();
    let (far, near) = Far::pair();
    let (result, peak) = memory::peak_of(|| {
        far.run(
            |sender| play(&setup, input, &mut model, sender),
            |_| {},
            || run_target(&image, &setup.params, &mut link(near), &meter, Some(&table)),
        )
    });
    tell(&result);
    assert!(peak < SIDE_BYTES_MAX + 32 * input.len(), "{peak} bytes");
    let after = image.bytes();
    if setup.params.dry_run {
        assert!(after == setup.bytes, "a dry run changed the image");
        return;
    }
    let leaf = geometry.leaf_bytes() as usize;
    let old = setup.bytes.chunks(leaf);
    for ((old, new), is) in old.zip(model.bytes.chunks(leaf)).zip(after.chunks(leaf)) {
        assert!(is == old || is == new, "a leaf is none of what it may be");
    }
    if let Ok(summary) = result {
        setup.check_map(&meter);
        assert_eq!(summary.digest, image_digest(&setup, &model.sums));
        assert!(after == model.bytes);
    }
});
