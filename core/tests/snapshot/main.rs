//! Points in time of a VM, with a real QEMU (without a guest system in it), a scripted guest agent, and
//! real reflink clones where the test may mount an XFS.
#![allow(clippy::unwrap_used)]

mod agent;
mod disks;
mod live;
mod small;
mod vm;
mod watchdog;
