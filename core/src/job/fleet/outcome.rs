//! What came of one VM, by what its process said and how it ended.

use crate::cli::units::printable;
use serde_json::{Map, Value};
use std::time::Duration;

/// Notes of a VM that are kept for the report.
const NOTES_MAX: usize = 8;
/// The longest text that is kept of what a VM's process says, in characters.
const TEXT_MAX: usize = 2000;

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// All is well.
    Done,
    /// It failed.
    Failed {
        /// By the exit codes of all front ends.
        code: u8,
        /// Why, for people.
        why: String,
    },
    /// The fleet was stopped before its turn came.
    NotStarted,
}

/// What came of one VM.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// The generation that was sealed.
    pub generation: Option<String>,
    /// Bytes that were sent, before compression; after a dry run the most that would be.
    pub changed: u64,
    /// Bytes on the wire, both ways.
    pub wire: u64,
    /// How long it took.
    pub took: Duration,
    /// What the user should know, the first few of it.
    pub notes: Vec<String>,
}

impl Outcome {
    /// Nothing is known but how it ended.
    pub fn of(ending: Ending) -> Outcome {
        Outcome {
            ending,
            generation: None,
            changed: 0,
            wire: 0,
            took: Duration::ZERO,
            notes: Vec::new(),
        }
    }

    /// It failed with this exit code, for this reason.
    pub fn failed(code: u8, why: impl Into<String>) -> Outcome {
        let why = why.into();
        Outcome::of(Ending::Failed { code, why })
    }

    /// Whether all is well.
    pub fn is_done(&self) -> bool {
        self.ending == Ending::Done
    }
}

/// What was heard of a VM's process so far.
#[derive(Default)]
pub(super) struct Heard {
    generation: Option<String>,
    changed: u64,
    predicted: u64,
    wire: u64,
    notes: Vec<String>,
    notes_left_out: u64,
    error: Option<String>,
}

impl Heard {
    /// Takes in one event. Whatever it does not know is none of its business.
    pub(super) fn take(&mut self, event: &Map<String, Value>) {
        let text = |key: &str| event.get(key).and_then(Value::as_str).map(short);
        match event.get("event").and_then(Value::as_str) {
            Some("sealed") => {
                self.generation = text("generation");
                let disks = event.get("disks").and_then(Value::as_array);
                let sum = |key: &str| -> u64 {
                    let of = |disk: &Value| disk.get("summary")?.get(key)?.as_u64();
                    let values = disks.into_iter().flatten().filter_map(of);
                    values.fold(0, u64::saturating_add)
                };
                self.changed = sum("changed");
                self.wire = sum("wire_out").saturating_add(sum("wire_in"));
            }
            Some("prediction") => {
                let bytes = event.get("bytes_max").and_then(Value::as_u64);
                self.predicted = self.predicted.saturating_add(bytes.unwrap_or(0));
            }
            Some("error") => {
                let advice = text("advice").map_or(String::new(), |a| format!(" ({a})"));
                self.error = text("message").map(|message| message + &advice);
            }
            Some("note") => {
                if let Some(note) = text("text") {
                    self.note(note);
                }
            }
            _ => {}
        }
    }

    /// Keeps a note for the report.
    pub(super) fn note(&mut self, note: String) {
        match self.notes.len() < NOTES_MAX {
            true => self.notes.push(note),
            false => self.notes_left_out += 1,
        }
    }

    /// The outcome, if the process ended in a way that is no success: `how`, with `code`. What it said itself explains
    /// it best, then what is on its stderr.
    pub(super) fn failed(self, code: u8, how: String, stderr: &str) -> Outcome {
        let why = match (&self.error, stderr) {
            (Some(error), _) => error.clone(),
            (None, "") => how,
            (None, said) => format!("{how}: {}", short(said)),
        };
        let mut outcome = self.ended(Ending::Failed { code, why });
        if let (Ending::Failed { why, .. }, Some(name)) = (&mut outcome.ending, &outcome.generation)
        {
            why.push_str(&format!("; generation {name} was sealed before"));
        }
        outcome
    }

    /// The outcome, if the process says that all is well.
    pub(super) fn done(mut self, dry_run: bool) -> Outcome {
        if dry_run {
            self.changed = self.predicted;
            return self.ended(Ending::Done);
        }
        match self.generation {
            Some(_) => self.ended(Ending::Done),
            // An end that looks well and left nothing behind is none.
            None => self.failed(1, "it ended without having sealed a generation".into(), ""),
        }
    }

    fn ended(mut self, ending: Ending) -> Outcome {
        if self.notes_left_out > 0 {
            self.notes
                .push(format!("and {} notes more", self.notes_left_out));
        }
        Outcome {
            ending,
            generation: self.generation,
            changed: self.changed,
            wire: self.wire,
            took: Duration::ZERO,
            notes: self.notes,
        }
    }
}

/// The beginning of a text, fit for one line.
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => printable(&text[..end]) + "...",
        None => printable(text),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn heard(events: &[&str]) -> Heard {
        let mut heard = Heard::default();
        for event in events {
            heard.take(&serde_json::from_str(event).unwrap());
        }
        heard
    }

    #[test]
    fn what_was_sealed_is_added_up() {
        let sealed = r#"{"event":"sealed","generation":"rbs7","disks":[
            {"summary":{"changed":5,"wire_out":3,"wire_in":1}},{"summary":{"changed":7,"wire_out":10}},{}]}"#;
        let outcome = heard(&[sealed]).done(false);
        assert!(outcome.is_done());
        assert_eq!(outcome.generation.as_deref(), Some("rbs7"));
        assert_eq!((outcome.changed, outcome.wire), (12, 14));
    }

    #[test]
    fn success_without_a_generation_is_none() {
        assert!(!heard(&[r#"{"event":"plan"}"#]).done(false).is_done());
        let dry = heard(&[r#"{"event":"prediction","bytes_max":9}"#]).done(true);
        assert!(dry.is_done() && dry.changed == 9);
    }

    #[test]
    fn the_reason_is_what_the_process_said_itself() {
        let event =
            r#"{"event":"error","kind":"busy","message":"VM 101 is\nbusy","advice":"wait"}"#;
        let why = |outcome: Outcome| match outcome.ending {
            Ending::Failed { why, .. } => why,
            other => panic!("{other:?}"),
        };
        let said = why(heard(&[event]).failed(3, "exit code 3".into(), "noise"));
        assert_eq!(said, "VM 101 is\\nbusy (wait)");
        let died = why(heard(&[]).failed(1, "it was killed".into(), "panicked"));
        assert_eq!(died, "it was killed: panicked");
        let sealed = r#"{"event":"sealed","generation":"rbs7"}"#;
        let late = why(heard(&[sealed]).failed(1, "exit code 1".into(), ""));
        assert_eq!(late, "exit code 1; generation rbs7 was sealed before");
    }

    #[test]
    fn texts_and_notes_are_bounded() {
        let note = format!(r#"{{"event":"note","text":"{}"}}"#, "\u{e4}".repeat(10_000));
        let outcome = heard(&vec![note.as_str(); 50]).done(true);
        assert_eq!(outcome.notes.len(), NOTES_MAX + 1);
        assert!(outcome
            .notes
            .iter()
            .all(|n| n.chars().count() <= TEXT_MAX + 3));
        assert_eq!(outcome.notes[NOTES_MAX], "and 42 notes more");
    }
}
