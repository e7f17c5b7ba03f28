//! Live counters of a running sync, read by whoever shows progress.

use super::geometry::Geometry;
use super::segment;
use crate::wire::Patch;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that the engine's threads add to. All in bytes.
#[derive(Debug, Default)]
pub struct Meter {
    total: AtomicU64,
    position: AtomicU64,
    compared: AtomicU64,
    changed: AtomicU64,
    zeroed: AtomicU64,
    sent: AtomicU64,
}

/// A reading of a [`Meter`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Size of what is synced.
    pub total: u64,
    /// All before this offset is settled.
    pub position: u64,
    /// In segments compared by digest so far.
    pub compared: u64,
    /// In leaves that differ so far.
    pub changed: u64,
    /// In leaves that become zeros so far.
    pub zeroed: u64,
    /// Bytes of patches that crossed the link, compressed as they were.
    pub sent: u64,
}

impl Meter {
    /// A meter at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads all counters. They are not of one instant.
    pub fn read(&self) -> Progress {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Progress {
            total: get(&self.total),
            position: get(&self.position),
            compared: get(&self.compared),
            changed: get(&self.changed),
            zeroed: get(&self.zeroed),
            sent: get(&self.sent),
        }
    }

    pub(super) fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn set_position(&self, offset: u64) {
        self.position.store(offset, Ordering::Relaxed);
    }

    pub(super) fn add_compared(&self, bytes: u64) {
        self.compared.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes a patch that crosses the link.
    pub(super) fn add_patch(&self, patch: &Patch, geometry: &Geometry) {
        let len = geometry.segment(patch.segment).len() as usize;
        self.add_changed(segment::leaf_bytes(&patch.changed, geometry, len));
        self.add_zeroed(segment::leaf_bytes(&patch.zeroed, geometry, len));
        self.add_sent(patch.data.packed_len() as u64);
    }

    pub(super) fn add_changed(&self, bytes: u64) {
        self.changed.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_zeroed(&self, bytes: u64) {
        self.zeroed.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}
