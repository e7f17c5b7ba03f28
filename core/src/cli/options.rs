//! Options that several commands have.

use crate::digest::HashKind;
use crate::remote::SshOptions;
use crate::stop::Stop;
use std::path::PathBuf;

/// Names of the hash functions on the command line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum HashName {
    /// BLAKE3
    Blake3,
    /// SHA-256
    Sha256,
}

impl HashName {
    /// The function.
    pub fn kind(self) -> HashKind {
        match self {
            HashName::Blake3 => HashKind::Blake3,
            HashName::Sha256 => HashKind::Sha256,
        }
    }
}

/// Options about SSH.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SshArgs {
    /// SSH configuration file to use instead of the user's
    #[arg(long, value_name = "FILE", global = true)]
    pub ssh_config: Option<PathBuf>,
    /// Accept and remember the key of a host that is not known yet (never one that changed)
    #[arg(long, global = true)]
    pub accept_new_host_key: bool,
}

impl SshArgs {
    /// For a session that ends when `stop` is set.
    pub fn options(&self, stop: &Stop) -> SshOptions {
        SshOptions {
            config_file: self.ssh_config.clone(),
            accept_new_host_key: self.accept_new_host_key,
            stop: stop.clone(),
            ..SshOptions::default()
        }
    }
}
