//! QEMU: talking to one that runs, its monitor ([`qmp`]) and the agent in its guest ([`agent`]); and its programs that
//! read and write qcow2 images ([`Qcow2Disk`], [`img`]).
//!
//! The former are lines of JSON over unix sockets that serve one client at a time (so on Proxmox), with
//! others queueing up: connect, be quick, and let go.

pub mod agent;
mod disk;
pub mod img;
mod nbd_server;
pub mod qmp;
mod socket;

pub use disk::{Qcow2Disk, ReadOptions};
