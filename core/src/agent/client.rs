//! The driver's side of a link to an agent.

use super::serve::Request;
use super::{decode, encode, Answer, BlockRequest};
use crate::error::Result;
use crate::stop::Stop;
use crate::wire::{limits, Frame, Link, Received};
use rustix::fd::OwnedFd;
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::time::Instant;

/// A link to an agent, for requests and for syncs.
pub struct Client {
    link: Link,
    name: String,
}

impl Client {
    /// Shakes hands with the agent behind the two descriptors. `name` stands for it in errors.
    pub fn connect(
        input: OwnedFd,
        output: OwnedFd,
        program: &str,
        name: &str,
        stop: Stop,
    ) -> Result<Self> {
        Ok(Client {
            link: Link::handshake(input, output, program, name, stop)?,
            name: name.to_owned(),
        })
    }

    /// Asks the block service.
    pub fn block<T: DeserializeOwned>(&mut self, request: BlockRequest) -> Result<T> {
        self.call(&Request::Block(request))
    }

    /// Asks the front end's service.
    pub fn host<Q: Serialize, T: DeserializeOwned>(&mut self, request: &Q) -> Result<T> {
        let request = serde_json::to_value(request).map_err(|e| {
            crate::error::Error::new(crate::error::Kind::Protocol, "cannot encode a request")
                .because(e)
        })?;
        self.call(&Request::Host(request))
    }

    /// The link itself, for a sync after [`BlockRequest::Sync`] was answered.
    pub fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T> {
        self.link.reader.set_frame_max(limits::CONTROL_FRAME_MAX);
        self.link.writer.send(&Frame::Request(encode(request)?))?;
        self.link.writer.flush()?;
        let asked = Instant::now();
        let received = self.link.reader.receive()?;
        self.link.lanes().answered_in(asked.elapsed());
        match received {
            Received::Frame(Frame::Reply(json)) => match decode(&json)? {
                Answer::Done(value) => decode(&encode(&value)?),
                Answer::Failed(report) => Err(report.into_error().context(&self.name)),
            },
            Received::Frame(other) => Err(self.link.reader.unexpected(&other)),
            Received::End => Err(self.link.reader.vanished()),
        }
    }
}
