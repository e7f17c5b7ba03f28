//! What the suite knows of libvirt.

pub mod connect;
mod ffi;
pub mod running;
pub mod xml;
