//! VMs of other hypervisors among domains: their generations, with a domain's definition in the place of their own
//! configuration.
//!
//! What stays in the manifest is what the source said. Whenever a definition is made from it, it is translated anew.

use super::read::read;
use super::write::{write, Put, Volume, Written};
use crate::xml::Element;
use rblocksync::error::Result;
use rblocksync::guest::{Described, Left};
use rblocksync::replica::{DiskRecord, Generation, Location};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What our configurations' form is called.
pub const FORM: &str = "libvirt";

/// What a definition says, for other hypervisors.
pub fn describe(definition: &str) -> Described {
    let read = Element::parse("the definition of a domain", definition).and_then(|e| read(&e));
    Described {
        form: FORM.into(),
        guest: read.map_err(|e| e.message()),
    }
}

/// A VM that comes from another kind of hypervisor.
pub fn foreign(described: Option<&Described>) -> Option<&Described> {
    described.filter(|described| described.form != FORM)
}

/// A generation as if it came from a domain.
#[derive(Debug, Clone)]
pub struct Ours<'a> {
    /// The generation: configuration and keys of disks are of our form.
    pub generation: Cow<'a, Generation>,
    /// The keys here of its disks, by those that they have in the manifest. Empty if they are the same.
    pub keys: BTreeMap<String, String>,
    /// What got lost on the way.
    pub left: Vec<Left>,
    /// Bytes of the firmware's variables, if the disk that they are in is larger: see [`super::cut_vars`].
    pub vars_bytes: Option<u64>,
}

/// Translates a generation, if its configuration is not of our form. `put` tells about this host; its volumes are those of
/// the generation.
pub fn ours<'a>(generation: &'a Generation, put: &Put) -> Result<Ours<'a>> {
    let Some(described) = foreign(generation.described.as_deref()) else {
        return Ok(Ours {
            generation: Cow::Borrowed(generation),
            keys: BTreeMap::new(),
            left: Vec::new(),
            vars_bytes: None,
        });
    };
    let guest = described.guest()?;
    let mut put = Put {
        volumes: BTreeMap::new(),
        uuid: Some(generation.pair),
        ..put.clone()
    };
    for record in &generation.disks {
        put.volumes
            .insert(record.described_in(guest)?, volume(record));
    }
    let Written { domain, keys, left } = write(guest, &put)?;
    let mut translated = generation.clone();
    translated.config = domain.to_string();
    translated.excluded = Vec::new();
    translated.described = None;
    let mut renamed = BTreeMap::new();
    for (was, record) in generation.disks.iter().zip(&mut translated.disks) {
        let disk = was.described_in(guest)?;
        let Some(key) = keys.get(&disk) else {
            return Err(was.not_described());
        };
        renamed.insert(was.key.clone(), key.clone());
        record.key = key.clone();
    }
    let left = guest.unknown.iter().cloned().chain(left).collect();
    let vars_bytes = super::vars_of(guest).and_then(|vars| {
        let mut disks = generation.disks.iter();
        let is_it = |d: &&DiskRecord| renamed.get(&d.key).is_some_and(|k| k == super::VARS_KEY);
        let disk = disks.find(is_it)?;
        (disk.size != vars.bytes()).then(|| vars.bytes())
    });
    Ok(Ours {
        generation: Cow::Owned(translated),
        keys: renamed,
        left,
        vars_bytes,
    })
}

fn volume(record: &DiskRecord) -> Volume {
    Volume {
        path: PathBuf::from(&record.target),
        is_block: !matches!(record.location, Location::File { .. }),
        format: record.location.format(),
    }
}
