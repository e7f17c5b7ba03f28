//! One frame, decoded and encoded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::wire::{limits, Frame};
use rblocksync_fuzz::memory;

/// What the largest lists that a short frame may announce take, with room to spare.
const ANNOUNCED_BYTES_MAX: usize = 2 << 20;

fuzz_target!(|body: &[u8]| {
    if body.len() > limits::FRAME_MAX as usize {
        return;
    }
    let (decoded, peak) = memory::peak_of(|| Frame::decode(body));
    // A patch holds at most a segment, however small it travels.
    let segment = match body.first() {
        Some(0x25) => limits::FRAME_MAX as usize,
        _ => 0,
    };
    assert!(
        peak <= ANNOUNCED_BYTES_MAX + 32 * body.len() + 2 * segment,
        "{peak} bytes for a frame of {}",
        body.len()
    );
    let Ok(frame) = decoded else { return };
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    let (head, body) = bytes.split_at(4);
    assert_eq!(head, (body.len() as u32).to_le_bytes());
    match Frame::decode(body) {
        Ok(again) => assert_eq!(again, frame),
        Err(e) => panic!("{e}: {frame:?}"),
    }
});
