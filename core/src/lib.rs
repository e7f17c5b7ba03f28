//! The library behind `rblocksync`, `pvesync` and `virt-blocksync`.
//!
//! ARCHITECTURE.md at the top of the repository tells how the modules fit together.

pub mod error;
pub mod range;
