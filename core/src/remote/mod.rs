//! Other hosts: SSH sessions, commands there, and agents brought there if need be.
//!
//! All of it blocks; the openssh crate's async interface stays inside. Must not be called from within an
//! async runtime. Data flows through plain pipes to the ssh master process, so the threads that
//! synchronise read and write descriptors and know nothing of SSH.
//!
//! * `host`: what a user may write as a host
//! * `keys`: keys of ours, each for one host's restricted agent
//! * `control`, `mux`, `master`: the ssh process behind a connection and its private control socket
//! * `probe`: whether a host is there at all
//! * `process`, `run`: processes on the other host
//! * `cipher`: what ssh encrypts with
//! * `upload`, `agent`: the agent bootstrap
//! * `words`: ssh's messages as our errors

mod agent;
mod cipher;
mod control;
mod host;
mod keys;
mod master;
mod mux;
mod probe;
mod process;
mod run;
mod upload;
mod words;

pub use agent::{agent_id, AgentEnd, AgentHandle, AgentPipe, AgentSpec, RESTRICTED};
pub use cipher::Cipher;
pub use host::HostSpec;
pub use keys::{key_path, make_key, remove_key};
pub use master::SshOptions;
pub use probe::{reach, Reach};
pub use process::Ended;
pub use run::{RunLimits, RunOutput};
pub use upload::is_brought;

use crate::error::Result;
use agent::Known;
use master::Master;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A connection to another host. Can be used by several threads at once.
///
/// Closing or dropping it ends whatever still runs over it, removes what was uploaded, and ends the
/// ssh process; so finish the agents first. If we are killed instead, the same happens within seconds
/// without us.
pub struct Remote {
    host: HostSpec,
    master: Arc<Master>,
    known: Mutex<Vec<Known>>,
    options: SshOptions,
}

impl Remote {
    /// Connects and logs in. Never prompts.
    pub fn connect(host: &HostSpec, options: &SshOptions) -> Result<Remote> {
        let options = SshOptions {
            cipher: options.cipher.decided(host, options),
            ..options.clone()
        };
        Ok(Remote {
            host: host.clone(),
            master: Arc::new(Master::start(host, &options)?),
            known: Mutex::new(Vec::new()),
            options,
        })
    }

    /// Connects, does `work` and closes the connection. An error of the work comes before one of the closing.
    pub fn during<T>(
        host: &HostSpec,
        options: &SshOptions,
        work: impl FnOnce(&Remote) -> Result<T>,
    ) -> Result<T> {
        let session = Remote::connect(host, options)?;
        let done = work(&session);
        let closed = session.close();
        let done = done?;
        closed.map(|()| done)
    }

    /// The host this is a connection to.
    pub fn host(&self) -> &HostSpec {
        &self.host
    }

    /// Ends the connection. The first thing that could not be cleaned up is the error.
    pub fn close(self) -> Result<()> {
        self.shut()
    }

    fn shut(&self) -> Result<()> {
        let known = std::mem::take(&mut *self.known.lock().unwrap_or_else(PoisonError::into_inner));
        let mut result = Ok(());
        for known in known {
            result = result.and(known.close().map_err(|e| e.context(&self.host)));
        }
        result.and(self.master.stop())
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.host)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // After `close` there is nothing left to do; without it nobody wants to hear of errors.
        let _ = self.shut();
    }
}
