//! Domains of libvirt's in the form that belongs to no hypervisor, and back: so that a VM of Proxmox VE's can be kept here,
//! and one of ours there.

mod foreign;
mod read;
mod read_devices;
#[cfg(test)]
mod tests;
mod vars;
mod words;
mod write;
mod write_devices;
mod write_drives;

pub use foreign::{describe, foreign, ours, Ours, FORM};
pub use read::read;
pub use vars::{cut_vars, vars_of};
pub use write::{write, Put, Volume, Written};

/// Key of the firmware's variables among a domain's disks.
pub const VARS_KEY: &str = "nvram";
