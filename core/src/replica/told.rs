//! What a target tells the source of the generations that it keeps, whenever one is sealed: so the source's host can show
//! it without asking. It is as old as the last sync, and nothing is decided by it.

use super::block_map::{block_maps, BlockMap};
use super::checked::{checked, judged, Checked};
use super::layout::Layout;
use super::manifest::Generation;
use super::store::{self, read_json, write_json};
use super::trial::{boot_of, Boot};
use super::verify::Verified;
use crate::error::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What is known of the generations of a pair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Number of the newest one.
    #[serde(default)]
    pub newest: Option<u64>,
    /// Where that has data, and where it changed; by disk.
    #[serde(default)]
    pub maps: Vec<BlockMap>,
    /// Those that were read again, by number.
    #[serde(default)]
    pub checked: BTreeMap<u64, Checked>,
    /// Those that were seen to boot, by number.
    #[serde(default)]
    pub booted: BTreeMap<u64, Boot>,
}

/// What this host, which keeps them, knows of `generations`.
pub fn told(layout: &Layout, generations: &[Generation]) -> Result<Told> {
    let mut told = Told::default();
    for Generation { pair, number, .. } in generations {
        if let Some(found) = checked(layout, *pair, *number)? {
            told.checked.insert(*number, found);
        }
        if let Some(boot) = boot_of(layout, *pair, *number)? {
            told.booted.insert(*number, boot);
        }
    }
    if let Some(newest) = generations.last() {
        told.newest = Some(newest.number);
        told.maps = block_maps(layout, newest.pair, newest.number);
    }
    Ok(told)
}

/// What was told, and of which pair.
#[derive(Serialize, Deserialize)]
struct Kept {
    pair: Uuid,
    told: Told,
}

/// Keeps what `target` has told of the generations of `vm`.
pub fn note_told(layout: &Layout, vm: &str, target: Uuid, pair: Uuid, told: &Told) -> Result<()> {
    let told = told.clone();
    write_json(&layout.told(vm, target), &Kept { pair, told })
}

/// What `target` told last of the generations of `vm`, if that was of this pair. What cannot be read is told anew by the
/// next sync.
pub fn told_by(layout: &Layout, vm: &str, target: Uuid, pair: Uuid) -> Told {
    let kept: Option<Kept> = read_json(&layout.told(vm, target)).unwrap_or_default();
    let told = kept.filter(|kept| kept.pair == pair).map(|kept| kept.told);
    told.unwrap_or_default()
}

/// Keeps what the source has just heard of a verification on the host of one of its pairs. It belongs to the generation of
/// that number that has the same digests; where there is none, it is nothing to this host.
pub fn note_verified(
    layout: &Layout,
    vm: &str,
    found: &Verified,
    is_slice: bool,
    now: Timestamp,
) -> Result<()> {
    for (target, source) in store::source_pairs_to(layout, vm)? {
        let manifest = layout.sent_generation(vm, target, found.number);
        let sent = read_json::<Generation>(&manifest)?.filter(|sent| sent.pair == source.pair);
        if sent.is_some_and(|sent| is_of(found, &sent)) {
            let mut told = told_by(layout, vm, target, source.pair);
            let before = told.checked.get(&found.number);
            let checked = judged(before, found, is_slice, now);
            told.checked.insert(found.number, checked);
            note_told(layout, vm, target, source.pair, &told)?;
        }
    }
    Ok(())
}

fn is_of(found: &Verified, sent: &Generation) -> bool {
    let mut disks = found.disks.iter();
    disks.all(|there| {
        let mut same = sent.disks.iter();
        same.any(|d| d.key == there.key && d.target == there.volume && d.digest == there.expected)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::digest::{Digest, HashKind};
    use crate::image::ImageFormat;
    use crate::replica::{DiskRecord, Location, SourcePair, Standing, VerifiedDisk};
    use crate::snapshot::Consistency;

    fn sent(pair: Uuid) -> Generation {
        let disk = DiskRecord {
            key: "scsi0".into(),
            source: "a".into(),
            target: "b".into(),
            location: Location::File {
                path: "/b".into(),
                format: ImageFormat::Raw,
                subvolume: false,
            },
            size: 4096,
            digest: Digest([1; 32]),
            hash: HashKind::Blake3,
            leaf_bytes: 4096,
            changed: 0,
        };
        Generation {
            state: None,
            version: Generation::VERSION,
            pair,
            epoch: 1,
            number: 3,
            parent: None,
            taken_at: Timestamp::UNIX_EPOCH,
            consistency: Consistency::Offline,
            notes: Vec::new(),
            disks: vec![disk],
            excluded: Vec::new(),
            config: String::new(),
            described: None,
        }
    }

    fn found(expected: u8, damaged_bytes: u64) -> Verified {
        Verified {
            vm: "201".into(),
            generation: "rbs3".into(),
            number: 3,
            disks: vec![VerifiedDisk {
                key: "scsi0".into(),
                volume: "b".into(),
                size: 4096,
                checked: 4096,
                expected: Digest([expected; 32]),
                found: None,
                damaged: Vec::new(),
                damaged_bytes,
                problem: None,
            }],
        }
    }

    #[test]
    fn the_source_remembers_what_was_found_in_its_own_generation_only() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let (pair, target) = (Uuid::new_v4(), Uuid::new_v4());
        let known = SourcePair {
            pair,
            vm_identity: None,
            target_name: "host2".into(),
            address: None,
            standing: Standing::primary(),
        };
        write_json(&layout.source_pair("101", target), &known).unwrap();
        write_json(&layout.sent_generation("101", target, 3), &sent(pair)).unwrap();
        let note = |found: &Verified| {
            note_verified(&layout, "101", found, false, Timestamp::UNIX_EPOCH).unwrap();
            told_by(&layout, "101", target, pair).checked.remove(&3)
        };
        // Of another pair with the same number.
        assert_eq!(note(&found(2, 0)), None);
        assert_eq!(note(&found(1, 4096)).unwrap().damaged, ["scsi0"]);
        assert!(note(&found(1, 0)).unwrap().whole.is_some());
        // Nothing that was told of one pair is taken for another one's, and what is damaged for nothing.
        assert_eq!(
            told_by(&layout, "101", target, Uuid::nil()),
            Told::default()
        );
        std::fs::write(layout.told("101", target), "junk").unwrap();
        assert_eq!(told_by(&layout, "101", target, pair), Told::default());
    }
}
