//! Two scripted peers with the relay between them.

use crate::peer::*;
use rblocksync::error::{Kind, Result};
use rblocksync::stop::Stop;
use rblocksync::sync::{relay, Meter, Summary};
use rblocksync::wire::{limits, Entry, Frame};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Runs the relay between a source and a target that follow these scripts.
fn between(
    source: impl FnOnce(&mut Peer) + Send + 'static,
    target: impl FnOnce(&mut Peer) + Send + 'static,
) -> Result<Summary> {
    between_within(LONG * 10, source, target)
}

fn between_within(
    silence_max: Duration,
    source: impl FnOnce(&mut Peer) + Send + 'static,
    target: impl FnOnce(&mut Peer) + Send + 'static,
) -> Result<Summary> {
    let (near, far) = UnixStream::pair().unwrap();
    let mut peer = Peer::new(far);
    let target = std::thread::spawn(move || {
        target(&mut peer);
        peer
    });
    let result = against(source, move |end| {
        let mut source = handshake(end, Stop::new())?;
        let mut target = handshake(near, Stop::new())?;
        source.reader.set_silence_max(silence_max);
        target.reader.set_silence_max(silence_max);
        relay(&mut source, &mut target, &params(4), &Meter::new())
    });
    drop(target.join().expect("the script of the target"));
    result
}

fn told(p: &mut Peer, words: &str) {
    let report = p.report();
    assert!(report.contains(words), "{report}");
}

#[test]
fn frames_pass_both_ways_to_the_end() {
    let digest = image_digest(&[Some(segment_digest(9)), None, None, None]);
    let stats = br#"{"compared":1,"changed":2,"zeroed":3,"side":{"read":4}}"#;
    let summary = between(
        move |p| {
            p.hello();
            p.send(Frame::Extents(extents(0, 4, &[(0, 1)])));
            p.reports(1);
            p.send(Frame::Patch(fill_patch(0, 9)));
            p.send(Frame::Done(digest, stats.to_vec()));
            let end = p.receive();
            assert!(matches!(end, Frame::Finished(..)), "{end:?}");
        },
        move |p| {
            p.hello();
            assert_eq!(p.receive(), Frame::Extents(extents(0, 4, &[(0, 1)])));
            p.send(Frame::Segments(vec![Entry::Absent]));
            assert_eq!(p.receive(), Frame::Patch(fill_patch(0, 9)));
            p.receive();
            p.send(Frame::Finished(digest, br#"{"written":7}"#.to_vec()));
        },
    )
    .unwrap();
    assert_eq!(
        (summary.compared, summary.changed, summary.zeroed),
        (1, 2, 3)
    );
    assert_eq!((summary.source.read, summary.target.written), (4, 7));
    assert!(summary.wire_out > SEGMENT as u64 && summary.wire_in < 1000);
}

#[test]
fn whatever_one_end_does_wrong_the_other_is_told() {
    let listening = |p: &mut Peer| {
        p.hello();
        told(p, "out of turn");
    };
    let out_of_turn = |p: &mut Peer| {
        p.hello();
        p.send(Frame::Finished(segment_digest(1), b"{}".to_vec()));
    };
    refused(
        between(out_of_turn, listening),
        Kind::Protocol,
        "sent Finished out of turn",
    );
    let patches = |p: &mut Peer| {
        p.hello();
        p.send(Frame::Patch(fill_patch(0, 9)));
    };
    refused(
        between(listening, patches),
        Kind::Protocol,
        "Patch out of turn",
    );
}

#[test]
fn an_end_that_vanishes_or_fails_is_the_cause() {
    let waits = |words: &'static str| {
        move |p: &mut Peer| {
            p.hello();
            told(p, words);
        }
    };
    let vanishes = |p: &mut Peer| {
        p.hello();
        p.close();
    };
    let gone = "ended the connection";
    refused(between(vanishes, waits(gone)), Kind::Remote, gone);
    refused(between(waits(gone), vanishes), Kind::Remote, gone);
    let fails = |p: &mut Peer| {
        p.hello();
        let json = br#"{"kind":"io","message":"cannot read /dev/x","advice":null}"#;
        p.send(Frame::Error(json.to_vec()));
        p.close();
    };
    let why = "cannot read /dev/x";
    refused(between(fails, waits(why)), Kind::Io, why);
    refused(between(waits(why), fails), Kind::Io, why);
}

/// What is no frame, or half of one, or too long for its direction.
#[test]
fn broken_frames_of_either_end_are_refused() {
    let over = |len: u32| len.to_le_bytes().to_vec();
    let cases = [
        (
            vec![9, 0, 0, 0, 0x22, 7, 0],
            Kind::Remote,
            "ended the connection",
        ),
        (vec![1, 0, 0, 0, 0x77], Kind::Protocol, "unknown type 0x77"),
        (
            vec![3, 0, 0, 0, 0x25, 1, 1],
            Kind::Protocol,
            "middle of a field",
        ),
        (over(limits::FRAME_MAX + 1), Kind::Protocol, "a frame of"),
    ];
    for (bytes, kind, words) in cases {
        for at_source in [true, false] {
            let bytes = bytes.clone();
            let breaks = move |p: &mut Peer| {
                p.hello();
                p.send_bytes(&bytes);
                p.shut();
            };
            let waits = move |p: &mut Peer| {
                p.hello();
                told(p, words);
            };
            let result = match at_source {
                true => between(breaks, waits),
                false => between(waits, breaks),
            };
            refused(result, kind, words);
        }
    }
    let large = |p: &mut Peer| {
        p.hello();
        p.send_bytes(&(limits::CONTROL_FRAME_MAX + 1).to_le_bytes());
    };
    let waits = |p: &mut Peer| {
        p.hello();
        told(p, "a frame of");
    };
    refused(between(waits, large), Kind::Protocol, "a frame of");
}

#[test]
fn an_end_that_says_nothing_is_given_up() {
    let short = Duration::from_millis(400);
    let pings = |p: &mut Peer| {
        p.hello();
        // Lives well beyond the other's end.
        for _ in 0..40 {
            p.send(Frame::Ping);
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let silent = "nothing heard for 400ms";
    let result = between_within(short, pings, |p| p.hello());
    refused(result, Kind::Remote, silent);
    let result = between_within(short, |p| p.hello(), pings);
    refused(result, Kind::Remote, silent);
}

/// What a source lists and never answers must not pile up between two ends that play together.
#[test]
fn endless_lists_are_refused_in_bounded_memory() {
    let name = "relay::endless_lists_are_refused_in_bounded_memory";
    within_memory(name, 96 << 20, || {
        let takes_all = |p: &mut Peer| {
            p.hello();
            told(p, "too much data ahead");
        };
        let endless = |p: &mut Peer| {
            p.hello();
            let runs = vec![(1, 1); limits::RUNS_MAX];
            let bytes = stream(&[Frame::Extents(extents(0, 1 << 44, &runs))]);
            (0..400).for_each(|_| p.send_bytes(&bytes));
        };
        refused(
            between(endless, takes_all),
            Kind::Protocol,
            "too much data ahead",
        );
    });
}

/// Numbers that make no sense are passed on to the end that refuses them, and do no harm on the way.
#[test]
fn numbers_that_lie_do_no_harm() {
    let digest = image_digest(&[None; 4]);
    let summary = between(
        move |p| {
            p.hello();
            p.send(Frame::Extents(extents(1 << 43, 1 << 44, &[(0, 1 << 43)])));
            p.send(Frame::Same(u32::MAX));
            let mut patch = fill_patch(u64::MAX, 9);
            patch.data = vec![9].into();
            p.send(Frame::Patch(patch));
            p.send(Frame::Want(u64::MAX));
            let stats = format!(r#"{{"zeroed":{}}}"#, u64::MAX);
            p.send(Frame::Done(digest, stats.into_bytes()));
            p.receive();
        },
        move |p| {
            p.hello();
            p.until(|frame| matches!(frame, Frame::Done(..)).then_some(()));
            let stats = format!(r#"{{"zeroed":{}}}"#, u64::MAX);
            p.send(Frame::Finished(digest, stats.into_bytes()));
        },
    )
    .unwrap();
    assert_eq!(summary.zeroed, u64::MAX);
}
