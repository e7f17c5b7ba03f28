//! The pages that an error or the status page sends people to: docs/runbooks, which the packages install as
//! /usr/share/doc/PROGRAM/docs/runbooks.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A page. Sent over the wire by its file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runbook {
    /// The host that runs the VM is gone.
    SourceHostDead,
    /// The host that keeps the replica is gone.
    TargetHostDead,
    /// Both were gone, or could not see each other, and are back.
    BothBack,
    /// The VM may run, or may have run, on both.
    SplitBrain,
    /// A replica is not what was sealed.
    ReplicaDamaged,
    /// A pool or file system is full, or nearly.
    PoolFull,
    /// The id on the target is another VM's, or the wrong one.
    WrongVmid,
    /// A migration did not end.
    MigrationInterrupted,
}

impl Runbook {
    /// All of them.
    pub const ALL: [Runbook; 8] = [
        Runbook::SourceHostDead,
        Runbook::TargetHostDead,
        Runbook::BothBack,
        Runbook::SplitBrain,
        Runbook::ReplicaDamaged,
        Runbook::PoolFull,
        Runbook::WrongVmid,
        Runbook::MigrationInterrupted,
    ];

    /// The file without its `.md`, and the section where to begin.
    pub const fn page(self) -> (&'static str, &'static str) {
        match self {
            Runbook::SourceHostDead => ("source-host-dead", "Is it dead?"),
            Runbook::TargetHostDead => ("target-host-dead", "Is it dead?"),
            Runbook::BothBack => ("both-back", "Look before anything syncs"),
            Runbook::SplitBrain => ("split-brain", "Stop both first"),
            Runbook::ReplicaDamaged => ("replica-damaged", "See what is damaged"),
            Runbook::PoolFull => ("pool-full", "See what fills it"),
            Runbook::WrongVmid => ("wrong-vmid", "What is there?"),
            Runbook::MigrationInterrupted => ("migration-interrupted", "What is so?"),
        }
    }
}

impl fmt::Display for Runbook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.page().0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_page_and_section_and_is_in_the_list() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/runbooks");
        let read = |name: &str| std::fs::read_to_string(format!("{dir}/{name}.md")).unwrap();
        let list = read("README");
        for runbook in Runbook::ALL {
            let (file, section) = runbook.page();
            let heading = format!("## {section}");
            assert!(
                read(file).lines().any(|line| line == heading),
                "{file}.md has no '{heading}'"
            );
            assert!(list.contains(&format!("[{file}]({file}.md)")), "{file}");
            let sent = serde_json::to_value(runbook).unwrap();
            assert_eq!(sent, file);
        }
        let pages = std::fs::read_dir(dir).unwrap().count();
        assert_eq!(pages, Runbook::ALL.len() + 1, "all but the list");
    }
}
