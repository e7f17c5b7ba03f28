//! Tells what is true of a replica, from its files alone. Shares no code with what made them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Digests of both disks at each version of the source that there was.
#[derive(Default)]
pub struct Versions {
    known: HashMap<[blake3::Hash; 2], u64>,
}

impl Versions {
    pub fn note(&mut self, source: &Path, version: u64) {
        self.known
            .insert(digests(source, ["a.raw", "b.raw"]), version);
    }

    /// Which version these two files are together; `None` if they are no version, or of two.
    fn of(&self, dir: &Path, names: [&str; 2]) -> Option<u64> {
        names
            .iter()
            .all(|name| dir.join(name).exists())
            .then(|| self.known.get(&digests(dir, names)).copied())?
    }
}

fn digests(dir: &Path, names: [&str; 2]) -> [blake3::Hash; 2] {
    names.map(|name| {
        let path = dir.join(name);
        let bytes = std::fs::read(&path);
        blake3::hash(&bytes.unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    })
}

/// The source is what it was at that version.
pub fn source_is(versions: &Versions, source: &Path, version: u64) {
    assert_eq!(versions.of(source, ["a.raw", "b.raw"]), Some(version));
}

/// The newest version that the target shows: all generations it shows must be there, whole, and of one instant
/// each, in order. With `head`, what boots must be one version, too, and not older than the newest generation.
pub fn newest_shown(versions: &Versions, target: &Path, head: bool) -> Option<u64> {
    let mut newest = None;
    for number in shown(target) {
        let names = [format!(".a.raw.rbs{number}"), format!(".b.raw.rbs{number}")];
        let version = versions.of(target, [&names[0], &names[1]]);
        assert!(version.is_some(), "generation {number} is no version");
        assert!(
            version >= newest,
            "generation {number} is older than its parent"
        );
        newest = version;
    }
    if head {
        let boots = versions.of(target, ["a.raw", "b.raw"]);
        assert!(boots.is_some(), "the head is no version");
        assert!(
            boots >= newest,
            "the head is older than the newest generation"
        );
    }
    newest
}

/// The numbers of the generations that the target shows.
pub fn shown(target: &Path) -> Vec<u64> {
    match std::fs::read_to_string(target.join("shown.json")) {
        Ok(text) => serde_json::from_str(&text).expect("a list of numbers"),
        Err(_) => Vec::new(),
    }
}

/// Nothing but these files, and generations in the target.
pub fn nothing_else(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy();
        let plain = ["a.raw", "b.raw", "shown.json"].contains(&name.as_ref());
        let number = name.rsplit_once(".rbs").map(|(_, number)| number);
        let generation = number.is_some_and(|n| n.parse::<u64>().is_ok());
        assert!(plain || generation, "{name} was left in {}", dir.display());
    }
}

/// What QEMU says of its guest: "running".
pub fn guest_is(monitor: &Path) -> String {
    let answer = qemu(monitor, "query-status");
    answer["return"]["status"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// QEMU's answer to one command.
pub fn qemu(monitor: &Path, command: &str) -> serde_json::Value {
    let stream = UnixStream::connect(monitor).expect("QEMU's monitor");
    let mut lines = BufReader::new(stream.try_clone().expect("a monitor")).lines();
    let mut line = || lines.next().expect("an answer").expect("an answer");
    line();
    let mut answers = [String::new(), String::new()];
    for (request, answer) in ["qmp_capabilities", command].iter().zip(&mut answers) {
        writeln!(&stream, "{{\"execute\": \"{request}\"}}").expect("a monitor");
        *answer = loop {
            let line = line();
            if !line.contains("\"event\"") {
                break line;
            }
        };
    }
    serde_json::from_str(&answers[1]).expect("JSON")
}
