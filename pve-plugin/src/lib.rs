//! What the suite knows of Proxmox VE.

pub mod api;
pub mod args;
pub mod config_text;
pub mod disks;
pub mod drive;
pub mod fitness;
pub mod fleet;
pub mod guard;
pub mod guest;
mod live;
pub mod node;
mod placement;
pub mod qm;
mod rbd;
pub mod renamed;
pub mod replica_config;
pub mod role_config;
pub mod roles;
pub mod source;
pub mod storage_cfg;
pub mod target;
pub mod trials;
pub mod vm_config;
pub mod volid;
pub mod way_back;
pub mod workstation;

/// The command line's definition.
pub fn command() -> clap::Command {
    let command = fleet::JOBS.lend(<args::Cli as clap::CommandFactory>::command());
    rblocksync::verbs::with_examples(command, "101", &args::EXAMPLES)
}
