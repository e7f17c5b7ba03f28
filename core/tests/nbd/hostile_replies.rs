//! Servers that break the protocol in their replies.

use crate::bytes;
use crate::script::{
    data, play, read, Far, DATA, DONE, ERROR, ERROR_OFFSET, HOLE, NONE, PATIENT, SIZE, STATUS,
};
use rblocksync::error::{Kind, Result};
use rblocksync::nbd::{Client, BASE_ALLOCATION};
use rblocksync::range::ByteRange;

/// The first request of such a client is answered like this; then the client must have an error of this kind that
/// says this, and keep to it.
#[track_caller]
fn check(
    says: &str,
    ask: impl Fn(&Client) -> Result<()>,
    answer: impl FnOnce(&mut Far, u64) + Send,
) {
    let server = |far: &mut Far| {
        far.handshake(SIZE);
        let cookie = far.request().unwrap().cookie;
        answer(far, cookie);
        far.hold();
    };
    let (e, again) = play(PATIENT, server, |client| {
        let client = client.unwrap();
        (ask(&client).unwrap_err(), client.flush().unwrap_err())
    });
    for e in [e, again] {
        let text = e.to_string();
        assert_eq!(e.kind(), Kind::Protocol, "{text}");
        assert!(text.contains("disk: ") && text.contains(says), "{text}");
        assert!(e.advice().is_some() && text.len() < 1000, "{text}");
    }
}

/// Of bytes 4096 to 12288.
fn status(client: &Client) -> Result<()> {
    let range = ByteRange::new(4096, 12288);
    client.block_status(BASE_ALLOCATION, range).map(|_| ())
}

fn write(client: &Client) -> Result<()> {
    client.write(&[1; 4096], 0)
}

#[test]
fn a_reply_must_be_one_and_belong_to_a_request() {
    for ask in [read, status, write] {
        check("where a reply should begin", ask, |far, _| {
            far.send(&[0x55; 32])
        });
        check("request 4711, which nobody made", ask, |far, _| {
            far.simple(4711, 0)
        });
        check("request 4711, which nobody made", ask, |far, _| {
            far.chunk(4711, DONE, NONE, &[])
        });
        check("a chunk of type 0", ask, |far, cookie| {
            far.chunk(cookie, 0, NONE, &[])
        });
        check("a chunk of type 0", ask, |far, cookie| {
            far.chunk(cookie, DONE, NONE, &[1])
        });
        check("a chunk of type 6", ask, |far, cookie| {
            far.chunk(cookie, DONE, 6, &[0; 20])
        });
    }
    check("a simple reply where", read, |far, cookie| {
        far.simple(cookie, 0);
        far.send(&[7; 8192]);
    });
    check("a simple reply where", status, |far, cookie| {
        far.simple(cookie, 0)
    });
    check("a chunk of type 1", write, |far, cookie| {
        far.chunk(cookie, DONE, DATA, &data(0, 4096))
    });
    check("a chunk of type 1", status, |far, cookie| {
        far.chunk(cookie, DONE, DATA, &data(4096, 8192))
    });
    check("a chunk of type 5", read, |far, cookie| {
        far.chunk(cookie, DONE, STATUS, &bytes![9u32, 8192u32, 0u32])
    });
    check("simple reply", write, |far, cookie| {
        far.head(cookie, 0, ERROR, 6);
        far.send(&bytes![5u32, 0u16]);
        far.simple(cookie, 0);
    });
    // What was answered is no longer asked.
    check(
        "request 1, which nobody made",
        |client| {
            write(client)?;
            read(client)
        },
        |far, cookie| {
            far.simple(cookie, 0);
            far.request();
            far.simple(cookie, 0);
        },
    );
}

#[test]
fn a_read_must_be_covered_once_and_exactly() {
    check("when it was asked for 4096..12288", read, |far, cookie| {
        far.chunk(cookie, DONE, DATA, &data(4095, 8192))
    });
    check("when it was asked for 4096..12288", read, |far, cookie| {
        far.chunk(cookie, DONE, DATA, &data(4096, 8193))
    });
    check("when it was asked for 4096..12288", read, |far, cookie| {
        far.chunk(cookie, DONE, DATA, &data(u64::MAX - 4, 8192))
    });
    check("when it was asked for 4096..12288", read, |far, cookie| {
        far.head(cookie, DONE, DATA, u32::MAX);
        far.send(&bytes![4096u64]);
    });
    check("when it was asked for 4096..12288", read, |far, cookie| {
        far.chunk(cookie, DONE, HOLE, &bytes![4096u64, u32::MAX])
    });
    check("when it was asked for 4096..12288", read, |far, cookie| {
        far.chunk(cookie, DONE, HOLE, &bytes![4096u64, 0u32])
    });
    check("a chunk of type 1 with 8 bytes", read, |far, cookie| {
        far.chunk(cookie, 0, DATA, &bytes![4096u64])
    });
    check("a chunk of type 2 with 13 bytes", read, |far, cookie| {
        far.chunk(cookie, 0, HOLE, &bytes![4096u64, 8192u32, 0u8])
    });
    check("twice", read, |far, cookie| {
        far.chunk(cookie, 0, DATA, &data(4096, 4096));
        far.chunk(cookie, DONE, DATA, &data(8191, 4097));
    });
    check("twice", read, |far, cookie| {
        far.chunk(cookie, 0, HOLE, &bytes![4096u64, 8192u32]);
        far.chunk(cookie, DONE, DATA, &data(8192, 1));
    });
    check("did not send all", read, |far, cookie| {
        far.chunk(cookie, DONE, NONE, &[])
    });
    check("did not send all", read, |far, cookie| {
        far.chunk(cookie, 0, DATA, &data(4096, 4095));
        far.chunk(cookie, DONE, DATA, &data(8192, 4096));
    });
    check("more than 4096 chunks", read, |far, cookie| {
        (4096..12288).for_each(|at| far.chunk(cookie, 0, DATA, &data(at, 1)));
    });
}

#[test]
fn a_status_must_be_of_what_was_asked_and_not_too_long() {
    let extents = |cookie, flags, id: u32, extents: &[(u32, u32)]| {
        let mut payload = bytes![id];
        for (len, status) in extents {
            payload.extend(bytes![len, status]);
        }
        move |far: &mut Far| far.chunk(cookie, flags, STATUS, &payload)
    };
    let malformed = "a chunk of type 5";
    check(malformed, status, |far, cookie| {
        extents(cookie, DONE, 9, &[])(far)
    });
    check(malformed, status, |far, cookie| {
        far.chunk(cookie, DONE, STATUS, &[0; 15])
    });
    check("an extent of 0 bytes", status, |far, cookie| {
        extents(cookie, DONE, 9, &[(0, 0)])(far)
    });
    check(
        "an extent of 512 bytes at byte 12288",
        status,
        |far, cookie| extents(cookie, DONE, 9, &[(4096, 0), (4096, 3), (512, 0)])(far),
    );
    check("twice", status, |far, cookie| {
        extents(cookie, 0, 9, &[(8192, 0)])(far);
        extents(cookie, DONE, 9, &[(8192, 0)])(far);
    });
    check("did not send all", status, |far, cookie| {
        extents(cookie, DONE, 8, &[(8192, 0)])(far)
    });
    check("did not send all", status, |far, cookie| {
        far.chunk(cookie, DONE, NONE, &[])
    });
    check("where 1048576 are allowed", status, |far, cookie| {
        far.head(cookie, 0, STATUS, 4 + 8 * ((1 << 20) + 1));
        far.send(&bytes![9u32]);
    });
    check("more than 4096 chunks", status, |far, cookie| {
        (10..9000u32).for_each(|id| extents(cookie, 0, id, &[(8192, 0)])(far));
    });
}

#[test]
fn an_error_must_be_one() {
    let text = |len: u16, header: u32| {
        move |far: &mut Far, cookie: u64| {
            far.head(cookie, DONE, ERROR, header);
            far.send(&bytes![5u32, len]);
            far.send(&vec![b'x'; usize::from(len)]);
        }
    };
    for ask in [read, status, write] {
        check("a text of 4097 bytes", ask, text(4097, 6 + 4097));
        check("with a text of 60000", ask, text(60000, 100));
        check("an error of 1000000 bytes", ask, text(10, 1_000_000));
        check("without a number", ask, |far, cookie| {
            far.chunk(cookie, DONE, ERROR, &bytes![0u32, 0u16])
        });
        check("a chunk of type 32769", ask, |far, cookie| {
            far.chunk(cookie, DONE, ERROR, &[0; 5])
        });
        check("an error of 6 bytes", ask, |far, cookie| {
            far.chunk(cookie, DONE, ERROR_OFFSET, &bytes![5u32, 0u16])
        });
        check("more than 4096 chunks", ask, |far, cookie| {
            (0..9000).for_each(|_| far.chunk(cookie, 0, ERROR, &bytes![5u32, 0u16]));
        });
    }
}
