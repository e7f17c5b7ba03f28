//! What is configured, for people: checked, shown, and as a file to start from.

use super::file::FOR_A_VERB;
use super::options::{takes_many, takes_values, verbs};
use super::{built, Chosen, Environment, Origin, Program};
use crate::cli::Reporter;
use crate::error::Result;
use clap::Arg;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Columns of the lines in a configuration file.
const WIDTH: usize = 110;

/// Looking at the configuration.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum ConfigVerb {
    /// Check the configuration file, and tell what it and the environment set, and where
    Check {
        /// This file instead of the one that would be read
        file: Option<PathBuf>,
    },
    /// Print all options as they hold, and where that is said, as a configuration file
    Show {
        /// Print the file that changes nothing, with all options explained
        #[arg(long)]
        defaults: bool,
    },
}

/// The verb `config`. `named` is the file that the command line names.
pub fn config(
    args: &ConfigArgs,
    program: &Program,
    named: Option<&Path>,
    reporter: &Reporter,
) -> Result<()> {
    match &args.verb {
        ConfigVerb::Check { file } => program.check_config(file.as_deref().or(named), reporter),
        ConfigVerb::Show { defaults: true } => program.show_defaults(reporter),
        ConfigVerb::Show { defaults: false } => program.show_config(named, reporter),
    }
}

/// What holds for a verb.
struct Holds<'a> {
    verb: Vec<String>,
    chosen: Vec<Chosen<'a>>,
}

impl Program {
    /// Checks a file and the environment, and tells what they set.
    pub fn check_config(&self, named: Option<&Path>, reporter: &Reporter) -> Result<()> {
        let command = built(&(self.command)());
        let (path, holds) = self.holds(&command, named, &|name| std::env::var_os(name))?;
        let mut text = match path.exists() {
            true => format!("{} is in order", path.display()),
            false => format!("there is no {}, and need not be", path.display()),
        };
        let mut list = Vec::new();
        for item in items(&holds) {
            if item.chosen.origin == Origin::BuiltIn {
                continue;
            }
            let verb = item
                .verb
                .map_or(String::new(), |verb| format!("{} ", verb.join(" ")));
            let (long, from) = (long(item.chosen.arg), place(&item.chosen.origin, &path));
            let value = written(item.chosen);
            let _ = write!(text, "\n  {verb}{long} = {value}  ({from})");
            list.push(json!({"verb": item.verb, "option": long, "values": item.chosen.values, "from": from}));
        }
        reporter.say(
            text,
            json!({"event": "configuration", "file": path, "options": list}),
        );
        Ok(())
    }

    /// Prints all that holds, as a file.
    pub fn show_config(&self, named: Option<&Path>, reporter: &Reporter) -> Result<()> {
        let command = built(&(self.command)());
        let (path, holds) = self.holds(&command, named, &|name| std::env::var_os(name))?;
        let mut sections: BTreeMap<Vec<String>, String> = BTreeMap::new();
        for item in items(&holds) {
            let section = sections.entry(item.verb.cloned().unwrap_or_default());
            let (long, value) = (long(item.chosen.arg), written(item.chosen));
            let _ = match item.chosen.values.is_empty() {
                true => writeln!(section.or_default(), "# {long} is not set"),
                false => writeln!(
                    section.or_default(),
                    "{long} = {value}  # {}",
                    place(&item.chosen.origin, &path)
                ),
            };
        }
        let text: Vec<String> = sections
            .into_iter()
            .map(|(verb, lines)| match verb.is_empty() {
                true => lines,
                false => format!("[{}]\n{lines}", verb.join(".")),
            })
            .collect();
        reporter.say(text.join("\n").trim_end(), json!(null));
        Ok(())
    }

    /// Prints the file that changes nothing.
    pub fn show_defaults(&self, reporter: &Reporter) -> Result<()> {
        reporter.say(self.defaults_file().trim_end(), json!(null));
        Ok(())
    }

    /// The file that changes nothing: each option with what it is for, and its default, commented out.
    pub fn defaults_file(&self) -> String {
        let command = built(&(self.command)());
        let nothing: Environment = &|_| None;
        let mut text = self.preface();
        let holds: Vec<Holds> = verbs(&command)
            .into_iter()
            .filter_map(|verb| {
                let words: Vec<&str> = verb.iter().map(String::as_str).collect();
                let chosen = self.chosen(&command, &words, &[], nothing).ok()?;
                Some(Holds { verb, chosen })
            })
            .collect();
        let mut sections: Vec<(Vec<String>, String)> = vec![(Vec::new(), String::new())];
        for item in items(&holds) {
            let verb = item.verb.cloned().unwrap_or_default();
            if sections.iter().all(|(section, _)| *section != verb) {
                sections.push((verb.clone(), String::new()));
            }
            for (section, lines) in &mut sections {
                if *section == verb {
                    lines.push_str(&explained(item.chosen));
                }
            }
        }
        for (verb, lines) in sections {
            if !verb.is_empty() {
                let _ = write!(text, "\n[{}]\n", verb.join("."));
            }
            text.push_str(&lines);
        }
        text
    }

    fn preface(&self) -> String {
        let (name, variable) = (self.name, self.variable("bwlimit"));
        let mut text = format!(
            "Configuration of {name}: {}. Other defaults for its options, by their long names. What is commented out here \
             holds anyway.\n\
             The command line is stronger than the environment ({variable} for --bwlimit), and that is stronger than this \
             file. Values are written as on the command line, in quotes: \"90s\", \"1h\", \"64M\". Flags are true or false; \
             one that is true here is switched off by --FLAG=false.\n\
             `{}` tells what holds, and where it is said.\n\
             Only root may be able to write this file.",
            self.usual_file().display(),
            self.show(),
        );
        if verbs(&built(&(self.command)())).len() > 1 {
            text.push_str(
                "\nWhat stands before the first section is for all verbs that have the option; what stands in the section of \
                 a verb, as [vm] or [job.run], is for that one, and stronger.",
            );
        }
        let mut out = String::new();
        for line in text.lines() {
            out.push_str(&comment(line));
        }
        out
    }

    /// What holds for all verbs, and the file that says so.
    fn holds<'a>(
        &self,
        command: &'a clap::Command,
        named: Option<&Path>,
        variable: Environment,
    ) -> Result<(PathBuf, Vec<Holds<'a>>)> {
        let (path, text) = self.text(named, variable, &self.usual_file())?;
        let settings = self.settings(command, &path, &text)?;
        let mut holds = Vec::new();
        for verb in verbs(command) {
            let words: Vec<&str> = verb.iter().map(String::as_str).collect();
            // Two of the file that exclude each other are found so.
            let set = |c: &Chosen| c.origin != Origin::BuiltIn;
            let mut all = self.chosen(command, &words, &settings, variable)?;
            all.retain(set);
            self.without_excluded(command, &words, all, &Default::default())?;
            let chosen = self.chosen(command, &words, &settings, variable)?;
            holds.push(Holds { verb, chosen });
        }
        Ok((path, holds))
    }
}

/// An option as it holds: for all verbs that have it, or for one.
struct Item<'a, 'b> {
    verb: Option<&'b Vec<String>>,
    chosen: &'b Chosen<'a>,
}

/// All options: those of which the same holds for all verbs once, the others for each verb.
fn items<'a, 'b>(holds: &'b [Holds<'a>]) -> Vec<Item<'a, 'b>> {
    let mut by_name: BTreeMap<&str, Vec<(&'b Vec<String>, &'b Chosen<'a>)>> = BTreeMap::new();
    let mut order = Vec::new();
    for Holds { verb, chosen } in holds {
        for one in chosen {
            let uses = by_name.entry(long(one.arg)).or_default();
            if uses.is_empty() {
                order.push(long(one.arg));
            }
            uses.push((verb, one));
        }
    }
    let mut items = Vec::new();
    for name in &order {
        let uses = &by_name[name];
        let (_, first) = uses[0];
        let same = |one: &Chosen| one.values == first.values && one.origin == first.origin;
        let shared = uses.len() > 1 || first.depth == 0;
        if shared && !FOR_A_VERB.contains(name) && uses.iter().all(|(_, one)| same(one)) {
            items.push(Item {
                verb: None,
                chosen: first,
            });
        }
    }
    for Holds { verb, chosen } in holds {
        for one in chosen {
            let is_there = items.iter().any(|item| {
                item.verb.is_none() && item.chosen.arg.get_long() == one.arg.get_long()
            });
            if !is_there {
                items.push(Item {
                    verb: Some(verb),
                    chosen: one,
                });
            }
        }
    }
    items
}

fn long(arg: &Arg) -> &str {
    arg.get_long().unwrap_or_default()
}

fn place(origin: &Origin, path: &Path) -> String {
    match origin {
        Origin::Variable(name) => format!("${name}"),
        Origin::Line(line) => format!("{}:{line}", path.display()),
        Origin::BuiltIn => "built in".to_owned(),
    }
}

/// The values as TOML.
fn written(chosen: &Chosen) -> String {
    let one = |value: &String| match (takes_values(chosen.arg), value.parse::<i64>()) {
        (false, _) => value.clone(),
        (true, Ok(number)) if number.to_string() == *value => value.clone(),
        _ => toml::Value::String(value.clone()).to_string(),
    };
    match (takes_many(chosen.arg), chosen.values.as_slice()) {
        (true, values) => {
            let values: Vec<String> = values.iter().map(one).collect();
            format!("[{}]", values.join(", "))
        }
        (false, [value, ..]) => one(value),
        (false, []) => "\"\"".to_owned(),
    }
}

/// An option of the file that changes nothing.
fn explained(chosen: &Chosen) -> String {
    let arg = chosen.arg;
    let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let possible: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|_| takes_values(arg))
        .map(|value| value.get_name().to_owned())
        .collect();
    if !possible.is_empty() {
        let _ = write!(help, ": {}", possible.join(", "));
    }
    let (line, unset) = match (chosen.values.is_empty(), takes_many(arg)) {
        (false, _) | (true, true) => (written(chosen), ""),
        (true, false) => {
            let name = arg.get_value_names().and_then(|names| names.first());
            let name = name.map_or("VALUE".to_owned(), ToString::to_string);
            (toml::Value::String(name).to_string(), " (not set)")
        }
    };
    help.push_str(unset);
    format!("\n{}#{} = {line}\n", comment(&help), long(arg))
}

/// Text as lines of comments.
fn comment(text: &str) -> String {
    let mut out = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH && line.len() > 1 {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
    out
}
