//! The command line of `rblocksync`.

use super::config::{ConfigFile, Program};
use super::{EngineArgs, OutputOptions, SshArgs, EXIT_CODES};
use crate::image::ImageFormat;
use clap::{Command, CommandFactory, Parser};
use std::ffi::OsString;
use std::path::PathBuf;

/// Its name.
const PROGRAM: &str = "rblocksync";

/// The program as its configuration file sees it.
pub const CONFIGURED: Program = Program {
    name: PROGRAM,
    command,
    one_run: &[
        "config-check",
        "config-show",
        "config-defaults",
        "ignore-size",
        "map",
        "source-format",
        "target-format",
        "truncate",
    ],
};

/// The command line's definition.
pub fn command() -> Command {
    Cli::command()
}

/// Make DST equal to SRC by sending only the blocks that differ
///
/// SRC and DST are files or block devices: a path on this host, [USER@]HOST:PATH, or
/// ssh://[USER@]HOST[:PORT]/PATH. Either or both may be remote. A local name with a colon is
/// written ./NAME.
#[derive(Parser)]
// The text is the help's: brackets in it are no links.
#[allow(missing_docs, rustdoc::broken_intra_doc_links)]
#[command(name = PROGRAM, version, after_help = EXIT_CODES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Cli {
    /// What to copy from
    pub src: OsString,
    /// What to make equal to it
    pub dst: OsString,
    /// Format of SRC: raw or qcow2; never guessed
    #[arg(long, value_name = "FORMAT", default_value_t = ImageFormat::Raw)]
    pub source_format: ImageFormat,
    /// Format of DST: raw or qcow2; never guessed
    #[arg(long, value_name = "FORMAT", default_value_t = ImageFormat::Raw)]
    pub target_format: ImageFormat,
    /// Create DST, or change its size to SRC's; only for files
    #[arg(long, conflicts_with = "ignore_size")]
    pub truncate: bool,
    /// Sync the part that both have if their sizes differ
    #[arg(long)]
    pub ignore_size: bool,
    /// Compare and tell what would be sent; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Unit of comparison and transfer, in multiples of 4 KiB
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub block_size: u32,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Draw a map of the image to this file (.svg, .png): holes, unchanged, changed, zeroed
    ///
    /// Light grey is a hole, grey is unchanged, orange (yellow if less than a quarter) is changed, blue is zeroed.
    /// An SVG has names, a legend and tool tips; the bar below a PNG shows the shares of the four, in this order.
    #[arg(long, value_name = "FILE")]
    pub map: Option<PathBuf>,
    #[command(flatten)]
    pub output: OutputOptions,
    #[command(flatten)]
    pub ssh: SshArgs,
    #[command(flatten)]
    pub file: ConfigFile,
    /// Check the configuration file, or FILE, tell what it sets, and end
    #[arg(long, value_name = "FILE", num_args = 0..=1, exclusive = true)]
    pub config_check: Option<Option<PathBuf>>,
    /// Print all options as they hold by the configuration file and the environment, and end
    #[arg(long, exclusive = true)]
    pub config_show: bool,
    /// Print the configuration file that changes nothing, with all options explained, and end
    #[arg(long, exclusive = true)]
    pub config_defaults: bool,
}

const EXAMPLES: &str = "\
Examples:
  rblocksync root@host1:/dev/sda /dev/sdb
  rblocksync --truncate root@host1:/dev/vg/vol vol.img
  rblocksync root@host1:/dev/vg/a root@host2:/dev/vg/a
  rblocksync --dry-run vm.img root@host2:/var/lib/libvirt/images/vm.img
  rblocksync --dry-run --map diff.svg root@host1:/dev/vg/a root@host2:/dev/vg/a";
