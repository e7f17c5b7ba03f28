//! What the suite knows of libvirt.

pub use libvirt_domain::{guest, xml};
