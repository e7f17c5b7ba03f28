//! The relay between two ends that say whatever: it comes to an end, and in bounded memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::sync::{relay, Meter};
use rblocksync::wire::{Frame, Hello};
use rblocksync_fuzz::memory;
use rblocksync_fuzz::session::{encoded, link, tell, Setup, SIDE_BYTES_MAX};
use rblocksync_fuzz::stream::{pieces, Far, Sender};

/// Says what is meant for this end: the frames whose type is that of a target's, or all others.
fn play(input: &[u8], target: bool, sender: &mut Sender) {
    sender.send(&encoded(&Frame::Hello(Hello::ours("far"))));
    for piece in pieces(input) {
        if matches!(piece.get(4), Some(0x21 | 0x23 | 0x27)) == target {
            sender.send(piece);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((setup, input)) = Setup::take(input) else {
        return;
    };
    let meter = Meter::new();
    let (source, near_source) = Far::pair();
    let (target, near_target) = Far::pair();
    let (result, peak) = memory::peak_of(|| {
        source.run(
            |sender| play(input, false, sender),
            |_| {},
            || {
                target.run(
                    |sender| play(input, true, sender),
                    |_| {},
                    || {
                        let (mut source, mut target) = (link(near_source), link(near_target));
                        relay(&mut source, &mut target, &setup.params, &meter)
                    },
                )
            },
        )
    });
    tell(&result);
    assert!(peak < SIDE_BYTES_MAX + 64 * input.len(), "{peak} bytes");
    if result.is_ok() {
        setup.check_map(&meter);
    }
});
