//! Options of `vm` in jobs: all but those that a job has a field of its own for, and those that make no sense in one.
//!
//! None of them is named here. So one that is added to `vm` is one of jobs, and of `schedule add`, without anybody thinking of
//! it; whoever does not want that adds it to [`NOT_IN_JOBS`] or to [`JobKind::not_in_jobs`].

use super::Fault;
use crate::cli::config::options::{check, nearest, takes_many, takes_values, values, Values, LENT};
use crate::cli::config::Program;
use crate::error::{Error, Kind, Result};
use crate::verbs::passed_on;
use crate::verbs::schedule::Templates;
use clap::builder::{OsStr, Resettable, ValueParser};
use clap::{Arg, ArgMatches, Command};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use toml::de::DeValue;

/// Options of `vm`, by their long names, that are in no program's jobs: they are about output, about a run that is
/// watched, or said by a job's own fields.
pub const NOT_IN_JOBS: [&str; 12] = [
    "config",
    "dry-run",
    "help",
    "json",
    "parallel",
    "per-host",
    "print-config",
    "progress",
    "quiet",
    "rpo",
    "target-kind",
    "to",
];

/// What a program's jobs are like.
#[derive(Clone, Copy)]
pub struct JobKind {
    /// The program. It has the verbs `vm`, `job` and `schedule`.
    pub program: Program,
    /// Its units.
    pub templates: &'static Templates,
    /// Adds the options that say which VMs are meant.
    pub selection: fn(Command) -> Command,
    /// Long names of options of `vm` that are not in its jobs, besides [`NOT_IN_JOBS`].
    pub not_in_jobs: &'static [&'static str],
}

impl JobKind {
    /// The program's command line, with options for jobs added to `schedule add`: as they are for `vm`, but with nothing that
    /// holds if they are not given.
    pub fn lend(&self, command: Command) -> Command {
        let Some(vm) = command.find_subcommand("vm") else {
            return command;
        };
        let lent: Vec<Arg> = vm
            .get_arguments()
            .filter(|arg| self.is_in_jobs(arg))
            .map(|arg| {
                let arg = arg.clone().required(false).help_heading(LENT);
                arg.default_value(Resettable::<OsStr>::Reset)
            })
            .collect();
        changed_at(command, &["schedule", "add"], &|add| add.args(&lent))
    }

    /// The command line with all that clap adds to it.
    pub(super) fn built(&self) -> Command {
        let mut built = (self.program.command)();
        built.build();
        built
    }

    /// The options of `vm` that may be in a job.
    pub(super) fn options<'a>(&self, built: &'a Command) -> Vec<&'a Arg> {
        let vm = built.find_subcommand("vm").into_iter();
        let all = vm.flat_map(Command::get_arguments);
        all.filter(|arg| self.is_in_jobs(arg)).collect()
    }

    /// Long names of all options that may be in a job, as they are written there.
    pub fn keys(&self) -> Vec<String> {
        self.options(&self.built())
            .into_iter()
            .map(key_of)
            .collect()
    }

    /// Ids of the options that say which VMs are meant.
    pub(super) fn selecting(&self) -> Vec<String> {
        let command = (self.selection)(Command::new("selection"));
        let ids = command.get_arguments().map(|arg| arg.get_id().to_string());
        ids.collect()
    }

    fn is_in_jobs(&self, arg: &Arg) -> bool {
        arg.get_long().is_some_and(|long| {
            !NOT_IN_JOBS.contains(&long)
                && !self.not_in_jobs.contains(&long)
                && !self
                    .selecting()
                    .iter()
                    .any(|id| arg.get_id() == id.as_str())
        })
    }

    /// Says why the program does not take these words.
    fn takes(&self, words: Vec<OsString>) -> std::result::Result<(), String> {
        let line = std::iter::once(self.program.name.into()).chain(words);
        match (self.program.command)().try_get_matches_from(line) {
            Ok(_) => Ok(()),
            Err(e) => {
                let text = e.to_string();
                let why = text.lines().next().unwrap_or_default();
                Err(why.trim_start_matches("error: ").to_owned())
            }
        }
    }
}

/// The command with the subcommand at a path changed. All subcommands are gone through in their order, because clap moves one
/// that is changed behind the others.
fn changed_at(command: Command, path: &[&str], change: &dyn Fn(Command) -> Command) -> Command {
    let Some((first, rest)) = path.split_first() else {
        return change(command);
    };
    let inner = command.get_subcommands();
    let names: Vec<String> = inner.map(|c| c.get_name().to_owned()).collect();
    names.iter().fold(command, |command, name| {
        command.mut_subcommand(name, |inner| match name == first {
            true => changed_at(inner, rest, change),
            false => inner,
        })
    })
}

/// An option's name in job files.
fn key_of(arg: &Arg) -> String {
    arg.get_long().unwrap_or_default().replace('-', "_")
}

/// What is given for the options of `vm`, by their names in job files. A flag that is off is not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<String, Given>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Given {
    Flag,
    One(String),
    Many(Vec<String>),
}

impl Given {
    fn values(&self) -> &[String] {
        match self {
            Given::Flag => &[],
            Given::One(value) => std::slice::from_ref(value),
            Given::Many(values) => values,
        }
    }
}

impl Options {
    /// Takes what a file says of an option.
    pub(super) fn read(&mut self, arg: &Arg, value: &DeValue) -> std::result::Result<(), String> {
        let values = match values(value)? {
            Values::One(word) => vec![word],
            Values::Many(words) if takes_many(arg) => words,
            Values::Many(_) => return Err("it takes one value, not several".into()),
        };
        for value in &values {
            check(arg, value)?;
        }
        self.put(arg, values);
        Ok(())
    }

    fn put(&mut self, arg: &Arg, values: Vec<String>) {
        let given = match (takes_values(arg), takes_many(arg)) {
            (true, true) => Some(Given::Many(values)),
            (true, false) => values.into_iter().next_back().map(Given::One),
            (false, _) => values.iter().any(|v| v == "true").then_some(Given::Flag),
        };
        self.0.extend(given.map(|given| (key_of(arg), given)));
    }

    /// What the command line of `schedule add` gives.
    pub(super) fn given(kind: &JobKind, matches: &ArgMatches) -> Result<Options> {
        let built = kind.built();
        let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for word in passed_on(built.clone(), &["schedule", "add"], matches, &[]) {
            let word = word.into_string().map_err(|word| {
                let what = format!("{} is not UTF-8, as a job's file is", word.display());
                Error::new(Kind::Usage, what)
            })?;
            let (option, value) = word.split_once('=').unwrap_or((&word, "true"));
            let values = given.entry(option.to_owned()).or_default();
            values.push(value.to_owned());
        }
        let mut options = Options::default();
        for arg in kind.options(&built) {
            let option = format!("--{}", arg.get_long().unwrap_or_default());
            if let Some(values) = given.remove(&option) {
                options.put(arg, values);
            }
        }
        Ok(options)
    }

    /// The words for the run of each VM, without options that `stronger` words give.
    pub(super) fn words(&self, stronger: &[OsString]) -> Vec<OsString> {
        let name = |word: &OsString| {
            let word = word.to_string_lossy();
            word.split('=').next().unwrap_or_default().to_owned()
        };
        let stronger: Vec<String> = stronger.iter().map(name).collect();
        let mut words: Vec<OsString> = Vec::new();
        for (key, given) in &self.0 {
            let option = format!("--{}", key.replace('_', "-"));
            if stronger.contains(&option) {
                continue;
            }
            match given {
                Given::Flag => words.push(option.into()),
                given => {
                    let values = given.values().iter();
                    words.extend(values.map(|v| format!("{option}={v}").into()));
                }
            }
        }
        words
    }

    /// What no value alone can tell: what is said twice, what would depend on where the run begins, and what excludes another
    /// option.
    pub(super) fn check(&self, kind: &JobKind) -> std::result::Result<(), Fault> {
        let built = kind.built();
        for arg in kind.options(&built) {
            let key = key_of(arg);
            let Some(given) = self.0.get(&key) else {
                continue;
            };
            let values = given.values();
            let is_path = arg.get_value_parser().type_id() == ValueParser::path_buf().type_id();
            if is_path && values.iter().any(|v| !Path::new(v).is_absolute()) {
                return Err(Fault::new(
                    key,
                    "write the path from / on: runs of jobs begin there",
                ));
            }
            let many = if takes_many(arg) { values } else { &[] };
            let mut sides: Vec<(&str, &str)> =
                many.iter().filter_map(|v| v.split_once('=')).collect();
            sides.sort_unstable();
            sides.dedup();
            if let Some(twice) = sides.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                let why = format!("{} is given twice", twice[0].0);
                return Err(Fault::new(key, why));
            }
        }
        let Some(first) = self.0.keys().next() else {
            return Ok(());
        };
        let mut words: Vec<OsString> = vec!["vm".into(), "--to=host".into()];
        words.extend(self.words(&[]));
        words.extend(["--".into(), "100".into()]);
        kind.takes(words)
            .map_err(|why| Fault::new(first.clone(), why))
    }

    /// As they are written into a file: values first, then tables.
    pub(super) fn to_toml(&self, toml: &mut Vec<toml::Table>) {
        let mut tables = toml::Table::new();
        let mut plain = toml::Table::new();
        for (key, given) in &self.0 {
            let value = match given {
                Given::Flag => toml::Value::Boolean(true),
                Given::One(value) => plain_value(value),
                Given::Many(values) => written(values),
            };
            match value {
                toml::Value::Table(_) => tables.insert(key.clone(), value),
                value => plain.insert(key.clone(), value),
            };
        }
        toml.extend([plain, tables]);
    }
}

/// Values of an option that may have several, as people would write them.
fn written(values: &[String]) -> toml::Value {
    let sides: Option<toml::Table> = values
        .iter()
        .map(|v| {
            let (from, to) = v.split_once('=')?;
            (!from.is_empty()).then(|| (from.to_owned(), to.into()))
        })
        .collect();
    match (sides, values) {
        (Some(table), _) if table.len() == values.len() => toml::Value::Table(table),
        (_, [one]) => plain_value(one),
        (_, several) => toml::Value::Array(several.iter().map(|v| v.as_str().into()).collect()),
    }
}

fn plain_value(value: &str) -> toml::Value {
    match value.parse::<i64>() {
        Ok(number) if number.to_string() == value => toml::Value::Integer(number),
        _ => value.into(),
    }
}

/// Says that a job has no such field.
pub(super) fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let like = name.replace('-', "_");
    let known: Vec<&str> = known.collect();
    // What is meant is asked for with dashes, as on the command line.
    let near = match known.iter().find(|known| **known == like) {
        Some(same) => Some((*same).to_owned()),
        None => {
            let dashed: Vec<String> = known.iter().map(|k| k.replace('_', "-")).collect();
            nearest(name, dashed.iter().map(String::as_str)).map(|near| near.replace('-', "_"))
        }
    };
    let end = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
    format!("unknown field `{}`{end}", name.escape_default())
}
