//! A source that breaks the rules, against the target's side.

use crate::peer::*;
use rblocksync::error::{Kind, Result};
use rblocksync::image::{Image, MemoryImage};
use rblocksync::range::ByteRange;
use rblocksync::stop::Stop;
use rblocksync::sync::{Geometry, Summary};
use rblocksync::wire::{Entry, Frame, Patch, Payload};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

const OLD: u8 = 5;

/// Runs a script against a target of four segments full of `OLD`, which must refuse it and be unchanged.
fn refuse(script: impl FnOnce(&mut Peer) + Send + 'static, kind: Kind, words: &str) {
    let image = filled(4, OLD);
    let (before, written) = (image.bytes(), image.bytes_written());
    let result = Side::new(image.clone(), params(4)).run_as_target(|p| {
        p.hello();
        script(p);
        let report = p.report();
        assert!(report.contains(r#""kind":"#), "{report}");
    });
    refused(result, kind, words);
    assert!(image.bytes() == before, "{words}: the target was changed");
    assert_eq!(image.bytes_written(), written, "{words}");
}

/// The whole of a correct session, to show that the scripts here fail for what they do wrong.
#[test]
fn a_script_that_keeps_the_rules_succeeds() {
    let image = filled(4, OLD);
    let summary = Side::new(image.clone(), params(4))
        .run_as_target(|p| {
            p.hello();
            p.send(Frame::Extents(extents(0, 4, &[(0, 2), (1, 1)])));
            let old = Entry::Digest(segment_digest(OLD));
            assert_eq!(p.reports(3), [old, old, old]);
            p.send(Frame::Same(1));
            p.send(Frame::Want(3));
            p.send(Frame::Patch(fill_patch(1, 9)));
            let leaves = p.until(|f| match f {
                Frame::Leaves {
                    segment,
                    fingerprints,
                    ..
                } => Some((segment, fingerprints.len())),
                _ => None,
            });
            assert_eq!(leaves, (3, SEGMENT / LEAF));
            p.send(Frame::Same(1));
            let digests = [Some(segment_digest(OLD)), Some(segment_digest(9)), None];
            let digest = image_digest(&[digests[0], digests[1], digests[2], digests[0]]);
            p.send(Frame::Done(digest, b"{}".to_vec()));
            let finished = p.until(|f| match f {
                Frame::Finished(digest, _) => Some(digest),
                _ => None,
            });
            assert_eq!(finished, digest);
        })
        .unwrap();
    assert_eq!(summary.target.zeroed, SEGMENT as u64);
    assert_eq!(image.bytes()[SEGMENT], 9);
    assert_eq!(image.bytes()[2 * SEGMENT], 0);
}

#[test]
fn lists_that_lie_are_refused() {
    let order = "listed its data out of order";
    for (start, end, runs) in [
        (1, 4, vec![(0, 3)]),
        (0, 5, vec![(0, 5)]),
        (0, 0, vec![]),
        (0, 1 << 30, vec![]),
    ] {
        let list = Frame::Extents(extents(start, end, &runs));
        refuse(|p| p.send(list), Kind::Protocol, order);
    }
    let twice = |p: &mut Peer| {
        p.list_all(4);
        p.list_all(4);
    };
    refuse(twice, Kind::Protocol, order);
}

#[test]
fn a_source_that_lists_far_ahead_is_refused() {
    let segments = 200 * 30;
    let result = Side::new(
        Arc::new(Uniform {
            size: segments << 20,
            byte: 0,
        }),
        params(segments as usize),
    )
    .run_as_target(move |p| {
        p.hello();
        for start in (0..segments).step_by(200) {
            p.send(Frame::Extents(extents(start, start + 200, &[(0, 200)])));
        }
    });
    refused(result, Kind::Protocol, "too much data ahead");
}

#[test]
fn answers_out_of_turn_are_refused() {
    refuse(|p| p.send(Frame::Same(1)), Kind::Protocol, "answered more");
    refuse(
        |p| p.send(Frame::Same(0)),
        Kind::Protocol,
        "answered nothing",
    );
    let too_many = |p: &mut Peer| {
        p.list_all(4);
        p.reports(4);
        p.send(Frame::Same(5));
    };
    refuse(too_many, Kind::Protocol, "answered more");
    let not_reported = |p: &mut Peer| {
        p.list_all(4);
        p.reports(4);
        p.send(Frame::Patch(fill_patch(1, 9)));
    };
    refuse(not_reported, Kind::Protocol, "a patch out of turn");
    refuse(
        |p| p.send(Frame::Patch(fill_patch(0, 9))),
        Kind::Protocol,
        "a patch out of turn",
    );
}

#[test]
fn wants_out_of_turn_are_refused() {
    let turn = "fingerprints out of turn";
    refuse(|p| p.send(Frame::Want(0)), Kind::Protocol, turn);
    refuse(|p| p.send(Frame::Want(u64::MAX)), Kind::Protocol, turn);
    let answered = |p: &mut Peer| {
        p.list_all(4);
        p.reports(4);
        p.send(Frame::Same(1));
        p.send(Frame::Want(0));
    };
    refuse(answered, Kind::Protocol, turn);
    let twice = |p: &mut Peer| {
        p.list_all(4);
        p.reports(4);
        p.send(Frame::Want(2));
        p.send(Frame::Want(2));
    };
    refuse(twice, Kind::Protocol, "fingerprints out of turn");
    let hole = Side::new(Arc::new(MemoryImage::new(SEGMENT)), params(1)).run_as_target(|p| {
        p.hello();
        p.list_all(1);
        p.reports(1);
        p.send(Frame::Want(0));
    });
    refused(hole, Kind::Protocol, turn);
}

/// Sends one patch of segment 0 in its turn.
fn refuse_patch(patch: Patch, kind: Kind, words: &str) {
    let script = |p: &mut Peer| {
        p.list_all(4);
        p.reports(4);
        p.send(Frame::Patch(patch));
    };
    refuse(script, kind, words);
}

#[test]
fn wrong_patches_are_refused_before_a_byte_is_written() {
    let good = fill_patch(0, 9);
    let wrong_digest = Patch {
        digest: Some(segment_digest(8)),
        ..good.clone()
    };
    refuse_patch(wrong_digest, Kind::Digest, "with a wrong digest");
    // Zeros must not be announced as something else, nor something else as zeros.
    let zeros = Patch {
        digest: Some(segment_digest(9)),
        changed: leaves([]),
        zeroed: leaves(0..256),
        data: vec![].into(),
        ..good.clone()
    };
    refuse_patch(zeros.clone(), Kind::Digest, "with a wrong digest");
    let not_zeros = Patch {
        digest: None,
        zeroed: leaves(0..255),
        changed: leaves([255]),
        data: vec![9; LEAF].into(),
        ..good.clone()
    };
    let malformed = "malformed patch";
    refuse_patch(not_zeros, Kind::Protocol, malformed);
    for patch in [
        // Would leave old bytes in a segment that counts as zeros.
        Patch {
            digest: None,
            zeroed: leaves(0..255),
            ..zeros
        },
        Patch {
            zeroed: leaves([7]),
            ..good.clone()
        },
        Patch {
            data: vec![9; SEGMENT - 1].into(),
            ..good.clone()
        },
        Patch {
            data: vec![9; SEGMENT + 1].into(),
            ..good.clone()
        },
        Patch {
            data: Payload::Zstd(vec![9; 40]),
            ..good.clone()
        },
        // Would become 64 MiB.
        Patch {
            data: Payload::Zstd(zstd::bulk::compress(&vec![9; 64 << 20], 19).unwrap()),
            ..good.clone()
        },
        Patch {
            changed: leaves(0..255),
            ..good
        },
    ] {
        refuse_patch(patch, Kind::Protocol, malformed);
    }
}

#[test]
fn patches_of_segments_that_are_not_there_are_refused() {
    for segment in [1, 4, 1 << 44, u64::MAX] {
        let patch = Patch {
            segment,
            ..fill_patch(0, 9)
        };
        refuse_patch(patch, Kind::Protocol, "a patch out of turn");
    }
}

/// A zstd frame of some kilobytes that becomes a gibibyte of zeros: a header that names no size, and blocks
/// that repeat one byte.
fn bomb() -> Vec<u8> {
    let block = 128 << 10;
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    for i in 0..8192u32 {
        let head = block << 3 | 1 << 1 | u32::from(i == 8191);
        bytes.extend_from_slice(&head.to_le_bytes()[..3]);
        bytes.push(0);
    }
    bytes
}

/// Whatever a patch's bytes say they are: they become a segment, or nothing.
#[test]
fn a_bomb_is_refused_before_it_takes_memory() {
    let name = "target::a_bomb_is_refused_before_it_takes_memory";
    within_memory(name, 64 << 20, || {
        for encoding in 0..=4 {
            let Patch { changed, .. } = fill_patch(0, 9);
            let mut bytes = stream(&[Frame::Patch(Patch {
                changed,
                data: bomb().into(),
                ..fill_patch(0, 9)
            })]);
            // Behind the length, the type, the segment, the digest and two sets of leaves.
            let at = 4 + 1 + 8 + 33 + 64;
            assert_eq!(bytes[at + 1..], bomb(), "the form of a patch has changed");
            bytes[at] = encoding;
            let script = move |p: &mut Peer| {
                p.list_all(4);
                p.reports(4);
                p.send_bytes(&bytes);
            };
            refuse(script, Kind::Protocol, "patch");
        }
    });
}

/// A segment of one leaf of the largest size: the largest frame there is, many times in turn.
#[test]
fn the_largest_patches_take_bounded_memory() {
    let name = "target::the_largest_patches_take_bounded_memory";
    within_memory(name, 320 << 20, || {
        let large = 16 << 20;
        let mut params = params(1);
        params.geometry = Geometry::new(large as u64 * 64, large as u32).unwrap();
        let result = Side::new(
            Arc::new(Uniform {
                size: large as u64 * 64,
                byte: 0,
            }),
            params,
        )
        .run_as_target(move |p| {
            p.hello();
            p.list_all(64);
            p.reports(64);
            let bytes = stream(&[Frame::Patch(Patch {
                segment: 0,
                digest: Some(segment_digest(9)),
                changed: leaves([0]),
                zeroed: leaves([]),
                data: vec![9; large].into(),
            })]);
            // All of them are wrong, but it takes some time to find that out.
            for index in 0..64u64 {
                let mut bytes = bytes.clone();
                bytes[5..13].copy_from_slice(&index.to_le_bytes());
                p.send_bytes(&bytes);
            }
        });
        refused(result, Kind::Digest, "with a wrong digest");
    });
}

/// A session of which only the beginning comes, whatever it is cut off in: an error, and each segment holds
/// what it held or what was promised for it.
#[test]
fn a_stream_cut_anywhere_is_an_error() {
    let zeros = Patch {
        segment: 2,
        digest: None,
        changed: leaves([]),
        zeroed: leaves(0..256),
        data: vec![].into(),
    };
    let rest = stream(&[
        Frame::Want(1),
        Frame::Same(2),
        Frame::Patch(zeros),
        Frame::Done(
            image_digest(&[Some(segment_digest(OLD)); 4]),
            b"{}".to_vec(),
        ),
    ]);
    for cut in (0..rest.len()).step_by(5) {
        let image = filled(3, OLD);
        let part = rest[..cut].to_vec();
        let result = Side::new(image.clone(), params(3)).run_as_target(move |p| {
            p.hello();
            p.list_all(3);
            p.reports(3);
            p.send_bytes(&part);
            p.shut();
        });
        refused(result, Kind::Remote, "ended the connection");
        let bytes = image.bytes();
        assert!(bytes[..2 * SEGMENT].iter().all(|b| *b == OLD));
        assert!(bytes[2 * SEGMENT..]
            .iter()
            .all(|b| *b == bytes[2 * SEGMENT]));
    }
}

/// The source's statistics are for show: no number in them does any harm.
#[test]
fn statistics_that_lie_do_no_harm() {
    let image = filled(1, OLD);
    let summary = Side::new(image, params(1))
        .run_as_target(|p| {
            p.hello();
            p.send(Frame::Extents(extents(0, 1, &[])));
            let stats = format!(r#"{{"compared":{0},"changed":{0},"zeroed":{0}}}"#, u64::MAX);
            p.send(Frame::Done(image_digest(&[None]), stats.into_bytes()));
        })
        .unwrap();
    assert_eq!((summary.changed, summary.zeroed), (u64::MAX, u64::MAX));
}

#[test]
fn statistics_that_are_a_bomb_are_refused() {
    let name = "target::statistics_that_are_a_bomb_are_refused";
    within_memory(name, 64 << 20, || {
        for bomb in ["[", "{\"side\":", "{\"x\":["] {
            refuse(
                move |p| {
                    p.list_all(4);
                    p.reports(4);
                    p.send(Frame::Same(4));
                    p.send(Frame::Done(
                        segment_digest(1),
                        bomb.repeat(400_000).into_bytes(),
                    ));
                },
                Kind::Protocol,
                "malformed statistics",
            );
        }
    });
}

#[test]
fn a_patch_past_the_end_of_a_short_segment_is_refused() {
    let short = MemoryImage::new(3 * LEAF + 100);
    short.write_at(&[OLD; 3 * LEAF + 100], 0).unwrap();
    let mut params = params(1);
    params.geometry = rblocksync::sync::Geometry::new(short.size(), LEAF as u32).unwrap();
    let result = Side::new(Arc::new(short), params).run_as_target(|p| {
        p.hello();
        p.list_all(1);
        p.reports(1);
        p.send(Frame::Patch(Patch {
            segment: 0,
            digest: Some(segment_digest(9)),
            changed: leaves([4]),
            zeroed: leaves([]),
            data: vec![].into(),
        }));
    });
    refused(result, Kind::Protocol, "malformed patch");
}

#[test]
fn a_dry_run_takes_no_patch() {
    let mut params = params(1);
    params.dry_run = true;
    let result = Side::new(filled(1, OLD), params).run_as_target(|p| {
        p.hello();
        p.list_all(1);
        p.reports(1);
        p.send(Frame::Patch(fill_patch(0, 9)));
    });
    refused(result, Kind::Protocol, "a patch out of turn");
}

#[test]
fn ending_too_early_or_with_another_digest_is_refused() {
    let same = image_digest(&[Some(segment_digest(OLD)); 4]);
    let done = |p: &mut Peer| p.send(Frame::Done(image_digest(&[None; 4]), b"{}".to_vec()));
    let early = "ended before all segments were answered";
    refuse(done, Kind::Protocol, early);
    let listed = move |p: &mut Peer| {
        p.list_all(4);
        done(p);
    };
    refuse(listed, Kind::Protocol, early);
    let answered_but_one = move |p: &mut Peer| {
        p.list_all(4);
        p.reports(4);
        p.send(Frame::Same(3));
        done(p);
    };
    refuse(answered_but_one, Kind::Protocol, early);
    let all = |p: &mut Peer| {
        p.list_all(4);
        p.reports(4);
        p.send(Frame::Same(4));
    };
    let wrong = move |p: &mut Peer| {
        all(p);
        done(p);
    };
    refuse(wrong, Kind::Digest, "the source's digest is");
    let malformed = move |p: &mut Peer| {
        all(p);
        p.send(Frame::Done(same, b"no json".to_vec()));
    };
    refuse(malformed, Kind::Protocol, "malformed statistics");
}

#[test]
fn frames_of_the_wrong_direction_are_refused() {
    for frame in [
        Frame::Hello(rblocksync::wire::Hello::ours("again")),
        Frame::Request(b"{}".to_vec()),
        Frame::Reply(b"{}".to_vec()),
        Frame::Segments(vec![Entry::Absent]),
        Frame::Leaves {
            segment: 0,
            present: leaves([]),
            fingerprints: vec![],
        },
        Frame::Finished(segment_digest(1), b"{}".to_vec()),
    ] {
        refuse(|p| p.send(frame), Kind::Protocol, "out of turn");
    }
}

#[test]
fn a_source_that_falls_silent_or_reads_nothing_is_given_up() {
    let silent = Side::new(filled(4, OLD), params(4))
        .impatient(300)
        .run_as_target(|p| {
            p.hello();
            p.list_all(4);
        });
    refused(silent, Kind::Remote, "nothing heard");
    // Fingerprints of 256 segments are more than the target collects and the socket holds: it cannot write them.
    let image = Uniform {
        size: (256 * SEGMENT) as u64,
        byte: OLD,
    };
    let deaf = Side::new(Arc::new(image), params(256))
        .impatient(500)
        .run_as_target(|p| {
            p.hello();
            p.list_all(256);
            p.reports(256);
            (0..256).for_each(|i| p.send(Frame::Want(i)));
        });
    refused(deaf, Kind::Remote, "nothing taken");
}

/// An image whose reads take long once its content is to be verified.
struct SlowToVerify(MemoryImage, AtomicBool);

impl Image for SlowToVerify {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if self.1.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(1));
        }
        self.0.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.0.write_at(buf, offset)
    }
    fn zero(&self, range: ByteRange) -> Result<()> {
        self.0.zero(range)
    }
    fn next_data(&self, offset: u64) -> Result<Option<ByteRange>> {
        self.0.next_data(offset)
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }
    fn read_from_medium(&self) -> Result<()> {
        self.1.store(true, Ordering::Relaxed);
        Ok(())
    }
    fn name(&self) -> String {
        "slow".into()
    }
}

/// Runs a target that would verify for half a minute, against a source that ends with `last`.
fn verify_against(last: impl FnOnce(&mut Peer) + Send + 'static) -> Result<Summary> {
    let mut params = params(30);
    params.verify = true;
    let image = SlowToVerify(MemoryImage::new(30 * SEGMENT), AtomicBool::new(false));
    Side::new(Arc::new(image), params).run_as_target(|p| {
        p.hello();
        p.list_all(30);
        p.reports(30);
        (0..30).for_each(|i| p.send(Frame::Patch(fill_patch(i, 9))));
        let digest = image_digest(&[Some(segment_digest(9)); 30]);
        p.send(Frame::Done(digest, b"{}".to_vec()));
        last(p);
    })
}

#[test]
fn a_source_that_goes_while_the_target_verifies_is_noticed() {
    let began = Instant::now();
    refused(
        verify_against(|p| p.close()),
        Kind::Remote,
        "ended the connection",
    );
    refused(
        verify_against(|p| p.send(Frame::Same(1))),
        Kind::Protocol,
        "sent Same out of turn",
    );
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[test]
fn endless_pings_are_borne_until_a_stop() {
    let stop = Stop::new();
    let mut side = Side::new(filled(4, OLD), params(4)).impatient(400);
    side.stop = stop.clone();
    let result = side.run_as_target(move |p| {
        p.hello();
        p.list_all(4);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            p.send(Frame::Ping);
        }
        stop.stop();
    });
    refused(result, Kind::Cancelled, "stopped");
}
