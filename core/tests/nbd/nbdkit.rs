//! Against nbdkit, whose filters make it as difficult as servers are allowed to be.

use crate::server::{data, options, pattern, read, set, Server, KIB, MIB};
use rblocksync::error::Kind;
use rblocksync::image::{Image, NbdImage};
use rblocksync::nbd::{Client, Options};
use rblocksync::range::ByteRange;
use std::time::Duration;

/// Writes, zeros and reads all of an image, in ranges that are not the server's own.
fn exercise(image: &dyn Image) {
    let size = image.size();
    let mut expected = pattern(size, 7);
    image.write_at(&expected, 0).unwrap();
    for range in [
        ByteRange::new(4096, 300 * KIB),
        ByteRange::new(512 * KIB, 516 * KIB + 700),
        ByteRange::new((size - 1000) / 4096 * 4096, size),
    ] {
        image.zero(range).unwrap();
        expected[range.start as usize..range.end as usize].fill(0);
    }
    image.flush().unwrap();
    assert!(read(image, ByteRange::new(0, size)) == expected);
    for at in (0..size).step_by(100 * 4096) {
        let part = ByteRange::new(at, (at + 8192).min(size));
        assert!(read(image, part) == expected[part.start as usize..part.end as usize]);
    }
}

#[test]
fn an_error_in_reading_names_the_place_and_leaves_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let inject = dir.path().join("inject");
    std::fs::write(&inject, "").unwrap();
    let file = format!("error-pread-file={}", inject.display());
    let args = [
        "--filter=error",
        "memory",
        "1M",
        "error-pread=EIO",
        "error-pread-rate=100%",
        &file,
    ];
    let server = Server::nbdkit(dir.path(), &args);
    let image = server.image(true);
    let e = image.read_at(&mut [0; 8192], 4096).unwrap_err();
    assert_eq!(e.kind(), Kind::Io);
    insta::assert_snapshot!(e, @"cannot read 8192 bytes at byte 4096 of disk: the NBD server says: Input/output error (os error 5) (the storage behind the NBD server failed: see the log of its host)");
    std::fs::remove_file(&inject).unwrap();
    exercise(&image);
}

#[test]
fn no_room_and_no_permission_are_told_as_such() {
    for (errno, kind, op) in [
        ("ENOSPC", Kind::Space, "pwrite"),
        ("EPERM", Kind::Permission, "pwrite"),
        ("ENOSPC", Kind::Space, "zero"),
        ("ESHUTDOWN", Kind::Io, "pwrite"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let error = format!("error-{op}={errno}");
        let rate = format!("error-{op}-rate=100%");
        let args = ["--filter=error", "memory", "1M", &error, &rate];
        let server = Server::nbdkit(dir.path(), &args);
        let image = server.image(true);
        let e = match op {
            "zero" => image.zero(ByteRange::new(0, MIB)).unwrap_err(),
            _ => image.write_at(&pattern(MIB, 1), 0).unwrap_err(),
        };
        assert_eq!(e.kind(), kind, "{e}");
        assert!(
            e.to_string().contains("of disk: the NBD server says: "),
            "{e}"
        );
        assert!(e.advice().is_some());
        image.read_at(&mut [0; 4096], 0).unwrap();
    }
}

#[test]
fn limits_on_blocks_are_kept() {
    for (min, max) in [
        ("1", "100000"),
        ("512", "70144"),
        ("4096", "64K"),
        ("1", "5000"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (min_arg, max_arg) = (
            format!("blocksize-minimum={min}"),
            format!("blocksize-maximum={max}"),
        );
        let args = [
            "--filter=blocksize-policy",
            "memory",
            "1M",
            "blocksize-error-policy=error",
            "blocksize-preferred=4096",
            &min_arg,
            &max_arg,
        ];
        let server = Server::nbdkit(dir.path(), &args);
        let image = server.image(true);
        exercise(&image);
        data(&image);
    }
}

#[test]
fn large_blocks_can_be_read_in_small_pieces_and_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let server = |plugin| {
        let args = [
            "--filter=blocksize-policy",
            plugin,
            "1M",
            "blocksize-error-policy=error",
            "blocksize-minimum=64K",
            "blocksize-preferred=64K",
        ];
        Server::nbdkit(dir.path(), &args)
    };
    let memory = server("memory");
    let refused = NbdImage::connect(memory.socket(), "", options(true, None));
    let e = refused.err().unwrap();
    assert!(e.to_string().contains("takes blocks of 65536 bytes"), "{e}");
    let e = memory.client().write(&[0; 4096], 0).unwrap_err();
    assert!(e.to_string().contains("whole blocks of 65536 bytes"), "{e}");
    let pattern = server("pattern");
    let image = pattern.image(false);
    // The plugin's bytes are their own offsets.
    let expected: Vec<u8> = (0..MIB / 8).flat_map(|i| (i * 8).to_be_bytes()).collect();
    for (at, len) in [(0, MIB), (4096, 4096), (60 * KIB, 8192), (MIB - 4096, 4096)] {
        let range = ByteRange::new(at, at + len);
        assert!(read(&image, range) == expected[at as usize..range.end as usize]);
    }
    assert_eq!(data(&image), set(&[(0, MIB)]));
    assert_eq!(
        image.next_data(5 * 4096).unwrap(),
        Some(ByteRange::new(5 * 4096, MIB))
    );
    image.check_unchanged().unwrap();
}

#[test]
fn a_server_without_structured_replies_has_no_holes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::nbdkit(dir.path(), &["--no-sr", "memory", "1M"]);
    let image = server.image(true);
    assert!(!server.client().export().structured);
    assert!(!image.tells_holes());
    assert_eq!(data(&image), set(&[(0, MIB)]));
    exercise(&image);
    let wanted = NbdImage::connect(server.socket(), "", options(false, Some("b"))).unwrap();
    assert_eq!(wanted.dirty().unwrap_err().kind(), Kind::NotFound);
    let args = [
        "--no-sr",
        "--filter=error",
        "memory",
        "1M",
        "error-pread-rate=100%",
    ];
    let server = Server::nbdkit(dir.path(), &args);
    let e = server.image(false).read_at(&mut [0; 4096], 0).unwrap_err();
    assert!(e.to_string().contains("Input/output error"), "{e}");
}

#[test]
fn a_server_without_extents_or_zeroing_gets_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--filter=noextents", "--filter=nozero", "memory", "1M"];
    let server = Server::nbdkit(dir.path(), &args);
    let image = server.image(true);
    assert!(!server.client().export().can_zero);
    assert_eq!(data(&image), set(&[(0, MIB)]));
    exercise(&image);
    let e = server
        .client()
        .write_zeroes(ByteRange::new(0, 4096), true)
        .unwrap_err();
    assert_eq!(e.kind(), Kind::Usage);
}

#[test]
fn holes_and_sizes_are_taken_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["data", "@0x100000 (1 2 3)*4096 @0x400000 7", "size=4194305"];
    let server = Server::nbdkit(dir.path(), &args);
    let image = server.image(true);
    let size = 4 * MIB + 1;
    assert_eq!(image.size(), size);
    let found = data(&image);
    // The plugin knows pages of 32 KiB.
    assert_eq!(found, set(&[(MIB, MIB + 32 * KIB), (4 * MIB, size)]));
    assert_eq!(read(&image, ByteRange::new(4 * MIB, size)), [7]);
    assert_eq!(
        read(&image, ByteRange::new(MIB, MIB + 4096))[..4],
        [1, 2, 3, 1]
    );
    exercise(&image);
    image.check_unchanged().unwrap();

    let empty = Server::nbdkit(dir.path(), &["memory", "0"]);
    let image = empty.image(true);
    assert_eq!((image.size(), image.next_data(0).unwrap()), (0, None));
    image.check_unchanged().unwrap();
    image.read_at(&mut [], 0).unwrap();
}

#[test]
fn zeroes_may_or_must_not_be_holes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw");
    std::fs::write(&path, pattern(MIB, 5)).unwrap();
    let server = Server::nbdkit(dir.path(), &["file", path.to_str().unwrap()]);
    let client = server.client();
    client
        .write_zeroes(ByteRange::new(0, 256 * KIB), true)
        .unwrap();
    client
        .write_zeroes(ByteRange::new(256 * KIB, 512 * KIB), false)
        .unwrap();
    client.flush().unwrap();
    let image = server.image(false);
    assert!(read(&image, ByteRange::new(0, 512 * KIB))
        .iter()
        .all(|b| *b == 0));
    let first = image.next_data(0).unwrap().unwrap();
    assert!(first.start >= 256 * KIB, "{first}");
}

#[test]
fn a_server_that_takes_too_long_counts_as_gone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::nbdkit(
        dir.path(),
        &["--filter=delay", "memory", "1M", "rdelay=3600"],
    );
    let mut options = Options::new("disk", "");
    options.timeout = Duration::from_millis(500);
    let client = Client::connect(server.socket(), &options).unwrap();
    // What is not delayed works, and time that nobody waits does not count.
    client.flush().unwrap();
    std::thread::sleep(2 * options.timeout);
    client.write(&[1; 4096], 0).unwrap();
    let e = client.read(&mut [0; 4096], 0).unwrap_err();
    assert_eq!(e.kind(), Kind::Timeout, "{e}");
    for again in [client.flush(), client.check(), client.write(&[0; 512], 0)] {
        let again = again.unwrap_err();
        assert_eq!(again.kind(), Kind::Timeout);
        assert!(
            again.to_string().contains("did not answer for 0.5 s"),
            "{again}"
        );
    }
}

#[test]
fn the_last_client_lets_the_server_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::nbdkit(dir.path(), &["--filter=exitlast", "memory", "1M"]);
    let image = server.image(true);
    image.write_at(&[1; 4096], 0).unwrap();
    drop(image);
    server.wait();
}
