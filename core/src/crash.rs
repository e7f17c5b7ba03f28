//! Named points at which tests let the process die as by `kill -9`: what a run leaves behind at the worst
//! moments cannot be shown from outside otherwise. `RBLOCKSYNC_CRASH_AT` names the point.

/// Dies here if this point is the one that was asked for.
pub(crate) fn point(name: &str) {
    if std::env::var_os("RBLOCKSYNC_CRASH_AT").is_some_and(|at| at == name) {
        let me = rustix::process::getpid();
        // It cannot fail on oneself; if it did, nothing would crash, which the test sees.
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    }
}
