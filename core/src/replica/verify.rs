//! Reading a generation again, all of it or a slice, and comparing it with what was sealed.

use super::listing::Listing;
use super::manifest::{DiskRecord, Generation};
use super::replicas::{find_replica, no_generation};
use super::store::{read_json, write_json};
use super::volume::Volume;
use super::{Layout, TargetPair};
use crate::agent::BlockEnd;
use crate::clock;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::range::ByteRange;
use crate::stop::Stop;
use crate::sync::{DigestTable, Geometry, Params, Tuning};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Damaged segments of a disk that are told one by one.
const TOLD_MAX: usize = 4096;

/// What is to be verified.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// The VM's id, on this host or at its source.
    pub vm: String,
    /// The generation's number; the newest if none is named.
    pub generation: Option<u64>,
    /// Only so much of it, in percent: what comes behind the slice of the last time.
    pub slice: Option<u8>,
}

/// What a verification found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verified {
    /// The VM's id on this host.
    pub vm: String,
    /// The generation's name.
    pub generation: String,
    /// Its number.
    pub number: u64,
    /// Its disks, in the manifest's order.
    pub disks: Vec<VerifiedDisk>,
}

/// One disk of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifiedDisk {
    /// The disk's key.
    pub key: String,
    /// Volume on this host.
    pub volume: String,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes that were compared, holes included.
    pub checked: u64,
    /// The manifest's digest.
    pub expected: Digest,
    /// What the volume has now; `None` if not all of it was read.
    pub found: Option<Digest>,
    /// The segments that are not what they were, or cannot be read; at most 4096 of them.
    pub damaged: Vec<Damaged>,
    /// Bytes in all damaged segments.
    pub damaged_bytes: u64,
    /// Why it could not be compared, or not by segments.
    pub problem: Option<String>,
}

/// A segment that is not what it was when it was sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Damaged {
    /// Its index.
    pub segment: u64,
    /// The bytes that it covers.
    pub bytes: ByteRange,
    /// The digest that it had; `None` if it was all zeros.
    pub digest: Option<Digest>,
}

impl VerifiedDisk {
    /// Whether what was read is what it was when it was sealed.
    pub fn is_right(&self) -> bool {
        self.damaged_bytes == 0
            && match self.found {
                Some(found) => found == self.expected,
                None => self.problem.is_none(),
            }
    }
}

/// Reads a generation of a replica on this host. Damage is not an error here: it is in the answer.
pub fn verify(layout: &Layout, request: &VerifyRequest, stop: &Stop) -> Result<Verified> {
    let (pair, generation) = find(layout, &request.vm, request.generation)?;
    let slice = match request.slice {
        Some(percent) => Some(Slice::next(layout, &pair, &generation, percent)?),
        None => None,
    };
    let mut disks = Vec::new();
    let mut base = 0;
    for (index, disk) in generation.disks.iter().enumerate() {
        stop.check()?;
        let part = slice.as_ref().map(|slice| slice.of(base, disk.size));
        base += disk.size;
        if part.as_ref().is_some_and(ByteRange::is_empty) {
            continue;
        }
        let looking = Looking {
            layout,
            generation: &generation,
            index,
            disk,
        };
        disks.push(looking.verified(part, stop)?);
    }
    let is_slice = slice.is_some();
    if let Some(slice) = slice {
        slice.done(layout, &pair)?;
    }
    let verified = Verified {
        vm: pair.target_vm,
        generation: generation.name(),
        number: generation.number,
        disks,
    };
    super::checked::note(layout, pair.pair, &verified, is_slice, clock::now())?;
    Ok(verified)
}

pub(super) fn find(
    layout: &Layout,
    vm: &str,
    number: Option<u64>,
) -> Result<(TargetPair, Generation)> {
    let (pair, generations) = find_replica(layout, vm)?;
    let number = number.or(pair.head);
    match generations.into_iter().find(|g| Some(g.number) == number) {
        Some(generation) => Ok((pair, generation)),
        None => Err(no_generation(vm, number.unwrap_or_default())),
    }
}

/// A stretch of all the disks of a generation, one behind the other, in bytes.
struct Slice {
    bytes: ByteRange,
    total: u64,
}

impl Slice {
    /// What comes behind the last one, or at the beginning.
    fn next(
        layout: &Layout,
        pair: &TargetPair,
        generation: &Generation,
        percent: u8,
    ) -> Result<Slice> {
        let total: u64 = generation.disks.iter().map(|d| d.size).sum();
        let last: Option<u64> = read_json(&layout.scrubbed(pair.pair))?;
        let start = last.filter(|at| *at < total).unwrap_or(0);
        let len = (u128::from(total) * u128::from(percent)).div_ceil(100) as u64;
        Ok(Slice {
            bytes: ByteRange::new(start, total.min(start.saturating_add(len))),
            total,
        })
    }

    /// Of the disk that begins at `base`.
    fn of(&self, base: u64, size: u64) -> ByteRange {
        let part = self.bytes.intersection(&ByteRange::new(base, base + size));
        match part.is_empty() {
            true => ByteRange::new(0, 0),
            false => ByteRange::new(part.start - base, part.end - base),
        }
    }

    fn done(&self, layout: &Layout, pair: &TargetPair) -> Result<()> {
        let next = match self.bytes.end == self.total {
            true => 0,
            false => self.bytes.end,
        };
        write_json(&layout.scrubbed(pair.pair), &next)
    }
}

/// A disk of a generation that is looked at.
struct Looking<'a> {
    layout: &'a Layout,
    generation: &'a Generation,
    index: usize,
    disk: &'a DiskRecord,
}

impl Looking<'_> {
    fn verified(&self, part: Option<ByteRange>, stop: &Stop) -> Result<VerifiedDisk> {
        let disk = self.disk;
        let mut verified = VerifiedDisk {
            key: disk.key.clone(),
            volume: disk.target.clone(),
            size: disk.size,
            checked: 0,
            expected: disk.digest,
            found: None,
            damaged: Vec::new(),
            damaged_bytes: 0,
            problem: None,
        };
        match self.look(part, stop, &mut verified) {
            Err(e) if e.kind() == Kind::Cancelled => Err(e),
            Err(e) => {
                verified.problem = Some(e.message());
                Ok(verified)
            }
            Ok(()) => Ok(verified),
        }
    }

    fn look(
        &self,
        part: Option<ByteRange>,
        stop: &Stop,
        verified: &mut VerifiedDisk,
    ) -> Result<()> {
        let disk = self.disk;
        let listing = Listing::default();
        let volume = Volume {
            location: &disk.location,
            pair: self.generation.pair,
            listing: &listing,
        };
        let sealed = volume.sealed(self.generation.number)?;
        let (mut image, opened) = BlockEnd::from_medium(&sealed.path, disk.location.format())?;
        if opened.size < disk.size {
            return Err(Error::new(
                Kind::Digest,
                format!("it has {} bytes instead of {}", opened.size, disk.size),
            ));
        }
        let params = params_of(disk)?;
        let geometry = params.geometry;
        let table = self.table(&params)?;
        // Without a table only the whole can be judged.
        let part = part.filter(|_| table.is_some());
        let segments = match &part {
            Some(part) => geometry.segment_of(part.start)..geometry.segment_of(part.end - 1) + 1,
            None => 0..geometry.segments(),
        };
        verified.checked = geometry.span(segments.start, segments.end).len();
        let mut comparison = Comparison {
            table: table.as_ref(),
            geometry,
            next: segments.start,
            verified,
        };
        let mut digest = params.image_digest();
        image.scan(&params, segments.clone(), stop, |index, found| {
            digest.add(index, *found.as_ref().unwrap_or(&None));
            comparison.settle(index, found)
        })?;
        comparison.zeros_to(segments.end)?;
        if part.is_none() {
            verified.found = Some(digest.finish(geometry.size()));
            if table.is_none() {
                verified.problem = Some("where the damage would be is not known".into());
            }
        }
        Ok(())
    }

    /// What its segments were, if that is known for sure.
    fn table(&self, params: &Params) -> Result<Option<DigestTable>> {
        let path = self
            .layout
            .table(self.generation.pair, self.generation.number, self.index);
        let Some(table) = DigestTable::open(&path, params.hash, params.geometry)? else {
            return Ok(None);
        };
        let is_right = table.image_digest()? == self.disk.digest;
        Ok(is_right.then_some(table))
    }
}

/// How a disk of a generation was cut and hashed.
pub(super) fn params_of(disk: &DiskRecord) -> Result<Params> {
    let tuning = Tuning {
        hash: disk.hash,
        ..Tuning::default()
    };
    Ok(Params::new(
        Geometry::new(disk.size, disk.leaf_bytes)?,
        &tuning,
    ))
}

/// Segments that were read against those in the table.
struct Comparison<'a> {
    table: Option<&'a DigestTable>,
    geometry: Geometry,
    next: u64,
    verified: &'a mut VerifiedDisk,
}

impl Comparison<'_> {
    fn settle(&mut self, index: u64, found: Result<Option<Digest>>) -> Result<()> {
        let Some(table) = self.table else {
            return found.map(drop);
        };
        self.zeros_to(index)?;
        self.next = index + 1;
        let wanted = table.get(index)?;
        match found {
            Ok(found) if found == wanted => Ok(()),
            Err(e) if e.kind() == Kind::Cancelled => Err(e),
            _ => {
                self.damaged(index, wanted);
                Ok(())
            }
        }
    }

    /// The volume has nothing up to here.
    fn zeros_to(&mut self, end: u64) -> Result<()> {
        let Some(table) = self.table else {
            return Ok(());
        };
        let gap: Range<u64> = self.next..end;
        let mut lost = Vec::new();
        table.each(gap.start, gap.end, |index, wanted| {
            lost.extend(wanted.map(|wanted| (index, wanted)));
        })?;
        for (index, wanted) in lost {
            self.damaged(index, Some(wanted));
        }
        self.next = end;
        Ok(())
    }

    fn damaged(&mut self, segment: u64, digest: Option<Digest>) {
        let bytes = self.geometry.segment(segment);
        self.verified.damaged_bytes += bytes.len();
        if self.verified.damaged.len() < TOLD_MAX {
            self.verified.damaged.push(Damaged {
                segment,
                bytes,
                digest,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_go_round() {
        let slice = |start, end| Slice {
            bytes: ByteRange::new(start, end),
            total: 100,
        };
        assert_eq!(slice(30, 70).of(0, 50), ByteRange::new(30, 50));
        assert_eq!(slice(30, 70).of(50, 50), ByteRange::new(0, 20));
        assert!(slice(50, 70).of(0, 50).is_empty());
        assert!(slice(0, 20).of(50, 50).is_empty());
    }
}
