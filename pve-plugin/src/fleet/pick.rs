//! Which VMs a selection comes to on this node.

use super::ids::Ids;
use super::SelectionArgs;
use crate::node::{Guest, PveTree};
use crate::replica_config::{pair_of, GUARD_LOCK};
use crate::vm_config::VmConfig;
use crate::volid::Vmid;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::verbs::jobs::Chosen;
use std::collections::{BTreeMap, BTreeSet};

/// Ids that are named for one reason.
const NAMED_MAX: usize = 20;

/// Finds the VMs of a selection.
///
/// An id that is listed is always among them: if there is no such VM here, its run tells, and the others go on.
pub fn pick(selection: &SelectionArgs, tree: &PveTree) -> Result<Chosen> {
    let local = tree.local_node()?;
    let guests = tree.guests()?;
    let pools = pool_members(&tree.user_cfg()?, &selection.pool)?;
    let parts = || selection.vms.iter().flat_map(|list| list.parts());
    let is_excluded = |vmid: Vmid| selection.exclude_vm.iter().any(|l| l.has(vmid));

    let listed = parts().filter_map(|part| match part {
        Ids::One(vmid) => Some(*vmid),
        Ids::Range(..) => None,
    });
    let mut vms: BTreeSet<Vmid> = listed.filter(|vmid| !is_excluded(*vmid)).collect();
    let mut failed = Vec::new();
    let mut left_out: BTreeMap<String, Vec<Vmid>> = BTreeMap::new();
    for guest in &guests {
        let vmid = guest.vmid;
        if vms.contains(&vmid) || is_excluded(vmid) {
            continue;
        }
        let in_range = |part: &Ids| match part {
            Ids::One(_) => false,
            Ids::Range(first, last) => (*first..=*last).contains(&vmid),
        };
        let is_meant = selection.all || pools.contains(&vmid) || parts().any(in_range);
        let text = match is_meant || !selection.tag.is_empty() {
            true => tree.guest_text(guest),
            false => continue,
        };
        let text = match text {
            Ok(text) => text,
            // It was removed, or moved to another node, after the list was made.
            Err(e) if e.kind() == Kind::NotFound => continue,
            Err(e) => {
                // Of another node's guest nobody needs to know.
                if guest.node == local && !guest.is_container {
                    failed.push((vmid.to_string(), e));
                }
                continue;
            }
        };
        if !is_meant && !has_tag(&text, &selection.tag) {
            continue;
        }
        match why_not(guest, &local, &text) {
            Ok(None) => {
                vms.insert(vmid);
            }
            Ok(Some(why)) => left_out.entry(why).or_default().push(vmid),
            Err(e) => failed.push((vmid.to_string(), e.context(format!("VM {vmid}")))),
        }
    }
    Ok(Chosen {
        vms: vms.iter().map(Vmid::to_string).collect(),
        failed,
        left_out: left_out.iter().map(|(why, ids)| line(why, ids)).collect(),
    })
}

/// Why a guest is not replicated although the selection means it.
fn why_not(guest: &Guest, local: &str, text: &str) -> Result<Option<String>> {
    if guest.node != local {
        return Ok(Some(format!("on node {}", guest.node)));
    }
    if guest.is_container {
        return Ok(Some("containers".to_owned()));
    }
    let config = VmConfig::parse(text)?;
    Ok(if config.is_template() {
        Some("templates".to_owned())
    } else if pair_of(&config).is_some() && config.lock() == Some(GUARD_LOCK) {
        Some("replicas of other hosts' VMs".to_owned())
    } else {
        None
    })
}

fn line(why: &str, ids: &[Vmid]) -> String {
    let mut named: Vec<String> = ids.iter().take(NAMED_MAX).map(Vmid::to_string).collect();
    if ids.len() > NAMED_MAX {
        named.push(format!("and {} more", ids.len() - NAMED_MAX));
    }
    format!("{} ({why})", named.join(", "))
}

/// Whether a guest has one of the tags. Proxmox writes them in small letters, unless told otherwise.
///
/// It only looks at the line: containers have other keys than VMs, and what is broken elsewhere in the file is told by
/// whoever needs it.
fn has_tag(text: &str, wanted: &[String]) -> bool {
    let main = text.lines().take_while(|line| !line.starts_with('['));
    let tags = main.filter_map(|line| line.strip_prefix("tags:")).last();
    let mut tags = tags
        .unwrap_or_default()
        .split([';', ',', ' ', '\t'])
        .filter(|tag| !tag.is_empty());
    tags.any(|tag| wanted.iter().any(|w| w.eq_ignore_ascii_case(tag)))
}

/// The guests in some pools, by user.cfg: `pool:NAME:comment:ids:storages:`. Of a pool within a pool only if it is named
/// itself.
fn pool_members(user_cfg: &str, wanted: &[String]) -> Result<BTreeSet<Vmid>> {
    let mut found: BTreeMap<&str, BTreeSet<Vmid>> = BTreeMap::new();
    for line in user_cfg.lines() {
        let fields: Vec<&str> = line.trim().split(':').collect();
        if let ["pool", name, _, ids, ..] = fields.as_slice() {
            let ids = ids
                .split(',')
                .filter_map(|id| id.trim().parse::<Vmid>().ok());
            found.entry(name).or_default().extend(ids);
        }
    }
    let mut members = BTreeSet::new();
    for name in wanted {
        match found.get(name.as_str()) {
            Some(ids) => members.extend(ids),
            None => {
                return Err(
                    Error::new(Kind::NotFound, format!("there is no pool {name:?}"))
                        .advise("pvesh get /pools lists them"),
                )
            }
        }
    }
    Ok(members)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "pick/tests.rs"]
mod tests;
