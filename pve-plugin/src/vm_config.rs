//! Proxmox's VM configuration file, `/etc/pve/qemu-server/VMID.conf`, read without losing a byte.
//!
//! The file is a main section, then `[PENDING]`, `[special:...]` and one section a snapshot. All repeat
//! the same keys, so the one way to copy the wrong disk is to mix them up: sections are kept apart here and
//! everything about "the VM" means the main one.
//!
//! Proxmox skips what it does not understand with a warning. Here a line that may stand for a disk must be
//! understood, or the file is refused: skipping it would make a replica that lacks a disk and looks whole.

use crate::drive::{DiskKey, Drive};
use rblocksync::error::{Error, Kind, Result};
use std::fmt;

/// Longest snapshot name (and other configuration id) Proxmox takes.
pub const MAX_CONFIG_ID_BYTES: usize = 40;

/// Which part of the file a [`Section`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SectionKind {
    /// The VM as it is now.
    Main,
    /// Changes that wait for the next start of the VM.
    Pending,
    /// Proxmox's own bookkeeping, by name: `cloudinit`, `fleecing`.
    Special(String),
    /// The configuration kept with a snapshot, by the snapshot's name.
    Snapshot(String),
    /// A header Proxmox would skip with all that follows it.
    Unknown(String),
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SectionKind::Main => f.write_str("the main section"),
            SectionKind::Pending => f.write_str("[PENDING]"),
            SectionKind::Special(name) => write!(f, "[special:{name}]"),
            SectionKind::Snapshot(name) | SectionKind::Unknown(name) => write!(f, "[{name}]"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Header,
    Blank,
    /// Part of the description, still encoded and without the `#`.
    Comment(String),
    Entry {
        key: String,
        value: String,
    },
    /// Skipped, as Proxmox does.
    Odd,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    raw: String,
    content: Content,
}

/// One section of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    kind: SectionKind,
    lines: Vec<Line>,
}

impl Section {
    /// Which part of the file this is.
    pub fn kind(&self) -> &SectionKind {
        &self.kind
    }

    /// The value of a key. Never a disk's: see [`VmConfig::drives`].
    pub fn get(&self, key: &str) -> Option<&str> {
        // The last one counts, as for Proxmox.
        self.entries()
            .filter(|(k, _)| *k == key)
            .last()
            .map(|(_, value)| value)
    }

    /// Keys and values in file order, without the description.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().filter_map(|line| match &line.content {
            Content::Entry { key, value } => Some((key.as_str(), value.as_str())),
            _ => None,
        })
    }

    /// The description (the notes of the web interface), decoded. Empty if there is none.
    pub fn description(&self) -> String {
        let lines: Vec<String> = self
            .lines
            .iter()
            .filter_map(|line| match &line.content {
                Content::Comment(text) => Some(text.as_str()),
                Content::Entry { key, value } if key == "description" => Some(value.as_str()),
                _ => None,
            })
            .map(decode_text)
            .collect();
        lines.join("\n").trim_end().to_owned()
    }
}

/// A line or section that was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Line number, from 1.
    pub line: usize,
    /// What was skipped and why.
    pub text: String,
}

/// A parsed VM configuration. `to_string()` gives back exactly the text that was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmConfig {
    sections: Vec<Section>,
    drives: Vec<Drive>,
    warnings: Vec<Warning>,
}

impl VmConfig {
    /// Reads a configuration file's text.
    pub fn parse(text: &str) -> Result<VmConfig> {
        let mut config = VmConfig {
            sections: vec![Section {
                kind: SectionKind::Main,
                lines: Vec::new(),
            }],
            drives: Vec::new(),
            warnings: Vec::new(),
        };
        for (index, raw) in text.split('\n').enumerate() {
            config
                .take_line(index + 1, raw)
                .map_err(|e| e.context(format!("line {}", index + 1)))?;
        }
        Ok(config)
    }

    fn take_line(&mut self, number: usize, raw: &str) -> Result<()> {
        let content = match section_header(raw)? {
            Some(kind) => {
                self.open_section(number, kind)?;
                Content::Header
            }
            None => self.classify(number, raw)?,
        };
        if let Some(section) = self.sections.last_mut() {
            section.lines.push(Line {
                raw: raw.to_owned(),
                content,
            });
        }
        Ok(())
    }

    fn open_section(&mut self, number: usize, kind: SectionKind) -> Result<()> {
        if let SectionKind::Unknown(name) = &kind {
            self.warnings.push(Warning {
                line: number,
                text: format!("section [{}] is skipped: unknown", name.escape_debug()),
            });
        } else if self.sections.iter().any(|s| s.kind == kind) {
            return Err(
                Error::new(Kind::Refused, format!("{kind} appears a second time"))
                    .advise("Proxmox would use only the last one; remove the wrong one"),
            );
        }
        self.sections.push(Section {
            kind,
            lines: Vec::new(),
        });
        Ok(())
    }

    fn kind_here(&self) -> &SectionKind {
        self.sections
            .last()
            .map_or(&SectionKind::Main, |section| &section.kind)
    }

    fn classify(&mut self, number: usize, raw: &str) -> Result<Content> {
        if raw.trim().is_empty() {
            return Ok(Content::Blank);
        }
        if matches!(self.kind_here(), SectionKind::Unknown(_)) {
            return Ok(Content::Odd);
        }
        if let Some(comment) = raw.strip_prefix('#') {
            return Ok(Content::Comment(comment.trim_end_matches('\r').to_owned()));
        }
        let Some((key, value)) = split_entry(raw) else {
            return self.skip(number, raw);
        };
        if key == "delete" && *self.kind_here() != SectionKind::Pending {
            self.warnings.push(Warning {
                line: number,
                text: "'delete' outside of [PENDING] is skipped".to_owned(),
            });
            return Ok(Content::Odd);
        }
        if *self.kind_here() == SectionKind::Main {
            if let Some(key) = DiskKey::parse(key) {
                self.take_drive(Drive::parse(key, value)?)?;
            } else if DiskKey::is_lookalike(key) {
                return self.skip(number, raw);
            }
        }
        Ok(Content::Entry {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }

    fn take_drive(&mut self, drive: Drive) -> Result<()> {
        if self.drives.iter().any(|d| d.key == drive.key) {
            return Err(Error::new(
                Kind::Refused,
                format!("disk {} is there a second time", drive.key),
            )
            .advise("Proxmox would use only the last one; remove the wrong one"));
        }
        self.drives.push(drive);
        Ok(())
    }

    /// Passes over a line like Proxmox does, unless it may stand for a disk of the VM.
    fn skip(&mut self, number: usize, raw: &str) -> Result<Content> {
        // The first word, whatever stands before or after it.
        let alphanumeric = |c: char| c.is_ascii_alphanumeric();
        let key: String = raw
            .chars()
            .skip_while(|c| !alphanumeric(*c))
            .take_while(|c| alphanumeric(*c))
            .collect();
        let shown = raw.trim_end().escape_debug();
        if *self.kind_here() == SectionKind::Main && DiskKey::is_lookalike(&key) {
            return Err(Error::new(
                Kind::Refused,
                format!("\"{shown}\" looks like a disk, but Proxmox would skip it"),
            )
            .advise("correct or remove the line"));
        }
        self.warnings.push(Warning {
            line: number,
            text: format!("\"{shown}\" is skipped: not understood"),
        });
        Ok(Content::Odd)
    }

    /// The VM as it is now.
    pub fn main(&self) -> &Section {
        // parse() always makes this one first.
        &self.sections[0]
    }

    /// A key of the main section.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.main().get(key)
    }

    /// The VM's name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.get("name")
    }

    /// The lock an operation of Proxmox holds on the VM: `backup`, `migrate`, `snapshot`, ...
    pub fn lock(&self) -> Option<&str> {
        self.get("lock")
    }

    /// Whether the VM is a template.
    pub fn is_template(&self) -> bool {
        self.get("template").is_some_and(|v| v != "0")
    }

    /// The disk lines of the main section, in file order: nothing of the pending section or of snapshots.
    pub fn drives(&self) -> &[Drive] {
        &self.drives
    }

    /// One disk of the main section.
    pub fn drive(&self, key: DiskKey) -> Option<&Drive> {
        self.drives.iter().find(|d| d.key == key)
    }

    /// The snapshot sections with their names, in file order.
    pub fn snapshots(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.sections.iter().filter_map(|s| match &s.kind {
            SectionKind::Snapshot(name) => Some((name.as_str(), s)),
            _ => None,
        })
    }

    /// The changes that wait for the next start of the VM.
    pub fn pending(&self) -> Option<&Section> {
        self.sections
            .iter()
            .find(|s| s.kind == SectionKind::Pending)
    }

    /// What was skipped while reading.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

impl fmt::Display for VmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.sections.iter().flat_map(|s| &s.lines);
        if let Some(first) = lines.next() {
            f.write_str(&first.raw)?;
        }
        lines.try_for_each(|line| write!(f, "\n{}", line.raw))
    }
}

/// Whether `text` may name a snapshot: Proxmox's configuration ids, and not a word it uses itself.
pub fn is_snapshot_name(text: &str) -> bool {
    is_config_id(text)
        && text.len() <= MAX_CONFIG_ID_BYTES
        && !["pending", "current"].contains(&text.to_ascii_lowercase().as_str())
}

fn is_config_id(text: &str) -> bool {
    text.len() >= 2
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

fn section_header(raw: &str) -> Result<Option<SectionKind>> {
    let Some(rest) = raw.strip_prefix('[') else {
        return Ok(None);
    };
    let Some(name) = rest
        .trim_end()
        .strip_suffix(']')
        .filter(|n| !n.contains(']'))
    else {
        // Proxmox would give the lines below to the section above: a snapshot's disks to the VM.
        return Err(Error::new(
            Kind::Refused,
            format!("\"{}\" is not a section header", raw.escape_debug()),
        )
        .advise("correct or remove the line"));
    };
    let lower = name.to_ascii_lowercase();
    Ok(Some(if lower == "pending" {
        SectionKind::Pending
    } else if let Some(special) = lower.strip_prefix("special:") {
        match special {
            "cloudinit" | "fleecing" => SectionKind::Special(special.to_owned()),
            _ => SectionKind::Unknown(name.to_owned()),
        }
    } else if is_config_id(name) {
        SectionKind::Snapshot(name.to_owned())
    } else {
        SectionKind::Unknown(name.to_owned())
    }))
}

/// Splits `key: value`, where the key has the form Proxmox asks for.
fn split_entry(raw: &str) -> Option<(&str, &str)> {
    let (key, value) = raw.split_once(':')?;
    let stem = key.trim_end_matches(|c: char| c.is_ascii_digit());
    let well_formed = stem.starts_with(|c: char| c.is_ascii_lowercase())
        && stem
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b"_-".contains(&b));
    let value = value.trim();
    (well_formed && !value.is_empty()).then_some((key, value))
}

/// Decodes a description line: percent codes of UTF-8 bytes.
pub(crate) fn decode_text(text: &str) -> String {
    let hex = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                // Two hex digits always fit a byte.
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Encodes one description line as Proxmox does (control and non-ASCII bytes, and the colon), so that a
/// file rewritten by Proxmox stays the same. A percent sign is encoded too: Proxmox forgets that, and
/// changes texts that hold one.
pub fn encode_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b':' | b'%' | 0..=0x1f | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}
