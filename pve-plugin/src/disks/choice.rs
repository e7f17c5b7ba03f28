//! What of a VM a user wants replicated.

/// The usual: every attached disk with data on a storage of this node alone, also those that backups leave out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Configuration keys of disks to leave out.
    pub exclude: Vec<String>,
    /// Replicate volumes that are not attached (`unused0`), too.
    pub include_unused: bool,
    /// Leave disks with `backup=0` out.
    pub skip_no_backup: bool,
    /// Replicate disks on shared storages, too.
    pub include_shared: bool,
    /// Leave out what cannot be replicated instead of refusing the VM. For looking only.
    pub passes_over: bool,
}

impl Choice {
    /// The usual without these disks.
    pub fn without(exclude: &[String]) -> Choice {
        Choice {
            exclude: exclude.to_vec(),
            ..Choice::default()
        }
    }

    /// All that can be replicated in any way, to find what syncs with other options have to do with.
    pub fn everything() -> Choice {
        Choice {
            include_unused: true,
            include_shared: true,
            passes_over: true,
            ..Choice::default()
        }
    }
}
