//! The block engine on images in memory: every sync ends with equal content, no more written than
//! changed, and every fault is an error on both sides.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rblocksync::digest::HashKind;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::fingerprint::Key;
use rblocksync::image::{Image, MemoryImage};
use rblocksync::range::ByteRange;
use rblocksync::stop::Stop;
use rblocksync::sync::{run_source, run_target, Compress, Geometry, Meter, Params, Summary};
use rblocksync::wire::Link;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};

const LEAF: usize = 4096;

fn params(size: u64) -> Params {
    Params {
        geometry: Geometry::new(size, LEAF as u32).unwrap(),
        hash: HashKind::Blake3,
        dry_run: false,
        verify: true,
        bytes_per_s_max: None,
        compress: Compress::Auto,
        threads: None,
        leaf_key: Key([7; 16]),
        map: false,
        first: 0,
        delta: None,
    }
}

/// Runs both sides, each in a thread, over a socket pair.
fn sync(src: &dyn Image, dst: &dyn Image, params: &Params) -> (Result<Summary>, Result<Summary>) {
    let (a, b) = UnixStream::pair().unwrap();
    let link = |end: UnixStream, peer: &str| {
        let other = end.try_clone().unwrap();
        Link::handshake(end.into(), other.into(), "test", peer, Stop::new())
    };
    std::thread::scope(|scope| {
        let target =
            scope.spawn(|| run_target(dst, params, &mut link(b, "source")?, &Meter::new(), None));
        let source = run_source(
            src,
            params,
            &mut link(a, "target").unwrap(),
            &Meter::new(),
            None,
        );
        (source, target.join().unwrap())
    })
}

fn fill(image: &MemoryImage, leaves: &[u8]) {
    for (i, kind) in leaves.iter().enumerate() {
        let at = (i * LEAF) as u64;
        let len = LEAF.min((image.size() - at) as usize);
        match kind {
            0 => {}
            // Allocated zeros.
            1 => image.write_at(&vec![0; len], at).unwrap(),
            n => image.write_at(&vec![*n; len], at).unwrap(),
        }
    }
}

fn image(size: usize, leaves: &[u8]) -> MemoryImage {
    let image = MemoryImage::new(size);
    fill(&image, leaves);
    image
}

/// Three leaves, each a hole, allocated zeros, A or B, on both sides: all 4096 worlds.
#[test]
fn all_small_worlds_converge() {
    let worlds: Vec<[u8; 3]> = (0..64u8).map(|n| [n % 4, n / 4 % 4, n / 16]).collect();
    std::thread::scope(|scope| {
        for half in worlds.chunks(32) {
            let worlds = &worlds;
            scope.spawn(move || {
                for s in half {
                    for t in worlds {
                        let (src, dst) = (image(3 * LEAF, s), image(3 * LEAF, t));
                        let written = dst.bytes_written();
                        let (source, target) = sync(&src, &dst, &params(3 * LEAF as u64));
                        let (source, target) = (source.unwrap(), target.unwrap());
                        assert_eq!(dst.bytes(), src.bytes(), "{s:?} onto {t:?}");
                        assert_eq!(source.digest, target.digest);
                        assert_eq!(source.changed, target.changed);
                        let changed = s.iter().zip(t).filter(|(s, t)| **s > 1 && s != t).count();
                        assert_eq!(
                            dst.bytes_written() - written,
                            (changed * LEAF) as u64,
                            "{s:?} onto {t:?}"
                        );
                        assert!(dst.allocated() <= (3 * LEAF) as u64);
                        if s.iter().all(|k| *k == 0) {
                            assert_eq!(dst.allocated(), 0, "a hole must free all of {t:?}");
                        }
                    }
                }
            });
        }
    });
}

#[test]
fn empty_and_odd_sizes() {
    for size in [
        0usize,
        1,
        511,
        512,
        4095,
        4097,
        1 << 20,
        (1 << 20) + 1,
        (3 << 20) + 513,
    ] {
        let src = image(size, &vec![7; size.div_ceil(LEAF)]);
        let dst = MemoryImage::new(size);
        let (source, target) = sync(&src, &dst, &params(size as u64));
        assert_eq!(source.unwrap().changed, size as u64);
        target.unwrap();
        assert_eq!(dst.bytes(), src.bytes(), "{size} bytes");
        let (again, _) = sync(&src, &dst, &params(size as u64));
        assert_eq!(again.unwrap().changed, 0);
    }
}

#[test]
fn a_second_sync_sends_only_what_changed() {
    let size = 64 << 20;
    let src = image(
        size,
        &(0..size / LEAF)
            .map(|i| (i % 200 + 2) as u8)
            .collect::<Vec<_>>(),
    );
    let dst = MemoryImage::new(size);
    sync(&src, &dst, &params(size as u64)).0.unwrap();
    for i in (0..size / LEAF).step_by(97) {
        src.write_at(&[1; LEAF], (i * LEAF) as u64).unwrap();
    }
    let changed = ((size / LEAF).div_ceil(97) * LEAF) as u64;
    let summary = sync(&src, &dst, &params(size as u64)).0.unwrap();
    assert_eq!(summary.changed, changed);
    assert_eq!(summary.target.written, changed);
    assert!(
        summary.wire_out < changed * 11 / 10,
        "sent {}",
        summary.wire_out
    );
    assert_eq!(dst.bytes(), src.bytes());
    let idle = sync(&src, &dst, &params(size as u64)).0.unwrap();
    assert_eq!((idle.changed, idle.zeroed), (0, 0));
    let wire = idle.wire_out + idle.wire_in;
    assert!(
        wire * 10_000 < size as u64,
        "{wire} bytes on the wire for no change"
    );
}

/// More equal segments than the window and the buffers hold: room that becomes free must be used even
/// when no further report of the target comes to ask for it.
#[test]
fn a_long_run_of_equal_segments_does_not_stall() {
    let size = 600 << 20;
    let leaves: Vec<u8> = (0..size / LEAF)
        .map(|i| if i % 256 == 0 { 2 } else { 0 })
        .collect();
    let (src, dst) = (image(size, &leaves), image(size, &leaves));
    for _ in 0..8 {
        sync(&src, &dst, &params(size as u64)).0.unwrap();
    }
}

#[test]
fn a_dry_run_tells_what_would_move_and_writes_nothing() {
    let (src, dst) = (
        image(8 * LEAF, &[2, 2, 0, 5]),
        image(8 * LEAF, &[2, 3, 4, 0, 0, 6]),
    );
    let before = (dst.bytes(), dst.bytes_written());
    let dry = Params {
        dry_run: true,
        ..params(8 * LEAF as u64)
    };
    let (source, target) = sync(&src, &dst, &dry);
    assert_eq!(source.unwrap().changed, 2 * LEAF as u64);
    assert_eq!(target.unwrap().zeroed, 2 * LEAF as u64);
    assert_eq!((dst.bytes(), dst.bytes_written()), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_pair_of_images_converges(
        s in prop::collection::vec(0u8..5, 0..1200),
        t in prop::collection::vec(0u8..5, 0..1200),
        tail in 0usize..LEAF,
        units in prop::sample::select(vec![1u32, 2, 3, 7, 64, 256, 300]),
        sha in any::<bool>(),
    ) {
        let size = (1200 * LEAF + tail) as u64;
        let (src, dst) = (image(size as usize, &s), image(size as usize, &t));
        let params = Params {
            geometry: Geometry::new(size, units * LEAF as u32).unwrap(),
            hash: if sha { HashKind::Sha256 } else { HashKind::Blake3 },
            ..params(size)
        };
        let (source, target) = sync(&src, &dst, &params);
        prop_assert_eq!(source.unwrap().digest, target.unwrap().digest);
        prop_assert_eq!(dst.bytes(), src.bytes());
    }
}

/// An image whose n-th call of one kind misbehaves.
struct Faulty {
    inner: MemoryImage,
    calls: AtomicU64,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Read(u64),
    Write(u64),
    Zero,
    Flush,
    Extents(u64),
    Changed,
    /// A write that reports success and stores something else.
    Lies(u64),
}

impl Faulty {
    fn new(inner: MemoryImage, fault: Fault) -> Self {
        Faulty {
            inner,
            calls: AtomicU64::new(0),
            fault,
        }
    }

    fn hit(&self, at: Option<u64>) -> Result<()> {
        match at {
            Some(n) if self.calls.fetch_add(1, Ordering::Relaxed) == n => {
                Err(Error::io("injected", std::io::Error::from_raw_os_error(28)))
            }
            _ => Ok(()),
        }
    }
}

impl Image for Faulty {
    fn size(&self) -> u64 {
        self.inner.size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.hit(if let Fault::Read(n) = self.fault {
            Some(n)
        } else {
            None
        })?;
        self.inner.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.hit(if let Fault::Write(n) = self.fault {
            Some(n)
        } else {
            None
        })?;
        if let Fault::Lies(n) = self.fault {
            if self.calls.fetch_add(1, Ordering::Relaxed) == n {
                return self.inner.write_at(&vec![0xEE; buf.len()], offset);
            }
        }
        self.inner.write_at(buf, offset)
    }
    fn zero(&self, range: ByteRange) -> Result<()> {
        self.hit((self.fault == Fault::Zero).then_some(0))?;
        self.inner.zero(range)
    }
    fn next_data(&self, offset: u64) -> Result<Option<ByteRange>> {
        self.hit(if let Fault::Extents(n) = self.fault {
            Some(n)
        } else {
            None
        })?;
        self.inner.next_data(offset)
    }
    fn flush(&self) -> Result<()> {
        self.hit((self.fault == Fault::Flush).then_some(0))?;
        self.inner.flush()
    }
    fn check_unchanged(&self) -> Result<()> {
        self.hit((self.fault == Fault::Changed).then_some(0))?;
        self.inner.check_unchanged()
    }
    fn read_from_medium(&self) -> Result<()> {
        self.inner.read_from_medium()
    }
    fn name(&self) -> String {
        "faulty".into()
    }
}

#[test]
fn every_fault_is_an_error_on_both_sides() {
    let size = 12 << 20;
    let old: Vec<u8> = (0..size / LEAF).map(|i| (i % 5) as u8).collect();
    let new: Vec<u8> = (0..size / LEAF).map(|i| (i % 7) as u8).collect();
    for fault in [
        Fault::Read(0),
        Fault::Read(6),
        Fault::Extents(0),
        Fault::Extents(9),
        Fault::Changed,
    ] {
        let src = Faulty::new(image(size, &new), fault);
        let dst = image(size, &old);
        let (source, target) = sync(&src, &dst, &params(size as u64));
        assert_eq!(source.unwrap_err().kind(), Kind::Space, "source {fault:?}");
        let told = target.unwrap_err();
        assert!(
            told.message().contains("source: injected"),
            "{fault:?}: {told}"
        );
    }
    for fault in [
        Fault::Read(0),
        Fault::Read(15),
        Fault::Write(0),
        Fault::Write(3),
        Fault::Zero,
        Fault::Flush,
        Fault::Extents(5),
        Fault::Changed,
    ] {
        let src = image(size, &new);
        let dst = Faulty::new(image(size, &old), fault);
        let (source, target) = sync(&src, &dst, &params(size as u64));
        assert_eq!(target.unwrap_err().kind(), Kind::Space, "target {fault:?}");
        let told = source.unwrap_err();
        assert!(
            told.message().contains("target: injected"),
            "{fault:?}: {told}"
        );
    }
}

#[test]
fn a_disk_that_lies_is_found_by_verify() {
    let size = 4 << 20;
    let src = image(size, &vec![9; size / LEAF]);
    let dst = Faulty::new(MemoryImage::new(size), Fault::Lies(2));
    let (source, target) = sync(&src, &dst, &params(size as u64));
    assert_eq!(target.unwrap_err().kind(), Kind::Digest);
    assert_eq!(source.unwrap_err().kind(), Kind::Digest);
}

#[test]
fn a_rate_limit_holds_and_does_not_break_the_sync() {
    let size = 4 << 20;
    let src = image(size, &vec![9; size / LEAF]);
    let dst = MemoryImage::new(size);
    let slow = Params {
        bytes_per_s_max: Some(8 << 20),
        compress: Compress::Off,
        ..params(size as u64)
    };
    let began = std::time::Instant::now();
    sync(&src, &dst, &slow).0.unwrap();
    assert!(
        began.elapsed().as_millis() >= 300,
        "4 MiB at 8 MiB/s took {:?}",
        began.elapsed()
    );
    assert_eq!(dst.bytes(), src.bytes());
}

#[test]
fn patches_are_compressed_as_asked() {
    let size = 8 << 20;
    let text = b"words that come again and again, ".repeat(size / 33 + 1);
    let src = MemoryImage::new(size);
    src.write_at(&text[..size], 0).unwrap();
    let mut noise = vec![0; size];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let random = MemoryImage::new(size);
    random.write_at(&noise, 0).unwrap();
    for (compress, text_max) in [
        (Compress::Off, size * 2),
        (Compress::Auto, size / 100),
        (Compress::Level(1), size / 100),
        (Compress::Level(19), size / 100),
    ] {
        let params = Params {
            compress,
            ..params(size as u64)
        };
        for (src, wire) in [
            (&src, 1..text_max as u64),
            (&random, size as u64..(size + (64 << 10)) as u64),
        ] {
            let dst = MemoryImage::new(size);
            let summary = sync(src, &dst, &params).0.unwrap();
            assert_eq!(dst.bytes(), src.bytes());
            assert_eq!(summary.changed, size as u64);
            assert!(
                wire.contains(&summary.wire_out),
                "{compress:?}: {summary:?}"
            );
        }
    }
}
