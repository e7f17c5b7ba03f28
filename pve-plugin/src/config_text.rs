//! Changing single lines of a VM's configuration, and nothing else of it: what the administrator wrote stays as it is,
//! snapshots and all.

use crate::vm_config::{decode_text, encode_text};
use std::fmt;

/// A configuration's text, its main section line by line.
pub struct ConfigText {
    main: Vec<String>,
    /// The other sections, from the first header on.
    sections: String,
}

impl ConfigText {
    /// Takes the text of a file.
    pub fn new(text: &str) -> Self {
        let mut lines = text.split_inclusive('\n');
        let mut main = Vec::new();
        let mut sections = String::new();
        for line in lines.by_ref() {
            if line.starts_with('[') {
                sections.push_str(line);
                break;
            }
            main.push(line.trim_end_matches('\n').to_owned());
        }
        sections.extend(lines);
        while main.last().is_some_and(|line| line.trim().is_empty()) {
            main.pop();
        }
        ConfigText { main, sections }
    }

    /// Gives a key of the main section this value, or takes it out.
    pub fn set(&mut self, key: &str, value: Option<&str>) {
        let is_key = |line: &String| {
            let rest = line.strip_prefix(key);
            rest.is_some_and(|rest| rest.starts_with(':'))
        };
        let at = self.main.iter().position(is_key);
        self.main.retain(|line| !is_key(line));
        if let Some(value) = value {
            let line = format!("{key}: {value}");
            let at = at.unwrap_or(self.main.len());
            self.main.insert(at.min(self.main.len()), line);
        }
    }

    /// Puts a line before the rest of the description.
    pub fn add_note(&mut self, line: &str) {
        // One line, whatever is in it.
        let line = line.replace(char::is_control, " ");
        self.main.insert(0, format!("#{}", encode_text(&line)));
    }

    /// Takes these lines out of the description.
    pub fn drop_notes(&mut self, is_dropped: impl Fn(&str) -> bool) {
        let note = |line: &String| line.strip_prefix('#').map(decode_text);
        self.main
            .retain(|line| !note(line).is_some_and(|text| is_dropped(text.trim())));
    }

    /// The other sections become those of `other`.
    pub fn take_sections(&mut self, other: ConfigText) {
        self.sections = other.sections;
    }

    /// Whether there is a section of this name.
    pub fn has_section(&self, name: &str) -> bool {
        let header = format!("[{name}]");
        self.sections.lines().any(|line| line.trim_end() == header)
    }
}

impl fmt::Display for ConfigText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.main {
            writeln!(f, "{line}")?;
        }
        if !self.sections.is_empty() {
            write!(f, "\n{}", self.sections)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_changed_changes() {
        let text =
            "#web%3A one\nboot: order=scsi0\nlock: backup\nname: web\n\n[s1]\nlock: not this one\n";
        let mut config = ConfigText::new(text);
        assert_eq!(config.to_string(), text);
        config.set("lock", None);
        config.set("name", Some("new"));
        config.set("onboot", Some("0"));
        config.add_note("first: 100%\nsecond");
        assert_eq!(
            config.to_string(),
            "#first%3A 100%25 second\n#web%3A one\nboot: order=scsi0\nname: new\nonboot: 0\n\n[s1]\nlock: not this one\n"
        );
        config.drop_notes(|note| note.starts_with("web: "));
        assert!(!config.to_string().contains("web"));
        assert!(config.has_section("s1") && !config.has_section("s2"));
    }

    #[test]
    fn an_empty_text_can_be_filled() {
        let mut config = ConfigText::new("");
        config.set("name", Some("a"));
        assert_eq!(config.to_string(), "name: a\n");
    }
}
