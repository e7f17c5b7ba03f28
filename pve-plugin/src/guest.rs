//! Proxmox VE's VMs in the form that belongs to no hypervisor, and back: so that a VM of libvirt's can be kept here, and one
//! of ours there.

mod foreign;
mod options;
mod read;
mod read_devices;
#[cfg(test)]
mod tests;
mod words;
mod write;
mod write_devices;

pub use foreign::{describe, ours, sketch, Ours, FORM};
pub(crate) use foreign::{foreign, stand_in};
pub use read::read;
pub use write::{write, Put, Written};
