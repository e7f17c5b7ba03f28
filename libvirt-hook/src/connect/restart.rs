//! A daemon that is restarted is away for a while, and the domains go on meanwhile.

use rblocksync::error::{Kind, Result};
use std::time::{Duration, Instant};

/// How long a daemon may be away. One that has many domains looks at each of them first.
const AWAY_MAX: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(200);

/// Does what can be done twice, and does it again if the connection to libvirt was lost meanwhile. `act` connects anew.
pub(crate) fn over_restarts<T>(act: impl FnMut() -> Result<T>) -> Result<T> {
    within(AWAY_MAX, act)
}

fn within<T>(limit: Duration, mut act: impl FnMut() -> Result<T>) -> Result<T> {
    let until = Instant::now() + limit;
    loop {
        match act() {
            Err(e) if e.kind() == Kind::Remote && Instant::now() < until => {
                std::thread::sleep(RETRY);
            }
            done => return done,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rblocksync::error::Error;

    fn failing(kind: Kind, times: u32) -> impl FnMut() -> Result<u32> {
        let mut count = 0;
        move || {
            count += 1;
            match count <= times {
                true => Err(Error::new(kind, "no")),
                false => Ok(count),
            }
        }
    }

    #[test]
    fn only_what_the_connection_failed_is_done_again() {
        let long = Duration::from_secs(60);
        assert_eq!(within(long, failing(Kind::Remote, 2)).unwrap(), 3);
        let refused = within(long, failing(Kind::Tool, 1)).unwrap_err();
        assert_eq!(refused.kind(), Kind::Tool);
        let lost = within(Duration::ZERO, failing(Kind::Remote, 1)).unwrap_err();
        assert_eq!(lost.kind(), Kind::Remote);
    }
}
