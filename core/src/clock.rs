//! What time it is. Tests that let days go by in minutes set `RBLOCKSYNC_CLOCK_AHEAD_S`, in seconds.

use jiff::{SignedDuration, Timestamp};

/// Now.
pub(crate) fn now() -> Timestamp {
    let ahead = std::env::var("RBLOCKSYNC_CLOCK_AHEAD_S").ok();
    let ahead = ahead.and_then(|text| text.parse().ok()).unwrap_or(0);
    let now = Timestamp::now();
    now.checked_add(SignedDuration::from_secs(ahead))
        .unwrap_or(now)
}
