//! The target's window: segments reported to the source and not yet answered, in order.

use super::failure::Failure;
use super::grains::Kept;
use super::order::InOrder;
use super::outbox::post;
use crate::digest::LeafSet;
use crate::error::Result;
use crate::wire::{limits, Entry, Frame};
use crossbeam_channel::Sender;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The segments reported to the source and not yet answered, in order.
pub(super) struct Window {
    state: Mutex<WindowState>,
    room: Condvar,
}

struct WindowState {
    /// What each segment may have to keep, in bytes, from the oldest unanswered one on.
    reserved: VecDeque<u64>,
    reserved_bytes: u64,
    order: InOrder<Report>,
    reported: VecDeque<Report>,
}

/// A segment and what it holds.
pub(super) struct Report {
    pub index: u64,
    pub found: Found,
}

/// What was found in a segment.
pub(super) enum Found {
    /// In all of it.
    Whole {
        entry: Entry,
        /// Of its nonzero leaves, if it has any and they were not asked for yet.
        leaves: Option<(LeafSet, Vec<u64>)>,
    },
    /// In some of its grains, whose nonzero leaves have these fingerprints.
    Grains { kept: Kept, fingerprints: Vec<u64> },
}

/// Bytes of grains that may be kept for the source's answers.
const KEPT_BYTES_MAX: u64 = 64 << 20;

impl Window {
    pub(super) fn new() -> Self {
        Window {
            state: Mutex::new(WindowState {
                reserved: VecDeque::new(),
                reserved_bytes: 0,
                order: InOrder::new(),
                reported: VecDeque::new(),
            }),
            room: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, WindowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room for one more segment, of which `bytes` are to be kept, and gives its ticket.
    pub(super) fn reserve(&self, bytes: u64, failure: &Failure) -> Result<u64> {
        let mut state = self.state();
        while state.reserved.len() >= limits::WINDOW
            || (!state.reserved.is_empty() && state.reserved_bytes + bytes > KEPT_BYTES_MAX)
        {
            failure.check()?;
            let waited = self.room.wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.reserved.push_back(bytes);
        state.reserved_bytes += bytes;
        Ok(state.order.issue())
    }

    /// Reports what ticket's segment holds, with all that became due by it. The lock is held while
    /// posting: that keeps the reports in order.
    pub(super) fn report(&self, ticket: u64, report: Report, frames: &Sender<Frame>) -> Result<()> {
        let mut state = self.state();
        state.order.fill(ticket, report);
        let mut entries = Vec::new();
        while let Some(mut report) = state.order.take() {
            match &mut report.found {
                Found::Whole { entry, .. } => entries.push(*entry),
                Found::Grains { kept, fingerprints } => {
                    let held = kept.told(report.index, std::mem::take(fingerprints));
                    post(frames, Frame::Held(held))?;
                }
            }
            state.reported.push_back(report);
            if entries.len() == limits::ENTRIES_MAX {
                post(frames, Frame::Segments(std::mem::take(&mut entries)))?;
            }
        }
        match entries.is_empty() {
            true => Ok(()),
            false => post(frames, Frame::Segments(entries)),
        }
    }

    /// Takes the oldest reported segment: the source has answered it.
    pub(super) fn settle(&self) -> Option<Report> {
        let mut state = self.state();
        let settled = state.reported.pop_front()?;
        let bytes = state.reserved.pop_front().unwrap_or_default();
        state.reserved_bytes -= bytes;
        self.room.notify_one();
        Some(settled)
    }

    /// The nonzero leaves of segment `index` and their fingerprints; once only, if it was reported to hold
    /// data and is not answered yet.
    pub(super) fn leaves(&self, index: u64) -> Option<(LeafSet, Vec<u64>)> {
        let mut state = self.state();
        let at = state.reported.binary_search_by_key(&index, |r| r.index);
        match &mut state.reported.get_mut(at.ok()?)?.found {
            Found::Whole { leaves, .. } => leaves.take(),
            Found::Grains { .. } => None,
        }
    }
}
