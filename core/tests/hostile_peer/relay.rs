//! Two scripted peers with the relay between them.

use crate::peer::*;
use rblocksync::error::{Kind, Result};
use rblocksync::stop::Stop;
use rblocksync::sync::{relay, Meter, Summary};
use rblocksync::wire::{Entry, Frame};
use std::os::unix::net::UnixStream;

/// Runs the relay between a source and a target that follow these scripts.
fn between(
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
