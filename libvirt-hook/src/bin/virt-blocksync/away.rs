//! Whether a command line is for another host.

use clap::parser::ValueSource;
use clap::ArgMatches;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::remote::HostSpec;
use rblocksync::verbs::elsewhere;
use std::ffi::OsString;
use virt_blocksync::args::Cli;
use virt_blocksync::whereabouts::{uri, ConnectArgs, Whereabouts};

/// The host that a command line is for, if it is not this one, and what to do there. What stands before the verb is for
/// this machine, `--connect` among it.
pub fn host_and_words(
    cli: &Cli,
    matches: &ArgMatches,
    line: &[OsString],
) -> Result<Option<(HostSpec, Vec<OsString>)>> {
    let parted = elsewhere::parted::<ConnectArgs>(line.iter().cloned());
    let before = parted.as_ref().ok();
    let before = before.and_then(|(_, own)| own.connect.as_deref());
    let said = cli.libvirt.connect.as_deref();
    let is_after =
        before.is_none() && matches.value_source("connect") == Some(ValueSource::CommandLine);
    match Whereabouts::of(&uri(before.or(said)))? {
        Whereabouts::Here => Ok(None),
        Whereabouts::There(host) if is_after => Err(Error::new(
            Kind::Usage,
            "after the verb, --connect is for the host that does it",
        )
        .advise(format!(
            "to have it done on {host}, write --connect before the verb"
        ))),
        Whereabouts::There(host) => Ok(Some((host, parted?.0))),
    }
}
