//! What the suite knows of libvirt.

pub use libvirt_domain::xml;

pub mod args;
pub mod connect;
pub mod disks;
pub mod domain;
mod ffi;
pub mod fitness;
pub mod fleet;
mod foreign;
pub mod hook;
pub mod host;
#[cfg(test)]
mod lifecycle_tests;
pub mod live;
pub mod marks;
pub mod overlay;
pub mod placement;
pub mod pools;
pub mod replica_xml;
pub mod roles;
pub mod running;
pub mod source;
pub mod standstill;
pub mod target;
pub mod tpm;
pub mod trials;
mod volumes;
pub mod whereabouts;
pub mod work;

/// The command line's definition.
pub fn command() -> clap::Command {
    let command = fleet::JOBS.lend(<args::Cli as clap::CommandFactory>::command());
    rblocksync::verbs::with_examples(command, "web01", &args::EXAMPLES)
}
