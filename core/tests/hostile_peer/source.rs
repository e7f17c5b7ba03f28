//! A target that breaks the rules, against the source's side.

use crate::peer::*;
use rblocksync::error::Kind;
use rblocksync::image::{Image, MemoryImage};
use rblocksync::sync::Geometry;
use rblocksync::wire::{Entry, Frame};
use std::sync::atomic::Ordering;
use std::sync::{atomic::AtomicU64, Arc};

const NEW: u8 = 9;

/// Runs a script against a source of four segments full of `NEW`, which must refuse it.
fn refuse(script: impl FnOnce(&mut Peer) + Send + 'static, kind: Kind, words: &str) {
    let result = Side::new(filled(4, NEW), params(4)).run_as_source(|p| {
        p.hello();
        script(p);
        let report = p.report();
        assert!(report.contains(r#""kind":"#), "{report}");
    });
    refused(result, kind, words);
}

fn report(p: &mut Peer, entries: &[Entry]) {
    p.send(Frame::Segments(entries.to_vec()));
}

/// Plays an honest target of four empty segments up to the source's last frame.
fn to_the_end(p: &mut Peer) -> rblocksync::digest::Digest {
    report(p, &[Entry::Absent; 4]);
    let mut patches = 0;
    p.until(|frame| match frame {
        Frame::Patch(patch) => {
            assert_eq!(patch, fill_patch(patches, NEW));
            patches += 1;
            None
        }
        Frame::Done(digest, _) => Some(digest),
        _ => None,
    })
}

#[test]
fn a_script_that_keeps_the_rules_succeeds() {
    let summary = Side::new(filled(4, NEW), params(4))
        .run_as_source(|p| {
            p.hello();
            let digest = to_the_end(p);
            assert_eq!(digest, image_digest(&[Some(segment_digest(NEW)); 4]));
            p.send(Frame::Finished(digest, b"{}".to_vec()));
        })
        .unwrap();
    assert_eq!(summary.changed, 4 * SEGMENT as u64);
}

#[test]
fn reports_out_of_bounds_are_refused() {
    refuse(|p| report(p, &[]), Kind::Protocol, "reported nothing");
    refuse(
        |p| report(p, &[Entry::Absent; 5]),
        Kind::Protocol,
        "segments that were not listed",
    );
    // Different digests: the source waits for leaves and can answer none of them.
    let other = Entry::Digest(segment_digest(1));
    let result = Side::new(filled(400, NEW), params(400)).run_as_source(move |p| {
        p.hello();
        report(p, &[other; 256]);
        report(p, &[other; 100]);
    });
    refused(
        result,
        Kind::Protocol,
        "more segments ahead than the window",
    );
}

#[test]
fn fingerprints_out_of_turn_are_refused() {
    let leaves_of = |segment| Frame::Leaves {
        segment,
        present: leaves([0]),
        fingerprints: vec![1],
    };
    let words = "fingerprints that were not asked for";
    refuse(move |p| p.send(leaves_of(0)), Kind::Protocol, words);
    refuse(move |p| p.send(leaves_of(u64::MAX)), Kind::Protocol, words);
    let twice = move |p: &mut Peer| {
        report(p, &[Entry::Digest(segment_digest(1)); 2]);
        let wanted = p.until(|frame| match frame {
            Frame::Want(index) => Some(index),
            _ => None,
        });
        p.send(leaves_of(wanted));
        p.send(leaves_of(wanted));
    };
    refuse(twice, Kind::Protocol, words);
}

#[test]
fn a_wrong_end_is_refused() {
    let digest = segment_digest(1);
    let finished = move || Frame::Finished(digest, b"{}".to_vec());
    let early = move |p: &mut Peer| p.send(finished());
    refuse(early, Kind::Protocol, "ended before the last segment");
    let other_digest = move |p: &mut Peer| {
        to_the_end(p);
        p.send(finished());
    };
    refuse(other_digest, Kind::Digest, "but the target's is");
    let malformed = |p: &mut Peer| {
        let digest = to_the_end(p);
        p.send(Frame::Finished(digest, b"[".to_vec()));
    };
    refuse(malformed, Kind::Protocol, "malformed statistics");
    let goes_on = |p: &mut Peer| {
        to_the_end(p);
        report(p, &[Entry::Absent]);
    };
    refuse(goes_on, Kind::Protocol, "went on after the last segment");
    // The last acknowledgement is lost: the target may be done, but the source cannot know.
    let lost = Side::new(filled(4, NEW), params(4)).run_as_source(|p| {
        p.hello();
        to_the_end(p);
        p.close();
    });
    refused(lost, Kind::Remote, "ended the connection");
}

#[test]
fn frames_of_the_wrong_direction_are_refused() {
    for frame in [
        Frame::Request(b"{}".to_vec()),
        Frame::Reply(b"{}".to_vec()),
        Frame::Extents(extents(0, 4, &[])),
        Frame::Want(0),
        Frame::Same(1),
        Frame::Patch(fill_patch(0, 1)),
        Frame::Done(segment_digest(1), b"{}".to_vec()),
    ] {
        refuse(|p| p.send(frame), Kind::Protocol, "out of turn");
    }
}

#[test]
fn the_targets_own_error_is_the_one_to_tell() {
    let result = Side::new(filled(64, NEW), params(64)).run_as_source(|p| {
        p.hello();
        report(p, &[Entry::Absent; 64]);
        p.receive();
        let json = br#"{"kind":"space","message":"cannot write x: No space left","advice":null}"#;
        p.send(Frame::Error(json.to_vec()));
        // As a process does that has failed: patches that are still on their way hit a closed link.
        p.close();
    });
    refused(result, Kind::Space, "peer: cannot write x: No space left");
}

#[test]
fn a_target_that_falls_silent_or_reads_nothing_is_given_up() {
    let silent = Side::new(filled(4, NEW), params(4))
        .impatient(300)
        .run_as_source(|p| p.hello());
    refused(silent, Kind::Remote, "nothing heard");
    let deaf = Side::new(filled(64, NEW), params(64))
        .impatient(500)
        .run_as_source(|p| {
            p.hello();
            report(p, &[Entry::Absent; 64]);
        });
    refused(deaf, Kind::Remote, "nothing heard");
}

/// While the source cannot get rid of its patches, a flood must not pile up in its memory.
#[test]
fn a_flood_is_refused() {
    let result = Side::new(filled(64, NEW), params(64)).run_as_source(|p| {
        p.hello();
        report(p, &[Entry::Absent; 63]);
        let fingerprints = vec![1];
        for _ in 0..100_000 {
            p.send(Frame::Leaves {
                segment: 1 << 40,
                present: leaves([0]),
                fingerprints: fingerprints.clone(),
            });
        }
    });
    refused(result, Kind::Protocol, "the target sent");
}

/// The same with all that the target may report, and without an end: what is kept of it has a limit.
#[test]
fn a_flood_takes_bounded_memory() {
    within_memory("source::a_flood_takes_bounded_memory", 160 << 20, || {
        for flood in [
            Frame::Segments(vec![Entry::Absent; 256]),
            Frame::Segments(vec![Entry::Digest(segment_digest(1)); 256]),
            Frame::Leaves {
                segment: 0,
                present: leaves(0..256),
                fingerprints: vec![1; 256],
            },
        ] {
            let image = Arc::new(Uniform {
                size: 1 << 40,
                byte: 1,
            });
            let mut params = params(1);
            params.geometry = Geometry::new(1 << 40, LEAF as u32).unwrap();
            let result = Side::new(image, params).run_as_source(move |p| {
                p.hello();
                let bytes = stream(&[flood]).repeat(100);
                (0..200).for_each(|_| p.send_bytes(&bytes));
            });
            refused(result, Kind::Protocol, "the target ");
        }
    });
}

/// Fingerprints of leaves that the segment does not have: the patch has all that is there, and no more.
#[test]
fn fingerprints_past_the_end_of_a_short_segment_do_no_harm() {
    let short = MemoryImage::new(3 * LEAF + 100);
    short.write_at(&[NEW; 3 * LEAF + 100], 0).unwrap();
    let mut params = params(1);
    params.geometry = Geometry::new(short.size(), LEAF as u32).unwrap();
    Side::new(Arc::new(short), params)
        .run_as_source(|p| {
            p.hello();
            report(p, &[Entry::Digest(segment_digest(1))]);
            p.send(Frame::Ping);
            p.until(|frame| (frame == Frame::Want(0)).then_some(()));
            p.send(Frame::Leaves {
                segment: 0,
                present: leaves(0..256),
                fingerprints: vec![1; 256],
            });
            let digest = p.until(|frame| match frame {
                Frame::Patch(patch) => {
                    assert_eq!((patch.changed, patch.zeroed), (leaves(0..4), leaves([])));
                    assert_eq!(patch.data, vec![NEW; 3 * LEAF + 100].into());
                    None
                }
                Frame::Done(digest, _) => Some(digest),
                _ => None,
            });
            p.send(Frame::Finished(digest, b"{}".to_vec()));
        })
        .unwrap();
}

/// A target of which only the beginning comes, whatever it is cut off in.
#[test]
fn a_stream_cut_anywhere_is_an_error() {
    let two = Frame::Segments(vec![Entry::Digest(segment_digest(NEW)); 2]);
    let digest = image_digest(&[Some(segment_digest(NEW)); 4]);
    let reports = stream(&[two.clone(), two]);
    let end = stream(&[Frame::Finished(digest, b"{}".to_vec())]);
    for cut in (0..reports.len() + end.len()).step_by(7) {
        let first = reports[..cut.min(reports.len())].to_vec();
        let last = end[..cut.saturating_sub(reports.len())].to_vec();
        let result = Side::new(filled(4, NEW), params(4)).run_as_source(move |p| {
            p.hello();
            p.send_bytes(&first);
            if !last.is_empty() {
                p.until(|frame| matches!(frame, Frame::Done(..)).then_some(()));
                p.send_bytes(&last);
            }
            p.shut();
        });
        refused(result, Kind::Remote, "ended the connection");
    }
}

/// The target's statistics are for show: no number in them does any harm.
#[test]
fn statistics_that_lie_do_no_harm() {
    let zeros = MemoryImage::new(SEGMENT);
    zeros.write_at(&[0; LEAF], 0).unwrap();
    let summary = Side::new(Arc::new(zeros), params(1))
        .run_as_source(|p| {
            p.hello();
            report(p, &[Entry::Digest(segment_digest(1))]);
            let stats = format!(r#"{{"read":{0},"written":{0},"zeroed":{0}}}"#, u64::MAX);
            let digest = p.until(|frame| match frame {
                Frame::Done(digest, _) => Some(digest),
                _ => None,
            });
            p.send(Frame::Finished(digest, stats.into_bytes()));
        })
        .unwrap();
    assert_eq!(summary.zeroed, u64::MAX);
}

/// A huge image without data, and a target that takes its time with each list it is sent: the lists must
/// not be more than the target has room for.
#[test]
fn a_huge_hole_is_listed_in_few_frames() {
    let size = 1u64 << 50;
    let mut params = params(1);
    params.geometry = Geometry::new(size, LEAF as u32).unwrap();
    let lists = Arc::new(AtomicU64::new(0));
    let counted = lists.clone();
    Side::new(Arc::new(Uniform { size, byte: 0 }), params)
        .run_as_source(move |p| {
            p.hello();
            let digest = p.until(|frame| match frame {
                Frame::Extents(_) => {
                    counted.fetch_add(1, Ordering::Relaxed);
                    None
                }
                Frame::Done(digest, _) => Some(digest),
                other => panic!("{other:?}"),
            });
            p.send(Frame::Finished(digest, b"{}".to_vec()));
        })
        .unwrap();
    assert!(lists.load(Ordering::Relaxed) <= 16, "{lists:?} lists");
}
