//! The lab: two hypervisor guests with real LVM-thin; the bed: two libvirtd; roots of Debian; and helpers for end-to-end tests.

pub mod cli;
pub mod debian;
pub mod kills;
pub mod lab;
pub mod markdown;
pub mod pair;
pub mod processor;
pub mod recording;

pub mod sshd;
pub mod virt;
