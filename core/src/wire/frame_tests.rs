#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn golden() -> Vec<(Frame, &'static str)> {
    let mut changed = LeafSet::default();
    changed.insert(1);
    let mut zeroed = LeafSet::default();
    zeroed.insert(8);
    vec![
        (
            Frame::Hello(Hello { version_min: 1, version_max: 2, program: "x 1".into() }),
            "10000000 01 8972626c6f636b0a 0100 0200 782031",
        ),
        (Frame::Error(b"{}".to_vec()), "03000000 02 7b7d"),
        (Frame::Ping, "01000000 03"),
        (Frame::Request(b"{}".to_vec()), "03000000 10 7b7d"),
        (Frame::Reply(b"{}".to_vec()), "03000000 11 7b7d"),
        (
            Frame::Extents(Extents { start: 1, end: 400, runs: vec![(0, 2), (300, 1)] }),
            "1a000000 20 0100000000000000 9001000000000000 02000000 00 02 ac02 01",
        ),
        (
            Frame::Segments(vec![Entry::Absent, Entry::Zero, Entry::Digest(Digest([0xaa; 32]))]),
            "26000000 21 0300 00 01 02 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
        (Frame::Lanes(3), "02000000 04 03"),
        (Frame::Want(7), "09000000 22 0700000000000000"),
        (
            Frame::Leaves { segment: 7, present: changed, fingerprints: vec![0x0102_0304_0506_0708] },
            "31000000 23 0700000000000000 \
             0200000000000000000000000000000000000000000000000000000000000000 \
             08070605040302 01",
        ),
        (Frame::Same(258), "05000000 24 02010000"),
        (
            Frame::Patch(Patch { segment: 7, digest: None, changed, zeroed, data: Payload::Stored(vec![9, 8]) }),
            "4d000000 25 0700000000000000 00 \
             0200000000000000000000000000000000000000000000000000000000000000 \
             0001000000000000000000000000000000000000000000000000000000000000 \
             00 0908",
        ),
        (
            Frame::Patch(Patch { segment: 7, digest: None, changed, zeroed, data: Payload::Zstd(vec![9, 8]) }),
            "4d000000 25 0700000000000000 00 \
             0200000000000000000000000000000000000000000000000000000000000000 \
             0001000000000000000000000000000000000000000000000000000000000000 \
             01 0908",
        ),
        (
            Frame::Delta(Delta {
                shift: GrainSum([0xbb; 32]),
                patch: Patch {
                    segment: 7,
                    digest: Some(Digest([0xcc; 32])),
                    changed,
                    zeroed,
                    data: Payload::Stored(vec![9, 8]),
                },
            }),
            "8d000000 28 \
             bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb 0700000000000000 01 \
             cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc \
             0200000000000000000000000000000000000000000000000000000000000000 \
             0001000000000000000000000000000000000000000000000000000000000000 \
             00 0908",
        ),
        (
            Frame::Grains(vec![
                Grains { segment: 7, set: GrainSet(0x8001) },
                Grains { segment: 300, set: GrainSet(2) },
            ]),
            "17000000 29 0200 0700000000000000 0180 2c01000000000000 0200",
        ),
        (
            Frame::Held(Held {
                segment: 7,
                sum: GrainSum([0xbb; 32]),
                present: changed,
                fingerprints: vec![0x0102_0304_0506_0708],
            }),
            "51000000 2a 0700000000000000 \
             bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb \
             0200000000000000000000000000000000000000000000000000000000000000 \
             08070605040302 01",
        ),
        (
            Frame::Done(Digest([1; 32]), b"{}".to_vec()),
            "23000000 26 0101010101010101010101010101010101010101010101010101010101010101 7b7d",
        ),
        (
            Frame::Finished(Digest([1; 32]), b"{}".to_vec()),
            "23000000 27 0101010101010101010101010101010101010101010101010101010101010101 7b7d",
        ),
    ]
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// The bytes of protocol version 2. A change here is a new version.
#[test]
fn golden_bytes() {
    for (frame, hex) in golden() {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(bytes, unhex(hex), "{frame:?}");
        assert_eq!(Frame::decode(&bytes[4..]).unwrap(), frame);
    }
}

#[test]
fn truncated_frames_are_refused() {
    for (frame, hex) in golden() {
        let bytes = unhex(hex);
        let opaque_tail = match &frame {
            Frame::Error(_) | Frame::Request(_) | Frame::Reply(_) => bytes.len() - 5,
            Frame::Hello(h) => h.program.len(),
            Frame::Patch(p) | Frame::Delta(Delta { patch: p, .. }) => p.data.packed_len(),
            Frame::Done(..) | Frame::Finished(..) => 2,
            _ => 0,
        };
        for len in 4..bytes.len() - opaque_tail {
            assert!(
                Frame::decode(&bytes[4..len]).is_err(),
                "{frame:?} cut to {len}"
            );
        }
    }
}

#[test]
fn extents_that_lie_are_refused() {
    for (start, end, runs) in [
        (5u64, 4u64, vec![]),
        (0, 10, vec![(0u64, 11u64)]),
        (0, 10, vec![(u64::MAX, 1)]),
        (0, 10, vec![(0, u64::MAX), (0, u64::MAX)]),
        (0, 10, vec![(1, 0)]),
        (0, u64::MAX, vec![]),
    ] {
        let mut bytes = Vec::new();
        Frame::Extents(Extents { start, end, runs }).encode(&mut bytes);
        assert!(Frame::decode(&bytes[4..]).is_err());
    }
}

#[test]
fn lists_that_are_too_long_are_refused() {
    let grains = Grains {
        segment: 0,
        set: GrainSet(1),
    };
    for (count, fits) in [
        (limits::ENTRIES_MAX, true),
        (limits::ENTRIES_MAX + 1, false),
    ] {
        for list in [
            Frame::Grains(vec![grains; count]),
            Frame::Segments(vec![Entry::Zero; count]),
        ] {
            let mut bytes = Vec::new();
            list.encode(&mut bytes);
            assert_eq!(Frame::decode(&bytes[4..]).is_ok(), fits, "{count}");
        }
    }
}

proptest! {
    #[test]
    fn junk_never_panics(body: Vec<u8>, kind in 0u8..0x30) {
        let _ = Frame::decode(&body);
        let mut typed = vec![kind];
        typed.extend(&body);
        let _ = Frame::decode(&typed);
    }
}
