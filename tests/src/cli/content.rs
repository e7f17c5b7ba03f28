//! Content for images, and ways to tell whether it is what it should be.

use super::MIB;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes that are never zero and differ from block to block and from seed to seed.
pub fn stamp(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words
        .flat_map(u64::to_le_bytes)
        .map(|byte| byte | 1)
        .take(len)
        .collect()
}

/// Writes stamped bytes at `offset` of a file or device.
pub fn scribble(path: impl AsRef<Path>, offset: u64, len: usize, seed: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("an image");
    file.write_all_at(&stamp(len, seed), offset)
        .expect("writing an image");
    file.sync_all().expect("writing an image");
}

/// Gives a file that is there another size.
pub fn resize(path: impl AsRef<Path>, size: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("an image");
    file.set_len(size).expect("an image");
}

/// Makes a file of `size` bytes that is a hole but for `data`: ranges in MiB as `(first, count)`.
pub fn sparse_image(path: impl AsRef<Path>, size: u64, data: &[(u64, u64)], seed: u64) -> PathBuf {
    let path = path.as_ref().to_owned();
    let file = File::create(&path).expect("an image");
    file.set_len(size).expect("an image");
    for (first, count) in data {
        for i in *first..first + count {
            let len = MIB.min(size.saturating_sub(i * MIB)) as usize;
            file.write_all_at(&stamp(len, seed + i), i * MIB)
                .expect("writing an image");
        }
    }
    file.sync_all().expect("writing an image");
    path
}

/// BLAKE3 of all bytes of a file or device.
pub fn checksum(path: impl AsRef<Path>) -> blake3::Hash {
    let mut file = File::open(path.as_ref()).unwrap_or_else(|e| panic!("{:?}: {e}", path.as_ref()));
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk).expect("reading an image") {
            0 => return hasher.finalize(),
            n => hasher.update(&chunk[..n]),
        };
    }
}

/// Bytes that a file takes on its disk.
pub fn allocated(path: impl AsRef<Path>) -> u64 {
    std::fs::metadata(path).expect("a file").blocks() * 512
}

/// Files, devices and directories as they were, to show that a refused run touched none of them.
pub struct Untouched(Vec<(PathBuf, State)>);

#[derive(PartialEq, Debug)]
enum State {
    Missing,
    Directory(Vec<std::ffi::OsString>),
    Content(u64, blake3::Hash),
    Other,
}

impl Untouched {
    /// Notes what is there now.
    pub fn note<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Untouched {
        let noted = |path: P| (path.as_ref().to_owned(), state(path.as_ref()));
        Untouched(paths.into_iter().map(noted).collect())
    }

    /// All is as it was.
    #[track_caller]
    pub fn check(&self) {
        for (path, before) in &self.0 {
            assert_eq!(&state(path), before, "{} was touched", path.display());
        }
    }
}

fn state(path: &Path) -> State {
    use std::os::unix::fs::FileTypeExt;
    let Ok(meta) = std::fs::metadata(path) else {
        return State::Missing;
    };
    let kind = meta.file_type();
    if kind.is_dir() {
        let entries = std::fs::read_dir(path).expect("a directory");
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        return State::Directory(names);
    }
    match kind.is_file() || kind.is_block_device() {
        true => State::Content(meta.len(), checksum(path)),
        false => State::Other,
    }
}
