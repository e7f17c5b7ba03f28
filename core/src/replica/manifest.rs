//! What is known of a generation.

use crate::digest::{Digest, HashKind};
use crate::error::{Error, Kind, Result};
use crate::guest::{Described, Guest};
use crate::snapshot::Consistency;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Generations are named by this and their number: `rbs12`. Proxmox takes it for a snapshot's name.
pub const GENERATION_PREFIX: &str = "rbs";

/// The manifest of a generation. Sealed ones never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Version of this form.
    pub version: u32,
    /// The pair it belongs to.
    pub pair: Uuid,
    /// Epoch of the role that the source had. Generations are ordered by (epoch, number), never by time.
    pub epoch: u64,
    /// Number within the pair, from 1.
    pub number: u64,
    /// The generation it was made from, if any.
    pub parent: Option<u64>,
    /// When the point in time was taken, by the source's clock.
    pub taken_at: Timestamp,
    /// What kind of point in time it is.
    pub consistency: Consistency,
    /// What the user should know of it.
    pub notes: Vec<String>,
    /// All disks of it.
    pub disks: Vec<DiskRecord>,
    /// Keys of the disks that the VM has but the generation has not.
    pub excluded: Vec<String>,
    /// The hypervisor's configuration on the source at that time.
    pub config: String,
    /// The same in the form of no hypervisor in particular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub described: Option<Box<Described>>,
    /// What else belongs to the VM, as its hypervisor's front end writes it down: the state of its TPM, where that is no disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// One disk of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskRecord {
    /// The disk's key.
    pub key: String,
    /// Volume on the source.
    pub source: String,
    /// Volume on the target.
    pub target: String,
    /// What the target volume is on its host.
    pub location: super::Location,
    /// Size of the guest's disk in bytes.
    pub size: u64,
    /// Image digest, and how it was made.
    pub digest: Digest,
    /// Hash function of the digest.
    pub hash: HashKind,
    /// Leaf size of the digest in bytes.
    pub leaf_bytes: u32,
    /// Bytes that were sent for it.
    pub changed: u64,
}

impl DiskRecord {
    /// The key of the disk in the neutral form of its VM.
    pub fn described_in(&self, guest: &Guest) -> Result<String> {
        let disk = guest.disk(&self.source, &self.key);
        disk.map(|disk| disk.key.clone())
            .ok_or_else(|| self.not_described())
    }

    /// There is no such disk in the neutral form of its VM.
    pub fn not_described(&self) -> Error {
        Error::new(
            Kind::Protocol,
            format!(
                "disk {} ({}) is not in the description of the VM",
                self.key, self.source
            ),
        )
    }
}

impl Generation {
    /// As it is shown and told to others: without the state of a TPM, which holds keys.
    pub fn shown(self) -> Generation {
        Generation {
            state: None,
            ..self
        }
    }

    /// Version of the form written here.
    pub const VERSION: u32 = 1;

    /// Its name: `rbs12`.
    pub fn name(&self) -> String {
        generation_name(self.number)
    }

    /// Whether one of its disks is in this volume, in whatever format.
    pub(super) fn has_place(&self, location: &super::Location) -> bool {
        self.disks.iter().any(|d| d.location.is_place_of(location))
    }

    /// The disk that this volume holds.
    pub(super) fn disk_at(&self, location: &super::Location) -> Option<&DiskRecord> {
        self.disks.iter().find(|d| d.location == *location)
    }
}

/// Name of generation `number`.
pub(super) fn generation_name(number: u64) -> String {
    format!("{GENERATION_PREFIX}{number}")
}
