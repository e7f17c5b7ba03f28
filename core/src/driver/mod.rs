//! An agent on another host and the link to it, for as long as a driver needs them.

mod lanes;
mod tunnel;

pub use lanes::Streams;
pub use tunnel::Tunnel;

use crate::agent::Client;
use crate::error::{Error, Kind, Result};
use crate::remote::{agent_id, AgentEnd, AgentHandle, AgentPipe, AgentSpec, Remote};
use crate::stop::Stop;
use crate::wire::VERSION;
use lanes::Road;
use std::time::Duration;
use uuid::Uuid;

/// How long an agent may take to end once its input is closed.
const AGENT_END_TIMEOUT: Duration = Duration::from_secs(5);

/// A running agent, to be asked and synced with.
pub struct RemoteAgent {
    client: Client,
    handle: AgentHandle,
    road: Road,
}

impl RemoteAgent {
    /// Starts `program`'s agent over `session` and shakes hands with it.
    pub fn start(
        session: &Remote,
        program: &str,
        streams: Streams,
        stop: &Stop,
    ) -> Result<RemoteAgent> {
        let token = Uuid::new_v4().simple().to_string();
        let mut spec = AgentSpec::new(program, agent_id(program, VERSION.into()));
        if streams != Streams::Fixed(1) {
            spec.args.extend(["--lanes".into(), token.clone().into()]);
        }
        let AgentPipe {
            stdin,
            stdout,
            handle,
        } = session.start_agent(&spec)?;
        let host = session.host().to_string();
        match Client::connect(stdout, stdin, program, &host, stop.clone()) {
            Ok(mut client) => {
                let lanes = client.link().lanes().clone();
                let road = Road::new(streams, spec, token, lanes, stop.clone());
                Ok(RemoteAgent {
                    client,
                    handle,
                    road,
                })
            }
            Err(e) => Err(explain(e, [Some(handle.finish(AGENT_END_TIMEOUT))])),
        }
    }

    /// To ask it, and to sync with it where little is sent.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Runs `work`, most likely a sync, while the link gets the streams that were asked for over further
    /// connections to the host of `session`.
    pub fn carry<T>(&mut self, session: &Remote, work: impl FnOnce(&mut Client) -> T) -> T {
        let client = &mut self.client;
        self.road.widen_during(session, || work(client))
    }

    /// Why there are fewer streams than were asked for, if so.
    pub fn lacks(&mut self) -> Option<Error> {
        self.road.lacks()
    }

    /// Closes the link, upon which the agent ends, and tells how it did.
    pub fn finish(self) -> AgentEnd {
        drop(self.client);
        // The further connections go last: they carry what the agent may still have to say.
        let end = self.handle.finish(AGENT_END_TIMEOUT);
        drop(self.road);
        end
    }

    /// Runs `work` and finishes; a lost agent's own words are added to the error.
    pub fn during<T>(mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let result = work(&mut self);
        let end = self.finish();
        result.map_err(|e| explain(e, [Some(end)]))
    }
}

/// Adds to an error about a lost agent what is known of how agents ended.
pub fn explain<const N: usize>(error: Error, ends: [Option<AgentEnd>; N]) -> Error {
    if error.kind() != Kind::Remote {
        return error;
    }
    let why: Vec<String> = ends
        .into_iter()
        .flatten()
        .filter(|end| !end.is_success())
        .map(|end| end.to_string())
        .collect();
    match why.is_empty() {
        true => error,
        false => error.followed_by(why.join("; ")),
    }
}
