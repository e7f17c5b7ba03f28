//! A session made of the fuzzer's bytes: two bytes say what image and which parameters, the rest is what
//! the far end says, frame by frame. Where a digest is all zeros, the one that is right there is put in its
//! place, since no fuzzer ever guesses one; and a frame waits for what it answers, so that the same bytes
//! give the same session.

use rblocksync::digest::{self, Digest, HashKind, ImageDigest};
use rblocksync::error::Result;
use rblocksync::image::{Image, MemoryImage};
use rblocksync::stop::Stop;
use rblocksync::sync::{Compress, Geometry, Meter, Params, Summary, Tuning};
use rblocksync::wire::{Frame, Link, Patch, Unpacker};
use std::os::fd::OwnedFd;

/// Stands for the digest that is right.
pub const RIGHT: Digest = Digest([0; 32]);

/// What a side of a sync may take: its window of segments, its queues and its threads' buffers.
pub const SIDE_BYTES_MAX: usize = 160 << 20;

const SIZES: [usize; 8] = [
    0,
    1,
    5000,
    1 << 20,
    (1 << 20) + 4097,
    (2 << 20) + 100,
    3 << 20,
    70_000,
];
const LEAVES: [u32; 4] = [4096, 8192, 65536, 1 << 20];

/// The image and the parameters of a session.
pub struct Setup {
    /// What both ends agreed on.
    pub params: Params,
    /// The image's content.
    pub bytes: Vec<u8>,
}

impl Setup {
    /// Takes the first two bytes of the input; none if there are not that many.
    pub fn take(input: &[u8]) -> Option<(Setup, &[u8])> {
        let ([how, what], rest) = input.split_first_chunk()?;
        let size = SIZES[usize::from(what & 7)];
        let leaf = LEAVES[usize::from(what >> 3 & 3)];
        let mut bytes = vec![0; size];
        for (i, leaf) in bytes.chunks_mut(4096).enumerate() {
            // Few leaves with data in some images, many in others.
            if i % (1 + usize::from(what >> 5) * 7) == 0 {
                leaf.fill(i as u8 | 1);
            }
        }
        let tuning = Tuning {
            hash: match how & 1 {
                0 => HashKind::Blake3,
                _ => HashKind::Sha256,
            },
            verify: how & 4 != 0,
            compress: match how >> 3 & 3 {
                0 => Compress::Auto,
                1 => Compress::Off,
                level => Compress::Level(level),
            },
            ..Tuning::default()
        };
        let mut params = Params::new(Geometry::new(size as u64, leaf).ok()?, &tuning);
        params.dry_run = how & 2 != 0;
        params.map = how & 32 != 0;
        Some((Setup { params, bytes }, rest))
    }

    /// The first two bytes of an input, for the seeds.
    pub fn head(hash: HashKind, dry_run: bool, verify: bool, size: usize) -> [u8; 2] {
        let size = SIZES.iter().position(|s| *s == size).unwrap_or(0);
        let how =
            u8::from(hash == HashKind::Sha256) | u8::from(dry_run) << 1 | u8::from(verify) << 2;
        [how, size as u8 | 1 << 5]
    }

    /// An image in memory with this content, and holes where there is none.
    pub fn image(&self) -> MemoryImage {
        let image = MemoryImage::new(self.bytes.len());
        for (i, leaf) in self.bytes.chunks(4096).enumerate() {
            if leaf.iter().any(|b| *b != 0) {
                image
                    .write_at(leaf, i as u64 * 4096)
                    .expect("a write to memory");
            }
        }
        image
    }

    /// The bytes of a segment.
    pub fn segment<'a>(&self, bytes: &'a [u8], index: u64) -> &'a [u8] {
        let range = self.params.geometry.segment(index);
        &bytes[range.start as usize..range.end as usize]
    }

    /// The digest of a segment's bytes.
    pub fn segment_digest(&self, bytes: &[u8]) -> Option<Digest> {
        digest::segment(
            self.params.hash,
            bytes,
            self.params.geometry.leaf_bytes() as usize,
        )
    }

    /// The digest of an image's bytes.
    pub fn image_digest(&self, bytes: &[u8]) -> Digest {
        let geometry = &self.params.geometry;
        let mut digest = ImageDigest::new(
            self.params.hash,
            geometry.leaf_bytes(),
            geometry.segment_bytes(),
        );
        for index in 0..geometry.segments() {
            digest.add(index, self.segment_digest(self.segment(bytes, index)));
        }
        digest.finish(geometry.size())
    }

    /// The map of a session that succeeded covers the image, each byte once.
    pub fn check_map(&self, meter: &Meter) {
        if let Some(map) = meter.map() {
            assert_eq!(map.total().len(), self.params.geometry.size());
        }
    }

    /// Puts a patch on an image's bytes; one that does not fit changes nothing.
    pub fn patch(&self, bytes: &mut [u8], patch: &Patch) {
        let range = self.params.geometry.segment(patch.segment);
        let segment = &mut bytes[range.start as usize..range.end as usize];
        let leaf = self.params.geometry.leaf_bytes() as usize;
        let changed: usize = segment
            .chunks(leaf)
            .enumerate()
            .filter(|(i, _)| patch.changed.contains(*i))
            .map(|(_, leaf)| leaf.len())
            .sum();
        let mut unpacker = Unpacker::default();
        let Ok(mut data) = unpacker.unpack(&patch.data, changed) else {
            return;
        };
        for (i, place) in segment.chunks_mut(leaf).enumerate() {
            if patch.zeroed.contains(i) {
                place.fill(0);
            }
            if patch.changed.contains(i) {
                let (head, rest) = data.split_at(place.len());
                place.copy_from_slice(head);
                data = rest;
            }
        }
    }
}

/// A link to a far end that says hello and then whatever it likes.
pub fn link(near: (OwnedFd, OwnedFd)) -> Link {
    Link::handshake(near.0, near.1, "fuzz", "peer", Stop::new()).expect("a proper hello")
}

/// Says how a session ended, if one input is looked at.
pub fn tell(result: &Result<Summary>) {
    if std::env::var_os("FUZZ_TELL").is_some() {
        match result {
            Ok(summary) => eprintln!("{summary:?}"),
            Err(error) => eprintln!("{:?}: {error}", error.kind()),
        }
    }
}

/// The bytes of a frame.
pub fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

/// Puts `digest` into the encoded frame at `at`, behind its length field.
pub fn put_digest(frame: &mut [u8], at: usize, digest: Digest) {
    frame[4 + at..4 + at + 32].copy_from_slice(&digest.0);
}
