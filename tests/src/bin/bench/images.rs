//! The images of the benchmark, always the same from a seed, their data as compressible as programs are.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const MIB: u64 = 1 << 20;

/// What is measured.
#[derive(Clone, Copy)]
pub enum Scenario {
    FirstCopy,
    NoChange,
    Scattered,
    MostlyHole,
    Huge,
    Dense,
}

impl Scenario {
    pub fn all() -> [Scenario; 6] {
        use Scenario::*;
        [FirstCopy, NoChange, Scattered, MostlyHole, Huge, Dense]
    }

    pub fn name(self) -> &'static str {
        match self {
            Scenario::FirstCopy => "a",
            Scenario::NoChange => "b",
            Scenario::Scattered => "c",
            Scenario::MostlyHole => "d",
            Scenario::Huge => "f",
            Scenario::Dense => "g",
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Scenario::FirstCopy => "first copy of 600 MiB in a sparse file of 2 GiB",
            Scenario::NoChange => "the same, nothing changed",
            Scenario::Scattered => "the same, 1 % of its 4 KiB blocks changed here and there",
            Scenario::MostlyHole => "8 GiB with 200 MiB of data, nothing changed",
            Scenario::Huge => "4 TiB with 1 GiB of data, nothing changed",
            Scenario::Dense => "4 GiB without a hole, nothing changed",
        }
    }

    pub fn is_first_copy(self) -> bool {
        matches!(self, Scenario::FirstCopy)
    }

    pub fn is_huge(self) -> bool {
        matches!(self, Scenario::Huge)
    }

    /// Size, bytes of data and number of stretches that the data lies in.
    fn shape(self) -> (u64, u64, u64) {
        match self {
            Scenario::MostlyHole => (8192 * MIB, 200 * MIB, 20),
            Scenario::Huge => (4096 * 1024 * MIB, 1024 * MIB, 64),
            Scenario::Dense => (4096 * MIB, 4096 * MIB, 1),
            _ => (2048 * MIB, 600 * MIB, 30),
        }
    }

    /// Makes the source, and what the destination is at first: nothing, or an older state of it.
    pub fn build(self, src: &Path, old: &Path) -> Outcome<u64> {
        let (size, data, stretches) = self.shape();
        let file = File::create_new(src)?;
        file.set_len(size)?;
        let mut bytes = Material::new();
        let (each, step) = (data / stretches, size / stretches);
        for i in 0..stretches {
            for at in (0..each).step_by(MIB as usize) {
                let len = MIB.min(each - at) as usize;
                file.write_all_at(bytes.next(len), i * step + at)?;
            }
        }
        file.sync_all()?;
        if !self.is_first_copy() {
            restore(src, old)?;
        }
        if let Scenario::Scattered = self {
            let blocks = data / 4096;
            let mut random = Random(7);
            for _ in 0..blocks / 100 {
                let block = random.next() % blocks * 4096;
                let at = block / each * step + block % each;
                file.write_all_at(&random.next().to_le_bytes(), at)?;
            }
            file.sync_all()?;
        }
        Ok(data)
    }
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

/// Copies `from`, holes kept, to `to`; without `from`, nothing is made.
pub fn restore(from: &Path, to: &Path) -> Outcome<()> {
    if !from.exists() {
        return Ok(());
    }
    let status = std::process::Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([from, to])
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err("cp failed".into()),
    }
}

/// Fails unless both hold the same, comparing only where either has data.
pub fn check_equal(a: &Path, b: &Path, tool: &str) -> Outcome<()> {
    let output = std::process::Command::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", "raw"])
        .args([a, b])
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{tool} made something else: {}",
            String::from_utf8_lossy(&output.stdout)
        )
        .into()),
    }
}
