//! From one sync of a VM to the next: what is asked of the point in time, what is known of the disks since the last one,
//! and what is kept for the next.

use super::base::{Base, Changes, Search};
use super::sync::{Job, Taken};
use super::vm::Context;
use crate::error::Result;
use crate::lvm::OwnerTag;
use crate::qemu::ScratchSpace;
use crate::replica::{keep_sent_tables, Generation, Prepared, Proof, ReplicaRequest};
use crate::snapshot::{self, PointInTime};
use std::path::PathBuf;
use uuid::Uuid;

/// What the names begin with of the bitmaps that are made in QEMU, and of directories for its scratch files.
pub(super) const QEMU_PREFIX: &str = "rbs-";

/// What changed of a disk since the parent, which its fork still is.
pub(super) struct Track {
    pub changes: Changes,
    /// The target's table of the parent's digests.
    pub table: PathBuf,
}

impl Job<'_> {
    pub(super) fn disks_wanted(&self) -> Vec<snapshot::Wanted> {
        let disks = self.vm.disks.iter();
        disks
            .map(|disk| snapshot::Wanted {
                source: disk.source.clone(),
                format: disk.spec.format,
                since: None,
            })
            .collect()
    }

    pub(super) fn scratch(&self) -> ScratchSpace {
        let Context { layout, .. } = self.context;
        ScratchSpace {
            dir: match &self.options.scratch {
                Some(dir) => dir.join(format!("{QEMU_PREFIX}vm-{}", self.vm.id)),
                None => layout.scratch(&self.vm.id),
            },
            bytes_max: self.options.scratch_bytes_max,
        }
    }

    /// For each disk what is known of it as it was sent last, or why nothing is.
    pub(super) fn bases(
        &self,
        request: &ReplicaRequest,
        target: Uuid,
    ) -> Vec<std::result::Result<Base, String>> {
        let search = request.newest.as_ref().map(|newest| Search {
            layout: self.context.layout,
            vm: &self.vm.id,
            target,
            newest,
            hash: self.options.tuning.hash,
            listing: &self.listing,
        });
        let disks = self.vm.disks.iter();
        disks
            .map(|disk| match &search {
                Some(search) => search.base_of(disk),
                None => Err("there is no earlier generation".into()),
            })
            .collect()
    }

    /// For each disk what changed since its base, if that is also what the target has. Says why not.
    pub(super) fn tracks(
        &self,
        request: &ReplicaRequest,
        prepared: &Prepared,
        bases: Vec<std::result::Result<Base, String>>,
        point: &PointInTime,
    ) -> Vec<Option<Track>> {
        let newest = request.newest.as_ref().map(|newest| newest.number);
        let disks = prepared.forks.iter().zip(&point.disks).zip(bases);
        disks
            .map(|((fork, now), base)| {
                let track = base.and_then(|base| match &fork.proof {
                    _ if prepared.parent != newest => {
                        Err("the target's newest generation is another one".into())
                    }
                    Some(Proof::Sealed(table)) => Ok(Track {
                        changes: base.until(now, point, &self.listing)?,
                        table: table.clone(),
                    }),
                    Some(Proof::Doubt(why)) => Err(format!("on the target: {why}")),
                    None => Err("the target could not tell what it has".into()),
                });
                match track {
                    Ok(track) => Some(track),
                    Err(why) => {
                        if prepared.parent.is_some() {
                            self.note(&format!("{}: everything is compared: {why}", fork.key));
                        }
                        None
                    }
                }
            })
            .collect()
    }

    /// Lets the snapshots that were sent stay for the next sync, and drops those of the one before.
    pub(super) fn keep_bases(&self, taken: &mut Taken, sealed: &Generation) -> Result<()> {
        taken.tracks.clear();
        self.listing.forget();
        let owner = OwnerTag::new(sealed.pair);
        let keep = self.options.keep_base.then_some(sealed.number);
        if let Some(number) = keep {
            let layout = self.context.layout;
            let point = &taken.point;
            let disks = point.disks.iter().zip(&taken.bitmaps);
            let bitmaps: Vec<_> = disks
                .map(|(disk, older)| point.bitmap_of(disk).or(older.as_ref()).cloned())
                .collect();
            keep_sent_tables(layout, &self.vm.id, taken.target, number, &bitmaps)?;
            taken.point.keep_as_bases_in(&self.listing, number)?;
        }
        snapshot::drop_bases_in(&self.listing, self.vm.volumes(), &owner, keep)
    }
}
