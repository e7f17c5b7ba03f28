//! The hot loops of the engine, counted in instructions by valgrind's callgrind: the same number on every
//! run, however busy the machine is. `make bench-micro` runs it; docs/benchmarks.md tells how to read it.

#![allow(missing_docs)]

use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};
use rblocksync::digest::{self, Digest, HashKind, LeafSet};
use rblocksync::fingerprint::{Fingerprints, Key};
use rblocksync::range::{ByteRange, RangeSet};
use rblocksync::wire::{Entry, Frame, Patch};
use std::hint::black_box;

/// By how many per cent a loop may grow.
const IR_PERCENT_MAX: f64 = 3.0;
const LEAF: usize = 4096;
const SEGMENT: usize = 1 << 20;

/// A segment whose leaves are zero but every `nth`, from the first. 0: all are zero.
fn segment(nth: usize) -> Vec<u8> {
    let mut bytes = vec![0; SEGMENT];
    let mut state = 7u64;
    for (i, leaf) in bytes.chunks_mut(LEAF).enumerate() {
        if nth > 0 && i % nth == 0 {
            for word in leaf.chunks_mut(8) {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
            }
        }
    }
    bytes
}

#[library_benchmark]
#[bench::of_zeros(args = (0), setup = segment)]
#[bench::half_zero(args = (2), setup = segment)]
#[bench::of_data(args = (1), setup = segment)]
fn zero_scan(segment: Vec<u8>) -> LeafSet {
    black_box(digest::nonzero_leaves(black_box(&segment), LEAF))
}

fn hashed(kind: HashKind, nth: usize) -> (HashKind, Vec<u8>) {
    (kind, segment(nth))
}

#[library_benchmark]
#[bench::blake3(args = (HashKind::Blake3, 1), setup = hashed)]
#[bench::blake3_half_zero(args = (HashKind::Blake3, 2), setup = hashed)]
#[bench::sha256(args = (HashKind::Sha256, 1), setup = hashed)]
fn segment_digest((kind, segment): (HashKind, Vec<u8>)) -> Option<Digest> {
    black_box(digest::segment(kind, black_box(&segment), LEAF))
}

#[library_benchmark]
#[bench::data(args = (1), setup = segment)]
fn leaf_fingerprints(segment: Vec<u8>) -> Vec<u64> {
    let fingerprints = Fingerprints::new(Key([1; 16]));
    let leaves = black_box(&segment).chunks(LEAF);
    black_box(leaves.map(|leaf| fingerprints.of(leaf)).collect())
}

/// Ranges of 64 KiB, every other one.
fn ranges(count: u64) -> Vec<ByteRange> {
    let at = (0..count).map(|i| i * (128 << 10));
    at.map(|at| ByteRange::new(at, at + (64 << 10))).collect()
}

fn range_set(count: u64) -> RangeSet {
    ranges(count).into_iter().collect()
}

#[library_benchmark]
#[bench::ascending(args = (10_000), setup = ranges)]
fn ranges_insert(ranges: Vec<ByteRange>) -> RangeSet {
    black_box(black_box(ranges).into_iter().collect())
}

#[library_benchmark]
#[bench::each_segment(args = (10_000), setup = range_set)]
fn ranges_gaps(set: RangeSet) -> usize {
    let segments = (0..1250).map(|i| ByteRange::new(i << 20, (i + 1) << 20));
    black_box(segments.map(|s| black_box(&set).gaps_within(s).len()).sum())
}

#[library_benchmark]
#[bench::each_range(args = (10_000), setup = range_set)]
fn ranges_walk(set: RangeSet) -> u64 {
    let (mut at, mut total) = (0, 0);
    while let Some(range) = black_box(&set).next_from(at) {
        total += range.len();
        at = range.end;
    }
    black_box(total)
}

/// A patch of every `nth` leaf of a segment.
fn patch(nth: usize) -> Frame {
    let bytes = segment(nth);
    let changed = digest::nonzero_leaves(&bytes, LEAF);
    Frame::Patch(Patch {
        segment: 12_345,
        digest: digest::segment(HashKind::Blake3, &bytes, LEAF),
        changed,
        zeroed: LeafSet::default(),
        data: changed
            .iter()
            .flat_map(|i| bytes[i * LEAF..(i + 1) * LEAF].to_vec())
            .collect::<Vec<u8>>()
            .into(),
    })
}

fn segments(count: usize) -> Frame {
    let entry = |i: usize| match i % 16 {
        0 => Entry::Absent,
        1 => Entry::Zero,
        _ => Entry::Digest(Digest([i as u8; 32])),
    };
    Frame::Segments((0..count).map(entry).collect())
}

#[library_benchmark]
#[bench::patch_of_one_leaf(args = (256), setup = patch)]
#[bench::patch_of_a_segment(args = (1), setup = patch)]
#[bench::segments(args = (256), setup = segments)]
fn frame_encode(frame: Frame) -> Vec<u8> {
    let mut out = Vec::new();
    black_box(&frame).encode(&mut out);
    black_box(out)
}

fn payload(frame: Frame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    // Its length field is read before and not a part of what is decoded.
    out.split_off(4)
}

fn patch_payload(nth: usize) -> Vec<u8> {
    payload(patch(nth))
}

fn segments_payload(count: usize) -> Vec<u8> {
    payload(segments(count))
}

#[library_benchmark]
#[bench::patch_of_one_leaf(args = (256), setup = patch_payload)]
#[bench::patch_of_a_segment(args = (1), setup = patch_payload)]
#[bench::segments(args = (256), setup = segments_payload)]
fn frame_decode(payload: Vec<u8>) -> Frame {
    let frame = Frame::decode(black_box(&payload)).expect("a frame");
    black_box(frame)
}

library_benchmark_group!(
    name = digests,
    benchmarks = [zero_scan, segment_digest, leaf_fingerprints]
);
library_benchmark_group!(
    name = ranges_of_bytes,
    benchmarks = [ranges_insert, ranges_gaps, ranges_walk]
);
library_benchmark_group!(name = frames, benchmarks = [frame_encode, frame_decode]);

main!(
    // Instructions only: a model of caches that no processor has tells nothing more. A loop that takes this
    // much more than in the run before, or in the baseline, makes the run fail.
    config = LibraryBenchmarkConfig::default().tool(
        Callgrind::with_args(["--cache-sim=no"]).soft_limits([(EventKind::Ir, IR_PERCENT_MAX)])
    ),
    library_benchmark_groups = [digests, ranges_of_bytes, frames]
);
