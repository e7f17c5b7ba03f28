//! Talking to a running QEMU: its monitor ([`qmp`]) and the agent in its guest ([`agent`]).
//!
//! Both are lines of JSON over unix sockets that serve one client at a time (so on Proxmox), with
//! others queueing up: connect, be quick, and let go.

pub mod agent;
pub mod qmp;
mod socket;
