//! The hookscript that asks whether a VM may start here, and where Proxmox finds it.
//!
//! `lock: migrate` keeps Proxmox from starting a VM, but `qm unlock` is what people type when they see a lock. The
//! hookscript holds beyond that. It lies among the snippets of a directory storage; where there is none, the lock alone
//! remains.

use crate::node::PveTree;
use crate::storage_cfg::{Storage, StorageCfg, StorageEntry};
use crate::volid::Vmid;
use rblocksync::cli::replace_file;
use rblocksync::error::{Error, Kind, Result};
use rblocksync::files::remove_present;
use rblocksync::replica::{write_text, Layout};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Its file name among the snippets.
const NAME: &str = "pvesync-guard.sh";
const SCRIPT: &str = include_str!("guard/pvesync-guard.sh");

/// What is said where there is no place for it.
pub const NO_SNIPPETS: &str =
    "no directory storage of this node holds snippets, so there is no hookscript: only the lock in its configuration \
     keeps the VM from being started";

/// The script's text, for state under `layout`.
pub fn script(layout: &Layout) -> String {
    let dir = layout.guard("").display().to_string();
    let dir = dir.trim_end_matches('/').replace('\'', r"'\''");
    SCRIPT.replacen("@DIR@", &format!("'{dir}'"), 1)
}

/// Puts the script where Proxmox looks for hookscripts on this node, and returns its volume id. `None`: there is no
/// storage for it.
pub fn install(tree: &PveTree, layout: &Layout) -> Result<Option<String>> {
    let storages = tree.storage_cfg()?;
    let node = tree.local_node()?;
    let Some((entry, dir)) = place(&storages, &node) else {
        return Ok(None);
    };
    let dir = tree.below_root(&dir);
    let path = dir.join(NAME);
    let text = script(layout);
    let is_there = std::fs::metadata(&path).is_ok_and(|m| m.permissions().mode() & 0o111 == 0o111)
        && std::fs::read_to_string(&path).is_ok_and(|found| found == text);
    if !is_there {
        replace_file(&path, &text, 0o755)?;
    }
    Ok(Some(format!("{}:snippets/{NAME}", entry.id)))
}

/// The storage for it, and its directory: one of this node's own first, which is there when others are not.
fn place<'a>(storages: &'a StorageCfg, node: &str) -> Option<(&'a StorageEntry, PathBuf)> {
    let fits = |entry: &&StorageEntry| {
        entry.content.iter().any(|c| c == "snippets")
            && storages.usable(&entry.id, node).is_ok()
            && matches!(entry.storage, Storage::Dir { .. })
    };
    let mut found: Vec<&StorageEntry> = storages.entries().iter().filter(fits).collect();
    found.sort_by_key(|entry| (entry.shared, entry.id != "local"));
    let entry = found.first()?;
    Some((entry, snippets_dir(entry)?))
}

/// Where a storage's snippets are: `content-dirs snippets=DIR` overrides the usual place.
fn snippets_dir(entry: &StorageEntry) -> Option<PathBuf> {
    let Storage::Dir { path, .. } = &entry.storage else {
        return None;
    };
    let dirs = entry.properties.iter().find(|(k, _)| k == "content-dirs");
    let dirs = dirs.map(|(_, value)| value.as_str()).unwrap_or_default();
    let mut named = dirs
        .split([',', ' '])
        .filter_map(|d| d.strip_prefix("snippets="));
    Some(path.join(named.next().unwrap_or("snippets").trim_matches('/')))
}

/// Whether this hookscript, as a configuration names it, is ours.
pub fn is_ours(hookscript: &str) -> bool {
    hookscript
        .split_once(":snippets/")
        .is_some_and(|(_, name)| name == NAME)
}

/// Has `hookscript`, as a configuration names it, called by ours for this VM; `None`: no other one.
pub fn chain(tree: &PveTree, layout: &Layout, vm: Vmid, hookscript: Option<&str>) -> Result<()> {
    let path = layout.guard(&format!("{vm}.chain"));
    let Some(hookscript) = hookscript else {
        return remove_present(&path).map(drop);
    };
    let script = script_path(tree, hookscript)?;
    write_text(&path, &format!("{}\n", script.display()))
}

fn script_path(tree: &PveTree, hookscript: &str) -> Result<PathBuf> {
    let storages = tree.storage_cfg()?;
    let found = hookscript
        .split_once(":snippets/")
        .and_then(|(id, name)| Some(snippets_dir(storages.get(id)?)?.join(name)));
    match found {
        Some(path) if !hookscript.split('/').any(|part| part == "..") => Ok(path),
        _ => Err(Error::new(
            Kind::Refused,
            format!(
                "the VM's hookscript {:?} cannot be found, so it could not be called any more",
                hookscript
            ),
        )
        .advise("correct or remove it: qm set VMID --delete hookscript")),
    }
}
