//! Whether a VM may be moved from this node at all: others must not decide about it at the same time.

use crate::node::PveTree;
use crate::volid::Vmid;
use rblocksync::error::{Error, Kind, Result};
use serde_json::Value;

/// Refuses a VM that Proxmox's high availability or replication takes care of, that is locked, or whose node has lost its
/// cluster. Returns notes for the user.
pub fn check(tree: &PveTree, vmid: Vmid) -> Result<Vec<String>> {
    let refused =
        |what: String, advice: String| Err(Error::new(Kind::Refused, what).advise(advice));
    if let Some(text) = tree.cluster_file("ha/resources.cfg")? {
        if has_section(&text, "vm", |id| id == vmid.to_string()) {
            return refused(
                format!("VM {vmid} is managed by Proxmox's high availability, which would start it again"),
                format!("take it out for the time being: ha-manager remove vm:{vmid}"),
            );
        }
    }
    if let Some(text) = tree.cluster_file("replication.cfg")? {
        let of_vm = |id: &str| id.split('-').next() == Some(vmid.to_string().as_str());
        if has_section(&text, "local", of_vm) {
            return refused(
                format!("VM {vmid} has a replication job of Proxmox's, which would go on from the wrong node"),
                "remove it: pvesr list shows it, pvesr delete ID removes it".into(),
            );
        }
    }
    if let Some(lock) = tree.vm_config(vmid)?.lock() {
        return Err(
            Error::new(Kind::Busy, format!("VM {vmid} is locked ({lock})")).advise(format!(
                "wait for the running task; if none is left: qm unlock {vmid}"
            )),
        );
    }
    if tree.is_clustered()? && is_quorate(tree)? == Some(false) {
        return refused(
            "this node has lost the quorum of its cluster, so no configuration can be changed"
                .into(),
            "look at pvecm status".into(),
        );
    }
    Ok(Vec::new())
}

/// Whether there is a line `kind: id` without indentation.
fn has_section(text: &str, kind: &str, is_it: impl Fn(&str) -> bool) -> bool {
    let mut heads = text.lines().filter_map(|line| line.split_once(':'));
    heads.any(|(found, id)| found == kind && is_it(id.trim()))
}

/// What the cluster's file system says of itself; `None` if it does not.
fn is_quorate(tree: &PveTree) -> Result<Option<bool>> {
    let text = tree.cluster_file(".members")?.unwrap_or_default();
    let members: Value = serde_json::from_str(&text).unwrap_or_default();
    Ok(members["cluster"]["quorate"].as_u64().map(|yes| yes == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_told_by_their_heads() {
        let text = "vm: 101\n\tgroup a\n\nct: 102\nvm:1011\n  vm: 103\n";
        let has = |vm: &str| has_section(text, "vm", |id| id == vm);
        assert!(has("101") && has("1011"));
        assert!(!has("102") && !has("103") && !has("10"));
    }
}
