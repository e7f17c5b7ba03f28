//! The NBD client and images over it: against qemu-nbd, against nbdkit, and against servers that break the protocol.
#![allow(clippy::unwrap_used)]

mod hostile_handshake;
mod hostile_replies;
mod nbdkit;
mod odd_replies;
mod qemu;
mod script;
mod server;
