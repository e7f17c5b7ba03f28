//! Both sides where only grains that may have changed are looked at, against a peer that says whatever. The target: a leaf
//! holds what it held, or what a patch with the right digest said; success is only told of the digest that follows. The
//! source: it asks for the grains that changed, and never tells a target to keep what is not equal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::digest::{self, GrainSet, GrainSum, LeafSet};
use rblocksync::range::{ByteRange, RangeSet};
use rblocksync::sync::{run_delta_source, run_target, DeltaMode, DigestTable, Meter, Since};
use rblocksync::wire::{Frame, Grains, Held, Hello, Patch};
use rblocksync_fuzz::memory;
use rblocksync_fuzz::session::{encoded, link, put_digest, tell, Setup, RIGHT, SIDE_BYTES_MAX};
use rblocksync_fuzz::stream::{frame_of, pieces, Far, Sender};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

const GRAIN: u64 = digest::GRAIN_BYTES as u64;
/// The sum that stands for the one that is right.
const RIGHT_SUM: GrainSum = GrainSum([0; 32]);

/// What these grains of segment `index` of an image add to its digest.
fn sum_of(setup: &Setup, image: &[u8], index: u64, set: GrainSet) -> GrainSum {
    let segment = setup.segment(image, index);
    let leaf = setup.params.geometry.leaf_bytes() as usize;
    let mut sum = GrainSum::default();
    for place in set.places(segment.len()) {
        let bytes = &segment[place.clone()];
        let present = digest::nonzero_leaves(bytes, leaf);
        let piece = digest::piece(setup.params.hash, bytes, leaf, &present, place.start / leaf);
        sum = sum.plus(piece);
    }
    sum
}

/// A table of the image as it is at first.
fn table(setup: &Setup) -> DigestTable {
    let (hash, geometry) = (setup.params.hash, setup.params.geometry);
    let dir = std::env::temp_dir();
    let table = DigestTable::create_unnamed(&dir, hash, geometry, Default::default())
        .expect("a file for the table");
    for index in 0..geometry.segments() {
        if let Some(digest) = setup.segment_digest(setup.segment(&setup.bytes, index)) {
            table.put(index, &digest).expect("an entry");
        }
    }
    table
}

/// What the image may become, and what is announced and not answered.
struct Model {
    bytes: Vec<u8>,
    open: VecDeque<Grains>,
    announced: usize,
}

/// Plays the source.
fn play_source(setup: &Setup, input: &[u8], model: &mut Model, sender: &mut Sender) {
    sender.send(&encoded(&Frame::Hello(Hello::ours("far"))));
    for piece in pieces(input) {
        let mut piece = piece.to_vec();
        match frame_of(&piece) {
            Some(Frame::Grains(grains)) => {
                model.announced += grains.len();
                model.open.extend(grains);
            }
            Some(Frame::Same(count)) => {
                told(sender, model.announced);
                let count = (count as usize).min(model.open.len());
                model.open.drain(..count);
            }
            Some(Frame::Patch(mut patch)) => {
                told(sender, model.announced);
                if let Some(grains) = model.open.pop_front() {
                    let exists = !setup.params.geometry.segment(grains.segment).is_empty();
                    if exists && patch.segment == grains.segment {
                        setup.patch(&mut model.bytes, &patch);
                    }
                    if exists && patch.digest == Some(RIGHT) {
                        let sum = sum_of(setup, &model.bytes, grains.segment, grains.set);
                        patch.digest = sum.digest();
                        piece = encoded(&Frame::Patch(patch));
                    }
                }
            }
            Some(Frame::Done(RIGHT, _)) => {
                put_digest(&mut piece, 1, setup.image_digest(&model.bytes));
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

/// Waits until the target has told of so many segments.
fn told(sender: &mut Sender, count: usize) {
    sender.wait(|frames| {
        let told = frames.iter().filter(|f| matches!(f, Frame::Held(_)));
        (told.count() >= count).then_some(())
    });
}

fn target(setup: &Setup, input: &[u8]) {
    let table = table(setup);
    let image = setup.image();
    let meter = Meter::new();
    let mut model = Model {
        bytes: setup.bytes.clone(),
        open: VecDeque::new(),
        announced: 0,
    };
    let (far, near) = Far::pair();
    let (result, peak) = memory::peak_of(|| {
        far.run(
            |sender| play_source(setup, input, &mut model, sender),
            |_| {},
            || run_target(&image, &setup.params, &mut link(near), &meter, Some(&table)),
        )
    });
    tell(&result);
    assert!(peak < SIDE_BYTES_MAX + 32 * input.len(), "{peak} bytes");
    let after = image.bytes();
    let leaf = setup.params.geometry.leaf_bytes() as usize;
    let old = setup.bytes.chunks(leaf);
    for ((old, new), is) in old.zip(model.bytes.chunks(leaf)).zip(after.chunks(leaf)) {
        assert!(is == old || is == new, "a leaf is none of what it may be");
    }
    if let Ok(summary) = result {
        setup.check_map(&meter);
        assert!(after == model.bytes);
        assert_eq!(summary.digest, setup.image_digest(&after));
        assert_eq!(table.image_digest().expect("a digest"), summary.digest);
    }
}

/// Some grains of the image, depending on what image it is.
fn changed(size: u64) -> RangeSet {
    let count = size.div_ceil(GRAIN);
    let grains = (0..count).filter(|i| i % 7 < 2 || i / 16 == 1 || i + 1 == count);
    grains
        .map(|i| ByteRange::new(i * GRAIN, ((i + 1) * GRAIN).min(size)))
        .collect()
}

/// What the source was told, in order, and how much of it is answered.
#[derive(Default)]
struct Told {
    announced: Vec<Grains>,
    held: Vec<Held>,
    answered: usize,
}

/// Plays the target.
fn play_target(setup: &Setup, input: &[u8], told: &Mutex<Told>, sender: &mut Sender) {
    sender.send(&encoded(&Frame::Hello(Hello::ours("far"))));
    let mut count = 0;
    for piece in pieces(input) {
        let mut piece = piece.to_vec();
        match frame_of(&piece) {
            Some(Frame::Held(mut held)) => {
                count += 1;
                let grains = sender.wait(|frames| announced(frames).nth(count - 1));
                let known = grains.filter(|grains| grains.segment == held.segment);
                if let (Some(grains), RIGHT_SUM) = (known, held.sum) {
                    held.sum = sum_of(setup, &setup.bytes, grains.segment, grains.set);
                    piece = encoded(&Frame::Held(held.clone()));
                }
                told.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .held
                    .push(held);
            }
            Some(Frame::Finished(digest, _)) => {
                let done = sender.wait(|frames| match frames.last() {
                    Some(Frame::Done(digest, _)) => Some(*digest),
                    _ => None,
                });
                if let (RIGHT, Some(digest)) = (digest, done) {
                    put_digest(&mut piece, 1, digest);
                }
            }
            _ => {}
        }
        sender.send(&piece);
    }
}

fn announced(frames: &[Frame]) -> impl Iterator<Item = Grains> + '_ {
    frames.iter().flat_map(|frame| match frame {
        Frame::Grains(grains) => grains.clone(),
        _ => Vec::new(),
    })
}

/// Checks what the source says.
fn hear(setup: &Setup, told: &Mutex<Told>, frame: &Frame) {
    let told = &mut *told.lock().unwrap_or_else(PoisonError::into_inner);
    let mut next = || {
        let at = told.answered;
        told.answered += 1;
        let grains = *told.announced.get(at).expect("an answer to nothing");
        let held = told.held.get(at).expect("an answer to what was not told");
        let sum = sum_of(setup, &setup.bytes, grains.segment, grains.set);
        (grains, held, sum)
    };
    match frame {
        Frame::Grains(grains) => told.announced.extend(grains),
        Frame::Same(count) => (0..*count).for_each(|_| {
            let (grains, held, sum) = next();
            assert_eq!(held.sum, sum, "{grains:?} are not the same");
        }),
        Frame::Patch(patch) => {
            let (grains, held, sum) = next();
            assert_eq!(
                (patch.segment, patch.digest),
                (grains.segment, sum.digest())
            );
            check(setup, patch, held);
        }
        _ => {}
    }
}

/// The patch has all that the target has not, and makes zeros of what is to be none.
fn check(setup: &Setup, patch: &Patch, held: &Held) {
    let leaf = setup.params.geometry.leaf_bytes() as usize;
    let segment = setup.segment(&setup.bytes, patch.segment);
    let present = digest::nonzero_leaves(segment, leaf);
    for i in 0..segment.len().div_ceil(leaf) {
        let (changed, zeroed) = (patch.changed.contains(i), patch.zeroed.contains(i));
        assert!(present.contains(i) || !changed, "zeros are sent");
        assert_eq!(zeroed, held.present.contains(i) && !present.contains(i));
    }
    let mut image = setup.bytes.clone();
    let kept = Patch {
        zeroed: LeafSet::default(),
        ..patch.clone()
    };
    setup.patch(&mut image, &kept);
    assert!(image == setup.bytes, "a patch has what is not there");
}

fn source(setup: &Setup, input: &[u8]) {
    let table = table(setup);
    let image = setup.image();
    let meter = Meter::new();
    let told = Mutex::default();
    let changed = changed(setup.params.geometry.size());
    let since = Since {
        image: None,
        changed: &changed,
    };
    let (far, near) = Far::pair();
    let (result, peak) = memory::peak_of(|| {
        far.run(
            |sender| play_target(setup, input, &told, sender),
            |frame| hear(setup, &told, frame),
            || {
                let link = &mut link(near);
                run_delta_source(&image, &since, &setup.params, link, &meter, &table)
            },
        )
    });
    tell(&result);
    assert!(peak < SIDE_BYTES_MAX + 32 * input.len(), "{peak} bytes");
    assert!(image.bytes() == setup.bytes, "the source was written to");
    let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Ok(summary) = result {
        setup.check_map(&meter);
        let digest = table.image_digest().expect("a digest");
        assert_eq!(summary.digest, digest);
        let sets = told.announced.iter().map(|grains| {
            let len = setup.params.geometry.segment(grains.segment).len();
            grains.set.bytes(len as usize) as u64
        });
        assert_eq!(sets.sum::<u64>(), changed.total());
        assert_eq!(told.answered, told.announced.len());
    }
}

fuzz_target!(|input: &[u8]| {
    let is_source = input.first().is_some_and(|how| how & 64 != 0);
    let Some((mut setup, input)) = Setup::take(input) else {
        return;
    };
    setup.params.delta = Some(DeltaMode::Ranges);
    match is_source {
        true => source(&setup, input),
        false => target(&setup, input),
    }
});
