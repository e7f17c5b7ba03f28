//! A source that breaks the rules where only what changed is sent, against the target's side.

use crate::peer::*;
use rblocksync::digest::{Digest, GrainSum, HashKind, LeafSet};
use rblocksync::error::Kind;
use rblocksync::wire::{Delta, Frame, Patch};

const OLD: u8 = 5;

/// A correct change of the whole of segment `segment`, from `OLD` to `byte`.
fn change(segment: u64, byte: u8) -> Delta {
    let sum = |byte| GrainSum::of(Some(segment_digest(byte)));
    proved(
        sum(byte).minus(sum(OLD)),
        Patch {
            digest: None,
            ..fill_patch(segment, byte)
        },
        &vec![byte; SEGMENT],
    )
}

fn proved(shift: GrainSum, patch: Patch, leaves: &[u8]) -> Delta {
    let mut delta = Delta { shift, patch };
    delta.patch.digest = Some(delta.proof(HashKind::Blake3, &[leaves]));
    delta
}

fn refuse(script: impl FnOnce(&mut Peer) + Send + 'static, kind: Kind, words: &str) {
    let image = filled(4, OLD);
    let before = image.bytes();
    let side = Side::new(image.clone(), params(4)).knowing(OLD);
    let result = side.run_as_target(|p| {
        p.hello();
        script(p);
        p.report();
    });
    refused(result, kind, words);
    assert!(image.bytes() == before, "{words}: the target was changed");
}

#[test]
fn changes_that_keep_the_rules_are_written() {
    let image = filled(4, OLD);
    let side = Side::new(image.clone(), params(4)).knowing(OLD);
    let done = side.run_as_target(|p| {
        p.hello();
        p.send(Frame::Delta(change(1, 9)));
        let old = Some(segment_digest(OLD));
        let digest = image_digest(&[old, Some(segment_digest(9)), old, old]);
        p.send(Frame::Done(digest, b"{}".to_vec()));
        p.until(|f| matches!(f, Frame::Finished(..)).then_some(()));
    });
    assert_eq!(done.unwrap().target.read, 0);
    assert_eq!(image.bytes()[SEGMENT], 9);
    assert_eq!(image.bytes()[2 * SEGMENT], OLD);
}

#[test]
fn changes_out_of_turn_are_refused() {
    let turn = "sent a change out of turn";
    refuse(|p| p.send(Frame::Delta(change(4, 9))), Kind::Protocol, turn);
    refuse(
        |p| p.send(Frame::Delta(change(u64::MAX, 9))),
        Kind::Protocol,
        turn,
    );
    // Nothing changes here, so that it shows that nothing else did either.
    refuse(
        |p| {
            p.send(Frame::Delta(change(2, OLD)));
            p.send(Frame::Delta(change(2, 9)));
        },
        Kind::Protocol,
        turn,
    );
    refuse(
        |p| p.send(Frame::Patch(fill_patch(0, 9))),
        Kind::Protocol,
        "sent a patch out of turn",
    );
    refuse(
        |p| p.send(Frame::Extents(extents(0, 4, &[(0, 4)]))),
        Kind::Protocol,
        "listed its data out of order",
    );
    refuse(
        |p| p.send(Frame::Same(1)),
        Kind::Protocol,
        "answered more segments than were reported",
    );
    let result = Side::new(filled(4, OLD), params(4)).run_as_target(|p| {
        p.hello();
        p.send(Frame::Delta(change(0, 9)));
        p.report();
    });
    refused(result, Kind::Protocol, turn);
}

#[test]
fn changes_without_proof_are_not_written() {
    let wrong = |spoil: fn(&mut Delta)| {
        let mut delta = change(1, 9);
        spoil(&mut delta);
        delta
    };
    for delta in [
        wrong(|d| d.shift = GrainSum::default()),
        wrong(|d| d.patch.segment = 2),
        wrong(|d| d.patch.digest = Some(Digest([0; 32]))),
        wrong(|d| {
            d.patch.changed = LeafSet::default();
            d.patch.zeroed = leaves(0..SEGMENT / LEAF);
            d.patch.data = Vec::new().into();
        }),
        wrong(|d| {
            let mut bytes = vec![9; SEGMENT];
            bytes[SEGMENT - 1] = 8;
            d.patch.data = bytes.into();
        }),
    ] {
        refuse(
            |p| p.send(Frame::Delta(delta)),
            Kind::Digest,
            "with a wrong digest",
        );
    }
    for malformed in [
        wrong(|d| d.patch.zeroed = leaves([3])),
        wrong(|d| d.patch.digest = None),
    ] {
        refuse(
            |p| p.send(Frame::Delta(malformed)),
            Kind::Protocol,
            "malformed patch",
        );
    }
}

#[test]
fn a_digest_that_does_not_follow_is_found_out() {
    refuse(
        |p| {
            let old = Some(segment_digest(OLD));
            let digest = image_digest(&[old, old, old, None]);
            p.send(Frame::Done(digest, b"{}".to_vec()));
        },
        Kind::Digest,
        "after the sync the source's digest is",
    );
}
