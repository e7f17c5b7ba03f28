//! Domains of libvirt's, as far as their XML goes: for `virt-blocksync`, and for whoever has to write one without libvirt.

pub mod guest;
pub mod xml;
