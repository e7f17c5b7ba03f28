//! Before and below the sync: the handshake, the framing, silence.

use crate::peer::*;
use rblocksync::bell::Bell;
use rblocksync::error::Kind;
use rblocksync::stop::Stop;
use rblocksync::wire::{limits, Frame, Hello, Link, Received};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

fn meet(script: impl FnOnce(&mut Peer) + Send + 'static, kind: Kind, words: &str) {
    let result = against(script, |end| handshake(end, Stop::new()).map(|_| ()));
    refused(result, kind, words);
}

#[test]
fn a_stranger_is_refused_at_the_door() {
    // Whether that is noticed when reading or when writing is chance.
    meet(|p| p.close(), Kind::Remote, "peer");
    meet(
        |p| p.send_bytes(b"Welcome to host2!\n"),
        Kind::Protocol,
        "does not speak this protocol",
    );
    meet(
        |p| p.send_bytes(b"\x10\0\0\0\x01\x89rblock\r\x01\0\x01\0xxx"),
        Kind::Protocol,
        "does not speak this protocol",
    );
    meet(
        |p| p.send(Frame::Ping),
        Kind::Protocol,
        "did not say hello first",
    );
    meet(
        |p| p.send(Frame::Request(b"{}".to_vec())),
        Kind::Protocol,
        "did not say hello first",
    );
    meet(
        |p| {
            p.send_bytes(b"\x10\0\0\0\x01\x89rb");
            p.close();
        },
        Kind::Remote,
        "peer",
    );
}

/// Neither one who says nothing nor one who never gets to the end of its hello keeps us at the door.
#[test]
fn a_hello_that_takes_too_long_is_refused() {
    for drip in [false, true] {
        let began = Instant::now();
        let script = move |p: &mut Peer| {
            let hello = stream(&[Frame::Hello(Hello::ours("slow"))]);
            for byte in hello.chunks(1).take(if drip { 15 } else { 0 }) {
                p.send_bytes(byte);
                std::thread::sleep(Duration::from_millis(100));
            }
        };
        let result = against(script, |end| {
            let input = end.try_clone().unwrap();
            let limit = Duration::from_millis(700);
            Link::handshake_within(limit, input.into(), end.into(), "test", "peer", Stop::new())
                .map(|_| ())
        });
        refused(result, Kind::Remote, "said no hello within 700ms");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

/// What was announced costs nothing until it comes.
#[test]
fn a_length_that_lies_costs_no_memory() {
    within_memory("link::a_length_that_lies_costs_no_memory", 2 << 20, || {
        let script = |p: &mut Peer| {
            p.hello();
            p.send_bytes(&[0xff, 0xff, 0xff, 0x00, 0x25, 1, 2, 3]);
        };
        let result = against(script, |end| {
            let mut link = handshake(end, Stop::new())?;
            link.reader.set_frame_max(limits::FRAME_MAX);
            link.reader.set_silence_max(Duration::from_millis(300));
            link.reader.receive().map(|_| ())
        });
        refused(result, Kind::Remote, "nothing heard for");
    });
}

/// Short frames that announce long lists, one after the other, and pings: nothing of them stays.
#[test]
fn endless_frames_cost_no_memory() {
    within_memory("link::endless_frames_cost_no_memory", 4 << 20, || {
        let script = |p: &mut Peer| {
            p.hello();
            let empty = stream(&[
                Frame::Ping,
                Frame::Extents(extents(0, 0, &[])),
                Frame::Same(1),
            ]);
            let many = empty.repeat(1000);
            (0..50).for_each(|_| p.send_bytes(&many));
            p.close();
        };
        let mut frames = 0;
        let result = against(script, move |end| {
            let mut link = handshake(end, Stop::new())?;
            while let Received::Frame(_) = link.reader.receive()? {
                frames += 1;
            }
            Ok(frames)
        });
        assert_eq!(result.unwrap(), 100_000);
        // Each of them announces as many runs as may be, and has none.
        let mut lie = stream(&[Frame::Extents(extents(0, 1 << 40, &[]))]);
        let at = lie.len() - 4;
        lie[at..].copy_from_slice(&(limits::RUNS_MAX as u32).to_le_bytes());
        let began = Instant::now();
        for _ in 0..1000 {
            assert!(Frame::decode(&lie[4..]).is_err());
        }
        assert!(began.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn another_version_is_refused_with_both_versions_named() {
    for (version_min, version_max) in [(3, 9), (1, 1), (5, 1)] {
        let hello = Frame::Hello(Hello {
            version_min,
            version_max,
            program: "rblocksync 9.9\x1b[2J".into(),
        });
        meet(
            |p| p.send(hello),
            Kind::Protocol,
            &format!("rblocksync 9.9[2J speaks protocol versions {version_min} to {version_max}, but test"),
        );
    }
}

#[test]
fn broken_frames_are_refused() {
    for (bytes, kind, words) in [
        (&b"\0\0\0\0"[..], Kind::Protocol, "a frame of 0 bytes"),
        (
            b"\xff\xff\xff\xff",
            Kind::Protocol,
            "a frame of 4294967295 bytes",
        ),
        (b"\x01\0\0\0\x77", Kind::Protocol, "unknown type 0x77"),
        (
            b"\x03\0\0\0\x22\0\0",
            Kind::Protocol,
            "in the middle of a field",
        ),
        (b"\x02\0\0\0\x03\0", Kind::Protocol, "bytes too many"),
        (b"\x09\0\0\0\x22\0\0", Kind::Remote, "ended the connection"),
        (b"\x09\0", Kind::Remote, "ended the connection"),
    ] {
        let script = |p: &mut Peer| {
            p.hello();
            p.send_bytes(bytes);
            p.close();
        };
        let result = against(script, |end| {
            handshake(end, Stop::new())?.reader.receive().map(|_| ())
        });
        refused(result, kind, words);
    }
}

#[test]
fn the_peers_error_is_told_as_it_is_and_a_malformed_one_as_that() {
    let cases: [(&[u8], Kind, &str); 3] = [
        (
            br#"{"kind":"space","message":"cannot write x","advice":"make room"}"#,
            Kind::Space,
            "peer: cannot write x (make room)",
        ),
        (b"{}", Kind::Protocol, "peer sent a malformed error"),
        (
            br#"{"kind":"new-kind","message":"m","advice":null}"#,
            Kind::Protocol,
            "peer sent a malformed error",
        ),
    ];
    for (json, kind, words) in cases {
        let script = move |p: &mut Peer| {
            p.hello();
            p.send(Frame::Error(json.to_vec()));
        };
        let result = against(script, |end| {
            handshake(end, Stop::new())?.reader.receive().map(|_| ())
        });
        refused(result, kind, words);
    }
}

/// A silent peer is given up, also in the middle of a frame.
#[test]
fn silence_is_noticed() {
    for said in [&b""[..], b"\x09\0", b"\x09\0\0\0\x22\0"] {
        let script = |p: &mut Peer| {
            p.hello();
            p.send_bytes(said);
        };
        let result = against(script, |end| {
            let mut link = handshake(end, Stop::new())?;
            link.reader.set_silence_max(Duration::from_millis(200));
            link.reader.receive().map(|_| ())
        });
        refused(result, Kind::Remote, "nothing heard for");
    }
}

/// Pings keep a link up for ever, but a stop ends it at once; also in the middle of a frame, and also
/// while the peer does not read.
#[test]
fn a_stop_ends_any_wait() {
    for said in [&b""[..], b"\x01\0\0\0\x03", b"\x09\0\0\0\x22\0"] {
        let stop = Stop::new();
        let (began, flag) = (Instant::now(), stop.clone());
        let script = move |p: &mut Peer| {
            p.hello();
            for _ in 0..10_000 {
                p.send_bytes(b"\x01\0\0\0\x03");
            }
            p.send_bytes(said);
            flag.stop();
        };
        let result = against(script, |end| {
            handshake(end, stop)?.reader.receive().map(|_| ())
        });
        refused(result, Kind::Cancelled, "stopped");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    let stop = Stop::new();
    let flag = stop.clone();
    let result = against(
        |p| p.hello(),
        |end| {
            let mut link = handshake(end, stop)?;
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                flag.stop();
            });
            link.writer.send(&Frame::Request(vec![0; 4_000_000]))?;
            link.writer.flush()
        },
    );
    refused(result, Kind::Cancelled, "stopped");
}

/// `watch` lets nothing but pings pass, ends when it is told to, and notices the peer's end.
#[test]
fn a_watched_peer_may_only_ping() {
    let watch = |script: fn(&mut Peer), silence_ms: u64| {
        against(script, move |end| {
            let mut link = handshake(end, Stop::new())?;
            link.reader
                .set_silence_max(Duration::from_millis(silence_ms));
            link.reader.watch(&Bell::new()?)
        })
    };
    let close = |p: &mut Peer| {
        p.hello();
        p.send(Frame::Ping);
        p.close();
    };
    refused(watch(close, 9999), Kind::Remote, "ended the connection");
    let talk = |p: &mut Peer| {
        p.hello();
        p.send(Frame::Ping);
        p.send(Frame::Same(1));
    };
    refused(watch(talk, 9999), Kind::Protocol, "sent Same out of turn");
    refused(watch(|p| p.hello(), 200), Kind::Remote, "nothing heard");
    let script = |p: &mut Peer| {
        p.hello();
        p.send(Frame::Ping);
        p.send(Frame::Want(7));
    };
    // However long it would still wait for the next look at its flags.
    against(
        |p| p.hello(),
        |end| {
            let mut link = handshake(end, Stop::new())?;
            let done = Bell::new()?;
            std::thread::scope(|scope| {
                let watching = scope.spawn(|| link.reader.watch(&done));
                done.ring();
                watching.join().unwrap()
            })
        },
    )
    .unwrap();
    against(script, |end| {
        let mut link = handshake(end, Stop::new())?;
        let done = Bell::new()?;
        done.ring();
        link.reader.watch(&done)?;
        // Nothing was lost by it.
        match link.reader.receive()? {
            Received::Frame(frame) => assert_eq!(frame, Frame::Want(7)),
            Received::End => panic!("the frame after the watch was lost"),
        }
        Ok(())
    })
    .unwrap();
}

/// Lanes that nobody brought: neither a driver nor an agent takes them for there.
#[test]
fn lanes_that_are_not_there_are_refused() {
    for count in [0, 1, 15, 255] {
        let result = against(
            move |p| {
                p.hello();
                p.send(Frame::Lanes(count));
            },
            |end| handshake(end, Stop::new())?.reader.receive().map(|_| ()),
        );
        refused(result, Kind::Protocol, "lanes that are not there");
    }
}

/// Lanes that are there, and then chunks that are not.
#[test]
fn broken_chunks_are_refused() {
    for (chunk, kind, words) in [
        (&[0, 0, 0, 0][..], Kind::Remote, "a chunk of 0 bytes"),
        (&[0xff; 4], Kind::Remote, "a chunk of 4294967295 bytes"),
        (&[8, 0, 0, 0, 1], Kind::Remote, "ended the connection"),
    ] {
        let result = against(
            move |p| {
                p.hello();
                p.send(Frame::Lanes(1));
                p.send_bytes(chunk);
                p.close();
            },
            |end| {
                let mut link = handshake(end, Stop::new())?;
                let (lane, _far) = UnixStream::pair().unwrap();
                let input = lane.try_clone().unwrap();
                link.lanes().add(1, input.into(), lane.into());
                link.reader.receive().map(|_| ())
            },
        );
        refused(result, kind, words);
    }
}
