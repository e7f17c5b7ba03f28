//! The command lines. Each is the very file that its program is built from.

use clap::{Command, CommandFactory};

#[path = "../../../core/src/args.rs"]
#[allow(dead_code)]
mod rblocksync_args;

#[path = "../../../pve-plugin/src/bin/pvesync/args.rs"]
#[allow(dead_code, missing_docs)]
mod pvesync_args;

#[path = "../../../libvirt-hook/src/bin/virt-blocksync/args.rs"]
#[allow(dead_code, missing_docs)]
mod virt_blocksync_args;

/// The three programs.
pub fn all() -> Vec<Command> {
    vec![
        rblocksync_args::Cli::command(),
        pvesync_args::Cli::command(),
        virt_blocksync_args::Cli::command(),
    ]
}
