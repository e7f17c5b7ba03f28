//! The Debian packages: built, looked at, and installed in roots of Debian that are made for it.

mod built;
mod root;

pub use built::{listing, lower_version, Built, PACKAGES};
pub use root::{alone, hypervisor, Root, Suite};
