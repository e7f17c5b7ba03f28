//! More streams for a link, each a connection of its own: what one SSH channel or one TCP connection can
//! have on the way is limited, and one ssh process encrypts on one processor.
//!
//! Lanes are added while the link is in use. The driver announces them in a frame when all are there; that frame is
//! the last thing on the plain stream of its direction. The agent answers in the same way.

use crate::error::{Error, Kind, Result};
use rustix::fd::OwnedFd;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The lanes of one link, shared by whoever brings them and the link's two directions.
#[derive(Default)]
pub struct Lanes {
    state: Mutex<State>,
    bytes: AtomicU64,
    /// Shortest time that an answer has taken, in microseconds; 0 before the first.
    round_trip_us: AtomicU64,
}

#[derive(Default)]
struct State {
    inputs: BTreeMap<u8, OwnedFd>,
    outputs: BTreeMap<u8, OwnedFd>,
    /// How many the next thing written is to announce.
    due: Option<u8>,
    announced: bool,
    agreed: Option<u8>,
}

impl Lanes {
    /// Adds lane `number`, from 1 on. It is used once all up to some number are announced.
    pub fn add(&self, number: u8, input: OwnedFd, output: OwnedFd) {
        let mut state = self.state();
        state.inputs.insert(number, input);
        state.outputs.insert(number, output);
    }

    /// Has the lanes 1 to `count`, which are all there on both sides, announced and used.
    pub fn announce(&self, count: u8) {
        let mut state = self.state();
        if count > 0 && !state.announced {
            state.due = Some(count);
            state.agreed = Some(count);
        }
    }

    /// Bytes that the link has moved so far, both ways.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Shortest time that an answer has taken so far.
    pub fn round_trip(&self) -> Option<Duration> {
        match self.round_trip_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    /// Notes that an answer took `time`.
    pub fn answered_in(&self, time: Duration) {
        let us = (time.as_micros() as u64).max(1);
        let shortest = self.round_trip().is_none_or(|known| time < known);
        if shortest {
            self.round_trip_us.store(us, Ordering::Relaxed);
        }
    }

    pub(super) fn moved(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// For the writing direction: the lanes that are to be announced now.
    pub(super) fn take_due(&self) -> Option<(u8, Vec<OwnedFd>)> {
        let mut state = self.state();
        let count = state.due.take()?;
        state.announced = true;
        Some((count, take(&mut state.outputs, count)))
    }

    /// For the reading direction, when the peer has announced `count` lanes. Whoever has not done so first answers
    /// with as many.
    pub(crate) fn take_announced(&self, count: u8) -> Result<Vec<OwnedFd>> {
        let mut state = self.state();
        let expected = state.agreed.is_none_or(|agreed| agreed == count);
        let there = (1..=count).all(|number| state.inputs.contains_key(&number));
        if count == 0 || !expected || !there {
            return Err(Error::new(
                Kind::Protocol,
                format!("it announced {count} lanes that are not there"),
            ));
        }
        if state.agreed.is_none() {
            state.agreed = Some(count);
            state.due = Some(count);
        }
        Ok(take(&mut state.inputs, count))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(lanes: &mut BTreeMap<u8, OwnedFd>, count: u8) -> Vec<OwnedFd> {
    (1..=count)
        .filter_map(|number| lanes.remove(&number))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn with(count: u8) -> Lanes {
        let lanes = Lanes::default();
        for number in 1..=count {
            let (a, b) = UnixStream::pair().unwrap();
            lanes.add(number, a.into(), b.into());
        }
        lanes
    }

    #[test]
    fn both_directions_get_the_lanes_that_were_announced() {
        let (driver, agent) = (with(3), with(2));
        assert!(driver.take_due().is_none());
        driver.announce(2);
        let (count, outputs) = driver.take_due().unwrap();
        assert_eq!((count, outputs.len()), (2, 2));
        assert!(driver.take_due().is_none(), "once");
        assert_eq!(agent.take_announced(2).unwrap().len(), 2);
        let (count, outputs) = agent.take_due().unwrap();
        assert_eq!((count, outputs.len()), (2, 2));
        assert_eq!(driver.take_announced(2).unwrap().len(), 2);
        driver.announce(3);
        assert!(driver.take_due().is_none(), "once");
    }

    #[test]
    fn a_peer_that_announces_something_else_is_refused() {
        for count in [0, 3, 255] {
            assert!(with(2).take_announced(count).is_err(), "{count}");
        }
        let lanes = with(3);
        lanes.announce(2);
        assert!(lanes.take_announced(3).is_err());
        lanes.take_announced(2).unwrap();
        assert!(lanes.take_announced(2).is_err(), "twice");
    }
}
