//! What is allowed though no real server here does it, and servers that go away or fall silent.

use crate::bytes;
use crate::script::{
    data, play, read, Far, Request, DATA, DISC, DONE, ERROR, ERROR_OFFSET, FLUSH, HASTY, HOLE,
    NONE, PATIENT, READ, SIZE, STATUS, WRITE,
};
use rblocksync::error::{Error, Kind};
use rblocksync::image::{Image, NbdImage, NbdOptions};
use rblocksync::nbd::BASE_ALLOCATION;
use rblocksync::range::ByteRange;
use std::time::Instant;

/// The first request is answered like this; the client must have this error, and may go on.
#[track_caller]
fn survives(kind: Kind, says: &str, answer: impl FnOnce(&mut Far, u64) + Send) {
    let server = |far: &mut Far| {
        far.handshake(SIZE);
        let cookie = far.request().unwrap().cookie;
        answer(far, cookie);
        let flush = far.request().unwrap();
        assert_eq!((flush.command, flush.offset, flush.len), (FLUSH, 0, 0));
        far.simple(flush.cookie, 0);
        far.hold();
    };
    let e = play(PATIENT, server, |client| {
        let client = client.unwrap();
        let e = read(&client).unwrap_err();
        client.flush().unwrap();
        client.check().unwrap();
        e
    });
    assert_eq!(e.kind(), kind, "{e}");
    assert!(
        e.to_string()
            .starts_with("cannot read 8192 bytes at byte 4096 of disk: "),
        "{e}"
    );
    assert!(e.to_string().contains(says), "{e}");
}

#[test]
fn an_error_of_one_request_is_that_requests_own() {
    survives(Kind::Io, "os error 5), \"bad disk\"", |far, cookie| {
        far.chunk(
            cookie,
            DONE,
            ERROR,
            &[&bytes![5u32, 9u16][..], b"bad\n disk"].concat(),
        );
    });
    survives(Kind::Io, "os error 5) at byte 8192", |far, cookie| {
        far.chunk(cookie, 0, DATA, &data(4096, 4096));
        far.chunk(cookie, 0, ERROR_OFFSET, &bytes![5u32, 0u16, 8192u64]);
        far.chunk(cookie, DONE, NONE, &[]);
    });
    // All the bytes, and then an error after all.
    survives(
        Kind::Permission,
        "Operation not permitted",
        |far, cookie| {
            far.chunk(cookie, 0, DATA, &data(4096, 8192));
            far.chunk(cookie, DONE, ERROR, &bytes![1u32, 0u16]);
        },
    );
    // A kind of error that was invented later.
    survives(
        Kind::Io,
        "error 99, which NBD does not know",
        |far, cookie| {
            far.chunk(cookie, DONE, 0x8055, &bytes![99u32, 0u16, 1u64, 2u64]);
        },
    );
    survives(Kind::Space, "No space left", |far, cookie| {
        far.simple(cookie, 28)
    });
}

#[test]
fn chunks_come_in_any_order_and_requests_are_answered_in_any() {
    let server = |far: &mut Far| {
        far.handshake(SIZE);
        // 1 MiB is asked for in four requests before the first is answered.
        let requests: Vec<Request> = (0..4).map(|_| far.request().unwrap()).collect();
        for request in requests.iter().rev() {
            assert_eq!(
                (request.command, request.flags, request.len),
                (READ, 0, 256 << 10)
            );
            let (at, cookie) = (request.offset, request.cookie);
            let (half, quarter) = (128u64 << 10, 64u32 << 10);
            let fill = vec![(at >> 18) as u8; half as usize];
            far.chunk(cookie, 0, DATA, &[bytes![at + half], fill].concat());
            far.chunk(cookie, 0, HOLE, &bytes![at, quarter]);
            far.chunk(
                cookie,
                DONE,
                DATA,
                &data(at + u64::from(quarter), quarter as usize),
            );
        }
        far.hold();
    };
    play(PATIENT, server, |client| {
        let mut buf = vec![0x55; 1 << 20];
        client.unwrap().read(&mut buf, 256 << 10).unwrap();
        for (i, piece) in (1u8..).zip(buf.chunks(256 << 10)) {
            assert!(piece[..64 << 10].iter().all(|b| *b == 0));
            assert!(piece[64 << 10..128 << 10].iter().all(|b| *b == 7));
            assert!(piece[128 << 10..].iter().all(|b| *b == i));
        }
    });
}

#[test]
fn a_status_may_be_short_or_reach_past_what_was_asked() {
    let server = |far: &mut Far| {
        far.handshake(SIZE);
        let request = far.request().unwrap();
        far.chunk(request.cookie, 0, STATUS, &bytes![77u32, 8192u32, 1u32]);
        far.chunk(
            request.cookie,
            DONE,
            STATUS,
            &bytes![
                9u32,
                512u32,
                0u32,
                512u32,
                0u32,
                512u32,
                3u32,
                u32::MAX,
                2u32
            ],
        );
        let request = far.request().unwrap();
        far.chunk(request.cookie, DONE, STATUS, &bytes![9u32, 512u32, 3u32]);
        far.hold();
    };
    play(PATIENT, server, |client| {
        let client = client.unwrap();
        let ask = || {
            let range = ByteRange::new(4096, 12288);
            let extents = client.block_status(BASE_ALLOCATION, range).unwrap();
            let extents = extents
                .iter()
                .map(|e| (e.range.start, e.range.end, e.flags));
            extents.collect::<Vec<_>>()
        };
        assert_eq!(ask(), [(4096, 5120, 0), (5120, 5632, 3), (5632, SIZE, 2)]);
        assert_eq!(ask(), [(4096, 4608, 3)]);
        let other = client.block_status("qemu:dirty-bitmap:b", ByteRange::new(0, 1));
        assert_eq!(other.unwrap_err().kind(), Kind::NotFound);
    });
}

#[test]
fn only_what_is_said_to_be_zeros_is_a_hole() {
    let server = |far: &mut Far| {
        far.handshake(SIZE);
        let (grain, rest) = (4096u32, SIZE as u32 - 4 * 4096);
        let cookie = far.request().unwrap().cookie;
        // Nothing known, nothing allocated, zeros, both.
        let extents =
            bytes![9u32, grain, 0u32, grain, 1u32, grain, 2u32, grain, 3u32, rest, 0xf2u32];
        far.chunk(cookie, DONE, STATUS, &extents);
        // It is asked again only after something else was asked.
        let write = far.request().unwrap();
        assert_eq!(write.command, WRITE);
        far.simple(write.cookie, 0);
        assert_eq!(far.request().unwrap().command, DISC);
    };
    play(PATIENT, server, |client| {
        let options = NbdOptions {
            writable: true,
            ..NbdOptions::default()
        };
        let image = NbdImage::over(client.unwrap(), options).unwrap();
        assert_eq!(image.next_data(0).unwrap(), Some(ByteRange::new(0, 8192)));
        assert_eq!(
            image.next_data(4096).unwrap(),
            Some(ByteRange::new(4096, 8192))
        );
        assert_eq!(image.next_data(8192).unwrap(), None);
        image.write_at(&[1; 4096], 1 << 20).unwrap();
        let written = ByteRange::new(1 << 20, (1 << 20) + 4096);
        assert_eq!(image.next_data(8192).unwrap(), Some(written));
    });
}

#[test]
fn a_server_that_goes_away_in_the_middle_wakes_everybody() {
    for cut in [0, 1, 19, 20, 27, 28, 5000] {
        let server = |far: &mut Far| {
            far.handshake(SIZE);
            let first = far.request().unwrap();
            // Three more callers wait by now, or will.
            (0..3).for_each(|_| drop(far.request().unwrap()));
            let payload = data(first.offset, first.len as usize);
            let head = bytes![
                0x668e33efu32,
                DONE,
                DATA,
                first.cookie,
                payload.len() as u32
            ];
            far.send(&[head, payload].concat()[..cut]);
        };
        let errors = play(PATIENT, server, |client| {
            let client = &client.unwrap();
            std::thread::scope(|scope| {
                let callers: Vec<_> = (0..4).map(|_| scope.spawn(|| read(client))).collect();
                let errors = callers.into_iter().map(|c| c.join().unwrap().unwrap_err());
                errors.collect::<Vec<Error>>()
            })
        });
        for e in errors {
            assert!(
                e.to_string()
                    .contains("the NBD server closed the connection"),
                "{e}"
            );
        }
    }
}

#[test]
fn nothing_is_waited_for_without_end() {
    let silent = |far: &mut Far| {
        far.handshake(SIZE);
        far.request();
        far.hold();
    };
    let e = play(HASTY, silent, |client| read(&client.unwrap()).unwrap_err());
    assert_eq!(e.kind(), Kind::Timeout, "{e}");
    // A server that takes nothing in: more than fits into the socket.
    let (tell, told) = std::sync::mpsc::channel();
    let deaf = move |far: &mut Far| {
        far.handshake(SIZE);
        told.recv().unwrap();
    };
    let e = play(HASTY, deaf, |client| {
        let e = client.unwrap().write(&vec![1; 8 << 20], 0).unwrap_err();
        tell.send(()).unwrap();
        e
    });
    assert_eq!(e.kind(), Kind::Timeout, "{e}");
    // One that always has a byte, and never all.
    let trickle = |far: &mut Far| {
        far.handshake(SIZE);
        let request = far.request().unwrap();
        far.head(request.cookie, DONE, DATA, 8 + request.len);
        far.send(&bytes![request.offset]);
        far.trickle();
    };
    // Its bytes come in time on a busy machine, too.
    let limit = std::time::Duration::from_secs(1);
    let e = play(limit, trickle, |client| read(&client.unwrap()).unwrap_err());
    assert_eq!(e.kind(), Kind::Timeout, "{e}");
    assert!(e.to_string().contains("for 10 s"), "{e}");
}

#[test]
fn a_flush_may_take_longer() {
    let server = |far: &mut Far| {
        far.handshake(SIZE);
        let flush = far.request().unwrap();
        std::thread::sleep(3 * HASTY);
        far.simple(flush.cookie, 0);
        far.request();
        far.hold();
    };
    play(HASTY, server, |client| {
        let client = client.unwrap();
        let begin = Instant::now();
        client.flush().unwrap();
        assert!(begin.elapsed() >= 3 * HASTY);
        assert_eq!(read(&client).unwrap_err().kind(), Kind::Timeout);
    });
}

#[test]
fn writes_arrive_as_they_are_and_the_client_takes_its_leave() {
    let (tell, told) = std::sync::mpsc::channel();
    let server = |far: &mut Far| {
        far.handshake(SIZE);
        let mut image = vec![0; 1 << 20];
        for _ in 0..4 {
            let write = far.request().unwrap();
            assert_eq!(write.command, WRITE);
            let at = write.offset as usize - 4096;
            image[at..at + write.data.len()].copy_from_slice(&write.data);
            far.simple(write.cookie, 0);
        }
        let last = far.request().unwrap();
        assert!(far.request().is_none());
        tell.send((image, last.command)).unwrap();
    };
    let bytes: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
    play(PATIENT, server, |client| {
        client.unwrap().write(&bytes, 4096).unwrap()
    });
    let (image, last) = told.recv().unwrap();
    assert!(image == bytes);
    assert_eq!(last, DISC);
}
