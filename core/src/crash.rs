//! Named points at which tests let the process die as by `kill -9`, or stop so that they can do something to the rest
//! of the world: what a run leaves behind at the worst moments cannot be shown from outside otherwise.
//! `RBLOCKSYNC_CRASH_AT` and `RBLOCKSYNC_STOP_AT` name the point.

use rustix::process::{getpid, kill_process, Signal};

/// Dies or stops here if this point is the one that was asked for.
pub(crate) fn point(name: &str) {
    let is_at = |variable| std::env::var_os(variable).is_some_and(|at| at == name);
    let signal = match (is_at("RBLOCKSYNC_CRASH_AT"), is_at("RBLOCKSYNC_STOP_AT")) {
        (true, _) => Signal::KILL,
        (false, true) => Signal::STOP,
        (false, false) => return,
    };
    // It cannot fail on oneself; if it did, nothing would happen, which the test sees.
    let _ = kill_process(getpid(), signal);
}
