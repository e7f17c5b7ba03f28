//! Making the images, always the same from a seed, their data as compressible as programs are.

use crate::scenario::{Before, Shape, MIB};
use crate::Outcome;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const BLOCK: u64 = 4096;

/// A source, and what the destination is to be made of before each run.
pub struct Images {
    pub src: PathBuf,
    old: Option<PathBuf>,
    /// As asked for, or smaller where the file system has no files of that size.
    pub size: u64,
    /// Bytes of data that the source was made with.
    pub data: u64,
    /// Bytes that were rewritten after that.
    pub changed: u64,
}

impl Images {
    /// Makes them in `dir`, their names beginning with `name`.
    pub fn build(dir: &Path, name: &str, shape: Shape, before: Before) -> Outcome<Images> {
        let src = dir.join(format!("{name}.src"));
        let file = File::create_new(&src)?;
        let mut images = Images {
            size: largest(&file, shape.size)?,
            src,
            old: None,
            data: shape.data,
            changed: 0,
        };
        let each = shape.data / shape.stretches;
        let step = images.size / shape.stretches / BLOCK * BLOCK;
        let mut bytes = Material::new();
        for i in 0..shape.stretches {
            for at in (0..each).step_by(MIB as usize) {
                let len = MIB.min(each - at) as usize;
                file.write_all_at(bytes.next(len), i * step + at)?;
            }
        }
        file.sync_all()?;
        if before != Before::Nothing {
            let old = dir.join(format!("{name}.old"));
            copy(&images.src, &old)?;
            images.old = Some(old);
        }
        if before == Before::Older {
            images.changed = rewrite(&file, images.size / BLOCK)?;
            file.sync_all()?;
        }
        Ok(images)
    }

    /// Makes the destination what it is to be before a run, written out and in the page cache.
    pub fn restore(&self, dst: &Path) -> Outcome<()> {
        match &self.old {
            Some(old) => copy(old, dst),
            None => Ok(()),
        }
    }

    /// Whether a destination holds the same as the source. Holes are not read.
    pub fn check_equal(&self, dst: &Path) -> Outcome<()> {
        let size = std::fs::metadata(dst)?.len();
        if size != self.size {
            return Err(format!("the copy has {size} bytes, not {}", self.size).into());
        }
        let output = Command::new("qemu-img")
            .args(["compare", "-f", "raw", "-F", "raw"])
            .args([&self.src, dst])
            .output()?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&output.stdout);
                Err(format!("the copy is not equal: {}", said.trim()).into())
            }
        }
    }

    /// Removes the files.
    pub fn remove(&self) -> Outcome<()> {
        std::fs::remove_file(&self.src)?;
        match &self.old {
            Some(old) => Ok(std::fs::remove_file(old)?),
            None => Ok(()),
        }
    }
}

/// Sets the length, or the largest one below it that the file system allows.
fn largest(file: &File, size: u64) -> Outcome<u64> {
    let mut sizes = vec![size, size.saturating_sub(BLOCK)];
    sizes.extend((1..8).map(|n| size >> n));
    for size in &sizes {
        match file.set_len(*size) {
            Err(e) if e.kind() == std::io::ErrorKind::FileTooLarge => continue,
            set => return Ok(set.map(|()| *size)?),
        }
    }
    Err("the file system has no large files".into())
}

/// Rewrites 1 % of the blocks, anywhere, so also in holes, with bytes that cannot be compressed.
fn rewrite(file: &File, blocks: u64) -> Outcome<u64> {
    let mut random = Random(7);
    let mut chosen = BTreeSet::new();
    while (chosen.len() as u64) < blocks / 100 {
        chosen.insert(random.next() % blocks);
    }
    for block in &chosen {
        let bytes: Vec<u8> = (0..BLOCK / 8)
            .flat_map(|_| random.next().to_le_bytes())
            .collect();
        file.write_all_at(&bytes, block * BLOCK)?;
    }
    Ok(chosen.len() as u64 * BLOCK)
}

/// Copies with holes, and waits until it is on the disk, so that no run pays for writing it out.
fn copy(from: &Path, to: &Path) -> Outcome<()> {
    let status = Command::new("cp")
        .args(["--sparse=always", "--reflink=never"])
        .args([from, to])
        .status()?;
    if !status.success() {
        return Err("cp failed".into());
    }
    Ok(File::open(to)?.sync_all()?)
}

struct Random(u64);

impl Random {
    /// xorshift64*.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// Bytes of this machine's own programs and libraries, each MiB stamped so that no two are equal.
struct Material {
    pool: Vec<u8>,
    at: usize,
    count: u64,
}

impl Material {
    fn new() -> Self {
        let mut pool = Vec::new();
        for path in ["/usr/lib/x86_64-linux-gnu", "/usr/lib", "/usr/bin"] {
            let Ok(entries) = std::fs::read_dir(path) else {
                continue;
            };
            let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).collect();
            paths.sort();
            for path in paths {
                if pool.len() > 96 << 20 {
                    break;
                }
                if let Ok(file) = File::open(&path) {
                    // A directory cannot be read, and is passed over.
                    let read = file.take(4 << 20).read_to_end(&mut pool);
                    drop(read);
                }
            }
        }
        pool.resize(pool.len().max(2 << 20), 0x5a);
        Material {
            pool,
            at: 0,
            count: 0,
        }
    }

    fn next(&mut self, len: usize) -> &[u8] {
        if self.at + len > self.pool.len() {
            self.at = 0;
        }
        self.count += 1;
        let piece = &mut self.pool[self.at..self.at + len];
        self.at += len;
        for (i, leaf) in piece.chunks_mut(4096).enumerate() {
            let stamp = (self.count << 16 | i as u64).to_le_bytes();
            let n = leaf.len().min(8);
            leaf[..n].copy_from_slice(&stamp[..n]);
        }
        piece
    }
}
