//! What the suite knows of libvirt.

pub mod xml;
