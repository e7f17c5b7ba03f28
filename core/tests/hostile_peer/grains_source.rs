//! A target that breaks the rules where only grains that may have changed are looked at, against the source's side.

use crate::grains::{grains, sum_of};
use crate::peer::*;
use rblocksync::digest::GrainSum;
use rblocksync::error::{Kind, Result};
use rblocksync::fingerprint::{Fingerprints, Key};
use rblocksync::range::{ByteRange, RangeSet};
use rblocksync::sync::{DeltaMode, Geometry, Summary};
use rblocksync::wire::{Entry, Frame, Held};
use std::sync::Arc;

const OLD: u8 = 5;
const NEW: u8 = 9;
const GRAIN: u64 = 64 << 10;

/// A grain of each of the first three of four segments.
fn changed() -> RangeSet {
    let range = |segment: u64| {
        let start = (segment << 20) + segment * GRAIN;
        ByteRange::new(start, start + GRAIN)
    };
    (0..3).map(range).collect()
}

fn run(script: impl FnOnce(&mut Peer) + Send + 'static) -> Result<Summary> {
    Side::new(filled(4, NEW), params(4))
        .knowing(OLD)
        .by_ranges()
        .run_as_source_of(changed(), |p| {
            p.hello();
            let announced = p.receive();
            assert_eq!(announced, grains(&[(0, 1), (1, 2), (2, 4)]));
            script(p);
        })
}

fn refuse(script: impl FnOnce(&mut Peer) + Send + 'static, words: &str) {
    let result = run(|p| {
        script(p);
        p.report();
    });
    refused(result, Kind::Protocol, words);
}

/// What a target has in the grain that changed in a segment full of `byte`.
fn held(segment: u64, byte: u8) -> Held {
    let first = segment as usize * 16;
    let fingerprint = Fingerprints::new(Key([7; 16])).of(&[byte; LEAF]);
    Held {
        segment,
        sum: sum_of(&vec![byte; SEGMENT], 1 << segment),
        present: leaves(first..first + 16),
        fingerprints: vec![fingerprint; 16],
    }
}

#[test]
fn each_segment_is_answered_in_turn() {
    let summary = run(|p| {
        p.send(Frame::Held(held(0, OLD)));
        p.send(Frame::Held(held(1, NEW)));
        let empty = Held {
            sum: GrainSum::default(),
            present: leaves([]),
            fingerprints: vec![],
            ..held(2, 0)
        };
        p.send(Frame::Held(empty));
        for segment in [0, 2] {
            let patch = p.until(|frame| match frame {
                Frame::Patch(patch) => Some(patch),
                Frame::Same(count) => {
                    assert_eq!(count, 1);
                    None
                }
                other => panic!("{other:?}"),
            });
            let expected = held(segment, NEW);
            assert_eq!(patch.segment, segment);
            assert_eq!(patch.digest, expected.sum.digest());
            assert_eq!(
                (patch.changed, patch.zeroed),
                (expected.present, leaves([]))
            );
            assert_eq!(patch.data, vec![NEW; GRAIN as usize].into());
        }
        let Frame::Done(digest, _) = p.receive() else {
            panic!("an end was due");
        };
        p.send(Frame::Finished(digest, b"{}".to_vec()));
    });
    let summary = summary.unwrap();
    assert_eq!(summary.changed, 2 * GRAIN);
    assert_eq!(
        (summary.source.read, summary.compared),
        (3 * GRAIN, 3 * GRAIN)
    );
}

/// The source announces four frames ahead of all reports, and more as soon as it has answered enough.
#[test]
fn no_round_trip_stops_the_source() {
    let segments = 2000;
    let image = Arc::new(Uniform {
        size: segments << 20,
        byte: 0,
    });
    let changed = (0..segments).map(|i| ByteRange::new(i << 20, (i << 20) + 1));
    let done = Side::new(image, params(segments as usize))
        .knowing_zeros(DeltaMode::Ranges)
        .run_as_source_of(changed.collect(), move |p| {
            p.hello();
            let (mut announced, mut told, mut same) = (0, 0, 0);
            loop {
                // All is read that comes without our saying more, and no more than that.
                let due = (4 * 256 + same / 256 * 256).min(segments);
                if announced == due && same == told {
                    for segment in told..(told + 256).min(segments) {
                        p.send(Frame::Held(Held {
                            segment,
                            sum: GrainSum::default(),
                            present: leaves([]),
                            fingerprints: vec![],
                        }));
                    }
                    told = (told + 256).min(segments);
                }
                match p.receive() {
                    Frame::Grains(list) => {
                        assert!(list.iter().all(|grains| grains.set.0 == 1));
                        announced += list.len() as u64;
                    }
                    Frame::Same(count) => same += u64::from(count),
                    Frame::Done(digest, _) => {
                        assert_eq!((announced, same), (segments, segments));
                        return p.send(Frame::Finished(digest, b"{}".to_vec()));
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
    let done = done.unwrap();
    assert_eq!((done.compared, done.changed), (segments * GRAIN, 0));
}

#[test]
fn reports_out_of_turn_are_refused() {
    let asked = "told of what it was not asked for";
    refuse(|p| p.send(Frame::Held(held(1, OLD))), asked);
    refuse(
        |p| {
            p.send(Frame::Held(held(0, OLD)));
            p.send(Frame::Held(held(0, OLD)));
        },
        asked,
    );
    refuse(
        |p| {
            (0..3)
                .chain([2])
                .for_each(|i| p.send(Frame::Held(held(i, NEW))))
        },
        "the target ",
    );
    // Leaves of other grains.
    let more = |leaf| {
        let mut more = held(0, OLD);
        more.present.insert(leaf);
        more.fingerprints.push(1);
        more
    };
    for leaf in [16, 255] {
        refuse(move |p| p.send(Frame::Held(more(leaf))), asked);
    }
    refuse(
        |p| p.send(Frame::Finished(segment_digest(1), b"{}".to_vec())),
        "ended before the last segment",
    );
}

#[test]
fn a_wrong_number_of_fingerprints_is_refused() {
    for (count, words) in [(15, "in the middle of a field"), (17, "bytes too many")] {
        let mut wrong = held(0, OLD);
        wrong.fingerprints = vec![1; count];
        refuse(move |p| p.send(Frame::Held(wrong)), words);
    }
}

#[test]
fn frames_of_another_kind_of_sync_are_refused() {
    let unexpected = "out of turn";
    refuse(
        |p| p.send(Frame::Segments(vec![Entry::Zero; 3])),
        unexpected,
    );
    refuse(
        |p| {
            p.send(Frame::Leaves {
                segment: 0,
                present: leaves([]),
                fingerprints: vec![],
            })
        },
        unexpected,
    );
    refuse(|p| p.send(grains(&[(0, 1)])), unexpected);
    let whole = Side::new(filled(4, NEW), params(4)).run_as_source(|p| {
        p.hello();
        p.send(Frame::Held(held(0, OLD)));
        p.report();
    });
    refused(whole, Kind::Protocol, unexpected);
}

#[test]
fn a_flood_takes_bounded_memory() {
    within_memory(
        "grains_source::a_flood_takes_bounded_memory",
        160 << 20,
        || {
            let image = Arc::new(Uniform {
                size: 1 << 40,
                byte: 1,
            });
            let mut params = params(1);
            params.geometry = Geometry::new(1 << 40, LEAF as u32).unwrap();
            let all = RangeSet::from_iter([ByteRange::new(0, 1 << 40)]);
            let result = Side::new(image, params)
                .knowing_zeros(DeltaMode::Ranges)
                .run_as_source_of(all, |p| {
                    p.hello();
                    let mut told = held(0, OLD);
                    told.present = leaves(0..256);
                    told.fingerprints = vec![1; 256];
                    for start in (0..1 << 20).step_by(100) {
                        let told = (start..start + 100).map(|segment| {
                            Frame::Held(Held {
                                segment,
                                ..told.clone()
                            })
                        });
                        p.send_bytes(&stream(&told.collect::<Vec<_>>()));
                    }
                });
            refused(result, Kind::Protocol, "the target ");
        },
    );
}
