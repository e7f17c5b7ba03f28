//! Finding the replicas on this host.

use super::layout::Layout;
use super::manifest::{generation_name, Generation};
use super::store::{self, read_json, TargetPair};
use crate::error::{Error, Kind, Result};

/// Sealed generations on this host, of one VM (by its id here or at the source) or of all.
pub fn list_generations(
    layout: &Layout,
    vm: Option<&str>,
) -> Result<Vec<(TargetPair, Vec<Generation>)>> {
    let mut found = Vec::new();
    for id in store::replicas(layout)? {
        if let Some(pair) = read_json::<TargetPair>(&layout.target_pair(id))? {
            if vm.is_none_or(|vm| vm == pair.vm || vm == pair.target_vm) {
                let generations = store::generations(layout, id)?;
                // Before the first seal there is no replica.
                if !generations.is_empty() {
                    found.push((pair, generations));
                }
            }
        }
    }
    found.sort_by(|a, b| (&a.0.target_vm, a.0.pair).cmp(&(&b.0.target_vm, b.0.pair)));
    Ok(found)
}

/// The same, as others are told of them: see [`Generation::shown`].
pub fn shown_generations(
    layout: &Layout,
    vm: Option<&str>,
) -> Result<Vec<(TargetPair, Vec<Generation>)>> {
    let mut found = list_generations(layout, vm)?;
    for (_, generations) in &mut found {
        let all = std::mem::take(generations);
        *generations = all.into_iter().map(Generation::shown).collect();
    }
    Ok(found)
}

/// The one replica on this host of `vm`, by its id here or at the source, with its sealed generations.
pub(super) fn find_replica(layout: &Layout, vm: &str) -> Result<(TargetPair, Vec<Generation>)> {
    let mut found = list_generations(layout, Some(vm))?;
    let missing = |what: String| Error::new(Kind::NotFound, what);
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(
            missing(format!("there is more than one replica of VM {vm}"))
                .advise("name it by its id on the host that keeps it"),
        ),
        (None, _) => Err(missing(format!("there is no replica of VM {vm}"))),
    }
}

/// That there is no such generation.
pub(super) fn no_generation(vm: &str, number: u64) -> Error {
    Error::new(
        Kind::NotFound,
        format!(
            "the replica of VM {vm} has no generation {}",
            generation_name(number)
        ),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;
    use uuid::Uuid;

    #[test]
    fn others_are_not_told_the_state_of_a_tpm() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let pair = Uuid::nil();
        let known = json!({
            "pair": pair, "source_host": pair, "source_name": "host1", "vm": "101", "target_vm": "101",
            "volumes": {}, "storage_map": [], "head": 3,
        });
        let kept = json!({
            "version": 1, "pair": pair, "epoch": 1, "number": 3, "parent": null,
            "taken_at": "2024-05-01T10:00:00Z", "consistency": "offline", "notes": [], "disks": [],
            "excluded": [], "config": "<domain/>", "state": "keys",
        });
        store::write_json(&layout.target_pair(pair), &known).unwrap();
        store::write_json(&layout.generation(pair, 3), &kept).unwrap();
        let shown = shown_generations(&layout, Some("101")).unwrap();
        let generation = &shown[0].1[0];
        assert_eq!(
            (generation.config.as_str(), &generation.state),
            ("<domain/>", &None)
        );
        // It is there for whoever boots it.
        let (_, all) = find_replica(&layout, "101").unwrap();
        assert_eq!(all[0].state.as_deref(), Some("keys"));
    }
}
