//! qcow2 images with QEMU's own programs: from and to every other kind, chains, snapshots, refusals, and replicas.
#![allow(clippy::unwrap_used)]

mod faults;
mod kinds;
mod reading;
mod refusals;
mod replica;
mod tools;
