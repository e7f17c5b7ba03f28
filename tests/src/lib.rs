//! The lab: two hypervisor guests with real LVM-thin, and helpers for end-to-end tests.

pub mod cli;
pub mod lab;
pub mod pair;

pub mod sshd;
