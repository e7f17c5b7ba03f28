//! Servers that break the protocol while it is agreed on what is spoken.

use crate::bytes;
use crate::script::{
    play, refused, Far, ACK, GO, HASTY, INFO, META_CONTEXT, PATIENT, SET_META_CONTEXT,
    STRUCTURED_REPLY,
};
use rblocksync::error::Kind;

const MIB: u64 = 1 << 20;
const ERR_POLICY: u32 = 0x8000_0002;
const ERR_TLS_REQD: u32 = 0x8000_0005;
const ERR_UNKNOWN: u32 = 0x8000_0006;
const ERR_UNSUP: u32 = 0x8000_0001;

/// Such a server must be refused with an error of this kind that says this.
#[track_caller]
fn check(kind: Kind, says: &str, server: impl FnOnce(&mut Far) + Send) {
    let e = refused(|far| {
        server(far);
        far.hold();
    });
    let text = e.to_string();
    assert_eq!(e.kind(), kind, "{text}");
    assert!(
        text.starts_with("cannot connect to disk: ") && text.contains(says),
        "{text}"
    );
    assert!(e.advice().is_some(), "{text}");
    assert!(
        text.len() < 5000 && !text.contains(char::is_control),
        "{text:?}"
    );
}

#[test]
fn who_does_not_speak_it_is_told_so() {
    check(Kind::Protocol, "does not speak NBD", |far| {
        far.send(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    });
    check(Kind::Protocol, "too old", |far| {
        far.send(b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53");
        far.send(&[0; 136]);
    });
    check(Kind::Protocol, "too old", |far| {
        far.send(b"NBDMAGICIHAVEOPT\0\0")
    });
    check(Kind::Protocol, "where the handshake goes on", |far| {
        far.send(b"NBDMAGICNBDMAGIC\0\x03")
    });
}

#[test]
fn who_says_nothing_or_goes_away_is_not_waited_for() {
    let closed = "closed the connection";
    for part in [0, 5, 16, 18] {
        let e = refused(|far| far.send(&b"NBDMAGICIHAVEOPT\0\x03"[..part]));
        assert!(e.to_string().contains(closed), "{e}");
        let silent = |far: &mut Far| {
            far.send(&b"NBDMAGICIHAVEOPT\0\x03"[..part]);
            far.hold();
        };
        let e = play(HASTY, silent, |client| client.err().unwrap());
        assert_eq!(e.kind(), Kind::Timeout, "{e}");
    }
    let e = refused(|far| far.options_up_to(GO, MIB));
    assert!(e.to_string().contains(closed), "{e}");
    // A byte now and then is no sign of life: the whole handshake has one end.
    let trickle = |far: &mut Far| {
        far.options_up_to(GO, MIB);
        far.send(&bytes![0x3e889045565a9u64, GO, INFO, 4000u32]);
        far.trickle();
    };
    let e = play(HASTY, trickle, |client| client.err().unwrap());
    assert_eq!(e.kind(), Kind::Timeout, "{e}");
}

#[test]
fn answers_must_be_answers() {
    for option in [STRUCTURED_REPLY, SET_META_CONTEXT, GO] {
        check(
            Kind::Protocol,
            "where a reply to an option should begin",
            |far| {
                far.options_up_to(option, MIB);
                far.send(&[0x55; 64]);
            },
        );
        check(Kind::Protocol, "it answered option 99", |far| {
            far.options_up_to(option, MIB);
            far.reply(99, ACK, &[]);
        });
        check(Kind::Protocol, "with 1048576 bytes", |far| {
            far.options_up_to(option, MIB);
            far.reply(option, ACK, &[0; 1 << 20]);
        });
        check(Kind::Protocol, "with type 77", |far| {
            far.options_up_to(option, MIB);
            far.reply(option, 77, &[]);
        });
    }
    check(Kind::Protocol, "more than 64 times", |far| {
        far.options_up_to(GO, MIB);
        for _ in 0..1000 {
            far.reply(GO, INFO, &bytes![2u16, 7u8]);
        }
    });
}

#[test]
fn an_export_must_be_described_once_and_sensibly() {
    let describe = |infos: &[Vec<u8>]| {
        let infos = infos.to_vec();
        move |far: &mut Far| {
            far.options_up_to(GO, MIB);
            for info in infos {
                far.reply(GO, INFO, &info);
            }
            far.reply(GO, ACK, &[]);
        }
    };
    let good = bytes![0u16, MIB, 1u16];
    let kind = Kind::Protocol;
    check(kind, "did not say how large", describe(&[]));
    check(kind, "with type 3", describe(&[good.clone(), good.clone()]));
    check(kind, "with type 3", describe(&[bytes![0u16, MIB]]));
    check(kind, "with type 3", describe(&[bytes![0u8]]));
    check(
        kind,
        "no transmission flags",
        describe(&[bytes![0u16, MIB, 0u16]]),
    );
    check(
        kind,
        "has 9223372036854775808 bytes",
        describe(&[bytes![0u16, 1u64 << 63, 1u16]]),
    );
    for (min, max) in [
        (0u32, 4096u32),
        (3, 4096),
        (1 << 17, 1 << 20),
        (4096, 512),
        (512, 1000),
    ] {
        let blocks = bytes![3u16, min, 4096u32, max];
        check(
            kind,
            "it says that blocks have",
            describe(&[good.clone(), blocks]),
        );
    }
    let odd = bytes![0u16, MIB + 1, 1u16];
    let blocks = bytes![3u16, 512u32, 4096u32, u32::MAX];
    check(
        kind,
        "cannot be read in blocks of 512",
        describe(&[odd, blocks]),
    );
}

#[test]
fn contexts_must_be_those_asked_for() {
    for (name, says) in [
        (&b"\0\0\0\x01x-other:context"[..], "nobody asked for"),
        (b"\0\0\0\x01base:allocation", "twice"),
        (b"\0\0\0\x02base:allocation", "twice"),
        (b"\0\0", "with type 4 and 2 bytes"),
    ] {
        check(Kind::Protocol, says, |far| {
            far.options_up_to(SET_META_CONTEXT, MIB);
            far.reply(SET_META_CONTEXT, META_CONTEXT, b"\0\0\0\x01base:allocation");
            far.reply(SET_META_CONTEXT, META_CONTEXT, name);
            far.reply(SET_META_CONTEXT, ACK, &[]);
        });
    }
}

#[test]
fn a_refusal_says_why() {
    let refuse = |kind: u32, text: &'static [u8]| {
        move |far: &mut Far| {
            far.options_up_to(GO, MIB);
            far.reply(GO, kind, text);
        }
    };
    check(
        Kind::NotFound,
        "no export \"vda\"; it says: no such thing",
        refuse(ERR_UNKNOWN, b"no such\n thing"),
    );
    check(Kind::Permission, "wants TLS", refuse(ERR_TLS_REQD, b""));
    check(
        Kind::Permission,
        "does not give this client",
        refuse(ERR_POLICY, b"\xff\xfe"),
    );
    check(Kind::Protocol, "NBD_OPT_GO", refuse(ERR_UNSUP, b""));
    check(
        Kind::Protocol,
        "error 0x8000ffff",
        refuse(0x8000_ffff, &[b'x'; 4096]),
    );
    check(
        Kind::Protocol,
        "with 9000 bytes",
        refuse(ERR_UNKNOWN, &[b'x'; 9000]),
    );
}

#[test]
fn what_a_server_lacks_is_done_without() {
    // No structured replies: contexts are not even asked for.
    let plain = |far: &mut Far| {
        far.options_up_to(STRUCTURED_REPLY, MIB);
        far.reply(STRUCTURED_REPLY, ERR_UNSUP, b"what?");
        let (option, _) = far.option().unwrap();
        assert_eq!(option, GO);
        far.reply(GO, INFO, &bytes![0u16, MIB, 1u16]);
        far.reply(GO, ACK, &[]);
        far.hold();
    };
    play(PATIENT, plain, |client| {
        let client = client.unwrap();
        assert!(!client.export().structured && client.export().contexts.is_empty());
        assert_eq!(
            (client.export().size, client.export().min_block),
            (MIB, 512)
        );
    });
    let without_contexts = |far: &mut Far| {
        far.options_up_to(SET_META_CONTEXT, MIB);
        far.reply(SET_META_CONTEXT, META_CONTEXT, b"\0\0\0\x01base:allocation");
        far.reply(SET_META_CONTEXT, ERR_UNSUP, &[]);
        let (_, _) = far.option().unwrap();
        far.reply(GO, INFO, &bytes![0u16, MIB, 1u16]);
        far.reply(GO, ACK, &[]);
        far.hold();
    };
    play(PATIENT, without_contexts, |client| {
        let client = client.unwrap();
        assert!(client.export().structured && client.export().contexts.is_empty());
    });
}
