//! Two ends of a sync, and a wire between them that may be cut or may spoil a byte.
#![allow(clippy::unwrap_used)]

use rblocksync::error::Result;
use rblocksync::stop::Stop;
use rblocksync::sync::Summary;
use rblocksync::wire::Link;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// What happens to the bytes from source to target.
#[derive(Clone, Copy)]
pub struct Wire {
    /// So many get through.
    pub cut_after: usize,
    /// The one at this place is another one.
    pub spoilt: usize,
}

impl Wire {
    /// One that does no harm.
    pub const SOUND: Wire = Wire {
        cut_after: usize::MAX,
        spoilt: usize::MAX,
    };
}

/// Runs both ends, which must agree on whether it went well, and gives what the source says, and what the target does.
pub fn run(
    wire: Wire,
    source: impl FnOnce(&mut Link) -> Result<Summary>,
    target: impl FnOnce(&mut Link) -> Result<Summary> + Send,
) -> (Result<Summary>, Result<Summary>) {
    let (near, near_relay) = UnixStream::pair().unwrap();
    let (far_relay, far) = UnixStream::pair().unwrap();
    let link = |end: UnixStream| {
        let input = end.try_clone().unwrap();
        Link::handshake(input.into(), end.into(), "test", "peer", Stop::new())
    };
    std::thread::scope(|scope| {
        scope.spawn(|| pass(&near_relay, &far_relay, wire));
        scope.spawn(|| pass(&far_relay, &near_relay, Wire::SOUND));
        let target = scope.spawn(|| target(&mut link(far)?));
        let source = link(near).and_then(|mut link| source(&mut link));
        let target = target.join().unwrap();
        assert_eq!(source.is_ok(), target.is_ok(), "the ends must agree");
        (source, target)
    })
}

fn pass(mut from: &UnixStream, mut to: &UnixStream, wire: Wire) {
    let mut chunk = [0; 8192];
    let mut at = 0;
    while let Ok(len @ 1..) = from.read(&mut chunk) {
        let may = len.min(wire.cut_after - at);
        if (at..at + may).contains(&wire.spoilt) {
            chunk[wire.spoilt - at] ^= 1;
        }
        at += may;
        if to.write_all(&chunk[..may]).is_err() || may < len {
            break;
        }
    }
    for end in [from, to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}
