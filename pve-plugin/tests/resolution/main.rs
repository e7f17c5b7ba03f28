//! Resolution of Proxmox VMs, on configurations as Proxmox writes them (tests/fixtures).
#![allow(clippy::unwrap_used)]

mod configs;
mod properties;
mod replica;
mod resolve;
mod storages;

use pvesync::disks::{resolve, Resolved};
use pvesync::storage_cfg::StorageCfg;
use pvesync::vm_config::VmConfig;
use pvesync::volid::Vmid;
use rblocksync::error::Result;

/// Every VM configuration among the fixtures, with the VM's id.
const FIXTURES: [(&str, u32, &str); 11] = [
    ("windows", 110, include_str!("../fixtures/windows.conf")),
    ("cloudinit", 101, include_str!("../fixtures/cloudinit.conf")),
    ("snapshots", 120, include_str!("../fixtures/snapshots.conf")),
    ("troubles", 130, include_str!("../fixtures/troubles.conf")),
    ("template", 100, include_str!("../fixtures/template.conf")),
    (
        "description",
        140,
        include_str!("../fixtures/description.conf"),
    ),
    (
        "passthrough",
        150,
        include_str!("../fixtures/passthrough.conf"),
    ),
    ("oldstyle", 160, include_str!("../fixtures/oldstyle.conf")),
    ("locked", 170, include_str!("../fixtures/locked.conf")),
    ("storages", 180, include_str!("../fixtures/storages.conf")),
    ("suspended", 171, include_str!("../fixtures/suspended.conf")),
];

fn fixture(name: &str) -> (Vmid, VmConfig) {
    let (_, vmid, text) = FIXTURES.iter().find(|(n, ..)| *n == name).unwrap();
    (Vmid::new(*vmid).unwrap(), VmConfig::parse(text).unwrap())
}

fn storages() -> StorageCfg {
    StorageCfg::parse(include_str!("../fixtures/storage.cfg"))
}

fn resolve_fixture(name: &str, exclude: &[&str]) -> Result<Resolved> {
    let (vmid, config) = fixture(name);
    let exclude: Vec<String> = exclude.iter().map(|s| s.to_string()).collect();
    resolve(vmid, &config, &storages(), "pve1", &exclude)
}
