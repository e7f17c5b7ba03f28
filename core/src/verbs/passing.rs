//! Options that a run over several VMs passes on to the run of each.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use std::ffi::OsString;

/// The options that were given to the subcommand `path`, as words for another call: all that are not `without`, by the
/// names of their fields. So an option that is added to the program later on is passed on without anybody thinking of it.
pub fn passed_on(
    mut command: Command,
    path: &[&str],
    matches: &ArgMatches,
    without: &[&str],
) -> Vec<OsString> {
    // Options of all subcommands are known to each of them only after that.
    command.build();
    let (mut command, mut matches) = (&command, matches);
    for name in path {
        let inner = command.find_subcommand(name);
        let (Some(inner), Some(found)) = (inner, matches.subcommand_matches(name)) else {
            return Vec::new();
        };
        (command, matches) = (inner, found);
    }
    let mut words = Vec::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let Some(long) = arg.get_long().filter(|_| !without.contains(&id)) else {
            continue;
        };
        if !matches.try_contains_id(id).unwrap_or(false)
            || matches.value_source(id) != Some(ValueSource::CommandLine)
        {
            continue;
        }
        if !arg.get_action().takes_values() {
            // One that is on by the configuration can be switched off.
            let off = matches
                .get_raw(id)
                .is_some_and(|mut given| given.any(|v| v == "false"));
            words.push(match off {
                true => format!("--{long}=false").into(),
                false => format!("--{long}").into(),
            });
            continue;
        }
        for value in matches
            .get_raw_occurrences(id)
            .into_iter()
            .flatten()
            .flatten()
        {
            let mut word = OsString::from(format!("--{long}="));
            word.push(value);
            words.push(word);
        }
    }
    words
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
    use std::path::PathBuf;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(subcommand)]
        verb: Verb,
        #[arg(long, global = true)]
        config: Option<PathBuf>,
        #[arg(long, global = true)]
        json: bool,
    }

    #[derive(Subcommand, Debug)]
    enum Verb {
        Vm {
            ids: Vec<String>,
            #[arg(long)]
            to: String,
            #[arg(long, default_value_t = 2)]
            jobs: u32,
            #[arg(long)]
            map: Vec<String>,
            #[arg(long)]
            fast: bool,
            #[arg(long)]
            slow: bool,
        },
    }

    fn passed(line: &[&str]) -> Vec<String> {
        let matches = Cli::command().try_get_matches_from(line).unwrap();
        Cli::from_arg_matches(&matches).unwrap();
        passed_on(Cli::command(), &["vm"], &matches, &["to", "json"])
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect()
    }

    #[test]
    fn what_was_given_is_passed_on_and_nothing_else() {
        assert!(passed(&["x", "vm", "101,102", "--to", "h", "--json"]).is_empty());
        let mut words = passed(&[
            "x", "--config", "/c d", "vm", "1", "2", "--to=h", "--map", "a=b", "--map=-c",
            "--fast", "--jobs", "2",
        ]);
        words.sort();
        assert_eq!(
            words,
            [
                "--config=/c d",
                "--fast",
                "--jobs=2",
                "--map=-c",
                "--map=a=b"
            ]
        );
        let off = ["x", "vm", "1", "--to=h", "--fast=false", "--slow"];
        let command = Cli::command().mut_subcommand("vm", |vm| {
            vm.mut_arg("fast", |arg| {
                arg.action(clap::ArgAction::Set)
                    .value_parser(clap::value_parser!(bool))
                    .num_args(0..=1)
                    .default_value("true")
            })
        });
        let matches = command.try_get_matches_from(off).unwrap();
        let words = passed_on(Cli::command(), &["vm"], &matches, &["to"]);
        assert_eq!(words, ["--fast=false", "--slow"]);
        // And wherever it stood.
        assert_eq!(passed(&["x", "vm", "--to=h", "--config=c"]), ["--config=c"]);
    }
}
