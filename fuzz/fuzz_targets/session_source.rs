//! The source's side against a target that says whatever: it never tells a target to keep what is not
//! equal, every patch promises what the source has, and success is only told with the image's digest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::sync::{run_source, Meter};
use rblocksync::wire::{Entry, Extents, Frame, Hello, Patch};
use rblocksync_fuzz::memory;
use rblocksync_fuzz::session::{encoded, link, put_digest, tell, Setup, RIGHT, SIDE_BYTES_MAX};
use rblocksync_fuzz::stream::{frame_of, pieces, Far, Sender};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// What the source must answer: the segments it listed, and what the target said of them.
#[derive(Default)]
struct Open {
    listed: VecDeque<u64>,
    reported: VecDeque<Entry>,
}

/// Plays the target.
fn play(setup: &Setup, input: &[u8], open: &Mutex<Open>, sender: &mut Sender) {
    sender.send(&encoded(&Frame::Hello(Hello::ours("far"))));
    let mut wanted = 0;
    for piece in pieces(input) {
        let mut piece = piece.to_vec();
        match frame_of(&piece) {
            Some(Frame::Segments(mut entries)) => {
                let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                let first = open.reported.len() as u64;
                for (index, entry) in (first..).zip(&mut entries) {
                    // The digest that is right for images that are all data.
                    if *entry == Entry::Digest(RIGHT) && index < setup.params.geometry.segments() {
                        let bytes = setup.segment(&setup.bytes, index);
                        *entry = setup
                            .segment_digest(bytes)
                            .map_or(Entry::Zero, Entry::Digest);
                    }
                }
                open.reported.extend(&entries);
                drop(open);
                piece = encoded(&Frame::Segments(entries));
            }
            Some(Frame::Leaves { .. }) => {
                wanted += 1;
                sender.wait(|frames| {
                    let wants = frames.iter().filter(|f| matches!(f, Frame::Want(_)));
                    (wants.count() >= wanted).then_some(())
                });
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

/// Checks what the source says.
fn hear(setup: &Setup, open: &Mutex<Open>, answered: &mut VecDeque<Entry>, frame: &Frame) {
    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
    let reported = open.reported.len();
    let mut next = || {
        let entry = *open
            .reported
            .get(answered.len())
            .expect("an answer to nothing");
        answered.push_back(entry);
        let index = open
            .listed
            .pop_front()
            .expect("an answer to what was not listed");
        (index, entry)
    };
    match frame {
        Frame::Extents(extents) => list(&mut open, extents),
        Frame::Same(count) => {
            assert!(*count as usize <= reported);
            for _ in 0..*count {
                let (index, entry) = next();
                let ours = setup.segment_digest(setup.segment(&setup.bytes, index));
                let theirs = match entry {
                    Entry::Digest(digest) => Some(digest),
                    Entry::Absent | Entry::Zero => None,
                };
                assert!(
                    ours == theirs || setup.params.dry_run,
                    "segment {index} is not the same"
                );
            }
        }
        Frame::Patch(patch) => {
            let (index, entry) = next();
            assert_eq!(index, patch.segment);
            check(setup, patch, entry);
        }
        _ => {}
    }
}

fn list(open: &mut Open, extents: &Extents) {
    open.listed.extend(extents.segments());
}

/// The patch promises what the source has; put on nothing it gives just that.
fn check(setup: &Setup, patch: &Patch, entry: Entry) {
    let bytes = setup.segment(&setup.bytes, patch.segment);
    assert_eq!(patch.digest, setup.segment_digest(bytes));
    if !matches!(entry, Entry::Digest(_)) {
        let mut image = vec![0; setup.bytes.len()];
        setup.patch(&mut image, patch);
        assert!(
            setup.segment(&image, patch.segment) == bytes,
            "a patch lacks data"
        );
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((setup, input)) = Setup::take(input) else {
        return;
    };
    let image = setup.image();
    let open = Mutex::default();
    let mut answered = VecDeque::new();
    let meter = Meter::new();
    let (far, near) = Far::pair();
    let (result, peak) = memory::peak_of(|| {
        far.run(
            |sender| play(&setup, input, &open, sender),
            |frame| hear(&setup, &open, &mut answered, frame),
            || run_source(&image, &setup.params, &mut link(near), &meter, None),
        )
    });
    tell(&result);
    assert!(peak < SIDE_BYTES_MAX + 32 * input.len(), "{peak} bytes");
    assert!(image.bytes() == setup.bytes, "the source was written to");
    if let Ok(summary) = result {
        setup.check_map(&meter);
        assert!(setup.params.dry_run || summary.digest == setup.image_digest(&setup.bytes));
    }
});
