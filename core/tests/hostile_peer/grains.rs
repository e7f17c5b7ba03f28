//! A source that breaks the rules where only grains that may have changed are looked at, against the target's side.

use crate::peer::*;
use rblocksync::digest::{self, Digest, GrainSet, GrainSum, HashKind};
use rblocksync::error::Kind;
use rblocksync::fingerprint::{Fingerprints, Key};
use rblocksync::image::MemoryImage;
use rblocksync::sync::{DeltaMode, Geometry};
use rblocksync::wire::{Delta, Frame, Grains, Held, Patch};
use std::sync::Arc;

const OLD: u8 = 5;
/// Leaves of a grain.
const PER_GRAIN: usize = 16;

/// An announcement.
pub fn grains(list: &[(u64, u16)]) -> Frame {
    let entry = |&(segment, set): &(u64, u16)| Grains {
        segment,
        set: GrainSet(set),
    };
    Frame::Grains(list.iter().map(entry).collect())
}

/// What these grains of a segment add to its digest.
pub fn sum_of(segment: &[u8], set: u16) -> GrainSum {
    let mut sum = GrainSum::default();
    for place in GrainSet(set).places(segment.len()) {
        let bytes = &segment[place.clone()];
        let present = digest::nonzero_leaves(bytes, LEAF);
        let first = place.start / LEAF;
        sum = sum.plus(digest::piece(
            HashKind::Blake3,
            bytes,
            LEAF,
            &present,
            first,
        ));
    }
    sum
}

/// A target of four segments full of `OLD` that knows so.
fn side(image: Arc<MemoryImage>) -> Side {
    Side::new(image, params(4)).knowing(OLD).by_ranges()
}

fn refuse(script: impl FnOnce(&mut Peer) + Send + 'static, kind: Kind, words: &str) {
    let image = filled(4, OLD);
    let before = image.bytes();
    let result = side(image.clone()).run_as_target(|p| {
        p.hello();
        script(p);
        p.report();
    });
    refused(result, kind, words);
    assert!(image.bytes() == before, "{words}: the target was changed");
}

/// What the target tells of the next segment.
fn held(p: &mut Peer) -> Held {
    p.until(|frame| match frame {
        Frame::Held(held) => Some(held),
        _ => None,
    })
}

/// The second grain of segment 1 becomes `byte` in its first leaf and zeros in its last; and the segment with it.
fn correct(byte: u8) -> (Patch, Vec<u8>) {
    let mut segment = vec![OLD; SEGMENT];
    let first = PER_GRAIN * LEAF;
    segment[first..first + LEAF].fill(byte);
    segment[2 * first - LEAF..2 * first].fill(0);
    let patch = Patch {
        segment: 1,
        digest: sum_of(&segment, 2).digest(),
        changed: leaves([PER_GRAIN]),
        zeroed: leaves([2 * PER_GRAIN - 1]),
        data: vec![byte; LEAF].into(),
    };
    (patch, segment)
}

#[test]
fn what_keeps_the_rules_is_written() {
    let image = filled(4, OLD);
    let done = side(image.clone()).run_as_target(|p| {
        p.hello();
        p.send(grains(&[(0, 1), (1, 2)]));
        p.send(grains(&[(3, 0x8001)]));
        let fingerprint = Fingerprints::new(Key([7; 16])).of(&[OLD; LEAF]);
        for (segment, set, count) in [(0, 1, 16), (1, 2, 16), (3, 0x8001, 32)] {
            let expected = Held {
                segment,
                sum: sum_of(&vec![OLD; SEGMENT], set),
                present: GrainSet(set).leaves(LEAF, SEGMENT),
                fingerprints: vec![fingerprint; count],
            };
            assert_eq!(held(p), expected);
        }
        let (patch, segment) = correct(9);
        p.send(Frame::Same(1));
        p.send(Frame::Patch(patch));
        p.send(Frame::Same(1));
        let old = Some(segment_digest(OLD));
        let new = digest::segment(HashKind::Blake3, &segment, LEAF);
        let digest = image_digest(&[old, new, old, old]);
        p.send(Frame::Done(digest, b"{}".to_vec()));
        p.until(|f| matches!(f, Frame::Finished(..)).then_some(()));
    });
    let done = done.unwrap();
    assert_eq!(done.target.read, 4 * digest::GRAIN_BYTES as u64);
    assert_eq!(done.target.written, LEAF as u64);
    let (_, segment) = correct(9);
    assert!(image.bytes()[SEGMENT..2 * SEGMENT] == segment);
    assert!(image.bytes()[2 * SEGMENT..] == vec![OLD; 2 * SEGMENT]);
}

#[test]
fn announcements_out_of_order_are_refused() {
    let refuse_all = |lists: &'static [&'static [(u64, u16)]], words: &str| {
        let script = |p: &mut Peer| lists.iter().for_each(|list| p.send(grains(list)));
        refuse(script, Kind::Protocol, words);
    };
    let order = "announced grains out of order";
    refuse_all(&[&[(1, 1), (1, 2)]], order);
    refuse_all(&[&[(1, 1)], &[(1, 2)]], order);
    refuse_all(&[&[(2, 1), (1, 1)]], order);
    refuse_all(&[&[(2, 1)], &[(0, 1)]], order);
    refuse_all(&[&[(4, 1)]], order);
    refuse_all(&[&[(u64::MAX, 1)]], order);
    refuse_all(&[&[(0, 0)]], order);
    refuse_all(&[&[]], "announced grains out of turn");
    // A grain that the short last segment does not have.
    let image = Arc::new(MemoryImage::new(3 * LEAF));
    let mut short = Side::new(image, params(1));
    short.params.geometry = Geometry::new(3 * LEAF as u64, LEAF as u32).unwrap();
    let result = short.knowing_zeros(DeltaMode::Ranges).run_as_target(|p| {
        p.hello();
        p.send(grains(&[(0, 3)]));
    });
    refused(result, Kind::Protocol, order);
}

#[test]
fn a_source_that_announces_far_ahead_is_refused() {
    let segments = 600;
    let image = Arc::new(Uniform {
        size: segments << 20,
        byte: 0,
    });
    let side = Side::new(image, params(segments as usize));
    let result = side
        .knowing_zeros(DeltaMode::Ranges)
        .run_as_target(move |p| {
            p.hello();
            (0..segments).for_each(|segment| p.send(grains(&[(segment, 1)])));
        });
    refused(result, Kind::Protocol, "too many grains ahead");
}

/// The target is as far ahead as its window allows, and goes on as soon as it is answered.
#[test]
fn no_round_trip_stops_the_target() {
    let segments = 600;
    let image = Arc::new(Uniform {
        size: segments << 20,
        byte: 0,
    });
    let side = Side::new(image, params(segments as usize));
    let done = side
        .knowing_zeros(DeltaMode::Ranges)
        .run_as_target(move |p| {
            p.hello();
            for start in (0..segments).step_by(200) {
                let some: Vec<_> = (start..start + 200).map(|i| (i, 1)).collect();
                p.send(grains(&some));
            }
            for ahead in [256, 256, segments - 512] {
                (0..ahead).for_each(|_| drop(held(p)));
                p.send(Frame::Same(ahead as u32));
            }
            let digest = image_digest(&vec![None; segments as usize]);
            p.send(Frame::Done(digest, b"{}".to_vec()));
            p.until(|f| matches!(f, Frame::Finished(..)).then_some(()));
        });
    let grain = digest::GRAIN_BYTES as u64;
    assert_eq!(done.unwrap().target.read, segments * grain);
}

/// As much as may be kept of what nobody answers.
#[test]
fn what_is_kept_of_grains_takes_bounded_memory() {
    within_memory(
        "grains::what_is_kept_of_grains_takes_bounded_memory",
        128 << 20,
        || {
            let image = Arc::new(Uniform {
                size: 1000 << 20,
                byte: 1,
            });
            let side = Side::new(image, params(1000)).knowing_zeros(DeltaMode::Ranges);
            let result = side.run_as_target(|p| {
                p.hello();
                for start in [0, 250, 500, 750] {
                    let all: Vec<_> = (start..start + 250).map(|i| (i, 0xffff)).collect();
                    p.send(grains(&all));
                }
                (0..64).for_each(|_| drop(held(p)));
                // Time to take more than it should.
                std::thread::sleep(std::time::Duration::from_millis(500));
                p.close();
            });
            assert!(result.is_err());
        },
    );
}

#[test]
fn answers_out_of_turn_are_refused() {
    refuse(|p| p.send(Frame::Same(1)), Kind::Protocol, "answered more");
    refuse(
        |p| p.send(Frame::Patch(correct(9).0)),
        Kind::Protocol,
        "a patch out of turn",
    );
    let after = |frame: Frame, words: &str| {
        let script = |p: &mut Peer| {
            p.send(grains(&[(0, 1), (1, 2)]));
            (0..2).for_each(|_| drop(held(p)));
            p.send(frame);
        };
        refuse(script, Kind::Protocol, words);
    };
    after(Frame::Same(3), "answered more");
    after(Frame::Same(0), "answered nothing");
    after(Frame::Patch(correct(9).0), "a patch out of turn");
    after(Frame::Want(0), "asked for fingerprints out of turn");
    let digest = image_digest(&[Some(segment_digest(OLD)); 4]);
    after(
        Frame::Done(digest, b"{}".to_vec()),
        "ended before all segments were answered",
    );
}

#[test]
fn wrong_patches_are_refused_before_a_byte_is_written() {
    let wrong = |spoil: fn(&mut Patch)| {
        let (mut patch, _) = correct(9);
        spoil(&mut patch);
        patch
    };
    let digest = "with a wrong digest";
    let malformed = "malformed patch";
    for (patch, kind, words) in [
        (
            wrong(|p| p.digest = Some(Digest([1; 32]))),
            Kind::Digest,
            digest,
        ),
        (wrong(|p| p.digest = None), Kind::Digest, digest),
        // As if two leaves had the same fingerprint: one that differs is left out.
        (wrong(|p| p.zeroed = leaves([])), Kind::Digest, digest),
        (
            wrong(|p| {
                let mut bytes = vec![9; LEAF];
                bytes[77] = 8;
                p.data = bytes.into();
            }),
            Kind::Digest,
            digest,
        ),
        // Grains that were not announced, and are not looked at.
        (
            wrong(|p| p.zeroed = leaves([2 * PER_GRAIN])),
            Kind::Protocol,
            malformed,
        ),
        (
            wrong(|p| p.changed = leaves([PER_GRAIN - 1])),
            Kind::Protocol,
            malformed,
        ),
        (
            wrong(|p| p.zeroed = leaves([PER_GRAIN])),
            Kind::Protocol,
            malformed,
        ),
        (
            wrong(|p| p.data = vec![9; LEAF + 1].into()),
            Kind::Protocol,
            malformed,
        ),
        (fill_patch(1, 9), Kind::Protocol, malformed),
    ] {
        let script = |p: &mut Peer| {
            p.send(grains(&[(1, 2)]));
            held(p);
            p.send(Frame::Patch(patch));
        };
        refuse(script, kind, words);
    }
}

/// A proof that the whole segment would have is none of what was announced.
#[test]
fn the_digest_is_that_of_the_announced_grains() {
    let script = |p: &mut Peer| {
        p.send(grains(&[(1, 2)]));
        held(p);
        let (patch, segment) = correct(9);
        let digest = digest::segment(HashKind::Blake3, &segment, LEAF);
        p.send(Frame::Patch(Patch { digest, ..patch }));
    };
    refuse(script, Kind::Digest, "with a wrong digest");
}

#[test]
fn frames_of_another_kind_of_sync_are_refused() {
    refuse(
        |p| p.send(Frame::Extents(extents(0, 4, &[(0, 4)]))),
        Kind::Protocol,
        "listed its data out of order",
    );
    let (patch, _) = correct(9);
    let shift = GrainSum::default();
    let mut delta = Delta { shift, patch };
    delta.patch.digest = Some(delta.proof(HashKind::Blake3, &[&[9; LEAF]]));
    refuse(
        |p| p.send(Frame::Delta(delta)),
        Kind::Protocol,
        "a change out of turn",
    );
    let told = Held {
        segment: 0,
        sum: shift,
        present: leaves([]),
        fingerprints: vec![],
    };
    refuse(
        |p| p.send(Frame::Held(told)),
        Kind::Protocol,
        "sent Held out of turn",
    );
    for side in [
        Side::new(filled(4, OLD), params(4)),
        Side::new(filled(4, OLD), params(4)).knowing(OLD),
    ] {
        let result = side.run_as_target(|p| {
            p.hello();
            p.send(grains(&[(0, 1)]));
            p.report();
        });
        refused(result, Kind::Protocol, "announced grains out of turn");
    }
}

#[test]
fn leaves_that_grains_are_not_made_of_are_refused() {
    let mut side = Side::new(filled(4, OLD), params(4));
    side.params.geometry = Geometry::new(4 << 20, 128 << 10).unwrap();
    let result = side
        .knowing_zeros(DeltaMode::Ranges)
        .run_as_target(|p| p.hello());
    refused(result, Kind::Usage, "leaves that divide 64 KiB");
}
