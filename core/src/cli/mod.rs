//! What the command lines of all front ends share: endpoints, progress, output and exit codes.

mod agent;
mod always_term;
pub mod config;
mod endpoint;
mod exit;
pub mod map;
mod options;
pub(crate) mod output_file;
mod plain;
mod report;
mod transfer;
pub mod units;

pub use agent::run_agent;
pub use endpoint::Endpoint;
pub use exit::{ended, exit_code, EXIT_CODES, EXIT_SOME_FAILED};
pub use options::{EngineArgs, HashName, SshArgs};
pub use output_file::replace_file;
pub use plain::{command, Cli, CONFIGURED};
pub use report::{OutputOptions, ProgressMode, Reporter};
pub use transfer::{run, Transfer};
