//! How much may still be written to a thin volume: a pool that runs full takes all its volumes with it, so we
//! stop before.

use crate::error::{Error, Kind, Result};
use crate::runbook::Runbook;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Others fill the pool too, so an answer is not good for long.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Asks for the bytes that may still be written to the pool; an error if there are none left.
type Ask = dyn Fn() -> Result<u64> + Send + Sync;

/// The room in a volume's pool. Every write takes of it what it may cost at the most.
pub struct Room {
    pool: String,
    ask: Box<Ask>,
    known: Mutex<Option<Known>>,
}

struct Known {
    at: Instant,
    left: u64,
}

impl Room {
    /// In the pool of this name. `ask` is called when a write needs to know, not more often than needed.
    pub fn new(
        pool: impl Into<String>,
        ask: impl Fn() -> Result<u64> + Send + Sync + 'static,
    ) -> Self {
        Room {
            pool: pool.into(),
            ask: Box::new(ask),
            known: Mutex::new(None),
        }
    }

    /// Takes room for `bytes`, or fails.
    pub(super) fn take(&self, bytes: u64) -> Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_mut() {
            if known.left >= bytes && known.at.elapsed() < ASK_EVERY {
                known.left -= bytes;
                return Ok(());
            }
        }
        let free = (self.ask)()?;
        if free < bytes {
            return Err(Error::new(
                Kind::Space,
                format!(
                    "thin pool {} is nearly full: there is room for {free} bytes, but {bytes} are to be written",
                    self.pool
                ),
            )
            .advise("extend the pool, or remove volumes from it")
            .see(Runbook::PoolFull));
        }
        // Other disks may be written in the same pool by other processes: half of it is theirs.
        *known = Some(Known {
            at: Instant::now(),
            left: (free / 2).saturating_sub(bytes),
        });
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::sync::Arc;

    #[test]
    fn writing_stops_before_the_pool_is_full_and_asks_seldom() {
        let (free, asked) = (
            Arc::new(AtomicU64::new(1000)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (seen, count) = (Arc::clone(&free), Arc::clone(&asked));
        let room = Room::new("p/q", move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(seen.load(Ordering::Relaxed))
        });
        let mut written = 0;
        while room.take(10).is_ok() {
            free.fetch_sub(10, Ordering::Relaxed);
            written += 10;
        }
        assert_eq!(written, 1000);
        assert!(asked.load(Ordering::Relaxed) < 20, "{asked:?}");
    }

    #[test]
    fn what_the_pool_says_is_passed_on() {
        let room = Room::new("p/q", || Err(Error::new(Kind::Io, "the pool has failed")));
        let error = room.take(1).unwrap_err();
        assert_eq!(
            (error.kind(), error.message().as_str()),
            (Kind::Io, "the pool has failed")
        );
    }
}
