//! What is on the fixture VMs' disks: data that any machine makes alike from a seed.

use super::error::{Context, Result};
use super::pattern;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of `mib` mebibytes.
pub const fn mib(mib: u64) -> u64 {
    mib << 20
}

/// The fixture disks by file name: size and bytes of data, and the seed.
const DISKS: [(&str, u64, u64, u64); 4] = [
    ("vm-101-disk-0", mib(256), mib(24), 1010),
    ("vm-101-disk-0.raw", mib(64), mib(8), 1011),
    ("vm-102-disk-0", mib(64), mib(2), 1020),
    ("vm-102-disk-1", mib(64), mib(2), 1021),
];

/// Writes all fixture disks as sparse files into `dir`.
pub(crate) fn write_disks(dir: &Path) -> Result<()> {
    for (name, size, data, seed) in DISKS {
        let path = dir.join(name);
        write_disk(&path, size, data, seed)
            .context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A sparse file of `size` bytes with `data` bytes of content in pieces of 4 KiB to 1 MiB all over it. Half of the
/// content is noise, half compresses well. The writer's own region stays empty.
fn write_disk(path: &Path, size: u64, data: u64, seed: u64) -> std::io::Result<()> {
    const GRAIN: u64 = 4096;
    let file = File::create(path)?;
    file.set_len(size)?;
    let mut random = Random(seed);
    let mut left = data;
    while left > 0 {
        let piece = (GRAIN << random.below(9)).min(left);
        let at = random.below((size - piece) / GRAIN + 1) * GRAIN;
        if at < pattern::REGION.end && at + piece > pattern::REGION.start {
            continue;
        }
        let noise = random.below(2) == 0;
        let bytes: Vec<u8> = (0..piece / 8)
            .flat_map(|i| if noise { random.next() } else { at + i / 64 }.to_le_bytes())
            .collect();
        file.write_all_at(&bytes, at)?;
        left -= piece;
    }
    Ok(())
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_disk_is_the_same_each_time_sparse_and_clear_of_the_writers_region() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        write_disk(&a, mib(64), mib(8), 7).unwrap();
        write_disk(&b, mib(64), mib(8), 7).unwrap();
        let bytes = std::fs::read(&a).unwrap();
        assert_eq!(bytes, std::fs::read(&b).unwrap());
        assert_eq!(bytes.len() as u64, mib(64));
        let allocated = std::fs::metadata(&a).unwrap().blocks() * 512;
        assert!(allocated > mib(6) && allocated <= mib(9), "{allocated}");
        let region = pattern::REGION.start as usize..pattern::REGION.end as usize;
        assert!(bytes[region].iter().all(|b| *b == 0));
        write_disk(&b, mib(64), mib(8), 8).unwrap();
        assert_ne!(bytes, std::fs::read(&b).unwrap());
    }
}
