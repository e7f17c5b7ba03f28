//! What of a VM's configuration stays behind, and should be known to.

use crate::vm_config::VmConfig;

pub(super) fn notes(config: &VmConfig) -> Vec<String> {
    let mut notes: Vec<String> = config
        .warnings()
        .iter()
        .map(|w| format!("configuration line {}: {}", w.line, w.text))
        .collect();
    if config.is_template() {
        notes.push("it is a template, and so will be the replica".to_owned());
    }
    if let Some(pending) = config.pending() {
        let changes: Vec<String> = pending
            .entries()
            .map(|(key, value)| match key {
                "delete" => format!("removal of {value}"),
                _ => key.to_owned(),
            })
            .collect();
        if !changes.is_empty() {
            notes.push(format!(
                "changes that wait for the VM's next start are not part of the replica: {}",
                changes.join(", ")
            ));
        }
    }
    let snapshots: Vec<&str> = config.snapshots().map(|(name, _)| name).collect();
    if !snapshots.is_empty() {
        notes.push(format!(
            "the VM's own snapshots stay behind: {}",
            snapshots.join(", ")
        ));
    }
    let with_memory: Vec<&str> = config
        .snapshots()
        .filter(|(_, section)| section.get("vmstate").is_some())
        .map(|(name, _)| name)
        .collect();
    if !with_memory.is_empty() {
        notes.push(format!(
            "saved memory of snapshots stays behind: {}",
            with_memory.join(", ")
        ));
    }
    notes
}
