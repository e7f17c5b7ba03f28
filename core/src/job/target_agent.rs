//! An agent on the target, for as long as it is needed.

use crate::agent::Client;
use crate::error::{Kind, Result};
use crate::remote::{agent_id, AgentHandle, AgentPipe, AgentSpec, Remote};
use crate::stop::Stop;
use crate::wire::VERSION;
use std::time::Duration;

/// How long an agent may take to end once its input is closed.
const AGENT_END_TIMEOUT: Duration = Duration::from_secs(5);

/// An agent on the target.
pub(super) struct TargetAgent {
    client: Client,
    handle: AgentHandle,
}

impl TargetAgent {
    pub fn start(session: &Remote, program: &str, stop: &Stop) -> Result<Self> {
        let spec = AgentSpec::new(program, agent_id(program, VERSION.into()));
        let AgentPipe {
            stdin,
            stdout,
            handle,
        } = session.start_agent(&spec)?;
        let host = session.host().to_string();
        match Client::connect(stdout, stdin, program, &host, stop.clone()) {
            Ok(client) => Ok(TargetAgent { client, handle }),
            Err(e) => Err(e.followed_by(handle.finish(AGENT_END_TIMEOUT))),
        }
    }

    /// Runs `work` with the client; a lost agent's own words are added to the error. The agent is gone
    /// when this returns.
    pub fn during<T>(mut self, work: impl FnOnce(&mut Client) -> Result<T>) -> Result<T> {
        let result = work(&mut self.client);
        drop(self.client);
        let end = self.handle.finish(AGENT_END_TIMEOUT);
        result.map_err(|e| match e.kind() == Kind::Remote && !end.is_success() {
            true => e.followed_by(end),
            false => e,
        })
    }
}
