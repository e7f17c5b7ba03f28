//! A link whose peer says whatever, and then closes: an error or a proper hello, and no frame too many.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::stop::Stop;
use rblocksync::wire::{Frame, Hello, Link, Received};
use rblocksync_fuzz::stream::{pieces, Far};

fuzz_target!(|input: &[u8]| {
    let (far, near) = Far::pair();
    let result = far.run(
        |sender| sender.send(input),
        |_| {},
        || {
            let mut link = Link::handshake(near.0, near.1, "fuzz", "peer", Stop::new())?;
            let mut frames = 0;
            while let Ok(Received::Frame(_)) = link.reader.receive() {
                frames += 1;
            }
            Ok::<usize, rblocksync::error::Error>(frames)
        },
    );
    if let Ok(frames) = result {
        let pieces = pieces(input);
        match Frame::decode(&pieces[0][4..]) {
            Ok(Frame::Hello(hello)) => assert!(Hello::ours("fuzz").agree(&hello).is_ok()),
            other => panic!("{other:?} was taken for a hello"),
        }
        assert!(frames < pieces.len());
    }
});
