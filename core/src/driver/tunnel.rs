//! Unix sockets of this host that lead to unix sockets of another one, over the connection that is there: each that
//! connects gets a process there which passes its bytes on. Nothing listens on a network, and sshd need not allow any
//! forwarding.

use super::lanes::read_byte;
use crate::agent::{pass_on, LANE_READY};
use crate::bell::Bell;
use crate::error::{Error, Kind, Result};
use crate::remote::{agent_id, AgentPipe, AgentSpec, Remote};
use crate::stop::Stop;
use crate::wire::VERSION;
use rustix::event::{poll, PollFd, PollFlags};
use rustix::fd::AsFd;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;

/// The way to the sockets of another host.
pub struct Tunnel<'a> {
    /// The connection.
    pub session: &'a Remote,
    /// The program there.
    pub program: &'a str,
    /// Ends it early.
    pub stop: &'a Stop,
}

/// What goes wrong while nobody looks.
#[derive(Default)]
struct Trouble(Mutex<Option<Error>>);

impl Trouble {
    /// The first one is the cause of the others.
    fn note(&self, error: Error) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert(error);
    }

    fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Tunnel<'_> {
    /// Does `work` with a socket here for each of the `sockets` there, in the same order. They end with it.
    pub fn during<T>(
        &self,
        sockets: &[PathBuf],
        work: impl FnOnce(&[PathBuf]) -> Result<T>,
    ) -> Result<T> {
        let cannot = |e| Error::io("cannot make a socket", e);
        // Only we and root may go in.
        let dir = tempfile::Builder::new()
            .prefix("rbs-")
            .tempdir()
            .map_err(cannot)?;
        let (over, trouble) = (Bell::new()?, Trouble::default());
        let mut here = Vec::new();
        let mut listeners = Vec::new();
        for number in 0..sockets.len() {
            let path = dir.path().join(number.to_string());
            listeners.push(UnixListener::bind(&path).map_err(cannot)?);
            here.push(path);
        }
        let result = std::thread::scope(|scope| {
            for (listener, there) in listeners.iter().zip(sockets) {
                let (over, trouble) = (&over, &trouble);
                scope.spawn(move || self.accept(scope, listener, there, over, trouble));
            }
            let result = work(&here);
            over.ring();
            result
        });
        match (result, trouble.take()) {
            (Err(e), Some(trouble)) => Err(e.followed_by(trouble)),
            (result, _) => result,
        }
    }

    fn accept<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        listener: &'env UnixListener,
        there: &'env Path,
        over: &'env Bell,
        trouble: &'env Trouble,
    ) {
        loop {
            let mut fds = [
                PollFd::new(over, PollFlags::IN),
                PollFd::new(listener, PollFlags::IN),
            ];
            if poll(&mut fds, None).is_ok() {
                if over.is_rung() {
                    return;
                }
                if let Ok((stream, _)) = listener.accept() {
                    scope.spawn(move || {
                        if let Err(e) = self.lead(&stream, there, over) {
                            trouble.note(e);
                        }
                        // Whoever has connected is not to wait for what does not come.
                        let _ = stream.shutdown(Shutdown::Both);
                    });
                }
            }
        }
    }

    /// Passes on what comes from `stream` to the socket `there`, and back.
    fn lead(&self, stream: &UnixStream, there: &Path, over: &Bell) -> Result<()> {
        let mut spec = AgentSpec::new(self.program, agent_id(self.program, VERSION.into()));
        spec.args.extend(["--pour".into(), there.into()]);
        let AgentPipe {
            stdin,
            stdout,
            handle,
        } = self.session.start_agent(&spec)?;
        let lost = |why: String| {
            Error::new(
                Kind::Remote,
                format!(
                    "the way to {} on {} ended",
                    there.display(),
                    self.session.host()
                ),
            )
            .because(why)
        };
        if read_byte(&stdout, self.stop) != Some(LANE_READY) {
            return Err(lost(handle.stderr()));
        }
        std::thread::scope(|scope| {
            let back = scope.spawn(|| {
                let passed = pass_on(stdout.as_fd(), stream.as_fd(), over);
                let _ = stream.shutdown(Shutdown::Write);
                passed
            });
            let passed = pass_on(stream.as_fd(), stdin.as_fd(), over);
            // The end of file there.
            drop(stdin);
            let back = back.join().unwrap_or(Ok(()));
            passed.and(back).map_err(|e| lost(e.to_string()))
        })
    }
}
