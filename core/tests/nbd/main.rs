//! The NBD client and images over it: against qemu-nbd, against nbdkit, and against servers that break the protocol.
#![allow(clippy::unwrap_used)]

mod qemu;
mod server;
