//! Before and below the sync: the handshake, the framing, silence.

use crate::peer::*;
use rblocksync::error::Kind;
use rblocksync::stop::Stop;
use rblocksync::wire::{Frame, Hello, Received};
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

#[test]
fn another_version_is_refused_with_both_versions_named() {
    for (version_min, version_max) in [(2, 9), (0, 0), (5, 1)] {
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
            link.reader.watch(&Stop::new())
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
    against(script, |end| {
        let mut link = handshake(end, Stop::new())?;
        let done = Stop::new();
        done.stop();
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
