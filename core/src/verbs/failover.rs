//! `failover`: the replica on this host becomes the VM.

use super::Place;
use crate::cli::units::parse_time;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::RoleHypervisor;
use crate::job::{Failover, FailoverOptions, Fence, HostRequest, Position, SourceState};
use crate::remote::{reach, HostSpec, Reach};
use crate::replica::{Generation, TargetPair};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How long a host may take to answer at all.
const REACH_TIME: Duration = Duration::from_secs(5);

/// What to fail over, and how.
#[derive(Debug, clap::Args)]
pub struct FailoverArgs {
    /// The VM's id, here or at its source
    vm: String,
    /// Number of the generation to go on from; the newest if none is given
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
    /// How the source is reached from here: [USER@]HOST or ssh://[USER@]HOST[:PORT]. By default by its own name
    #[arg(long, value_name = "HOST")]
    source: Option<String>,
    /// Program, by its absolute path, with arguments, that makes sure that the source does not run the VM any more. It
    /// must exit with 0. No shell reads it; quotes keep words together
    #[arg(long, value_name = "COMMAND", value_parser = parse_command)]
    fence: Option<Words>,
    /// Longest time that may take
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_time)]
    fence_timeout: Duration,
    /// The VM's name: you are certain that it does not run on the source, and never will again
    #[arg(long, value_name = "NAME")]
    i_am_sure: Option<String>,
    /// Leave the VM off
    #[arg(long)]
    no_start: bool,
    /// Tell what is known and what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
}

/// A program and its arguments.
#[derive(Debug, Clone)]
pub(super) struct Words(pub PathBuf, pub Vec<OsString>);

/// Divides a command into words, as a shell would, and does nothing else that a shell does.
pub(super) fn parse_command(text: &str) -> std::result::Result<Words, String> {
    let words = shlex::split(text).ok_or("a quote is not closed")?;
    let mut words = words.into_iter();
    match words.next() {
        Some(program) if program.starts_with('/') => {
            Ok(Words(program.into(), words.map(OsString::from).collect()))
        }
        _ => Err("name the program by its absolute path".into()),
    }
}

/// Makes the replica the VM. `name_of` reads the VM's name from a generation's configuration.
pub fn failover(
    args: &FailoverArgs,
    place: &Place,
    hypervisor: &dyn RoleHypervisor,
    name_of: &dyn Fn(&Generation) -> Option<String>,
) -> Result<()> {
    let source = |pair: &TargetPair| ask_source(place, args.source.as_deref(), pair);
    let failover = Failover {
        layout: place.layout,
        hypervisor,
        reporter: place.reporter,
        source: &source,
        name_of,
    };
    let fence = args.fence.clone().map(|Words(program, arguments)| Fence {
        program,
        arguments,
        limit: args.fence_timeout,
    });
    let options = FailoverOptions {
        vm: args.vm.clone(),
        generation: args.generation,
        start: !args.no_start,
        dry_run: args.dry_run,
        fence,
        sure: args.i_am_sure.clone(),
    };
    failover.run(&options).map(drop)
}

/// Asks its agent; if that fails, the network tells whether there is anybody.
fn ask_source(place: &Place, named: Option<&str>, pair: &TargetPair) -> SourceState {
    let host = named.unwrap_or(&pair.source_name);
    let spec = match HostSpec::parse(host) {
        Ok(spec) => spec,
        Err(e) => return SourceState::Unknown(e.message()),
    };
    let options = place.ssh.options(place.stop);
    let first = reach(&spec, &options, REACH_TIME);
    if let Reach::Silent(how) = &first {
        return SourceState::Silent(how.clone());
    }
    let asked: Result<Position> = place.ask(host, &HostRequest::Position { pair: pair.pair });
    match (asked, first) {
        (Ok(position), _) => SourceState::Says(position),
        (Err(e), Reach::Answers(how)) => SourceState::Answers(format!("{how}; {}", e.message())),
        (Err(e), Reach::Unknown(why) | Reach::Silent(why)) => {
            SourceState::Unknown(format!("{why}; {}", told(&e)))
        }
    }
}

fn told(e: &Error) -> String {
    match e.kind() {
        Kind::Cancelled => "stopped".to_owned(),
        _ => e.message(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_words_and_nothing_else() {
        let Words(program, arguments) =
            parse_command("/usr/sbin/fence_ipmilan -a 'host one' -p $x;rm").unwrap();
        assert_eq!(program, PathBuf::from("/usr/sbin/fence_ipmilan"));
        assert_eq!(arguments, ["-a", "host one", "-p", "$x;rm"]);
        for bad in ["", "fence", "'/bin/x", "./x"] {
            assert!(parse_command(bad).is_err(), "{bad}");
        }
    }
}
