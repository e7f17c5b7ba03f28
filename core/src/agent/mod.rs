//! The far end of a link: requests, the agent that answers them, and the client that makes them.
//!
//! A request is JSON with one key that says what is asked. The block service answers those of
//! [`BlockRequest`]; a front end adds its own through [`Service`]. An agent ends when its input ends,
//! and what it holds (locks, half-made files) goes with it.

mod block;
mod client;
mod lanes;
mod pour;
pub mod restrict;
mod serve;
mod thin_map;

pub use block::{
    path_bytes, BlockEnd, BlockRequest, Mend, OpenSource, OpenTarget, Opened, Role, Table,
    TableBase,
};
pub use client::Client;
pub use lanes::{join, LANE_READY};
pub(crate) use pour::pass_on;
pub use pour::pour;
pub use serve::{serve, serve_under, while_there, NoService, Service};

use crate::error::{Error, Kind, Result};
use serde::de::DeserializeOwned;
use serde::Serialize;

/// Encodes a request or an answer.
fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|e| Error::new(Kind::Protocol, "cannot encode a message").because(e))
}

/// Decodes a request or an answer.
fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json)
        .map_err(|e| Error::new(Kind::Protocol, "a message has an unknown form").because(e))
}

/// An answer: what was asked for, or why not.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Done(serde_json::Value),
    Failed(crate::wire::ErrorReport),
}
