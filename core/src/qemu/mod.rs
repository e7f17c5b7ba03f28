//! QEMU: talking to one that runs, its monitor ([`qmp`]), the agent in its guest ([`agent`]) and one instant of its
//! disks ([`QemuPoint`]); and its programs that read and write qcow2 images ([`Qcow2Disk`], [`img`]).
//!
//! The former are lines of JSON over unix sockets that serve one client at a time (so on Proxmox), with
//! others queueing up: connect, be quick, and let go.

pub mod agent;
mod blocks;
mod disk;
pub mod img;
mod nbd_server;
mod point;
pub mod qmp;
mod scratch;
mod socket;
mod sweep;

pub use blocks::dirty_bytes;
pub use disk::{Qcow2Disk, ReadOptions};
pub use point::{check, BitmapRecord, Export, QemuPoint, Wanted};
pub use scratch::{Guard, ScratchFile, ScratchSpace};
pub use sweep::sweep_scratch;
