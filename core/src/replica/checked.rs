//! What the last verification of a generation found, beside its manifest, which does not change.

use super::layout::Layout;
use super::store::{read_json, write_json};
use super::verify::Verified;
use crate::error::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// That a generation was read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checked {
    /// When it, or a slice of it, was read last.
    pub at: Timestamp,
    /// When all of it was read last, and was what had been sealed.
    pub whole: Option<Timestamp>,
    /// Keys of the disks that were not what had been sealed; until all of it was read again.
    pub damaged: Vec<String>,
}

/// Whether a generation was read again, and what that found.
pub fn checked(layout: &Layout, pair: Uuid, number: u64) -> Result<Option<Checked>> {
    read_json(&layout.checked(pair, number))
}

/// Notes what was found. A slice without damage says nothing of damage elsewhere.
pub(super) fn note(
    layout: &Layout,
    pair: Uuid,
    found: &Verified,
    is_slice: bool,
    now: Timestamp,
) -> Result<()> {
    let before = checked(layout, pair, found.number)?;
    let judged = judged(before.as_ref(), found, is_slice, now);
    write_json(&layout.checked(pair, found.number), &judged)
}

/// What is to be remembered of what was found, and of what was `before`.
pub(super) fn judged(
    before: Option<&Checked>,
    found: &Verified,
    is_slice: bool,
    now: Timestamp,
) -> Checked {
    let wrong = found.disks.iter().filter(|disk| !disk.is_right());
    let wrong: Vec<String> = wrong.map(|disk| disk.key.clone()).collect();
    match (is_slice, wrong.is_empty()) {
        (true, true) => Checked {
            at: now,
            whole: before.and_then(|b| b.whole),
            damaged: before.map_or_else(Vec::new, |b| b.damaged.clone()),
        },
        (false, true) => Checked {
            at: now,
            whole: Some(now),
            damaged: wrong,
        },
        (_, false) => Checked {
            at: now,
            whole: None,
            damaged: wrong,
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::replica::VerifiedDisk;

    fn found(damaged_bytes: u64) -> Verified {
        Verified {
            vm: "101".into(),
            generation: "rbs3".into(),
            number: 3,
            disks: vec![VerifiedDisk {
                key: "scsi0".into(),
                volume: "v".into(),
                size: 8192,
                checked: 8192,
                expected: Digest([0; 32]),
                found: None,
                damaged: Vec::new(),
                damaged_bytes,
                problem: None,
            }],
        }
    }

    #[test]
    fn damage_is_remembered_until_all_was_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let pair = Uuid::nil();
        let at = |second| Timestamp::new(second, 0).unwrap();
        let read = |damaged: u64, is_slice: bool, second: i64| {
            note(&layout, pair, &found(damaged), is_slice, at(second)).unwrap();
            checked(&layout, pair, 3).unwrap().unwrap()
        };
        assert_eq!(checked(&layout, pair, 3).unwrap(), None);
        // A slice proves nothing of the whole.
        assert_eq!(read(0, true, 1).whole, None);
        assert_eq!(read(0, false, 2).whole, Some(at(2)));
        let slice = read(0, true, 3);
        assert_eq!((slice.at, slice.whole), (at(3), Some(at(2))));
        assert_eq!(read(4096, true, 4).damaged, ["scsi0"]);
        assert_eq!(read(0, true, 5).damaged, ["scsi0"]);
        let whole = read(0, false, 6);
        assert_eq!((whole.whole, whole.damaged.len()), (Some(at(6)), 0));
        assert_eq!(read(4096, false, 7).whole, None);
    }
}
