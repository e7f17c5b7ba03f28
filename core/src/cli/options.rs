//! Options that several commands have.

use super::units::parse_rate;
use crate::digest::HashKind;
use crate::driver::Streams;
use crate::remote::{Cipher, SshOptions};
use crate::replica::{state_dir, Layout};
use crate::stop::Stop;
use crate::sync::{Compress, Tuning, LEVEL_MAX};
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

/// Options of the block engine.
#[derive(Debug, Clone, clap::Args)]
pub struct EngineArgs {
    /// Hash function that finds differences
    #[arg(long, value_name = "HASH", default_value = "blake3")]
    pub hash: HashName,
    /// Read back from the medium what was written, and check it
    #[arg(long)]
    pub verify: bool,
    /// Send at most this many bytes of data a second (K, M, G), as they travel
    #[arg(long, value_name = "RATE", value_parser = |s: &str| parse_rate(s))]
    pub bwlimit: Option<u64>,
    /// Compress what is sent: auto follows the speed of the link, off, or a zstd level from 1 to 19
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = parse_compress)]
    pub compress: Compress,
    /// Threads on each side that read, hash and write; by default twice the processors, 4 to 8
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub threads: Option<u8>,
    /// Read and write files past the page cache, as devices always are
    #[arg(long)]
    pub direct: bool,
    /// SSH connections that share the data of a disk: auto, or 1 to 16
    ///
    /// One connection carries at most 2 MiB in a round trip, and encrypts on one processor. auto starts with one, and
    /// opens up to 8 where the latency holds it up.
    #[arg(long, value_name = "N", default_value = "auto", value_parser = parse_streams)]
    pub streams: Streams,
}

impl EngineArgs {
    /// The same for the engine.
    pub fn tuning(&self) -> Tuning {
        Tuning {
            hash: self.hash.kind(),
            verify: self.verify,
            bytes_per_s_max: self.bwlimit,
            compress: self.compress,
            threads: self.threads,
        }
    }
}

fn parse_compress(text: &str) -> Result<Compress, String> {
    match text {
        "auto" => Ok(Compress::Auto),
        "off" => Ok(Compress::Off),
        level => match level.parse() {
            Ok(level @ 1..=LEVEL_MAX) => Ok(Compress::Level(level)),
            _ => Err("it is auto, off or a level from 1 to 19".to_owned()),
        },
    }
}

fn parse_streams(text: &str) -> Result<Streams, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Streams::Auto),
        (_, Ok(count @ 1..=Streams::MAX)) => Ok(Streams::Fixed(count)),
        _ => Err(format!(
            "it is auto, or a number from 1 to {}",
            Streams::MAX
        )),
    }
}

fn parse_cipher(text: &str) -> Result<Cipher, String> {
    match text {
        "auto" => Ok(Cipher::Auto),
        "config" => Ok(Cipher::Configured),
        "" => Err("it is auto, config or a list of ciphers".to_owned()),
        list => Ok(Cipher::List(list.to_owned())),
    }
}

/// Options about SSH.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SshArgs {
    /// SSH configuration file to use instead of the user's
    #[arg(long, value_name = "FILE", global = true)]
    pub ssh_config: Option<PathBuf>,
    /// Ciphers for SSH: auto, config (as ssh is configured), or a list as in ssh_config(5)
    ///
    /// auto puts AES-GCM first if this processor has instructions for AES and ssh's configuration names no
    /// ciphers: it costs half of what OpenSSH's own first choice does.
    #[arg(long, value_name = "LIST", default_value = "auto", global = true, value_parser = parse_cipher)]
    pub cipher: Cipher,
    /// Accept and remember the key of a host that is not known yet (never one that changed)
    #[arg(long, global = true)]
    pub accept_new_host_key: bool,
}

impl SshArgs {
    /// For a session that ends when `stop` is set.
    pub fn options(&self, stop: &Stop) -> SshOptions {
        SshOptions {
            config_file: self.ssh_config.clone(),
            cipher: self.cipher.clone(),
            keys: Some(Layout::new(state_dir()).keys()),
            accept_new_host_key: self.accept_new_host_key,
            stop: stop.clone(),
            ..SshOptions::default()
        }
    }
}
