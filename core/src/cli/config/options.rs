//! The options of a program's verbs, as clap knows them.

use crate::error::{Error, Kind, Result};
use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command};
use std::ffi::OsStr;
use toml::de::DeValue;

/// An option, and how many words of its verb lead to where it is defined.
pub(crate) struct Place<'a> {
    pub arg: &'a Arg,
    pub depth: usize,
}

/// Heading of options that another verb has lent: what is configured for them there holds anyway when that one runs.
pub(crate) const LENT: &str = "For each run, as with vm";

/// All options that may be given with a verb, but those that are lent. Global ones are where they are defined.
pub(crate) fn options_at<'a>(built: &'a Command, verb: &[&str]) -> Vec<Place<'a>> {
    let mut places: Vec<Place<'a>> = Vec::new();
    for depth in 0..=verb.len() {
        for arg in command_at(built, &verb[..depth]).get_arguments() {
            let is_own = arg.get_long().is_some() && arg.get_help_heading() != Some(LENT);
            if is_own && places.iter().all(|p| p.arg.get_id() != arg.get_id()) {
                places.push(Place { arg, depth });
            }
        }
    }
    places
}

/// The subcommand at a path, as far as there is one.
pub(crate) fn command_at<'a>(built: &'a Command, path: &[&str]) -> &'a Command {
    let inner = path.split_first();
    let inner = inner.and_then(|(first, rest)| Some((built.find_subcommand(first)?, rest)));
    inner.map_or(built, |(inner, rest)| command_at(inner, rest))
}

/// Paths of the verbs that do something: that have no verbs of their own. Without the one about the configuration.
pub(crate) fn verbs(built: &Command) -> Vec<Vec<String>> {
    let inner: Vec<&Command> = built
        .get_subcommands()
        .filter(|c| !["help", "config"].contains(&c.get_name()) && !c.is_hide_set())
        .collect();
    if inner.is_empty() {
        return vec![Vec::new()];
    }
    let mut paths = Vec::new();
    for command in inner {
        for mut path in verbs(command) {
            path.insert(0, command.get_name().to_owned());
            paths.push(path);
        }
    }
    paths
}

/// Whether an option and the one with the other's id must not be given together.
pub(crate) fn excludes(at: &Command, arg: &Arg, other: &str) -> bool {
    let named = |arg: &Arg, id: &str| {
        let conflicts = at.get_arg_conflicts_with(arg);
        conflicts.iter().any(|c| c.get_id() == id)
    };
    if arg.get_id() == other {
        return false;
    }
    let found = at.get_arguments().find(|a| a.get_id() == other);
    found.is_some_and(|found| named(arg, other) || named(found, arg.get_id().as_str()))
}

/// False for flags.
pub(crate) fn takes_values(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

/// Whether an option may be given more than once.
pub(crate) fn takes_many(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// What holds if nobody says anything; nothing for an option without a default.
pub(crate) fn built_in(arg: &Arg) -> Vec<String> {
    match takes_values(arg) {
        true => arg
            .get_default_values()
            .iter()
            .map(|v| v.to_string_lossy().into_owned())
            .collect(),
        false => vec!["false".to_owned()],
    }
}

/// A value as the command line has it: one word, or several.
pub(crate) enum Values {
    One(String),
    Many(Vec<String>),
}

/// A value of a file, as words of a command line. A table is `KEY=VALUE` for each of its keys.
pub(crate) fn values(value: &DeValue) -> std::result::Result<Values, String> {
    match value {
        DeValue::Array(list) => {
            let list = list.iter().map(|item| word(item.get_ref()));
            Ok(Values::Many(list.collect::<std::result::Result<_, _>>()?))
        }
        DeValue::Table(table) => {
            let mut words = Vec::new();
            for (key, value) in table {
                words.push(format!("{}={}", key.get_ref(), word(value.get_ref())?));
            }
            Ok(Values::Many(words))
        }
        other => word(other).map(Values::One),
    }
}

fn word(value: &DeValue) -> std::result::Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        other => Err(format!(
            "write it in quotes, as on the command line, not as {}",
            other.type_str()
        )),
    }
}

/// Says why an option does not take a value, in the words of the command line.
pub(crate) fn check(arg: &Arg, value: &str) -> std::result::Result<(), String> {
    let long = arg.get_long().unwrap_or_default();
    if !takes_values(arg) {
        return match value {
            "true" | "false" => Ok(()),
            _ => Err(format!("it is true or false, not \"{value}\"")),
        };
    }
    let parser: ValueParser = arg.get_value_parser().clone();
    // Of the option only what reads its values: what it excludes or requires is not there.
    let mut alone = Arg::new("value")
        .long("value")
        .action(ArgAction::Set)
        .value_parser(parser);
    if let Some(names) = arg.get_value_names() {
        alone = alone.value_names(names.to_vec());
    }
    let command = Command::new("value").arg(alone);
    match command.try_get_matches_from(["value".to_owned(), format!("--value={value}")]) {
        Ok(_) => Ok(()),
        Err(e) => {
            let text = e.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let text = text.replacen("'--value", &format!("'--{long}"), 1);
            let lines: Vec<&str> = text
                .lines()
                .map(str::trim)
                .take_while(|line| !line.is_empty())
                .collect();
            Err(lines.join(" "))
        }
    }
}

/// The values of an option from a variable: one, also for an option that may be given more than once.
pub(crate) fn from_variable(arg: &Arg, name: &str, value: &OsStr) -> Result<Vec<String>> {
    let bad = |why: String| Error::new(Kind::Usage, format!("{name}: {why}"));
    let text = value
        .to_str()
        .ok_or_else(|| bad("it is not UTF-8".into()))?;
    let text = match (takes_values(arg), text) {
        (false, "1" | "yes") => "true",
        (false, "0" | "no") => "false",
        _ => text,
    };
    check(arg, text).map_err(bad)?;
    Ok(vec![text.to_owned()])
}

/// The name that is most like a word, if one is like it at all.
pub(crate) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('_', "-");
    names
        .map(|name| (edits(&word, name), name))
        .filter(|(edits, name)| *edits <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}

/// How many letters are to be changed, added or taken away to make one word the other.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, c) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, d) in b.iter().enumerate() {
            let changed = diagonal + usize::from(c != *d);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_one_that_may_be_meant() {
        let names = ["keep", "keep-within", "max-downtime", "bwlimit"];
        let nearest = |word| nearest(word, names.into_iter());
        assert_eq!(nearest("max_downtime"), Some("max-downtime"));
        assert_eq!(nearest("Keep"), Some("keep"));
        assert_eq!(nearest("keeep"), Some("keep"));
        assert_eq!(nearest("bw-limit"), Some("bwlimit"));
        assert_eq!(nearest("colour"), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
