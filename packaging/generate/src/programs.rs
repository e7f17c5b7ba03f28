//! The command lines.

use clap::Command;

/// The three programs.
pub fn all() -> Vec<Command> {
    vec![
        rblocksync::cli::command(),
        pvesync::command(),
        virt_blocksync::command(),
    ]
}
