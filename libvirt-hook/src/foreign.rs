//! VMs of other kinds of hypervisors on this host: what it has for them.

use crate::host::Host;
use crate::placement::{BRIDGE, NETWORK};
use libvirt_domain::guest::Put;
use rblocksync::error::Result;
use std::collections::BTreeSet;
use std::path::Path;

pub(crate) use rblocksync::guest::told;

/// From this version on a card of a plain bridge may be in a VLAN.
const VLANS_SINCE: u64 = 11_000_000;

/// What a domain that is made from another kind of VM finds here. `map` is that of the replica: networks and bridges are
/// in it by their prefixes.
pub(crate) fn here(host: &dyn Host, map: &[(String, String)]) -> Result<Put> {
    let mut bridges = Vec::new();
    for (from, to) in map {
        if let Some(bridge) = from.strip_prefix(BRIDGE) {
            bridges.push((bridge.to_owned(), to.clone()));
        } else if let Some(network) = from.strip_prefix(NETWORK) {
            // A bridge there may be a network here.
            bridges.push((network.to_owned(), format!("network:{to}")));
        }
    }
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
