//! What we note in a domain's definition, in its `<metadata>`: what the domain is for us, and what its host knows about
//! its disks that a definition does not tell.
//!
//! libvirt keeps such an element as it is. There is one, in a namespace of its own.

use crate::domain::Domain;
use crate::xml::Element;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Its namespace.
pub const NAMESPACE: &str = "urn:rblocksync:domain:1";
/// Its name, as we write it.
const NAME: &str = "rblocksync:domain";
/// The attribute that tells which VM it is.
const IDENTITY: &str = "identity";
/// The attribute that tells whether the domain starts with its host, or did.
const AUTOSTART: &str = "autostart";

/// What a domain is for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The replica of a pair.
    Replica {
        /// The pair.
        pair: Uuid,
        /// What people are told: of what, as of when.
        note: String,
    },
    /// It was such a replica, and has become the VM.
    TakenOver {
        /// The pair.
        pair: Uuid,
        /// What people are told.
        note: String,
    },
    /// It has gone to another host.
    Retired {
        /// Where to.
        note: String,
        /// It started with its host before.
        autostart: bool,
    },
    /// A clone of a generation, for a test.
    Trial {
        /// The test.
        id: Uuid,
        /// What people are told.
        note: String,
    },
}

/// What a domain is marked as; `None`: it is not ours.
pub fn mark_of(domain: &Domain) -> Option<Mark> {
    let ours = ours(domain.root())?;
    let note = ours.text();
    let id = |name: &str| Uuid::parse_str(ours.attribute(name)?).ok();
    match ours.attribute("role")? {
        "replica" => Some(Mark::Replica {
            pair: id("pair")?,
            note,
        }),
        "taken-over" => Some(Mark::TakenOver {
            pair: id("pair")?,
            note,
        }),
        "retired" => Some(Mark::Retired {
            note,
            autostart: ours.attribute(AUTOSTART) == Some("yes"),
        }),
        "trial" => Some(Mark::Trial {
            id: id("trial")?,
            note,
        }),
        _ => None,
    }
}

/// Marks a domain; what it was marked as before goes. What tells it from others stays.
pub fn set_mark(domain: &mut Domain, mark: Option<&Mark>) {
    let element = mark.map(|mark| match mark {
        Mark::Replica { pair, note } => ours_as("replica")
            .with("pair", pair.to_string())
            .saying(note),
        Mark::TakenOver { pair, note } => ours_as("taken-over")
            .with("pair", pair.to_string())
            .saying(note),
        Mark::Retired { note, autostart } => ours_as("retired")
            .with(AUTOSTART, yes_or_no(*autostart))
            .saying(note),
        Mark::Trial { id, note } => ours_as("trial").with("trial", id.to_string()).saying(note),
    });
    replace(domain, element);
}

/// Notes what a source's definition does not tell: in which pools its disks are, and whether it starts with its host.
pub fn set_source(domain: &mut Domain, pools: &BTreeMap<String, String>, autostart: bool) {
    let disk = |element: Element, (key, pool): (&String, &String)| {
        let disk = Element::new("rblocksync:disk").with("key", key);
        element.holding(disk.with("pool", pool))
    };
    let element = ours_as("source").with(AUTOSTART, yes_or_no(autostart));
    replace(domain, Some(pools.iter().fold(element, disk)));
}

/// Whether the source starts with its host.
pub fn source_starts(domain: &Domain) -> bool {
    let source = ours(domain.root()).filter(|o| o.attribute("role") == Some("source"));
    source.is_some_and(|source| source.attribute(AUTOSTART) == Some("yes"))
}

/// What tells the domain from another one that gets its name later, where that is not its UUID: a replica of another name
/// has another UUID, and is the same VM all the same.
pub fn identity_of(domain: &Domain) -> Option<Uuid> {
    Uuid::parse_str(ours(domain.root())?.attribute(IDENTITY)?).ok()
}

/// Notes that.
pub fn set_identity(domain: &mut Domain, identity: Uuid) {
    let element = ours(domain.root()).cloned();
    let element = element.unwrap_or_else(|| ours_as("domain"));
    clear(domain);
    add(domain, element.with(IDENTITY, identity.to_string()));
}

fn yes_or_no(is_so: bool) -> &'static str {
    match is_so {
        true => "yes",
        false => "no",
    }
}

fn ours_as(role: &str) -> Element {
    Element::new(NAME)
        .with("xmlns:rblocksync", NAMESPACE)
        .with("role", role)
}

fn replace(domain: &mut Domain, element: Option<Element>) {
    let identity = identity_of(domain);
    clear(domain);
    if let Some(element) = element {
        add(domain, element);
    }
    if let Some(identity) = identity {
        set_identity(domain, identity);
    }
}

/// In which pools the disks of the source are, by their keys.
pub fn pools_of(domain: &Domain) -> BTreeMap<String, String> {
    let Some(ours) = ours(domain.root()).filter(|o| o.attribute("role") == Some("source")) else {
        return BTreeMap::new();
    };
    let disks = ours.elements().filter_map(|disk| {
        Some((
            disk.attribute("key")?.to_owned(),
            disk.attribute("pool")?.to_owned(),
        ))
    });
    disks.collect()
}

/// Removes whatever we have noted.
pub fn clear(domain: &mut Domain) {
    let root = domain.root_mut();
    if let Some(metadata) = root.child_mut("metadata") {
        metadata.retain(|element| !is_ours(element));
        if metadata.children.is_empty() {
            root.retain(|element| element.name != "metadata");
        }
    }
}

fn add(domain: &mut Domain, element: Element) {
    let root = domain.root_mut();
    match root.child_mut("metadata") {
        Some(metadata) => metadata.push(element),
        None => root.push(Element::new("metadata").holding(element)),
    }
}

fn ours(root: &Element) -> Option<&Element> {
    root.child("metadata")?.elements().find(|e| is_ours(e))
}

/// Whoever has had the definition in hand may have chosen another prefix.
fn is_ours(element: &Element) -> bool {
    let prefix = element.name.split_once(':').map(|(prefix, _)| prefix);
    let attribute = match prefix {
        Some(prefix) => format!("xmlns:{prefix}"),
        None => "xmlns".to_owned(),
    };
    element.attribute(&attribute) == Some(NAMESPACE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn domain(metadata: &str) -> Domain {
        Domain::parse(&format!("<domain><name>web</name>{metadata}</domain>")).unwrap()
    }

    #[test]
    fn marks_are_read_as_they_are_written() {
        let others = "<metadata><x:y xmlns:x='urn:x'>1</x:y></metadata>";
        for mark in [
            Mark::Replica {
                pair: Uuid::from_u128(1),
                note: "of web on <a> & b".into(),
            },
            Mark::TakenOver {
                pair: Uuid::from_u128(2),
                note: "n".into(),
            },
            Mark::Retired {
                note: "n".into(),
                autostart: true,
            },
            Mark::Trial {
                id: Uuid::from_u128(3),
                note: "n".into(),
            },
        ] {
            let mut marked = domain(others);
            set_identity(&mut marked, Uuid::from_u128(5));
            set_mark(&mut marked, Some(&mark));
            let read = Domain::parse(&marked.to_string()).unwrap();
            assert_eq!(mark_of(&read), Some(mark));
            assert_eq!(identity_of(&read), Some(Uuid::from_u128(5)));
            set_mark(&mut marked, None);
            assert_eq!(
                (mark_of(&marked), identity_of(&marked)),
                (None, Some(Uuid::from_u128(5)))
            );
            clear(&mut marked);
            assert_eq!(marked, domain(others), "others' notes stay");
        }
        assert_eq!(mark_of(&domain("")), None);
    }

    #[test]
    fn a_mark_is_known_by_its_namespace() {
        let ours = "<metadata><a:domain xmlns:a='urn:rblocksync:domain:1' role='retired'>n</a:domain></metadata>";
        assert!(mark_of(&domain(ours)).is_some());
        let theirs = "<metadata><rblocksync:domain xmlns:rblocksync='urn:z' role='retired'>n</rblocksync:domain></metadata>";
        assert!(mark_of(&domain(theirs)).is_none());
    }

    #[test]
    fn pools_are_noted_by_disk() {
        let mut noted = domain("");
        let pools = BTreeMap::from([("vda".to_owned(), "default".to_owned())]);
        set_source(&mut noted, &pools, true);
        let read = Domain::parse(&noted.to_string()).unwrap();
        assert_eq!((pools_of(&read), source_starts(&read)), (pools, true));
        set_source(&mut noted, &BTreeMap::new(), false);
        assert!(pools_of(&noted).is_empty() && !source_starts(&noted));
        clear(&mut noted);
        assert_eq!(noted, domain(""));
    }
}
