//! The configuration file of a program, and the variables of its environment: other defaults for its options.
//!
//! What holds for an option is what the command line says; else the environment, as `PVESYNC_KEEP` for `--keep`; else the
//! file; else what is built in. No option is defined a second time: what the file says is handed to clap as an option's
//! default, so that it is checked as on the command line, and `--help` shows it.
//!
//! An option of the command line that excludes one of the environment or the file is stronger than that one, too. A flag that
//! is on by default then can be switched off: `--verify=false`.

mod file;
pub(crate) mod options;
mod show;

pub use show::{config, ConfigArgs};

use crate::error::{Error, Kind, Result};
use crate::trusted_file::read_trusted;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use file::Setting;
use options::{excludes, options_at, Place};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Which configuration file is read.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigFile {
    /// Configuration file to read instead of the usual one in /etc; /dev/null for none
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

/// A program that has a configuration file.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Its command line.
    pub command: fn() -> Command,
    /// Options, besides those that no program has there, that are about one run and so are not taken from the file or the
    /// environment.
    pub one_run: &'static [&'static str],
}

/// Options of that kind that programs have in common: they choose, confirm or change what is done.
const ONE_RUN: [&str; 18] = [
    "all",
    "config",
    "dry-run",
    "every",
    "exclude-vm",
    "generation",
    "help",
    "i-am-sure",
    "on-calendar",
    "print-config",
    "repair",
    "replace",
    "target-lost",
    "target-name",
    "target-vmid",
    "test-vmid",
    "undo",
    "version",
];

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// A variable of the environment.
    Variable(String),
    /// A line of the file.
    Line(usize),
    /// The program.
    BuiltIn,
}

/// What holds for an option of a verb, if the command line says nothing.
struct Chosen<'a> {
    arg: &'a Arg,
    /// How many words of the verb lead to where the option is defined.
    depth: usize,
    values: Vec<String>,
    origin: Origin,
}

/// The environment: gives the value of a variable.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Why a command line is not to be carried out because of the configuration.
#[derive(Debug)]
pub struct Failed {
    /// The verb, if there is one.
    pub verb: Option<String>,
    /// What is wrong.
    pub error: Error,
    json: bool,
}

impl Failed {
    /// Tells what is wrong, and gives the exit code.
    pub fn end(&self, program: &str) -> ExitCode {
        let output = super::OutputOptions {
            json: self.json,
            ..super::OutputOptions::default()
        };
        super::Reporter::new(output).fail(program, &self.error);
        ExitCode::from(super::exit_code(&self.error, &crate::stop::Stop::new()))
    }
}

/// How parsing may end early.
#[derive(Debug)]
enum Early {
    /// As clap has it: help, or a mistake.
    Clap(clap::Error),
    /// The configuration is at fault.
    Configuration(Failed),
}

impl Program {
    /// Where its file is, unless another one is named.
    pub fn usual_file(&self) -> PathBuf {
        Path::new("/etc")
            .join(self.name)
            .join(format!("{}.toml", self.name))
    }

    /// The variable of an option.
    fn variable(&self, long: &str) -> String {
        format!("{}_{long}", self.name)
            .replace('-', "_")
            .to_uppercase()
    }

    fn is_for_one_run(&self, long: &str) -> bool {
        ONE_RUN.contains(&long) || self.one_run.contains(&long)
    }

    /// The command line, with the program's name in front, read with other defaults. Help, and mistakes of the command line,
    /// end the process, as always with clap.
    pub fn matches(&self, line: &[OsString]) -> std::result::Result<ArgMatches, Failed> {
        let variable = |name: &str| std::env::var_os(name);
        match self.matches_with(line, &variable, &self.usual_file()) {
            Ok(matches) => Ok(matches),
            Err(Early::Clap(e)) => e.exit(),
            Err(Early::Configuration(failed)) => Err(failed),
        }
    }

    fn matches_with(
        &self,
        line: &[OsString],
        variable: Environment,
        usual: &Path,
    ) -> std::result::Result<ArgMatches, Early> {
        let plain = (self.command)();
        let given = Given::look(&plain, line);
        // It is about the configuration itself, and tells what is wrong with it.
        let about_it = given.path.first().is_some_and(|verb| verb == "config");
        let done = match about_it {
            true => Ok(plain.clone()),
            false => self.with_defaults(&plain, &given, variable, usual),
        };
        match done {
            Ok(command) => command.try_get_matches_from(line).map_err(Early::Clap),
            Err(error) => {
                // Help can be had all the same.
                match plain.try_get_matches_from(line) {
                    Err(e) if !e.use_stderr() => Err(Early::Clap(e)),
                    _ => Err(Early::Configuration(Failed {
                        verb: given.path.into_iter().next(),
                        error,
                        json: given.options.contains("json"),
                    })),
                }
            }
        }
    }

    /// The command with the defaults of the environment and the file for the verb that is given.
    fn with_defaults(
        &self,
        plain: &Command,
        given: &Given,
        variable: Environment,
        usual: &Path,
    ) -> Result<Command> {
        let built = built(plain);
        let (path, text) = self.text(given.config.as_deref(), variable, usual)?;
        let settings = self.settings(&built, &path, &text)?;
        let verb: Vec<&str> = given.path.iter().map(String::as_str).collect();
        let mut chosen = self.chosen(&built, &verb, &settings, variable)?;
        chosen.retain(|c| c.origin != Origin::BuiltIn);
        let chosen = self.without_excluded(&built, &verb, chosen, &given.options)?;
        let mut command = plain.clone();
        for choice in chosen {
            command = with_default(command, &verb[..choice.depth], &choice);
        }
        Ok(command)
    }

    /// The file that is read, and what is in it: nothing if there is none at the usual place.
    fn text(
        &self,
        named: Option<&Path>,
        variable: Environment,
        usual: &Path,
    ) -> Result<(PathBuf, String)> {
        let variable = variable(&self.variable("config")).filter(|value| !value.is_empty());
        let named = named.map(Path::to_path_buf).or(variable.map(PathBuf::from));
        let text = match &named {
            Some(path) if path == Path::new("/dev/null") => String::new(),
            Some(path) => read_trusted(path)?,
            None => match file::read_usual(usual) {
                Err(e) if e.kind() == Kind::NotFound => String::new(),
                read => read?,
            },
        };
        Ok((named.unwrap_or_else(|| usual.to_path_buf()), text))
    }

    /// What a file sets; an error names all mistakes.
    fn settings(&self, built: &Command, path: &Path, text: &str) -> Result<Vec<Setting>> {
        let (settings, mistakes) = file::settings(self, built, text);
        if mistakes.is_empty() {
            return Ok(settings);
        }
        let mistakes: Vec<String> = mistakes
            .iter()
            .map(|m| format!("{}:{}: {}", path.display(), m.line, m.why))
            .collect();
        Err(Error::new(Kind::Usage, mistakes.join("\n")))
    }

    /// What holds for each option of a verb if the command line says nothing.
    fn chosen<'a>(
        &self,
        built: &'a Command,
        verb: &[&str],
        settings: &[Setting],
        variable: Environment,
    ) -> Result<Vec<Chosen<'a>>> {
        let mut chosen = Vec::new();
        for Place { arg, depth } in options_at(built, verb) {
            let long = arg.get_long().unwrap_or_default();
            if self.is_for_one_run(long) {
                continue;
            }
            let name = self.variable(long);
            let (values, origin) = match variable(&name).filter(|value| !value.is_empty()) {
                Some(value) => (
                    options::from_variable(arg, &name, &value)?,
                    Origin::Variable(name),
                ),
                None => match file::setting_for(settings, verb, long) {
                    Some(setting) => (setting.values.clone(), Origin::Line(setting.line)),
                    None => (options::built_in(arg), Origin::BuiltIn),
                },
            };
            chosen.push(Chosen {
                arg,
                depth,
                values,
                origin,
            });
        }
        Ok(chosen)
    }

    /// Without those that options exclude which are stronger. Two of the same strength are a mistake.
    fn without_excluded<'a>(
        &self,
        built: &Command,
        verb: &[&str],
        chosen: Vec<Chosen<'a>>,
        given: &BTreeSet<String>,
    ) -> Result<Vec<Chosen<'a>>> {
        let is_on =
            |c: &Chosen| options::takes_values(c.arg) || c.values.iter().any(|v| v == "true");
        let strength = |origin: &Origin| u8::from(matches!(origin, Origin::Variable(_)));
        let mut kept = Vec::new();
        for one in &chosen {
            let at = options::command_at(built, &verb[..one.depth]);
            let against = |id: &str| excludes(at, one.arg, id);
            let mut stronger = given.iter().any(|id| against(id));
            for other in chosen.iter().filter(|other| is_on(other) && is_on(one)) {
                if !against(other.arg.get_id().as_str()) {
                    continue;
                }
                stronger |= strength(&other.origin) > strength(&one.origin);
                if strength(&other.origin) == strength(&one.origin) {
                    let long = |c: &Chosen| c.arg.get_long().unwrap_or_default().to_owned();
                    let what = format!("{} and {} exclude each other", long(one), long(other));
                    return Err(Error::new(Kind::Usage, what)
                        .advise(format!("`{}` shows where they are set", self.show())));
                }
            }
            kept.push(!stronger);
        }
        let mut kept = kept.into_iter();
        Ok(chosen
            .into_iter()
            .filter(|_| kept.next().unwrap_or(true))
            .collect())
    }

    /// The command that shows what is configured.
    fn show(&self) -> String {
        let verbs = (self.command)();
        match verbs.find_subcommand("config") {
            Some(_) => format!("{} config show", self.name),
            None => format!("{} --config-show", self.name),
        }
    }
}

/// The command with all that clap adds to it.
fn built(plain: &Command) -> Command {
    let mut built = plain.clone();
    built.build();
    built
}

/// What a command line gives, looked at without minding its mistakes.
#[derive(Debug, Default)]
struct Given {
    path: Vec<String>,
    options: BTreeSet<String>,
    config: Option<PathBuf>,
}

impl Given {
    fn look(plain: &Command, line: &[OsString]) -> Given {
        let looked = plain
            .clone()
            .ignore_errors(true)
            .disable_help_flag(true)
            .disable_version_flag(true)
            .try_get_matches_from(line);
        let mut given = Given::default();
        let Ok(looked) = looked else { return given };
        let mut at = &looked;
        loop {
            for id in at.ids().map(clap::Id::as_str) {
                if at.value_source(id) == Some(ValueSource::CommandLine) {
                    given.options.insert(id.to_owned());
                }
            }
            if let Ok(Some(mut words)) = at.try_get_raw("config") {
                given.config = words.next().map(PathBuf::from);
            }
            match at.subcommand() {
                Some((name, inner)) => {
                    given.path.push(name.to_owned());
                    at = inner;
                }
                None => return given,
            }
        }
    }
}

/// The command in which an option of the subcommand `path` has another default.
fn with_default(command: Command, path: &[&str], choice: &Chosen) -> Command {
    if let Some((first, rest)) = path.split_first() {
        return command.mut_subcommand(first, |inner| with_default(inner, rest, choice));
    }
    command.mut_arg(choice.arg.get_id().as_str(), |arg| {
        if options::takes_values(choice.arg) {
            return arg
                .required(false)
                .default_values(choice.values.iter().map(|v| kept(v)));
        }
        match choice.values.iter().any(|v| v == "true") {
            // So that it can be switched off.
            true => arg
                .action(ArgAction::Set)
                .value_parser(clap::value_parser!(bool))
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .default_value("true"),
            false => arg,
        }
    })
}

/// clap keeps defaults as long as the process lives, which reads its configuration once.
fn kept(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
