//! The target's window: segments reported to the source and not yet answered, in order.

use super::failure::Failure;
use super::order::InOrder;
use super::outbox::post;
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
    reserved: usize,
    order: InOrder<(u64, Entry)>,
    reported: VecDeque<(u64, Entry)>,
}

impl Window {
    pub(super) fn new() -> Self {
        Window {
            state: Mutex::new(WindowState {
                reserved: 0,
                order: InOrder::new(),
                reported: VecDeque::new(),
            }),
            room: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, WindowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room for one more segment and gives its ticket.
    pub(super) fn reserve(&self, failure: &Failure) -> Result<u64> {
        let mut state = self.state();
        while state.reserved >= limits::WINDOW {
            failure.check()?;
            let waited = self.room.wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.reserved += 1;
        Ok(state.order.issue())
    }

    /// Reports what ticket's segment holds, with all that became due by it. The lock is held while
    /// posting: that keeps the reports in order.
    pub(super) fn report(
        &self,
        ticket: u64,
        index: u64,
        entry: Entry,
        frames: &Sender<Frame>,
    ) -> Result<()> {
        let mut state = self.state();
        state.order.fill(ticket, (index, entry));
        let mut entries = Vec::new();
        while let Some((index, entry)) = state.order.take() {
            state.reported.push_back((index, entry));
            entries.push(entry);
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
    pub(super) fn settle(&self) -> Option<(u64, Entry)> {
        let mut state = self.state();
        let settled = state.reported.pop_front()?;
        state.reserved -= 1;
        self.room.notify_one();
        Some(settled)
    }

    /// Whether segment `index` was reported to hold data and is not answered yet.
    pub(super) fn awaits(&self, index: u64) -> bool {
        let state = self.state();
        let found = state.reported.binary_search_by_key(&index, |(i, _)| *i);
        found.is_ok_and(|at| matches!(state.reported.get(at), Some((_, Entry::Digest(_)))))
    }
}
