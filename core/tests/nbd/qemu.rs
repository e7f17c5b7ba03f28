//! Against qemu-nbd.

use crate::server::{data, options, pattern, read, run, set, Server, KIB, MIB};
use rblocksync::error::Kind;
use rblocksync::image::{Image, NbdImage};
use rblocksync::range::{ByteRange, RangeSet};
use std::os::unix::fs::FileExt;
use std::path::Path;

fn raw(path: &Path, size: u64, pieces: &[(u64, &[u8])]) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (at, bytes) in pieces {
        file.write_all_at(bytes, *at).unwrap();
    }
}

fn qcow2(path: &str, size: &str) {
    run("qemu-img", &["create", "-q", "-f", "qcow2", path, size]);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_raw_file_is_read_with_its_holes_and_its_odd_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw");
    let size = 8 * MIB + 512 * 3;
    let (first, second) = (pattern(MIB + 4096, 1), pattern(64 * KIB, 2));
    raw(
        &path,
        size,
        &[(MIB, &first), (6 * MIB, &second), (size - 512, &[7; 512])],
    );
    let server = Server::qemu(dir.path(), &["--read-only", "--format=raw", text(&path)]);
    let image = server.image(false);
    assert_eq!(image.size(), size);
    assert!(image.tells_holes());
    assert_eq!(
        data(&image),
        set(&[
            (MIB, 2 * MIB + 4096),
            (6 * MIB, 6 * MIB + 64 * KIB),
            (8 * MIB, size),
        ])
    );
    assert_eq!(
        image.next_data(MIB + 4096).unwrap(),
        Some(ByteRange::new(MIB + 4096, 2 * MIB + 4096))
    );
    assert_eq!(image.next_data(size).unwrap(), None);
    let file = std::fs::read(&path).unwrap();
    assert!(read(&image, ByteRange::new(0, size)) == file);
    let part = ByteRange::new(2 * MIB - 4096, 2 * MIB + 12288);
    assert!(read(&image, part) == file[part.start as usize..part.end as usize]);
    image.check_unchanged().unwrap();
    assert_eq!(
        image.write_at(&[1; 4096], 0).unwrap_err().kind(),
        Kind::Refused
    );
    assert_eq!(
        image.zero(ByteRange::new(0, 4096)).unwrap_err().kind(),
        Kind::Refused
    );
    image.flush().unwrap();
    assert_eq!(
        image.read_at(&mut [0; 512], size).unwrap_err().kind(),
        Kind::Usage
    );
    let past = NbdImage::connect(server.socket(), "", options(true, None))
        .err()
        .unwrap();
    assert_eq!(past.kind(), Kind::Permission, "{past}");
}

#[test]
fn what_is_written_and_zeroed_is_there_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qcow2");
    qcow2(text(&path), "64M");
    let server = Server::qemu(dir.path(), &["--format=qcow2", text(&path)]);
    let image = server.image(true);
    assert_eq!(data(&image), RangeSet::new());
    let bytes = pattern(3 * MIB, 3);
    image.write_at(&bytes, 5 * MIB).unwrap();
    assert_eq!(
        image.next_data(0).unwrap(),
        Some(ByteRange::new(5 * MIB, 8 * MIB))
    );
    image.zero(ByteRange::new(6 * MIB, 7 * MIB)).unwrap();
    image.zero(ByteRange::new(40 * MIB, 64 * MIB)).unwrap();
    image.flush().unwrap();
    let mut expected = vec![0; 64 * MIB as usize];
    expected[5 * MIB as usize..8 * MIB as usize].copy_from_slice(&bytes);
    expected[6 * MIB as usize..7 * MIB as usize].fill(0);
    assert!(read(&image, ByteRange::new(0, 64 * MIB)) == expected);
    drop(image);
    let again = server.image(false);
    assert!(read(&again, ByteRange::new(0, 64 * MIB)) == expected);
    assert_eq!(data(&again), set(&[(5 * MIB, 6 * MIB), (7 * MIB, 8 * MIB)]));
}

#[test]
fn a_part_of_the_last_block_leaves_the_rest_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw");
    raw(&path, MIB, &[(0, &[9; 1 << 20])]);
    let server = Server::qemu(dir.path(), &["--format=raw", "--cache=none", text(&path)]);
    let image = server.image(true);
    image.write_at(&[1; 4096 + 700], 8192).unwrap();
    image.zero(ByteRange::new(64 * KIB, 68 * KIB + 3)).unwrap();
    image.flush().unwrap();
    let mut expected = vec![9; MIB as usize];
    expected[8192..8192 + 4796].fill(1);
    expected[64 << 10..(68 << 10) + 3].fill(0);
    assert!(std::fs::read(&path).unwrap() == expected);
    assert!(read(&image, ByteRange::new(8192, 8192 + 4800)) == expected[8192..8192 + 4800]);
}

#[test]
fn a_bitmap_tells_what_was_written_since() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qcow2");
    qcow2(text(&path), "3G");
    let write = |at: &str| {
        run(
            "qemu-io",
            &[
                "-f",
                "qcow2",
                "-c",
                &format!("write -P 0x5a {at}"),
                text(&path),
            ],
        );
    };
    write("0 1M");
    run("qemu-img", &["bitmap", "--add", text(&path), "chg"]);
    {
        let server = Server::qemu(dir.path(), &["--format=qcow2", text(&path)]);
        let image = server.image(true);
        image.write_at(&pattern(4096, 4), 10 * MIB).unwrap();
        image.zero(ByteRange::new(0, 64 * KIB)).unwrap();
        image.flush().unwrap();
        // qemu-nbd keeps bitmaps when it ends in peace.
        drop(image);
        server.terminate();
    }
    write("2500M 4k");
    write("3071M 1M");
    let args = ["--read-only", "--bitmap=chg", "--format=qcow2", text(&path)];
    let server = Server::qemu(dir.path(), &args);
    let image = NbdImage::connect(server.socket(), "", options(false, Some("chg"))).unwrap();
    assert!(image.has_bitmap());
    assert_eq!(
        image.dirty().unwrap(),
        set(&[
            (0, 64 * KIB),
            (10 * MIB, 10 * MIB + 64 * KIB),
            (2500 * MIB, 2500 * MIB + 64 * KIB),
            (3071 * MIB, 3072 * MIB),
        ])
    );
    // Both contexts at once.
    assert_eq!(
        data(&image),
        set(&[
            (64 * KIB, MIB),
            (10 * MIB, 10 * MIB + 64 * KIB),
            (2500 * MIB, 2500 * MIB + 64 * KIB),
            (3071 * MIB, 3072 * MIB),
        ])
    );
    let other = NbdImage::connect(server.socket(), "", options(false, Some("other"))).unwrap();
    let e = other.dirty().unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound);
    assert!(
        e.to_string().contains("qemu:dirty-bitmap:other of disk"),
        "{e}"
    );
    assert!(!data(&other).is_empty());
    let e = server.image(false).dirty().unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound);
}

#[test]
fn many_threads_share_one_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw");
    raw(&path, 32 * MIB, &[]);
    let server = Server::qemu(dir.path(), &["--format=raw", text(&path)]);
    let client = server.client();
    assert!(client.export().structured && client.export().can_zero && client.export().can_flush);
    let image = &server.image(true);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            scope.spawn(move || {
                for round in 0..8 {
                    let own = (round % 4 * 8 + thread) * MIB;
                    let bytes = pattern(MIB, thread << 8 | round);
                    image.write_at(&bytes, own).unwrap();
                    assert!(read(image, ByteRange::new(own, own + MIB)) == bytes);
                    image.flush().unwrap();
                }
            });
        }
    });
}

#[test]
fn what_is_not_there_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw");
    raw(&path, MIB, &[]);
    let e = NbdImage::connect(&dir.path().join("none"), "", options(false, None))
        .err()
        .unwrap();
    assert_eq!(e.kind(), Kind::NotFound, "{e}");
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("dead")).unwrap());
    let e = NbdImage::connect(&dir.path().join("dead"), "", options(false, None))
        .err()
        .unwrap();
    assert!(e.to_string().starts_with("nobody listens on "), "{e}");
    let server = Server::qemu(
        dir.path(),
        &["--export-name=vda", "--format=raw", text(&path)],
    );
    let e = NbdImage::connect(server.socket(), "vdb", options(false, None))
        .err()
        .unwrap();
    assert_eq!(e.kind(), Kind::NotFound);
    assert!(e.to_string().contains("no export \"vdb\""), "{e}");
    let image = NbdImage::connect(server.socket(), "vda", options(false, None)).unwrap();
    drop(server);
    let e = image.read_at(&mut [0; 4096], 0).unwrap_err();
    assert!(e.to_string().contains("closed the connection"), "{e}");
    let e = image.check_unchanged().unwrap_err();
    assert!(e.to_string().contains("closed the connection"), "{e}");
}
