//! The block engine: makes a target image equal to a source image over one duplex byte stream.
//!
//! Knows images and a [`crate::wire::Link`], nothing of SSH, LVM or VMs. The order of work, in
//! short: the source lists which segments hold data; the target frees what it has elsewhere and
//! reports a digest per listed segment; the source answers each in turn with "same" or with the
//! leaves to change, asking for the leaves' fingerprints first where a segment differs. Every queue is bounded by
//! the protocol's window, so memory does not grow with the image, and each side has one thread that
//! only reads from the link, so the two directions cannot block each other.

mod answers;
mod apply;
mod compare;
mod coordinator;
mod delta;
mod delta_work;
mod failure;
mod geometry;
mod grains;
mod local;
mod map;
mod mend;
mod meter;
mod order;
mod outbox;
mod pack;
mod progress;
mod relay;
mod report;
mod scan;
mod segment;
mod source;
mod table;
mod target;
mod verify;
mod window;

pub use delta::{run as run_delta_source, Since};
pub use geometry::Geometry;
pub use local::run as run_local;
pub use map::{BlockMap, Extent};
pub use mend::{receive as receive_segments, send as send_segments};
pub use meter::{Meter, Progress};
pub use pack::{Compress, LEVEL_MAX};
pub use relay::relay;
pub use scan::scan;
pub use source::run as run_source;
pub use table::DigestTable;
pub use target::run as run_target;

use crate::digest::{Digest, HashKind, ImageDigest, GRAIN_BYTES};
use crate::error::{Error, Kind, Result};
use crate::fingerprint::Key;
use serde::{Deserialize, Serialize};

/// What both ends must know of a sync before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Cut of the image into leaves and segments, and its size.
    pub geometry: Geometry,
    /// Hash function of all digests.
    pub hash: HashKind,
    /// Compare only: nothing is written, and no image digest results.
    pub dry_run: bool,
    /// Re-read what was written from the medium before reporting success.
    pub verify: bool,
    /// Most bytes of changed data a second the source sends, as they travel.
    pub bytes_per_s_max: Option<u64>,
    /// Compression of what is sent.
    pub compress: Compress,
    /// Threads for disk work and hashing on each side; `None`: as many as suit the host.
    pub threads: Option<u8>,
    /// Of the fingerprints that find changed leaves.
    pub leaf_key: Key,
    /// Both sides note what was where, see [`Meter::map`].
    #[serde(default)]
    pub map: bool,
    /// The sync begins at this segment: those before it are in both sides' tables already.
    #[serde(default)]
    pub first: u64,
    /// Both sides' tables are those of the same earlier image, which the target is: only what changed since is read
    /// and sent, see [`run_delta_source`]. `None`: nothing is known, so everything is compared.
    #[serde(default)]
    pub delta: Option<DeltaMode>,
}

/// What the source knows of what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeltaMode {
    /// Where, and what was there before: it has the earlier image as well. The target reads nothing.
    Image,
    /// Where. Both sides read that, in grains of 64 KiB.
    Ranges,
}

impl Params {
    /// Of a sync of `geometry`, done as `tuning` says.
    pub fn new(geometry: Geometry, tuning: &Tuning) -> Self {
        Params {
            geometry,
            hash: tuning.hash,
            dry_run: false,
            verify: tuning.verify,
            bytes_per_s_max: tuning.bytes_per_s_max,
            compress: tuning.compress,
            threads: tuning.threads,
            leaf_key: Key::random(),
            map: false,
            first: 0,
            delta: None,
        }
    }

    /// A sync of what changed writes for good, and counts in grains of 64 KiB.
    pub(crate) fn check(&self) -> Result<()> {
        let aligned = GRAIN_BYTES.is_multiple_of(self.geometry.leaf_bytes() as usize);
        match self.delta.is_none() || (aligned && !self.dry_run) {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Usage,
                "what changed can only be sent for good, and in leaves that divide 64 KiB",
            )),
        }
    }

    /// A digest of an image that is cut as this sync cuts it, fed with nothing yet.
    pub(crate) fn image_digest(&self) -> ImageDigest {
        let geometry = &self.geometry;
        ImageDigest::new(self.hash, geometry.leaf_bytes(), geometry.segment_bytes())
    }
}

/// How to sync, whatever it is that is synced. The fields are those of [`Params`].
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Tuning {
    pub hash: HashKind,
    pub verify: bool,
    pub bytes_per_s_max: Option<u64>,
    pub compress: Compress,
    pub threads: Option<u8>,
}

/// What one side did. All in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SideStats {
    /// Read from the image.
    pub read: u64,
    /// Written to the image, zeros that had to be written not counted.
    pub written: u64,
    /// Made zero on the image: freed, or overwritten where that is not possible.
    pub zeroed: u64,
    /// Re-read from the medium and found right.
    pub verified: u64,
}

/// Outcome of a sync, the same on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Image digest that both sides computed; of no meaning after a dry run.
    pub digest: Digest,
    /// Size of what was synced, in bytes.
    pub size: u64,
    /// Bytes in segments that both sides held and compared by digest.
    pub compared: u64,
    /// Bytes of leaves that were sent (or would be, in a dry run).
    pub changed: u64,
    /// Bytes of leaves that became (or would become) zeros on the target.
    pub zeroed: u64,
    /// What the source's side did.
    pub source: SideStats,
    /// What the target's side did.
    pub target: SideStats,
    /// Bytes from source to target as this side counted them, frame heads included.
    pub wire_out: u64,
    /// Bytes from target to source.
    pub wire_in: u64,
}

/// The source's half of a [`Summary`], as it travels in the last frame.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct SourceReport {
    compared: u64,
    changed: u64,
    zeroed: u64,
    side: SideStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<map::MapReport>,
}

/// The target's, as it travels in its last frame.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct TargetReport {
    #[serde(flatten)]
    side: SideStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<map::MapReport>,
}
