//! What is in a configuration file.

use super::options::{check, command_at, nearest, options_at, takes_many, values, verbs, Values};
use super::Program;
use crate::cli::output_file::parent;
use crate::error::{Error, Kind, Result};
use crate::trusted_file::{check_trusted, line_of, read_trusted};
use clap::{Arg, Command};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Options whose meaning depends on the verb, and that are therefore set for a verb only: with `to`, `vm` names the host to
/// sync to, and `prune` the one to prune on.
pub(super) const FOR_A_VERB: [&str; 1] = ["to"];

/// An option that a file sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The verb that it is set for; empty for all.
    pub section: Vec<String>,
    /// The option's long name.
    pub key: String,
    pub values: Vec<String>,
    pub line: usize,
}

/// What is wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    pub line: usize,
    pub why: String,
}

/// Reads the file that nobody has named. Nobody else may be able to put another one into its place.
pub(super) fn read_usual(path: &Path) -> Result<String> {
    let dir = parent(path);
    let meta = match dir.metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let what = format!("there is no {}", dir.display());
            return Err(Error::new(Kind::NotFound, what));
        }
        Err(e) => return Err(Error::io(format!("cannot read {}", dir.display()), e)),
    };
    check_trusted(dir, &meta)?;
    read_trusted(path)
}

/// What the file says of an option of a verb: in the section of the verb, or else in the nearest one around it.
pub(super) fn setting_for<'a>(
    settings: &'a [Setting],
    verb: &[&str],
    long: &str,
) -> Option<&'a Setting> {
    let around = |setting: &&Setting| {
        let section = &setting.section;
        section.len() <= verb.len() && section.iter().zip(verb).all(|(a, b)| a == b)
    };
    settings
        .iter()
        .filter(|s| s.key == long)
        .filter(around)
        .max_by_key(|s| s.section.len())
}

/// All settings of a file, and all mistakes, in the order of their lines.
pub(super) fn settings(
    program: &Program,
    built: &Command,
    text: &str,
) -> (Vec<Setting>, Vec<Mistake>) {
    let mut reader = Reader {
        program,
        built,
        text,
        settings: Vec::new(),
        mistakes: Vec::new(),
    };
    match DeTable::parse(text) {
        Ok(table) => reader.table(&mut Vec::new(), table.get_ref()),
        Err(e) => {
            let at = e.span().map_or(0, |span| span.start);
            reader.wrong(at, e.message().trim_end());
        }
    }
    reader.mistakes.sort_by_key(|m| m.line);
    (reader.settings, reader.mistakes)
}

struct Reader<'a> {
    program: &'a Program,
    built: &'a Command,
    text: &'a str,
    settings: Vec<Setting>,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn wrong(&mut self, at: usize, why: impl Into<String>) {
        self.mistakes.push(Mistake {
            line: line_of(self.text, at),
            why: why.into(),
        });
    }

    /// A section, or the file as a whole.
    fn table(&mut self, section: &mut Vec<String>, table: &DeTable) {
        for (key, value) in table {
            let (name, at) = (key.get_ref().as_ref(), key.span().start);
            let path: Vec<&str> = section.iter().map(String::as_str).collect();
            let inner = command_at(self.built, &path).find_subcommand(name);
            if let (Some(_), DeValue::Table(inner)) = (inner, value.get_ref()) {
                section.push(name.to_owned());
                self.table(section, inner);
                section.pop();
                continue;
            }
            let args = self.args(&path, name);
            if let Err(why) = self.may_be_set(&path, name, &args) {
                self.wrong(at, why);
                continue;
            }
            match values(value.get_ref()).and_then(|values| fits(&args, values)) {
                Ok(values) => self.settings.push(Setting {
                    section: section.clone(),
                    key: name.to_owned(),
                    values,
                    line: line_of(self.text, at),
                }),
                Err(why) => self.wrong(at, format!("{name}: {why}")),
            }
        }
    }

    /// The options of this name that a section is about, each with its verb.
    fn args(&self, section: &[&str], name: &str) -> Vec<(String, Arg)> {
        let mut args = Vec::new();
        for verb in verbs(self.built) {
            let verb: Vec<&str> = verb.iter().map(String::as_str).collect();
            if !verb.starts_with(section) {
                continue;
            }
            for place in options_at(self.built, &verb) {
                if place.arg.get_long() == Some(name) {
                    args.push((verb.join(" "), place.arg.clone()));
                }
            }
        }
        args
    }

    fn may_be_set(
        &self,
        section: &[&str],
        name: &str,
        args: &[(String, Arg)],
    ) -> std::result::Result<(), String> {
        let shown = name.escape_default();
        if args.is_empty() {
            let known = self.known(section);
            let end = match nearest(name, known.iter().map(String::as_str)) {
                Some(nearest) => format!("; did you mean {nearest}?"),
                None => String::new(),
            };
            return Err(match section {
                [] => format!(
                    "{} has no option or verb \"{shown}\"{end}",
                    self.program.name
                ),
                _ => format!("{} has no option \"{shown}\"{end}", section.join(" ")),
            });
        }
        if self.program.is_for_one_run(name) {
            return Err(format!(
                "{shown} is about a single run, and can only be given on the command line"
            ));
        }
        if section.is_empty() && FOR_A_VERB.contains(&name) {
            return Err(format!(
                "{shown} means something else for each verb: set it in the section of one, as [vm]"
            ));
        }
        Ok(())
    }

    /// Names that may stand in a section.
    fn known(&self, section: &[&str]) -> BTreeSet<String> {
        let mut known: BTreeSet<String> = command_at(self.built, section)
            .get_subcommands()
            .map(|c| c.get_name().to_owned())
            .collect();
        for verb in verbs(self.built) {
            let verb: Vec<&str> = verb.iter().map(String::as_str).collect();
            if verb.starts_with(section) {
                let options = options_at(self.built, &verb);
                let longs = options.iter().filter_map(|p| p.arg.get_long());
                known.extend(
                    longs
                        .filter(|long| !self.program.is_for_one_run(long))
                        .map(str::to_owned),
                );
            }
        }
        known
    }
}

/// The values, if all these options take them.
fn fits(args: &[(String, Arg)], values: Values) -> std::result::Result<Vec<String>, String> {
    let many = args.iter().all(|(_, arg)| takes_many(arg));
    let values = match values {
        Values::One(word) => vec![word],
        Values::Many(words) if many => words,
        Values::Many(_) => return Err("it takes one value, not several".into()),
    };
    for (verb, arg) in args {
        for value in &values {
            if let Err(why) = check(arg, value) {
                return Err(match args.len() {
                    1 => why,
                    _ => format!("{why} (for {verb})"),
                });
            }
        }
    }
    Ok(values)
}
