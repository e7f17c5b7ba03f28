//! VMs of other kinds of hypervisors on this host: what it has for them.

use crate::host::Host;
use libvirt_domain::guest::Put;
use rblocksync::error::Result;
use rblocksync::replica::NETWORK;
use std::collections::BTreeSet;
use std::path::Path;

pub(crate) use rblocksync::guest::told;

/// From this version on a card of a plain bridge may be in a VLAN.
const VLANS_SINCE: u64 = 11_000_000;

/// What a domain that is made from another kind of VM finds here. `networks` is the replica's map of them. What is a
/// bridge there may be a network here, and the other way round.
pub(crate) fn here(host: &dyn Host, networks: &[(String, String)]) -> Result<Put> {
    let there = |name: &str| name.strip_prefix(NETWORK).unwrap_or(name).to_owned();
    let bridges = networks.iter();
    let bridges = bridges.map(|(from, to)| (there(from), to.clone()));
    let bridges = bridges.collect();
    Ok(Put {
        kvm: Path::new("/dev/kvm").exists(),
        machines: host.qemu(),
        bridges,
        present: Some(bridges_here()),
        vlans: host.version()? >= VLANS_SINCE,
        ..Put::default()
    })
}

/// Bridges of this host that are the kernel's.
fn bridges_here() -> BTreeSet<String> {
    let devices = std::fs::read_dir("/sys/class/net").into_iter().flatten();
    let named = devices.flatten().filter_map(|device| {
        let is_bridge = device.path().join("bridge").exists();
        is_bridge.then(|| device.file_name().to_string_lossy().into_owned())
    });
    named.collect()
}
