//! The API's two transports against a Proxmox VE that is played by the test, from its published schema: whatever it would
//! refuse is refused, and every request is checked against the schema.

#![allow(clippy::unwrap_used)]

mod bad_answers;
mod command;
mod conformance;
mod refusals;
mod schema;
mod server;
mod shell;
mod trust;
mod world;
