//! VMs of other hypervisors among ours: their generations, with a configuration of Proxmox VE's in the place of their own.
//!
//! What stays in the manifest is what the source said. Whenever a configuration is made from it, it is translated anew, so
//! a later version of this program may do better with what is there.

use super::read::read;
use super::write::{write, Put, Written};
use crate::vm_config::VmConfig;
use crate::volid::{Vmid, Volid};
use rblocksync::error::Result;
use rblocksync::guest::{Described, Guest, Left};
use rblocksync::replica::{DiskSpec, Generation, NETWORK};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What our configurations' form is called.
pub const FORM: &str = "pve";

/// The storage that stands for wherever another hypervisor keeps its volumes.
const ELSEWHERE: &str = "elsewhere";

/// What a configuration says, for other hypervisors.
pub fn describe(config: &VmConfig) -> Described {
    Described {
        form: FORM.into(),
        guest: read(config).map_err(|e| e.message()),
    }
}

/// A VM that comes from another kind of hypervisor.
pub(crate) fn foreign(described: Option<&Described>) -> Option<&Described> {
    described.filter(|described| described.form != FORM)
}

/// A name in our form for a volume of another hypervisor: the one of the disk of this number.
pub(crate) fn stand_in(number: usize) -> Result<Volid> {
    Volid::new(ELSEWHERE, &format!("vm-100-disk-{number}"))
}

/// A generation as if it came from a VM of ours.
#[derive(Debug, Clone)]
pub struct Ours<'a> {
    /// The generation: configuration, keys of disks and source volumes are of our form.
    pub generation: Cow<'a, Generation>,
    /// The keys here of its disks, by those that they have in the manifest. Empty if they are the same.
    pub keys: BTreeMap<String, String>,
    /// What got lost on the way.
    pub left: Vec<Left>,
}

/// Translates a generation, if its configuration is not of our form. `networks` tells those that have other names here.
pub fn ours<'a>(generation: &'a Generation, networks: &[(String, String)]) -> Result<Ours<'a>> {
    let Some(described) = foreign(generation.described.as_deref()) else {
        return Ok(Ours {
            generation: Cow::Borrowed(generation),
            keys: BTreeMap::new(),
            left: Vec::new(),
        });
    };
    let guest = described.guest()?;
    let mut put = Put {
        bridges: bridges(networks),
        ..Put::default()
    };
    for (number, record) in generation.disks.iter().enumerate() {
        let disk = record.described_in(guest)?;
        let volume = (stand_in(number)?, Some(record.size));
        put.volumes.insert(disk, volume);
    }
    let Written { text, keys, left } = write(guest, &put)?;
    let mut translated = generation.clone();
    translated.config = text;
    translated.excluded = Vec::new();
    translated.described = None;
    let mut renamed = BTreeMap::new();
    for (number, (was, record)) in generation
        .disks
        .iter()
        .zip(&mut translated.disks)
        .enumerate()
    {
        let disk = was.described_in(guest)?;
        let Some(key) = keys.get(&disk) else {
            return Err(was.not_described());
        };
        renamed.insert(was.key.clone(), key.clone());
        record.key = key.clone();
        record.source = stand_in(number)?.to_string();
    }
    let left = guest.unknown.iter().cloned().chain(left).collect();
    Ok(Ours {
        generation: Cow::Owned(translated),
        keys: renamed,
        left,
    })
}

/// Networks and bridges of a map: all are bridges here.
fn bridges(networks: &[(String, String)]) -> Vec<(String, String)> {
    let plain = |name: &str| name.strip_prefix(NETWORK).unwrap_or(name).to_owned();
    let networks = networks.iter();
    networks
        .map(|(from, to)| (plain(from), plain(to)))
        .collect()
}

/// What a VM would look like here, on Proxmox VE's usual storage: for people to look at.
pub fn sketch(
    guest: &Guest,
    disks: &[&DiskSpec],
    vmid: &str,
    networks: &[(String, String)],
) -> Result<Written> {
    let vmid: Vmid = vmid.parse()?;
    let mut put = Put {
        bridges: bridges(networks),
        ..Put::default()
    };
    for (number, spec) in disks.iter().enumerate() {
        let Some(disk) = guest.disk(&spec.volume, &spec.key) else {
            continue;
        };
        let volid = Volid::new("local-lvm", &format!("vm-{vmid}-disk-{number}"))?;
        put.volumes
            .insert(disk.key.clone(), (volid, Some(spec.size)));
    }
    write(guest, &put)
}
