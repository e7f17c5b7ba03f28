//! How far a target's image is done: all segments before that are written, freed, or were right.

use super::order::InOrder;
use super::table::DigestTable;
use crate::bell::Bell;
use crate::error::Result;
use crate::image::Image;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often that is made durable.
const EVERY: Duration = Duration::from_secs(5);

/// What is settled but not written yet.
pub(super) struct Progress {
    state: Mutex<State>,
}

struct State {
    /// Settled segments in order, each filled with the end of what it covers once it is on the image.
    settled: InOrder<u64>,
    /// Segments that are being freed.
    clearing: BTreeSet<u64>,
    done: u64,
}

impl Progress {
    /// Of a sync that begins at segment `first`.
    pub fn new(first: u64) -> Self {
        Progress {
            state: Mutex::new(State {
                settled: InOrder::new(),
                clearing: BTreeSet::new(),
                done: first,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next segment is settled; its ticket is for when it is on the image.
    pub fn settle(&self) -> u64 {
        self.state().settled.issue()
    }

    /// Segment `index` is on the image.
    pub fn done(&self, ticket: u64, index: u64) {
        let state = &mut *self.state();
        state.settled.fill(ticket, index + 1);
        while let Some(end) = state.settled.take() {
            state.done = end;
        }
    }

    /// Segment `index`, which the source does not have, is to be freed. To be said before a later one is settled.
    pub fn clear(&self, index: u64) {
        self.state().clearing.insert(index);
    }

    /// It is freed.
    pub fn cleared(&self, index: u64) {
        self.state().clearing.remove(&index);
    }

    /// All segments before this one are done.
    fn cursor(&self) -> u64 {
        let state = self.state();
        let clearing = state.clearing.first().copied();
        clearing.map_or(state.done, |first| first.min(state.done))
    }

    /// Makes what is done so far durable, and then notes that in the table.
    pub fn checkpoint(&self, image: &dyn Image, table: &DigestTable) -> Result<()> {
        let cursor = self.cursor();
        image.flush()?;
        table.set_cursor(cursor)
    }

    /// Does that every few seconds, until `end` is rung.
    pub fn keep(&self, image: &dyn Image, table: &DigestTable, end: &Bell) -> Result<()> {
        while !end.wait(EVERY) {
            self.checkpoint(image, table)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_stays_before_what_is_not_done() {
        let progress = Progress::new(2);
        assert_eq!(progress.cursor(), 2);
        let tickets = [progress.settle(), progress.settle()];
        progress.done(tickets[1], 5);
        assert_eq!(
            progress.cursor(),
            2,
            "the segment before is not written yet"
        );
        progress.clear(3);
        progress.done(tickets[0], 4);
        assert_eq!(progress.cursor(), 3, "a segment is not freed yet");
        progress.cleared(3);
        assert_eq!(progress.cursor(), 6);
    }
}
