//! Bitmaps that began when the guest came to this host: what it has written since the generation that was taken over.
//!
//! They were begun in what was to lie over its disks while that was still empty and lay over just that generation, and QEMU
//! has merged them into the disks with it. libvirt knows nothing of them until a sync wants to know.

use super::{Checkpoints, PREFIX};
use crate::connect::Domain;
use crate::ffi;
use crate::xml::Element;
use rblocksync::error::Result;
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// What such names end with.
const SUFFIX: &str = "-taken";

/// The name of those that began with generation `number` of `pair`.
pub(crate) fn taken_name(pair: Uuid, number: u64) -> String {
    format!("{PREFIX}{}-{number}{SUFFIX}", pair.simple())
}

pub(super) fn is_taken(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

/// Has libvirt know those of `names` that are such bitmaps, of the disks `tracked` of the domain that `xml` describes, if it
/// does not. Where it does not take them for sound, it goes on not knowing them.
pub(super) fn make_known(
    domain: &Domain,
    xml: &Element,
    tracked: &[&str],
    names: &[&str],
) -> Result<Checkpoints> {
    let known = Checkpoints::list(domain)?;
    let mut wanted: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| is_taken(name))
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted.retain(|name| !known.has(name));
    if wanted.is_empty() {
        return Ok(known);
    }
    for name in wanted {
        let text = checkpoint(name, xml, tracked).to_string();
        // Why not is told when it is asked for.
        let _ = domain.call("redefine a checkpoint of", move |d| {
            ffi::checkpoint_redefine(d, &text)
        });
    }
    Checkpoints::list(domain)
}

/// <https://libvirt.org/formatcheckpoint.html>
fn checkpoint(name: &str, xml: &Element, tracked: &[&str]) -> Element {
    let mut disks = Element::new("disks");
    let all = xml.child("devices").into_iter().flat_map(|d| d.all("disk"));
    for disk in all.filter_map(|disk| disk.child("target")?.attribute("dev")) {
        let element = Element::new("disk").with("name", disk);
        disks.push(match tracked.contains(&disk) {
            true => element.with("checkpoint", "bitmap").with("bitmap", name),
            false => element.with("checkpoint", "no"),
        });
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    Element::new("domaincheckpoint")
        .holding(Element::new("name").saying(name))
        .holding(Element::new("creationTime").saying(now.to_string()))
        .holding(disks)
        .holding(xml.clone())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_names_all_disks_and_records_those_that_can() {
        let name = taken_name(Uuid::from_u128(7), 3);
        assert!(is_taken(&name) && !is_taken("rbs-7-3"));
        let xml = "<domain><uuid>u</uuid><devices><disk><target dev='vda'/></disk>\
            <disk><target dev='vdb'/></disk></devices></domain>";
        let made = checkpoint(&name, &Element::parse("a domain", xml).unwrap(), &["vda"]);
        let disks: Vec<_> = made.child("disks").unwrap().all("disk").collect();
        assert_eq!(disks[0].attribute("bitmap"), Some(name.as_str()));
        assert_eq!(disks[1].attribute("checkpoint"), Some("no"));
        assert_eq!(made.at(&["domain", "uuid"]).unwrap().text(), "u");
    }
}
