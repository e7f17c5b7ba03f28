//! The target's side against a source that says whatever: no segment ever holds anything but what it held,
//! zeros where the source listed no data, or what a patch promised by its digest; and success is only told of
//! an image that has the digest told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::digest::Digest;
use rblocksync::sync::{run_target, Meter};
use rblocksync::wire::{Frame, Hello};
use rblocksync_fuzz::memory;
use rblocksync_fuzz::session::{encoded, link, put_digest, tell, Setup, RIGHT, SIDE_BYTES_MAX};
use rblocksync_fuzz::stream::{frame_of, pieces, Far, Sender};

/// What the far end said that may have changed the image.
#[derive(Default)]
struct Said {
    patches: Vec<(u64, Option<Digest>)>,
    /// Segments that a list passed over.
    cleared: Vec<(u64, u64)>,
}

/// Plays the source.
fn play(setup: &Setup, input: &[u8], said: &mut Said, sender: &mut Sender) {
    sender.send(&encoded(&Frame::Hello(Hello::ours("far"))));
    let mut model = setup.bytes.clone();
    let mut listed = 0u64;
    for piece in pieces(input) {
        let mut piece = piece.to_vec();
        match frame_of(&piece) {
            Some(Frame::Extents(extents)) => {
                let mut at = extents.start;
                for (skip, take) in &extents.runs {
                    said.cleared.push((at, at + skip));
                    at += skip + take;
                    listed = listed.saturating_add(*take);
                }
                said.cleared.push((at, extents.end));
                for (first, end) in &said.cleared {
                    let span = setup.params.geometry.span(*first, *end);
                    model[span.start as usize..span.end as usize].fill(0);
                }
            }
            Some(Frame::Patch(patch)) => {
                reported(sender, listed);
                setup.patch(&mut model, &patch);
                let mut digest = patch.digest;
                if digest == Some(RIGHT) {
                    digest = setup.segment_digest(setup.segment(&model, patch.segment));
                    put_digest(&mut piece, 10, digest.unwrap_or(RIGHT));
                }
                said.patches.push((patch.segment, digest));
            }
            Some(Frame::Same(_) | Frame::Want(_)) => reported(sender, listed),
            Some(Frame::Done(RIGHT, _)) => put_digest(&mut piece, 1, setup.image_digest(&model)),
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

/// Waits until the target has reported `count` segments.
fn reported(sender: &mut Sender, count: u64) {
    sender.wait(|frames| {
        let reported: usize = frames
            .iter()
            .map(|frame| match frame {
                Frame::Segments(entries) => entries.len(),
                _ => 0,
            })
            .sum();
        (reported as u64 >= count).then_some(())
    });
}

fuzz_target!(|input: &[u8]| {
    let Some((setup, input)) = Setup::take(input) else {
        return;
    };
    let image = setup.image();
    let mut said = Said::default();
    let meter = Meter::new();
    let (far, near) = Far::pair();
    let (result, peak) = memory::peak_of(|| {
        far.run(
            |sender| play(&setup, input, &mut said, sender),
            |_| {},
            || run_target(&image, &setup.params, &mut link(near), &meter, None),
        )
    });
    tell(&result);
    assert!(peak < SIDE_BYTES_MAX + 32 * input.len(), "{peak} bytes");
    let after = image.bytes();
    if setup.params.dry_run {
        assert!(after == setup.bytes, "a dry run changed the image");
        return;
    }
    for index in 0..setup.params.geometry.segments() {
        let (old, new) = (
            setup.segment(&setup.bytes, index),
            setup.segment(&after, index),
        );
        let digest = setup.segment_digest(new);
        let cleared = said.cleared.iter().any(|(a, b)| (*a..*b).contains(&index));
        assert!(
            old == new
                || (digest.is_none() && cleared)
                || said.patches.contains(&(index, digest))
                || (cleared && partly_cleared(old, new)),
            "segment {index} is none of what it may be"
        );
    }
    if let Ok(summary) = result {
        setup.check_map(&meter);
        assert_eq!(summary.digest, setup.image_digest(&after));
    }
});

/// Freeing was under way when the session ended.
fn partly_cleared(old: &[u8], new: &[u8]) -> bool {
    old.iter()
        .zip(new)
        .all(|(old, new)| new == old || *new == 0)
}
