//! Checks what the writer in the lab's VMs (lab/guest/pattern.S) left on its disks.
//!
//! Write number s goes to disk (s - 1) mod n, slot ((s - 1) / n) mod 512, and is finished before s + 1 begins. So images
//! of all disks taken at one point in time hold exactly the writes 1..max, each slot the last one that fell on it. Any
//! other content proves that the images are torn, lack a write, or show writes of different moments.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

/// Bytes of one slot: one write of the writer.
pub const SLOT: u64 = 4096;
/// Slots on each disk, used round and round.
pub const SLOTS: u64 = 512;
/// The part of each disk the writer uses, in bytes.
pub const REGION: Range<u64> = (1 << 20)..(1 << 20) + SLOTS * SLOT;

const MAGIC: u32 = 0x7a1d_b10c;

/// What a clean set of disks shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The highest number on any disk: how many writes there were since the disks were empty.
    pub writes: u32,
    /// The highest number on each disk.
    pub newest: Vec<u32>,
}

/// One thing that cannot be if the disks show one point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A slot is not one whole write: parts of several, or something else altogether.
    Torn {
        /// Index of the disk.
        disk: usize,
        /// Index of the slot on it.
        slot: u64,
    },
    /// A slot holds an older write, or none (0), though later ones are on the same disk.
    Missing {
        /// Index of the disk.
        disk: usize,
        /// Index of the slot on it.
        slot: u64,
        /// The number that must be there.
        expected: u32,
        /// The number that is there.
        found: u32,
    },
    /// A whole disk ends before a write that came before another disk's newest.
    Behind {
        /// Index of the disk.
        disk: usize,
        /// The number it must have reached.
        expected: u32,
        /// The number it reached.
        newest: u32,
    },
    /// A slot holds a write that belongs to another slot or disk.
    Misplaced {
        /// Index of the disk.
        disk: usize,
        /// Index of the slot on it.
        slot: u64,
        /// The number found there.
        found: u32,
    },
    /// A disk could not be read.
    Unreadable {
        /// Index of the disk.
        disk: usize,
        /// The reason.
        why: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Torn { disk, slot } => write!(f, "disk {disk} slot {slot} is torn"),
            Violation::Missing {
                disk,
                slot,
                expected,
                found,
            } => {
                write!(
                    f,
                    "disk {disk} slot {slot} lacks write {expected}, holds {found}"
                )
            }
            Violation::Behind {
                disk,
                expected,
                newest,
            } => {
                write!(
                    f,
                    "disk {disk} ends at write {newest}, another disk proves {expected}"
                )
            }
            Violation::Misplaced { disk, slot, found } => {
                write!(
                    f,
                    "disk {disk} slot {slot} holds write {found} of elsewhere"
                )
            }
            Violation::Unreadable { disk, why } => write!(f, "disk {disk} is unreadable: {why}"),
        }
    }
}

/// What one slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Empty,
    Write(u32),
    Torn,
}

/// Checks the whole images `disks`, in the order the VM has them.
///
/// # Errors
/// Everything that is wrong, in the order of the disks and slots.
pub fn check<R: Read + Seek>(disks: &mut [R]) -> Result<Report, Vec<Violation>> {
    let mut regions = Vec::new();
    for (disk, image) in disks.iter_mut().enumerate() {
        match read_region(image) {
            Ok(bytes) => regions.push(bytes),
            Err(e) => {
                let why = e.to_string();
                return Err(vec![Violation::Unreadable { disk, why }]);
            }
        }
    }
    check_regions(&regions)
}

/// Checks just the bytes at [`REGION`] of each disk.
///
/// # Errors
/// Everything that is wrong, in the order of the disks and slots.
pub fn check_regions<B: AsRef<[u8]>>(regions: &[B]) -> Result<Report, Vec<Violation>> {
    let slots: Vec<Vec<Slot>> = regions.iter().map(|bytes| parse(bytes.as_ref())).collect();
    let newest: Vec<u32> = slots.iter().map(|disk| newest_of(disk)).collect();
    let writes = newest.iter().copied().max().unwrap_or(0);
    let mut violations = Vec::new();
    for (disk, slots) in slots.iter().enumerate() {
        let layout = Layout {
            disks: regions.len() as u64,
            disk: disk as u64,
        };
        let due = layout.newest_up_to(writes);
        if newest[disk] < due {
            violations.push(Violation::Behind {
                disk,
                expected: due,
                newest: newest[disk],
            });
        }
        for (slot, content) in (0..).zip(slots) {
            let expected = layout.last_in_slot(slot, newest[disk]);
            let found = match *content {
                Slot::Empty => 0,
                Slot::Write(number) => number,
                Slot::Torn => {
                    violations.push(Violation::Torn { disk, slot });
                    continue;
                }
            };
            if found != 0 && layout.slot_of(found) != Some(slot) {
                violations.push(Violation::Misplaced { disk, slot, found });
            } else if found != expected {
                violations.push(Violation::Missing {
                    disk,
                    slot,
                    expected,
                    found,
                });
            }
        }
    }
    if violations.is_empty() {
        Ok(Report { writes, newest })
    } else {
        Err(violations)
    }
}

/// The highest whole write in the bytes at [`REGION`] of a disk; 0 if there is none.
pub fn newest(region: &[u8]) -> u32 {
    newest_of(&parse(region))
}

fn newest_of(slots: &[Slot]) -> u32 {
    let number = |slot: &Slot| match *slot {
        Slot::Write(number) => number,
        Slot::Empty | Slot::Torn => 0,
    };
    slots.iter().map(number).max().unwrap_or(0)
}

/// Where the writes of one of several disks lie.
struct Layout {
    disks: u64,
    disk: u64,
}

impl Layout {
    fn slot_of(&self, number: u32) -> Option<u64> {
        let index = u64::from(number).checked_sub(1)?;
        (index % self.disks == self.disk).then_some(index / self.disks % SLOTS)
    }

    /// This disk's last write among the first `writes` of all; 0 if it got none.
    fn newest_up_to(&self, writes: u32) -> u32 {
        let rounds = (u64::from(writes) + self.disks - 1 - self.disk) / self.disks;
        self.number(rounds)
    }

    /// The last write to `slot` when `newest` is this disk's last one; 0 if there is none.
    fn last_in_slot(&self, slot: u64, newest: u32) -> u32 {
        let Some(last_round) = u64::from(newest).checked_sub(1).map(|i| i / self.disks) else {
            return 0;
        };
        if last_round < slot {
            return 0;
        }
        self.number(last_round - (last_round - slot) % SLOTS + 1)
    }

    /// The number of this disk's `count`-th write, counted from 1.
    fn number(&self, count: u64) -> u32 {
        let number = count
            .checked_sub(1)
            .map_or(0, |round| round * self.disks + self.disk + 1);
        u32::try_from(number).unwrap_or(u32::MAX)
    }
}

fn parse(region: &[u8]) -> Vec<Slot> {
    region.chunks(SLOT as usize).map(parse_slot).collect()
}

fn parse_slot(bytes: &[u8]) -> Slot {
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if bytes.iter().all(|byte| *byte == 0) {
        return Slot::Empty;
    }
    match (word(0), word(4)) {
        (Some(number), Some(check)) if number ^ MAGIC == check && number != 0 => {
            let whole = bytes.chunks(8).all(|unit| unit == &bytes[..8]);
            if whole && bytes.len() == SLOT as usize {
                Slot::Write(number)
            } else {
                Slot::Torn
            }
        }
        _ => Slot::Torn,
    }
}

fn read_region(image: &mut (impl Read + Seek)) -> io::Result<Vec<u8>> {
    image.seek(SeekFrom::Start(REGION.start))?;
    let mut bytes = vec![0; (REGION.end - REGION.start) as usize];
    image.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
