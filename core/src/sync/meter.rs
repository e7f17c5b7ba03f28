//! Live counters of a running sync, read by whoever shows progress, and the map if one was asked for.

use super::geometry::Geometry;
use super::map::{BlockMap, MapReport};
use super::{segment, Params};
use crate::error::{Error, Kind, Result};
use crate::wire::Patch;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Counters that the engine's threads add to. All in bytes.
#[derive(Debug, Default)]
pub struct Meter {
    total: AtomicU64,
    position: AtomicU64,
    compared: AtomicU64,
    changed: AtomicU64,
    zeroed: AtomicU64,
    sent: AtomicU64,
    map: OnceLock<Mutex<BlockMap>>,
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

    /// The map, if [`Params::map`] asked for one. It is complete when the sync has succeeded.
    pub fn map(&self) -> Option<BlockMap> {
        self.locked_map().map(|map| map.clone())
    }

    fn locked_map(&self) -> Option<MutexGuard<'_, BlockMap>> {
        let map = self.map.get()?;
        Some(map.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes ready for a sync.
    pub(super) fn begin(&self, params: &Params) {
        self.total.store(params.geometry.size(), Ordering::Relaxed);
        if params.map {
            self.map
                .get_or_init(|| Mutex::new(BlockMap::new(&params.geometry)));
        }
    }

    /// Marks something on the map. Once a segment at most, so that a lock is cheap enough.
    pub(super) fn mark(&self, mark: impl FnOnce(&mut BlockMap)) {
        if let Some(mut map) = self.locked_map() {
            mark(&mut map);
        }
    }

    /// What this side has marked, for the other one.
    pub(super) fn map_report(&self) -> Option<MapReport> {
        self.locked_map().map(|map| map.report())
    }

    /// Adds what the other side has marked.
    pub(super) fn add_map(&self, report: Option<&MapReport>) -> Result<()> {
        match (self.locked_map(), report) {
            (Some(mut map), Some(report)) => map.add(report),
            (Some(_), None) => Err(Error::new(
                Kind::Protocol,
                "the peer did not send the map that it was asked for",
            )),
            (None, _) => Ok(()),
        }
    }

    pub(super) fn set_position(&self, offset: u64) {
        self.position.store(offset, Ordering::Relaxed);
    }

    pub(super) fn add_compared(&self, bytes: u64) {
        self.compared.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes all of a patch that comes over the link.
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
